"""The next hop: an honest SMTP server that can be killed with -9 at any moment.

    sink.py PORT JOURNAL SEED

It writes down each verdict on a message *before* it says it, with the count of octets that this connection will have
been sent when the verdict is out: with the proxy's count that tells, later, which verdicts reached tempalias. It
refuses, and is slow, by decisions made from the message's id alone (and how often it has seen it), so that a seed says
what will happen to a message. Its refusals name the target on purpose: those words must never reach a sender.
"""

import asyncio
import hashlib
import re
import signal
import sys

from journal import Journal

EHLO = "250-mx.sink.example\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-SIZE 0\r\n250 ENHANCEDSTATUSCODES"
# The local part of the reverse-path is the message's id, perhaps wrapped: SRS0=hash=day=domain=local@…
SENDER = re.compile(r"^MAIL FROM:<(?:SRS0[-=+][^=]*=[^=]*=[^=]*=)?([^@>]*)@", re.IGNORECASE)
TARGET = re.compile(r"^RCPT TO:<([^>]*)>", re.IGNORECASE)
# Messages of these senders are never refused.
CALM = ("background", "fill")
# Refusals, and how many of a thousand messages hear them: at which step, which reply.
REFUSALS = {
    "mail": ((6, "451 4.3.2 {} is busy"), (1, "554 5.7.1 nothing for {}")),
    "rcpt": ((15, "452 4.2.2 {} is full"), (2, "550 5.2.1 {} is disabled")),
    "data": ((6, "451 4.3.2 {} is busy"), (1, "554 5.7.1 nothing for {}")),
    "dot": ((30, "451 4.3.2 {} is busy"), (10, "554 5.7.1 {} does not want this")),
}
# What it has already, it sometimes does not want again: of a thousand messages that it is given once more.
AGAIN = ((150, "554 5.7.1 {} has this already"), (100, "451 4.3.2 {} is busy"))


