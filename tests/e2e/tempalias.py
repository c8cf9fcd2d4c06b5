"""The real program, started for one test in a folder of its own, on ports of its own."""

import json
import os
import pathlib
import queue
import shutil
import signal
import subprocess
import tempfile
import threading
import urllib.request

from waiting import PATIENCE, free_port, wait_for

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = pathlib.Path(os.environ.get("TEMPALIAS", ROOT / "target/debug/tempalias"))
TOOLS = ROOT / "target/tools"
DOMAIN = "alias.example"


class Alias:
    """An alias just made: the API's reply, with its fields as attributes."""

    def __init__(self, reply):
        self.reply = reply
        self.aid = reply["aid"]
        self.address = reply["address"]
        self.key = reply["updatekey"]
        self.manage_url = reply["manage_url"]


class Tempalias:
    """One server. A context manager; `kill` and `start` may be repeated in between, on the same store and ports."""

    def __init__(self, smarthost=None, extra="", sections=None, folder=None):
        self.own_folder = folder is None
        self.folder = pathlib.Path(folder or tempfile.mkdtemp(prefix="tempalias-e2e-"))
        self.smarthost = smarthost
        self.extra = extra
        self.sections = sections or {}
        self.process = None
        self.smtp_port = self.http_port = self.health_port = 0

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *failure):
        self.kill()
        if failure[0] is not None:
            print("the server's log:", self.log(), sep="\n")
        if self.own_folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    def config(self):
        """The configuration file's text."""
        sections = {
            "smtp": {
                "listen": [f"127.0.0.1:{self.smtp_port}"],
                "max_connections_per_address": 1000,
            },
            "http": {
                "listen": [f"127.0.0.1:{self.http_port}"],
                "public_url": f"http://127.0.0.1:{self.http_port or 1}",
            },
            "admin_http": {"listen": [f"127.0.0.1:{self.health_port}"]},
            "admin_socket": {"path": str(self.folder / "admin.sock")},
            "delivery": {},
            "store": {
                "url": f"sqlite:{self.folder}/aliases.db",
                "key_files": [str(self.folder / "server.key")],
            },
            "limits": {"create_burst": 100000, "create_every": "1ms"},
        }
        if self.smarthost:
            sections["delivery"]["smarthost"] = f"127.0.0.1:{self.smarthost}"
        for name, keys in self.sections.items():
            sections.setdefault(name, {}).update(keys)
        lines = [f'domains = ["{DOMAIN}"]', 'hostname = "mx.alias.example"', 'admin = "operator@real.example"', self.extra]
        for name, keys in sections.items():
            lines.append(f"[{name}]")
            # JSON's strings, numbers, booleans and lists are TOML's.
            lines.extend(f"{key} = {json.dumps(value)}" for key, value in keys.items())
        return "\n".join(lines) + "\n"

    def start(self):
        """Starts it and waits until it listens."""
        config = self.folder / "tempalias.toml"
        if not self.http_port:
            # The page accepts forms from its public address only, so its port must be known beforehand.
            self.http_port = free_port()
        config.write_text(self.config())
        self.process = subprocess.Popen(
            [PROGRAM, "serve", "--config", config], stderr=subprocess.PIPE, stdin=subprocess.DEVNULL
        )
        listening = queue.Queue()
        threading.Thread(target=self._keep_log, args=(self.process, listening), daemon=True).start()
        said = listening.get(timeout=PATIENCE)
        if said is None:
            self.process.wait(PATIENCE)
            raise RuntimeError(f"the server did not start:\n{self.log()}")
        self.smtp_port = int(said["smtp"].rpartition(":")[2])
        self.health_port = int(said["admin_http"].rpartition(":")[2])

    def _keep_log(self, process, listening):
        with process.stderr, open(self.folder / "log", "ab", buffering=0) as log:
            for line in process.stderr:
                log.write(line)
                if b'"message":"listening"' in line:
                    listening.put(json.loads(line))
        listening.put(None)

    def log(self):
        """All that it logged, over all its starts."""
        return (self.folder / "log").read_text(errors="replace")

    def kill(self):
        """SIGKILL: no chance to tidy up."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        if self.process:
            self.process.wait(PATIENCE)

    def terminate(self):
        """SIGTERM: it drains."""
        self.process.send_signal(signal.SIGTERM)

    def url(self, path):
        return f"http://127.0.0.1:{self.http_port}{path}"

    def request(self, method, path, body=None, key=None, headers=None):
        """An API request; gives status and parsed body."""
        headers = {"Content-Type": "application/json", **(headers or {})}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url(path), data=data, headers=headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                text = answer.read()
                return answer.status, json.loads(text) if text else None
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read())

    def alias(self, target="hidden@target.example", headers=None, **limits):
        """Makes an alias: `days=`, `max_usage=`."""
        body = {"target": target, **{name.replace("_", "-"): value for name, value in limits.items()}}
        status, reply = self.request("POST", "/aliases", body, headers=headers)
        assert status == 200, (status, reply)
        return Alias(reply)

    def look(self, alias):
        status, reply = self.request("GET", f"/aliases/{alias.aid}", key=alias.key)
        assert status == 200, (status, reply)
        return reply

    def settled(self, alias):
        """Waits until no use is held: a verdict that the sender has heard is written with the next commit."""
        wait_for(lambda: not self.look(alias)["held"], "the store to have the verdict")

    def remaining(self, alias):
        return self.look(alias)["remaining"]

    def ready(self):
        """The status of /readyz."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.health_port}/readyz", timeout=PATIENCE) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code
