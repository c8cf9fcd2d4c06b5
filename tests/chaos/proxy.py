"""The chaos proxy: every connection from a node to its next hop or to its store runs through it.

    proxy.py ROUTES JOURNAL SEED        ROUTES: [{"name", "listen", "to", "smtp"}, …] as JSON

It cuts connections at random octets, delays, stops forwarding one direction, refuses. Where SMTP is spoken it also
looks for the end of a message and breaks exactly there: in the middle of the dot, or before the verdict is through.
Each connection's end is written down with how many octets went each way and when: that is the evidence by which a
duplicate is excused. It is never killed. Its standard input takes commands, one JSON object a line; at its end the
connections that are still open are written down, too.
"""

import asyncio
import json
import random
import re
import signal
import socket
import struct
import sys
import time

from journal import Journal

ATTEMPT = re.compile(rb"\r\nX-Chaos-Attempt: (\S+)\r\n")
DOT = b"\r\n.\r\n"
RESET = struct.pack("ii", 1, 0)
# Of a thousand connections, how many get which fault; and of a thousand final dots.
CONNECTION_FAULTS = (("refuse", 15), ("cut", 80), ("stall", 25), ("delay", 60))
DOT_FAULTS = (("cut-in-dot", 6), ("cut-after-dot", 5), ("cut-in-verdict", 6), ("stall-verdict", 4))


class Cut(Exception):
    """The proxy ends this connection."""


def draw(rng, faults):
    luck = rng.random() * 1000
    for name, share in faults:
        if luck < share:
            return name
        luck -= share
    return None


class Route:
    """One listening port, and what is done to all its connections at present."""

    def __init__(self, proxy, name, listen, to, smtp):
        self.proxy, self.name, self.listen, self.to, self.smtp = proxy, name, listen, to, smtp
        self.refuse_until = 0
        self.stall_until = {"c2s": 0, "s2c": 0}
        self.open = set()

    async def serve(self):
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.listen))
        listener.listen(1024)
        listener.setblocking(False)
        loop = asyncio.get_running_loop()
        while True:
            client, _ = await loop.sock_accept(listener)
            client.setblocking(False)
            connection = Connection(self, client)
            self.open.add(connection)
            task = loop.create_task(connection.run())
            self.proxy.tasks.add(task)
            task.add_done_callback(self.proxy.tasks.discard)


