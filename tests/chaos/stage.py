"""What a run is played on: nodes, next hop, store and proxy as real processes, each of which can be killed, stopped and
started again. Everything that is done to them is written into the journal `stage`: it is evidence later."""

import contextlib
import json
import os
import pathlib
import queue
import signal
import subprocess
import sys
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "e2e"))

from tempalias import PROGRAM, TOOLS, Tempalias  # noqa: E402
from waiting import PATIENCE, accepts, free_port, wait_for  # noqa: E402

# Short enough that what is in doubt becomes known within a run; otherwise as delivered.
DOT_TIMEOUT = 6
NODE = {
    "smtp": {"max_connections_per_address": 1000, "slow_after_refused": 10000, "max_refused_recipients": 10000},
    "delivery": {"dot_timeout": f"{DOT_TIMEOUT}s", "envelope_timeout": "5s", "hold_upstream": "1s"},
}


class DoesNotStart(Exception):
    """A node that ran before, and was killed: that it comes back is promised."""


class Actor:
    """A process that the monkey plays with."""

    def __init__(self, name, journal):
        self.name, self.journal, self.process = name, journal, None
        self.deaths = []  # that nobody caused
        self.lock = threading.Lock()

    def note(self, event, **facts):
        self.journal.write(event, who=self.name, **facts)

    def launch(self):
        raise NotImplementedError

    def start(self):
        with self.lock:
            self.look()
            if self.process is None or self.process.poll() is not None:
                self.note("starting")
                self.process = self.launch()
                self.note("up", pid=self.process.pid)

    def kill(self):
        """SIGKILL: no chance to tidy up. Written down before and after: it happened in between."""
        with self.lock:
            self.look()
            if self.process is None or self.process.poll() is not None:
                return
            self.note("killing")
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(PATIENCE)
            self.note("killed")

    def freeze(self):
        with self.lock:
            if self.process is not None and self.process.poll() is None:
                self.note("stopping")
                self.process.send_signal(signal.SIGSTOP)

    def thaw(self):
        with self.lock:
            if self.process is not None and self.process.poll() is None:
                self.process.send_signal(signal.SIGCONT)
                self.note("going on")

    def look(self):
        """Is it gone although nobody killed it?"""
        if self.process is not None and self.process.poll() not in (None, -signal.SIGKILL):
            self.note("ended by itself", code=self.process.returncode)
            self.deaths.append(self.process.returncode)
            self.process = None


class Node(Actor):
    def __init__(self, number, journal, folder, smarthost, store):
        super().__init__(f"node{number}", journal)
        folder.mkdir()
        sections = {**NODE, **({"store": store} if store else {})}
        self.server = Tempalias(smarthost=smarthost, folder=folder, sections=sections)
        self.may_wait, self.was_up = store is not None, False

    def launch(self):
        """A node that finds no store may end at once; then it is started again, as a service manager would."""
        end = time.monotonic() + 2 * PATIENCE
        while True:
            try:
                self.server.start()
                self.was_up = True
                return self.server.process
            except (RuntimeError, queue.Empty) as error:
                if not self.may_wait or time.monotonic() > end:
                    last = str(error).strip().splitlines()[-1:]
                    raise (DoesNotStart(f"{self.name}: {last}") if self.was_up else error)
                self.note("would not start")
                self.server.kill()
                time.sleep(0.2)

    @property
    def ports(self):
        return {"smtp": self.server.smtp_port, "http": self.server.http_port}

    def command(self, *words):
        """`tempalias …` with this node's configuration; gives what it printed."""
        return tempalias(*words, "--config", self.server.folder / "tempalias.toml")


class Sink(Actor):
    def __init__(self, journal, folder, seed):
        super().__init__("sink", journal)
        self.port, self.path, self.log = free_port(), folder / "sink.jsonl", folder / "sink.log"
        self.seed = seed

    def launch(self):
        with open(self.log, "ab") as log:
            process = subprocess.Popen([sys.executable, HERE / "sink.py", str(self.port), self.path, str(self.seed)],
                                       stdin=subprocess.DEVNULL, stderr=log)
        wait_for(lambda: accepts(self.port) or process.poll() is not None, "the next hop")
        return process


