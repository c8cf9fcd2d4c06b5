"""The senders: a mail server's queue with many workers, and smtp-source for more traffic.

    mta.py PLAN        PLAN: a JSON file: seed, nodes, journal, workers, life, calm, smtp_source, environment

Aliases are made through the API, each with more messages than it may pass. A message is offered again after every 4xx
and every lost connection until each of its recipients is taken or refused for good, its sender gives up, or it is too
old. Some attempts hang up at a random place. Every attempt is one line in the journal: what was said, what was really
read, when. The line `drain` on standard input says that the faults are over: nothing new is begun, the queue is
emptied, and the process ends.
"""

import asyncio
import hashlib
import json
import pathlib
import random
import signal
import socket
import struct
import sys
import time
import urllib.error
import urllib.request

from journal import Journal

RESET = struct.pack("ii", 1, 0)
DOMAINS = [f"sender{number}.example" for number in range(6)]
# Kinds of aliases, by how many messages they may pass, and how often each is made.
KINDS = ((1, 8), (2, 6), (5, 5), (20, 3), (100, 1), (None, 2))
# Messages in the queue below which new ones are written.
FEW = 250
# Where a sender hangs up, per thousand attempts.
HANG_UPS = (("after MAIL", 6), ("after RCPT", 8), ("in the body", 10), ("before the dot", 8), ("in the dot", 8),
            ("at the dot", 30), ("soon after the dot", 50), ("pipelined behind the dot", 20), ("at its 250", 15))
CONNECTION_LIFE = 12


class HungUp(Exception):
    """Our own doing."""


class Message:
    def __init__(self, number, recipients, rng, life):
        self.id = f"m{number}"
        self.sender = f"{self.id}@{rng.choice(DOMAINS)}"
        self.open = list(recipients)
        self.born, self.tries = time.monotonic(), 0
        self.until = self.born + life
        # Most come back until the end; some lose patience after a few attempts.
        self.most_tries = rng.randint(1, 6) if rng.random() < 0.04 else None
        size = 100_000 if rng.random() < 0.01 else rng.randint(50, 5000)
        line = f"{self.id} {rng.random()}\r\n..a line with dots\r\n"
        content = (
            f"Message-ID: <{self.id}@chaos.example>\r\nDate: Sun, 01 Nov 2026 10:00:00 +0000\r\nFrom: {self.sender}\r\n"
            f"To: you@alias.example\r\nSubject: {self.id}\r\n\r\n{line * (size // len(line) + 1)}").encode()
        self.content = b"X-Chaos-Sum: " + hashlib.sha256(content).hexdigest()[:32].encode() + b"\r\n" + content

    def wire(self, attempt):
        """As it is sent: with a trace field that differs between attempts, as a relay's would."""
        text = b"X-Chaos-Attempt: " + attempt.encode() + b"\r\n" + self.content
        return text.replace(b"\r\n.", b"\r\n..")


class Connection:
    """An SMTP connection to a node."""

    def __init__(self, reader, writer, patience):
        self.reader, self.writer, self.patience = reader, writer, patience

    @classmethod
    async def open(cls, port, patience):
        async with asyncio.timeout(patience):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self = cls(reader, writer, patience)
        try:
            banner = await self.reply()
            hello = await self.say("EHLO client.example") if banner.startswith("220") else banner
        except BaseException:
            self.drop(False)
            raise
        if not hello.startswith("250"):
            self.drop(False)
            raise ConnectionError(hello)
        return self

    async def reply(self):
        lines = []
        async with asyncio.timeout(self.patience):
            while True:
                line = (await self.reader.readline()).decode("latin-1")
                if not line.endswith("\r\n"):
                    raise ConnectionError("closed")
                lines.append(line.rstrip())
                if line[3:4] != "-":
                    return "\n".join(lines)

    def write(self, data):
        self.writer.write(data)

    async def say(self, line):
        self.write(line.encode() + b"\r\n")
        return await self.reply()

    async def flush(self):
        async with asyncio.timeout(self.patience):
            await self.writer.drain()

    def drop(self, abrupt):
        if abrupt:
            self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            self.writer.transport.abort()
        else:
            self.writer.close()