def chance(*words):
    """A number from 0 to 1 that belongs to these words."""
    digest = hashlib.sha256("\0".join(map(str, words)).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


class Sink:
    def __init__(self, journal, seed):
        self.journal, self.seed = journal, seed
        self.seen, self.taken = {}, set()

    def refusal(self, step, message, target):
        """What this step answers to this message, if not yes. A 5xx is for good: a message keeps it. smtp-source
        does not retry, and one refusal ends it: it is left alone."""
        if message.startswith(CALM):
            return None
        place = (self.seed, step, message, target)
        self.seen[place] = self.seen.get(place, 0) + 1
        (later, words_later), (never, words_never) = REFUSALS[step]
        if chance("never", *place) < never / 1000:
            return words_never.format(target)
        if chance("later", self.seen[place], *place) < later / 1000:
            return words_later.format(target)
        return None

    def verdict(self, message, targets):
        """The answer to the final dot."""
        words = self.refusal("dot", message, ",".join(targets))
        if words is None and (message, *targets) in self.taken and not message.startswith(CALM):
            luck = chance("again", self.seed, message, self.seen.get(message)) * 1000
            for share, reply in AGAIN:
                if luck < share:
                    return reply.format(targets[0])
                luck -= share
        if words is None:
            self.taken.add((message, *targets))
        return words or "250 2.0.0 taken"

    async def pause(self, message):
        """Mostly none, often a little, sometimes as long as a retry takes, rarely longer than anybody waits."""
        luck = chance("pause", self.seed, message, self.seen.get(message, 0))
        self.seen[message] = self.seen.get(message, 0) + 1
        if luck < 0.005:
            await asyncio.sleep(2 + 1000 * luck * 1.6)  # up to 10 s
        elif luck < 0.12:
            await asyncio.sleep(luck * 12)
        elif luck < 0.5:
            await asyncio.sleep(luck * 0.12)


class Session:
    def __init__(self, sink, reader, writer):
        self.sink, self.reader, self.writer = sink, reader, writer
        self.journal = sink.journal
        self.peer = writer.get_extra_info("peername")[1]
        self.said = 0
        self.reset()

    def reset(self):
        self.message, self.targets = None, []

    async def say(self, reply):
        data = reply.encode() + b"\r\n"
        self.said += len(data)
        self.writer.write(data)
        await self.writer.drain()

    async def run(self):
        try:
            await self.say("220 mx.sink.example ESMTP")
            while line := await self.reader.readline():
                if not await self.command(line.decode("latin-1").rstrip("\r\n")):
                    break
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
            pass
        finally:
            self.writer.close()

    async def command(self, line):
        verb = line.split(" ")[0].upper()
        if verb == "QUIT":
            await self.say("221 2.0.0 bye")
            return False
        if verb == "EHLO":
            self.reset()
            await self.say(EHLO)
        elif verb == "MAIL":
            await self.mail(line)
        elif verb == "RCPT":
            await self.rcpt(line)
        elif verb == "DATA":
            return await self.data()
        else:
            if verb == "RSET":
                self.reset()
            await self.say("250 2.0.0 fine")
        return True

    def refuse(self, step, target=""):
        words = self.sink.refusal(step, self.message, target)
        if words:
            self.journal.write("refused", step=step, m=self.message, to=[target] if target else self.targets,
                               conn=self.peer, reply=words, end=self.said + len(words) + 2)
        return words

    async def mail(self, line):
        found = SENDER.match(line)
        self.message, self.targets = (found.group(1) if found else "?"), []
        words = self.refuse("mail")
        await self.say(words or "250 2.1.0 fine")
        if words:
            self.message = None

    async def rcpt(self, line):
        found = TARGET.match(line)
        if self.message is None or not found:
            return await self.say("503 5.5.1 MAIL first")
        words = self.refuse("rcpt", found.group(1))
        if not words:
            self.targets.append(found.group(1))
        await self.say(words or "250 2.1.5 fine")

    async def data(self):
        if not self.targets:
            await self.say("503 5.5.1 RCPT first")
            return True
        words = self.refuse("data")
        if words:
            await self.say(words)
            self.reset()
            return True
        await self.say("354 go")
        message = await self.message_data()
        if message is None:
            return False  # closed before the dot: this was no message
        await self.sink.pause(self.message)
        await self.judge(message)
        self.reset()
        return True

    async def message_data(self):
        lines = []
        while (line := await self.reader.readline()) != b".\r\n":
            if not line.endswith(b"\r\n"):
                return None
            lines.append(line[1:] if line.startswith(b".") else line)
        return b"".join(lines)

    async def judge(self, message):
        facts = describe(message)
        reply = self.sink.verdict(self.message, self.targets)
        self.journal.write("accepted" if reply[0] == "2" else "refused", step="dot", m=self.message, to=self.targets,
                           conn=self.peer, reply=reply, end=self.said + len(reply) + 2, **facts)
        try:
            await self.say(reply)
        except OSError as error:
            self.journal.write("unsaid", m=self.message, conn=self.peer, why=str(error), **facts)


def describe(message):
    """What identifies it, which attempt it belongs to, and whether it is whole."""
    head, _, _ = message.partition(b"\r\n\r\n")
    fields = {}
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        fields.setdefault(name.lower(), value.strip().decode("latin-1"))
    facts = {"a": fields.get(b"x-chaos-attempt"), "mid": fields.get(b"message-id"), "octets": len(message)}
    id_at = re.search(rb"^Received:.*?\bid (\S+?);?\s", head + b"\r\n", re.MULTILINE | re.DOTALL)
    facts["id"] = id_at.group(1).decode("latin-1") if id_at else None
    checksum = fields.get(b"x-chaos-sum")
    if checksum:
        line = b"X-Chaos-Sum: " + checksum.encode() + b"\r\n"
        facts["whole"] = hashlib.sha256(message[message.find(line) + len(line):]).hexdigest()[:32] == checksum
    return facts


async def main():
    port, path, seed = sys.argv[1:]
    sink = Sink(Journal(path), seed)
    server = await asyncio.start_server(
        lambda reader, writer: Session(sink, reader, writer).run(), "127.0.0.1", int(port), backlog=1024, limit=1 << 20)
    sink.journal.write("up")
    await server.serve_forever()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    asyncio.run(main())
