// What pages do better with JavaScript; without it they work all the same.
"use strict";

const copy = document.getElementById("copy");
const address = document.getElementById("address");
const status = document.getElementById("status");

if (copy) {
  copy.hidden = false;
  copy.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(address.textContent);
    } catch {
      // Plain HTTP has no clipboard: the old way selects and copies.
      getSelection().selectAllChildren(address);
      document.execCommand("copy");
    }
    status.textContent = "";
    requestAnimationFrame(() => { status.textContent = copy.dataset.done; });
  });
}


function localTimes(root) {
  const format = new Intl.DateTimeFormat(document.documentElement.lang, { dateStyle: "long", timeStyle: "short" });
  for (const time of root.querySelectorAll("time")) {
    time.title = time.textContent;
    time.textContent = format.format(new Date(time.dateTime));
  }
}

// What is left, once a minute, while somebody looks.
async function refresh() {
  if (document.hidden) return;
  try {
    const answer = await fetch(location.pathname, { cache: "no-store" });
    if (!answer.ok) return;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const left = page.getElementById("left");
    const title = page.querySelector("h1");
    if (!left) return;
    localTimes(left);
    document.getElementById("left").replaceWith(left);
    if (title.textContent !== document.querySelector("h1").textContent) location.replace(location.pathname);
  } catch {
    // Offline: what stands there stays.
  }
}

localTimes(document);
if (document.getElementById("left")) setInterval(refresh, 60000);