class Attempt:
    """One attempt to send one message over a connection."""

    def __init__(self, senders, connection, message, node):
        self.senders, self.connection, self.message, self.node = senders, connection, message, node
        message.tries += 1
        self.id = f"{message.id}.{message.tries}"
        self.began, self.to, self.accepted = time.monotonic(), list(message.open), []
        self.rcpt, self.dot, self.verdict, self.end = {}, None, None, None
        rng = senders.rng
        self.hang = None
        if senders.stormy:
            luck = rng.random() * 1000
            for place, share in HANG_UPS:
                if luck < share:
                    self.hang = place
                    break
                luck -= share
        self.pipelined = rng.random() < 0.5
        connection.patience = rng.uniform(1, 8) if senders.stormy and rng.random() < 0.05 else 30

    async def run(self):
        """Whether the connection can be used again."""
        try:
            usable = await self.transaction()
            self.end = self.end or "answered"
            if not usable:
                self.connection.drop(False)
            return usable
        except HungUp as place:
            self.end = f"hung up {place}"
        except TimeoutError:
            self.end = "timed out"
            self.connection.drop(self.senders.rng.random() < 0.5)
        except (OSError, ValueError) as error:
            self.end = f"lost: {error}"
            self.connection.drop(False)
        finally:
            self.write_down()
        return False

    def hang_up(self, place):
        if self.hang == place:
            self.connection.drop(self.senders.rng.random() < 0.5)
            raise HungUp(place)

    async def transaction(self):
        commands = [f"MAIL FROM:<{self.message.sender}>", *(f"RCPT TO:<{to}>" for to in self.to), "DATA"]
        connection = self.connection
        if self.pipelined:
            connection.write("".join(f"{command}\r\n" for command in commands).encode())
        for place, command in enumerate(commands):
            if not self.pipelined and command == "DATA" and not self.accepted:
                return await self.reset()
            reply = await (connection.reply() if self.pipelined else connection.say(command))
            if reply.startswith("421"):
                self.hear_refusal(command, reply)
                return False
            if command == "DATA" and reply.startswith("354"):
                return await self.content()
            if command == "DATA":
                self.verdict = reply if self.accepted else None
                return await self.reset()
            if place == 0:
                self.hang_up("after MAIL")
                if not reply.startswith("250"):
                    self.verdict = reply
                    return await self.skip(len(commands) - 1)
            else:
                self.rcpt[self.to[place - 1]] = reply
                if reply.startswith("250"):
                    self.accepted.append(self.to[place - 1])
                self.hang_up("after RCPT")
        return False

    def hear_refusal(self, command, reply):
        if command.startswith("RCPT"):
            self.rcpt[command[9:-1]] = reply
        else:
            self.verdict = reply

    async def skip(self, replies):
        """MAIL was refused: the rest of what was pipelined is, too."""
        if self.pipelined:
            for _ in range(replies):
                await self.connection.reply()
        return await self.reset()

    async def reset(self):
        return (await self.connection.say("RSET")).startswith("250")

    async def content(self):
        connection, rng = self.connection, self.senders.rng
        data = self.message.wire(self.id)
        if not self.accepted:
            data = b""  # every recipient was refused, and DATA was pipelined all the same
        half = rng.randrange(len(data) + 1)
        connection.write(data[:half])
        await connection.flush()
        self.hang_up("in the body")
        if rng.random() < 0.1:
            await asyncio.sleep(rng.random() * 0.05)
        connection.write(data[half:])
        self.hang_up("before the dot")
        dot = b".\r\n"
        if self.hang == "in the dot":
            connection.write(dot[:rng.randint(1, 2)])
        self.hang_up("in the dot")
        self.dot = time.monotonic()
        if self.hang == "pipelined behind the dot":
            dot += b"MAIL FROM:<next@sender.example>\r\n" if rng.random() < 0.5 else b"QUIT\r\n"
        connection.write(dot)
        self.hang_up("at the dot")
        await connection.flush()
        if self.hang in ("soon after the dot", "pipelined behind the dot"):
            await asyncio.sleep(rng.random() ** 2 * 0.15)
            self.hang_up(self.hang)
        self.verdict = await connection.reply()
        if self.verdict.startswith("421"):
            return False
        if self.hang == "at its 250":
            connection.drop(rng.random() < 0.5)
            self.end = "answered, hung up at its 250"
            return False
        return True

    def write_down(self):
        self.senders.journal.write(
            "attempt", m=self.message.id, a=self.id, node=self.node, began=round(self.began, 6), to=self.to,
            rcpt=self.rcpt, accepted=self.accepted, dot=self.dot and round(self.dot, 6), verdict=self.verdict,
            pipelined=self.pipelined, end=self.end)


