"""A real Redis of the test's own, and nodes on it."""

import os
import pathlib
import shutil
import signal
import subprocess
import tempfile

from tempalias import PROGRAM, TOOLS, Tempalias
from waiting import PATIENCE, free_port, wait_for


def _program(name):
    unpacked = TOOLS / "redis/usr/bin" / name
    return str(unpacked) if unpacked.exists() else name


def _environment():
    libraries = [str(path) for path in (TOOLS / "redis").glob("usr/lib/*-linux-gnu")]
    return {**os.environ, **({"LD_LIBRARY_PATH": ":".join(libraries)} if libraries else {})}


def _field(info, name):
    return next(int(line.partition(":")[2]) for line in info.splitlines() if line.startswith(f"{name}:"))


class Redis:
    """A server in a folder of its own that comes back from its log. A context manager."""

    def __init__(self, **options):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="tempalias-redis-"))
        self.port = free_port()
        self.options = {"appendonly": "yes", "appendfsync": "always", "save": "", **options}
        self.process = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *failure):
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self):
        command = [_program("redis-server"), "--port", str(self.port), "--bind", "127.0.0.1", "--dir", self.folder,
                   "--logfile", self.folder / "log"]
        for key, value in self.options.items():
            command += [f"--{key.replace('_', '-')}", value]
        self.process = subprocess.Popen(command, env=_environment(), stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(lambda: self.cli("PING", check=False) == "PONG", "Redis")

    def cli(self, *words, check=True):
        done = subprocess.run([_program("redis-cli"), "-p", str(self.port), *map(str, words)], env=_environment(),
                              capture_output=True, text=True, timeout=PATIENCE, check=check)
        return done.stdout.strip()

    def follow(self, master):
        """It becomes a replica."""
        self.cli("REPLICAOF", "127.0.0.1", master.port)
        wait_for(lambda: "master_link_status:up" in self.cli("INFO", "replication"), "the replica to follow")

    def has_all_of(self, master):
        """Waits until all that the master wrote before is here."""
        written = _field(master.cli("INFO", "replication"), "master_repl_offset")
        wait_for(lambda: _field(self.cli("INFO", "replication"), "slave_repl_offset") >= written, "the replica to catch up")

    def signal(self, number):
        self.process.send_signal(number)

    def kill(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
        if self.process:
            self.process.wait(PATIENCE)

    def forget(self):
        """What it wrote to its disk is gone."""
        shutil.rmtree(self.folder / "appendonlydir", ignore_errors=True)
        (self.folder / "dump.rdb").unlink(missing_ok=True)


class Node(Tempalias):
    """A server on a Redis; nodes with the same `keys` folder are siblings."""

    def __init__(self, redis, smarthost, keys=None, port=None, **options):
        super().__init__(smarthost, **options)
        keys = pathlib.Path(keys or self.folder)
        url = f"redis://127.0.0.1:{port or redis.port}/0"
        self.sections = {**self.sections, "store": {"url": url, "key_files": [str(keys / "server.key")]}}

    def command(self, *words):
        """`tempalias …` with this node's configuration."""
        done = subprocess.run([PROGRAM, *words, "--config", self.folder / "tempalias.toml"], capture_output=True,
                              text=True, timeout=PATIENCE, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout
