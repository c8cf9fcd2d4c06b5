"""A disk and a clock that fail on command: `faults.c`, preloaded into the real program."""

import contextlib
import ctypes
import json
import mmap
import os
import pathlib
import re
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

from senders import Connection, letter
from tempalias import Tempalias
from waiting import PATIENCE, wait_for

SOURCE = pathlib.Path(__file__).with_name("faults.c")


class Control(ctypes.Structure):
    """As in faults.c."""

    _fields_ = [
        ("read", ctypes.c_int32),
        ("write", ctypes.c_int32),
        ("sync", ctypes.c_int32),
        ("stall", ctypes.c_int32),
        ("clock", ctypes.c_int64),
        ("stalled", ctypes.c_int32),
    ]


class FaultyTempalias(Tempalias):
    """A server whose store and clock `fault` spoils: fault.write = errno.EIO, fault.clock = 3600."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.tools = tempfile.TemporaryDirectory(prefix="tempalias-faults-")
        tools = pathlib.Path(self.tools.name)
        self.library, control = tools / "faults.so", tools / "control"
        subprocess.run(["cc", "-O1", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", "-o", self.library, SOURCE], check=True)
        control.write_bytes(bytes(ctypes.sizeof(Control)))
        self.control = control
        with open(control, "r+b") as file:
            self.memory = mmap.mmap(file.fileno(), ctypes.sizeof(Control))
        self.fault = Control.from_buffer(self.memory)

    def start(self):
        added = {
            "LD_PRELOAD": str(self.library),
            "FAULTS_CONTROL": str(self.control),
            "FAULTS_FILES": str(self.folder.resolve() / "aliases.db"),
        }
        os.environ.update(added)  # what a program is started with; nothing else is started meanwhile
        try:
            super().start()
        finally:
            for name in added:
                del os.environ[name]

    def __exit__(self, *failure):
        super().__exit__(*failure)
        del self.fault
        self.memory.close()
        self.tools.cleanup()


class Answer:
    """What a request got, and how long it took."""

    def __init__(self, url, data=None):
        began = time.monotonic()
        request = urllib.request.Request(url, data, {"Content-Type": "application/json"} if data else {})
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                self.status, self.headers, self.text = answer.status, answer.headers, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                self.status, self.headers, self.text = error.code, error.headers, error.read().decode()
        self.took = time.monotonic() - began


def create(server):
    return Answer(server.url("/aliases"), json.dumps({"target": "hidden@target.example", "days": 1}).encode())


def ready(server):
    return Answer(f"http://127.0.0.1:{server.health_port}/readyz?verbose")


def alive(server):
    return Answer(f"http://127.0.0.1:{server.health_port}/livez").status == 200


def timed(call, *arguments):
    """What a call gives, and how long it took."""
    began = time.monotonic()
    given = call(*arguments)
    return given, time.monotonic() - began


def rcpt(server, address):
    with Connection(server) as sender:
        return sender.envelope(address)


def until_works(server, address, name):
    """How long it takes until a message passes and an alias can be made."""
    began = time.monotonic()

    def works():
        with Connection(server) as sender:
            passed = sender.send(address, letter(name)).startswith("250")
        return passed and create(server).status == 200 and ready(server).status == 200

    wait_for(works, "the service to be back")
    return time.monotonic() - began


def resources(server):
    """Open files, and the memory that is this process's own, in KiB."""
    process = pathlib.Path(f"/proc/{server.process.pid}")
    memory = (process / "smaps_rollup").read_text()
    return len(list((process / "fd").iterdir())), int(re.search(r"^Pss_Anon:\s+(\d+)", memory, re.M).group(1))


@contextlib.contextmanager
def small_disk(size):
    """A file system of so many octets; None where the kernel lets us mount nothing."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="tempalias-disk-"))
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True)
    try:
        yield folder if mounted.returncode == 0 else None
    finally:
        if mounted.returncode == 0:
            subprocess.run(["umount", "--lazy", folder], check=True)
        folder.rmdir()