class Senders:
    def __init__(self, plan):
        self.plan, self.rng = plan, random.Random(f"senders {plan['seed']}")
        self.nodes, self.journal = plan["nodes"], Journal(plan["journal"])
        self.stormy, self.open, self.numbers = True, set(), 0
        self.queue, self.live = asyncio.PriorityQueue(), []
        self.unreachable = self.sessions = 0

    async def run(self):
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        tasks = [loop.create_task(self.work()) for _ in range(self.plan["workers"])]
        writing = [loop.create_task(self.write_messages()),
                   *(loop.create_task(self.background(limit)) for limit in (None, 100))]
        while (await reader.readline()).strip() != b"drain":
            if reader.at_eof():
                return
        await self.drain(writing)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.journal.write("done", unreachable=self.unreachable, sessions=self.sessions)

    async def drain(self, writing):
        for task in writing:
            task.cancel()
        outcomes = await asyncio.gather(*writing, return_exceptions=True)
        self.journal.write("calm")
        self.stormy = False
        calm = time.monotonic() + self.plan["calm"]
        for message in self.open:
            message.until, message.most_tries = max(message.until, calm), None
        while self.open:
            await asyncio.sleep(0.05)
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome

    async def alias(self, limit, kind):
        """Makes one, through whichever node answers."""
        self.numbers += 1
        name = f"hidden{self.numbers}@target.example"
        body = {"target": name, "days": 1} if limit is None else {"target": name, "max-usage": limit}
        headers = {"Content-Type": "application/json", "Idempotency-Key": f"{self.rng.getrandbits(128):032x}"}
        while True:
            port = self.rng.choice(self.nodes)["http"]
            request = urllib.request.Request(f"http://127.0.0.1:{port}/aliases", json.dumps(body).encode(), headers)
            try:
                reply = json.loads(await asyncio.to_thread(lambda: urllib.request.urlopen(request, timeout=3).read()))
                break
            except urllib.error.HTTPError as error:
                with error:
                    if error.code < 500:
                        raise RuntimeError(f"POST /aliases: {error.code} {error.read()}") from error
            except (OSError, ValueError, EOFError):
                pass
            except Exception as error:  # http.client's own, for a reply that broke off
                if type(error).__module__ != "http.client":
                    raise
            await asyncio.sleep(0.1)
        self.journal.write("alias", aid=reply["aid"], address=reply["address"], key=reply["updatekey"], limit=limit,
                           target=name, kind=kind)
        return reply["address"]

    async def write_messages(self):
        kinds, shares = zip(*KINDS)
        while True:
            if len(self.open) >= FEW:
                await asyncio.sleep(0.05)
                continue
            limit = self.rng.choices(kinds, shares)[0]
            address = await self.alias(limit, "queue")
            self.live = [*self.live[-11:], address]
            most = limit or 30
            for _ in range(most + 1 + self.rng.randrange(most // 2 + 2)):
                self.write_message(address)

    def write_message(self, address):
        recipients = {address}
        if self.rng.random() < 0.12:
            recipients.update(self.rng.sample(self.live, min(len(self.live), self.rng.randint(1, 4))))
        self.numbers += 1
        message = Message(self.numbers, sorted(recipients), self.rng, self.plan["life"])
        self.open.add(message)
        self.put(message, self.rng.random() * 2)

    def put(self, message, delay):
        # The number only keeps messages from being compared.
        self.numbers += 1
        self.queue.put_nowait((time.monotonic() + delay, self.numbers, message))

    async def work(self):
        while True:
            message = await self.due()
            node = self.rng.randrange(len(self.nodes))
            try:
                connection = await Connection.open(self.nodes[node]["smtp"], 10)
            except (OSError, ValueError, TimeoutError):
                self.unreachable += 1
                self.again(message, 0.1 + 0.4 * self.rng.random())
                continue
            self.sessions += 1
            for _ in range(self.rng.choice((1, 1, 2, 5, CONNECTION_LIFE))):
                if not await self.attempt(connection, message, node):
                    break
                message = self.due_now()
                if message is None:
                    await self.quit(connection)
                    break
            else:
                if message is not None:
                    self.put(message, 0)
                connection.drop(False)

    async def attempt(self, connection, message, node):
        attempt = Attempt(self, connection, message, node)
        usable = await attempt.run()
        self.settle(message, attempt)
        return usable

    @staticmethod
    async def quit(connection):
        try:
            connection.patience = 5
            await connection.say("QUIT")
        except (OSError, ValueError, TimeoutError):
            pass
        connection.drop(False)

    async def due(self):
        while True:
            when, number, message = await self.queue.get()
            wait = when - time.monotonic()
            if wait <= 0:
                return message
            self.queue.put_nowait((when, number, message))
            await asyncio.sleep(min(wait, 0.05))

    def due_now(self):
        if self.queue.empty():
            return None
        when, number, message = self.queue.get_nowait()
        if when <= time.monotonic():
            return message
        self.queue.put_nowait((when, number, message))
        return None

    def settle(self, message, attempt):
        """What the sender now knows: per recipient, from what it read."""
        for to in attempt.to:
            reply = attempt.rcpt.get(to, "")
            if to in attempt.accepted or not reply:
                reply = attempt.verdict or ""
            if reply.startswith("250") and to in attempt.accepted and attempt.dot:
                self.ended(message, to, "delivered")
            elif reply.startswith("5"):
                self.ended(message, to, "refused")
        if message.open and attempt.message.most_tries is not None and message.tries >= message.most_tries:
            self.give_up(message, "gave up")
        elif message.open and attempt.end.startswith("hung up") and self.rng.random() < 0.5:
            # At once, before all others: the attempt that was left may still be under way.
            self.again(message, -self.plan["life"])
        elif message.open:
            self.again(message, min(2.0, 0.1 * 1.7 ** min(message.tries, 8)) * self.rng.uniform(0.5, 1.5))
        else:
            self.open.discard(message)

    def again(self, message, delay):
        if time.monotonic() > message.until:
            self.give_up(message, "too old")
        else:
            self.put(message, delay)

    def ended(self, message, to, how):
        message.open.remove(to)
        if not self.stormy:
            # The others may have waited for this one: a sender sends to them one after another where it is told to.
            message.until = max(message.until, time.monotonic() + self.plan["calm"])
        self.journal.write("ended", m=message.id, to=to, how=how)

    def give_up(self, message, how):
        for to in list(message.open):
            self.ended(message, to, how)
        self.open.discard(message)

    async def background(self, limit):
        """smtp-source, again and again; it ends at the first thing that goes wrong."""
        while True:
            address = await self.alias(limit, "background")
            for _ in range(8 if limit is None else 4):
                port = self.rng.choice(self.nodes)["smtp"]
                process = await asyncio.create_subprocess_exec(
                    self.plan["smtp_source"], "-s", "3", "-m", "30", "-l", "1500", "-f", "background@background.example",
                    "-t", address, f"127.0.0.1:{port}", env=self.plan["environment"], stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL)
                try:
                    async with asyncio.timeout(10):
                        code = await process.wait()
                    self.journal.write("smtp-source", to=address, code=code)
                except TimeoutError:
                    self.journal.write("smtp-source", to=address, code="killed: no answer for long")
                finally:
                    if process.returncode is None:
                        process.kill()
                        await process.wait()
                await asyncio.sleep(0.2)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    asyncio.run(Senders(json.loads(pathlib.Path(sys.argv[1]).read_text())).run())
