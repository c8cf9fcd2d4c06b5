"""Headless Chromium through ChromeDriver's WebDriver interface, as little of it as the tests need."""

import contextlib
import json
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.request

from waiting import PATIENCE, free_port, wait_for

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
ARGUMENTS = [
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage", "--lang=en",
]


class Browser:
    """One window."""

    def __init__(self, base, javascript):
        self.base = base
        options = {"binary": shutil.which("chromium"), "args": ARGUMENTS}
        if not javascript:
            options["prefs"] = {"profile.managed_default_content_settings.javascript": 2}
        wanted = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        self.session = self.call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]

    def call(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            with error:
                raise RuntimeError(json.load(error)["value"]["message"]) from None

    def _do(self, method, path, body=None):
        return self.call(method, f"/session/{self.session}{path}", body)

    def open(self, url):
        self._do("POST", "/url", {"url": url})

    def reload(self):
        self._do("POST", "/refresh", {})

    def close(self):
        self._do("DELETE", "")

    @property
    def url(self):
        return self._do("GET", "/url")

    @property
    def title(self):
        return self._do("GET", "/title")

    def find(self, selector):
        return self._do("POST", "/element", {"using": "css selector", "value": selector})[ELEMENT]

    def text(self, selector="main"):
        return self._do("GET", f"/element/{self.find(selector)}/text")

    def is_shown(self, selector):
        return self._do("GET", f"/element/{self.find(selector)}/displayed")

    def type(self, selector, text):
        element = self.find(selector)
        self._do("POST", f"/element/{element}/clear", {})
        self._do("POST", f"/element/{element}/value", {"text": text})

    def click(self, selector):
        self._do("POST", f"/element/{self.find(selector)}/click", {})

    def submit(self, selector):
        """Clicks, and waits for the page that follows."""
        before = self.find("html")
        self.click(selector)

        def is_gone():
            try:
                self._do("GET", f"/element/{before}/name")
            except RuntimeError:
                return True
            return False

        wait_for(is_gone, "the next page")
        wait_for(lambda: self._do("POST", "/elements", {"using": "css selector", "value": "footer"}), "all of it")

    def script(self, text):
        return self._do("POST", "/execute/sync", {"script": text, "args": []})

    def complaints(self):
        """What the browser's console holds: refused scripts, failed loads."""
        return [entry["message"] for entry in self._do("POST", "/se/log", {"type": "browser"})]


@contextlib.contextmanager
def browser(javascript=True):
    """A browser with a profile of its own."""
    port, folder = free_port(), tempfile.mkdtemp(prefix="chromium-")
    driver = subprocess.Popen(
        [shutil.which("chromedriver"), f"--port={port}", "--silent"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={"HOME": folder, "PATH": "/usr/bin:/bin"},
    )
    try:
        base = f"http://127.0.0.1:{port}"

        def ready():
            with contextlib.suppress(OSError):
                return urllib.request.urlopen(base + "/status", timeout=PATIENCE).close() or True

        wait_for(ready, "ChromeDriver")
        window = Browser(base, javascript)
        try:
            yield window
        finally:
            window.close()
    finally:
        driver.kill()
        driver.wait()
        shutil.rmtree(folder, ignore_errors=True)