class Connection:
    numbers = 0

    def __init__(self, route, client):
        Connection.numbers += 1
        self.number = Connection.numbers
        self.route, self.proxy, self.client, self.server = route, route.proxy, client, None
        self.opened, self.port, self.end = time.monotonic(), None, "open"
        self.sent = {"c2s": 0, "s2c": 0}
        self.left = None  # when the node closed its side
        self.progress, self.faults, self.tail, self.noted = [], [], b"", b""
        self.stalled = {"c2s": 0, "s2c": 0}
        self.cut_verdict_after = None
        rng = self.proxy.rng
        self.fate = draw(rng, CONNECTION_FAULTS) if self.proxy.faulty else None
        self.direction = rng.choice(("c2s", "s2c"))
        reach = {("c2s", True): 60_000, ("s2c", True): 4_000}.get((self.direction, route.smtp), 20_000)
        self.where = int(reach * rng.random() ** 2)
        self.slowness = rng.random() * 0.2

    async def run(self):
        loop = asyncio.get_running_loop()
        pumps = []
        try:
            if self.fate == "refuse" or time.monotonic() < self.route.refuse_until:
                self.fault("refuse")
                raise Cut("refused")
            self.server = socket.socket()
            self.server.setblocking(False)
            for end in (self.client, self.server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await loop.sock_connect(self.server, ("127.0.0.1", self.route.to))
            self.port = self.server.getsockname()[1]
            pumps = [loop.create_task(self.pump(self.client, self.server, "c2s")),
                     loop.create_task(self.pump(self.server, self.client, "s2c"))]
            await asyncio.gather(*pumps)
            self.end = "closed by an end"
        except Cut as cut:
            self.end = str(cut)
        except OSError as error:
            self.end = f"{type(error).__name__}: {error}"
        finally:
            for pump in pumps:
                pump.cancel()
            self.close()

    def fault(self, what):
        self.faults.append([round(time.monotonic(), 6), what])

    def close(self):
        self.note_what_is_left()
        abrupt = self.proxy.rng.random() < 0.5
        for end in (self.client, self.server):
            if end is not None:
                if abrupt and self.faults:
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                end.close()
        self.route.open.discard(self)
        self.write_down()

    def write_down(self):
        self.proxy.journal.write(
            "connection", route=self.route.name, n=self.number, port=self.port, opened=round(self.opened, 6),
            c2s=self.sent["c2s"], s2c=self.sent["s2c"], progress=self.progress, left=self.left, faults=self.faults, end=self.end)

    async def pump(self, source, sink, direction):
        loop = asyncio.get_running_loop()
        while data := await loop.sock_recv(source, 1 << 16):
            if direction == "c2s":
                self.note(data)
            if self.fate == "delay" and self.proxy.faulty:
                await asyncio.sleep(self.slowness * self.proxy.rng.random())
            await self.stall(direction)
            if self.fate in ("cut", "stall") and self.direction == direction and self.proxy.faulty:
                rest = self.where - self.sent[direction]
                if rest < len(data):
                    await self.forward(sink, data[:max(rest, 0)], direction)
                    data = data[max(rest, 0):]
                    await self.strike(direction)
            if self.route.smtp:
                data = await (self.watch_client if direction == "c2s" else self.watch_server)(sink, data)
            await self.forward(sink, data, direction)
        if direction == "c2s":
            self.left = round(time.monotonic(), 6)
        sink.shutdown(socket.SHUT_WR)

    async def strike(self, direction):
        if self.fate == "cut":
            self.fault(f"cut {direction} at {self.sent[direction]}")
            raise Cut("cut")
        self.fate = None
        self.begin_stall(direction)
        await self.stall(direction)

    def begin_stall(self, direction):
        self.fault(f"stall {direction} at {self.sent[direction]}")
        self.stalled[direction] = time.monotonic() + 0.5 + self.proxy.rng.random() ** 2 * 20

    async def stall(self, direction):
        """Nothing goes on in this direction for a while; afterwards it does, or the connection is cut."""
        own, all_until = self.stalled[direction], self.route.stall_until[direction]
        if max(own, all_until) <= time.monotonic():
            return
        while time.monotonic() < max(self.stalled[direction], self.route.stall_until[direction]):
            if not self.proxy.faulty:
                raise Cut("cut after a stall")
            await asyncio.sleep(0.05)
        self.stalled[direction] = 0
        if own and self.proxy.rng.random() < 0.5:
            raise Cut("cut after a stall")

    async def forward(self, sink, data, direction):
        if not data:
            return
        await asyncio.get_running_loop().sock_sendall(sink, data)
        self.sent[direction] += len(data)
        if direction == "s2c":
            self.progress.append([round(time.monotonic(), 6), self.sent["s2c"]])

    def note(self, data):
        """Which attempts a node has sent, whether or not they are handed on: it cannot know what became of them."""
        if not self.route.smtp:
            return
        seen = self.noted + data
        for found in ATTEMPT.finditer(seen):
            if found.end() > len(self.noted):
                self.proxy.journal.write("seen", n=self.number, a=found.group(1).decode())
        self.noted = seen[-200:]

    def note_what_is_left(self):
        """What the node has sent and nobody has read, when the connection breaks."""
        for _ in range(64):
            try:
                data = self.client.recv(1 << 16)
            except OSError:
                return
            if not data:
                return
            self.note(data)

    async def watch_client(self, sink, data):
        """May break the connection in or behind a final dot."""
        seen = self.tail + data
        at = seen.find(DOT, max(0, len(self.tail) - len(DOT) + 1))
        tail_before, self.tail = len(self.tail), seen[-200:]
        if at < 0 or not self.proxy.faulty:
            return data
        fault = draw(self.proxy.rng, DOT_FAULTS)
        if fault is None:
            return data
        dot_ends = at + len(DOT) - tail_before
        if fault == "cut-in-dot":
            # From "no octet of the dot line" to "all but the last one".
            await self.forward(sink, data[:max(0, dot_ends - self.proxy.rng.randint(1, 4))], "c2s")
            self.fault(fault)
            raise Cut(fault)
        self.fault(fault)
        if fault == "cut-after-dot":
            await self.forward(sink, data, "c2s")
            await asyncio.sleep(0.02 * self.proxy.rng.random())
            raise Cut(fault)
        if fault == "stall-verdict":
            self.begin_stall("s2c")
        else:
            self.cut_verdict_after = self.proxy.rng.randint(0, 17)
        return data

    async def watch_server(self, sink, data):
        if self.cut_verdict_after is None:
            return data
        await self.forward(sink, data[:min(self.cut_verdict_after, len(data) - 1)], "s2c")
        raise Cut("cut-in-verdict")


class Proxy:
    def __init__(self, routes, journal, seed):
        self.journal, self.rng = Journal(journal), random.Random(f"proxy {seed}")
        self.faulty, self.tasks = False, set()
        self.routes = {route["name"]: Route(self, **route) for route in routes}

    async def run(self):
        loop = asyncio.get_running_loop()
        commands = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
        for route in self.routes.values():
            self.tasks.add(loop.create_task(route.serve()))
        while line := await commands.readline():
            self.command(**json.loads(line))
        for route in self.routes.values():
            for connection in list(route.open):
                connection.write_down()

    def command(self, do, route=None, seconds=0, direction="s2c"):
        self.journal.write("command", do=do, route=route, seconds=seconds, direction=direction)
        routes = [self.routes[route]] if route else self.routes.values()
        if do in ("storm", "calm"):
            self.faulty = do == "storm"
        for one in routes:
            if do == "calm":
                one.refuse_until = 0
            elif do == "refuse":
                one.refuse_until = time.monotonic() + seconds
            elif do == "stall":
                one.stall_until[direction] = time.monotonic() + seconds
            if do in ("cut", "refuse"):
                for connection in one.open:
                    connection.fault(do)
                    # Its pumps notice, and close it.
                    for end in (connection.client, connection.server):
                        if end is not None:
                            try:
                                end.shutdown(socket.SHUT_RDWR)
                            except OSError:
                                pass


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    routes, journal, seed = sys.argv[1:]
    asyncio.run(Proxy(json.loads(routes), journal, seed).run())
