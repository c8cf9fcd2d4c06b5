// What pages do better with JavaScript; without it they work all the same.
"use strict";

const copy = document.getElementById("copy");
const live = document.getElementById("status");

if (copy) {
  const address = document.getElementById("address");
  copy.hidden = false;
  copy.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(address.textContent);
    } catch {
      // Plain HTTP has no clipboard: the old way selects and copies.
      getSelection().selectAllChildren(address);
      document.execCommand("copy");
    }
    live.textContent = "";
    requestAnimationFrame(() => { live.textContent = copy.dataset.done; });
  });
}

// What was just done is said once: neither a reload nor a bookmark repeats it.
if (location.search) history.replaceState(null, "", location.pathname);

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
    if (page.title !== document.title) return location.reload();
    const left = page.getElementById("left");
    localTimes(left);
    document.getElementById("left").replaceWith(left);
  } catch {
    // Offline: what stands there stays.
  }
}

localTimes(document);
if (document.getElementById("left")) setInterval(refresh, 60000);