class Redis(Actor):
    """A redis-server of our own that loses no write that it acknowledged: it comes back from its log."""

    def __init__(self, journal, folder):
        super().__init__("redis", journal)
        self.port, self.folder = free_port(), folder / "redis"
        self.folder.mkdir()

    def launch(self):
        # A read-only file system or a container keep Redis from changing its limits; none of that matters here.
        options = {"port": self.port, "bind": "127.0.0.1", "dir": self.folder, "appendonly": "yes",
                   "appendfsync": "always", "save": "", "maxmemory-policy": "noeviction", "daemonize": "no",
                   "logfile": self.folder / "log"}
        command = [redis_tool("redis-server"), *(str(word) for key, value in options.items() for word in (f"--{key}", value))]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL, env=tool_environment("redis"))
        wait_for(lambda: self.ready() or process.poll() is not None, "Redis")
        return process

    def ready(self):
        """It also listens while it still loads its log."""
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            said = subprocess.run([redis_tool("redis-cli"), "-p", str(self.port), "ping"], capture_output=True,
                                  timeout=2, check=False, env=tool_environment("redis"))
            return b"PONG" in said.stdout
        return False


class Proxy:
    """Never killed: its journal is evidence."""

    def __init__(self, routes, folder, seed):
        self.lock = threading.Lock()
        with open(folder / "proxy.log", "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, HERE / "proxy.py", json.dumps(routes), folder / "proxy.jsonl", str(seed)],
                stdin=subprocess.PIPE, stderr=log)
        for route in routes:
            wait_for(lambda: accepts(route["listen"]) or self.process.poll() is not None, "the chaos proxy")

    def tell(self, do, **words):
        with self.lock:
            self.process.stdin.write(json.dumps({"do": do, **words}).encode() + b"\n")
            self.process.stdin.flush()

    def close(self):
        with self.lock:
            self.process.stdin.close()
        self.process.wait(PATIENCE)


def tempalias(*words):
    done = subprocess.run([PROGRAM, *words], capture_output=True, text=True, timeout=PATIENCE, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"tempalias {words[0]} {words[1]}: {done.stderr.strip()}")
    return done.stdout


def redis_tool(name):
    """The one that tests/install unpacked, or the system's."""
    unpacked = TOOLS / "redis/usr/bin" / name
    return unpacked if unpacked.exists() else f"/usr/bin/{name}"


def tool_environment(name):
    libraries = [str(path) for path in (TOOLS / name).glob("usr/lib/*-linux-gnu")]
    return {**os.environ, **({"LD_LIBRARY_PATH": ":".join(libraries)} if libraries else {})}


class Stage:
    """All of it. `store` is "embedded" (one node) or "redis" (two nodes)."""

    def __init__(self, store, folder, journal, seed):
        self.journal, self.folder, self.seed = journal, folder, seed
        self.sink = Sink(journal, folder, seed)
        self.redis = Redis(journal, folder) if store == "redis" else None
        self.proxy = None
        numbers = range(2 if self.redis else 1)
        routes, self.nodes = [], []
        for number in numbers:
            routes.append({"name": f"hop{number}", "listen": free_port(), "to": self.sink.port, "smtp": True})
            section = None
            if self.redis:
                port = free_port()
                routes.append({"name": f"store{number}", "listen": port, "to": self.redis.port, "smtp": False})
                section = {"url": f"redis://127.0.0.1:{port}/0", "key_files": [str(folder / "server.key")]}
            smarthost = next(route["listen"] for route in routes if route["name"] == f"hop{number}")
            self.nodes.append(Node(number, journal, folder / f"node{number}", smarthost, section))
        self.routes = routes

    def open(self):
        self.sink.start()
        self.proxy = Proxy(self.routes, self.folder, self.seed)
        if self.redis:
            self.redis.start()
            self.adopt(self.nodes[0])
        for node in self.nodes:
            node.start()

    @staticmethod
    def adopt(node):
        """An empty Redis is taken over once, by hand."""
        (node.server.folder / "tempalias.toml").write_text(node.server.config())
        node.command("key", "new", node.server.folder.parent / "server.key")
        for is_last in (False, False, True):
            try:
                return node.command("db", "adopt")
            except AssertionError:  # a machine so busy that Redis answers nobody in time
                if is_last:
                    raise

    @property
    def actors(self):
        return [*self.nodes, self.sink, *([self.redis] if self.redis else [])]

    def heal(self):
        """All faults end; whatever is down comes up."""
        self.proxy.tell("calm")
        for actor in self.actors:
            actor.thaw()
        # The store first: a node that finds none at its start may not stay.
        for actor in reversed(self.actors):
            actor.start()

    def close(self):
        for actor in self.actors:
            actor.kill()
        if self.proxy:
            self.proxy.close()
