"""Without a smarthost: to the target's own MX, as a DNS server tells it; an MX in a private network is refused
unless the operator allows it."""

import socketserver
import struct
import threading
import unittest

from senders import Connection, letter
from sinks import RawSink
from tempalias import Tempalias

A, MX = 1, 15
NO_ERROR, SERVFAIL, NXDOMAIN = 0, 2, 3


def name(text):
    return b"".join(bytes([len(label)]) + label.encode() for label in text.split(".") if label) + b"\0"


class Zone:
    """A DNS server with a few records; names under `broken.` fail, names that are not there do not exist."""

    RECORDS = {
        ("target.example", MX): [struct.pack("!H", 20) + name("second.example"), struct.pack("!H", 10) + name("first.example")],
        ("first.example", A): [bytes([127, 0, 0, 2])],
        ("second.example", A): [bytes([127, 0, 0, 1])],
        ("bare.example", A): [bytes([127, 0, 0, 1])],
        ("null.example", MX): [struct.pack("!H", 0) + name("")],
    }

    def __init__(self):
        zone = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self):
                query, socket = self.request
                socket.sendto(zone.answer(query), self.client_address)

        self.server = socketserver.ThreadingUDPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]

    def answer(self, query):
        end = query.index(b"\0", 12) + 1
        labels, at = [], 12
        while query[at]:
            labels.append(query[at + 1 : at + 1 + query[at]].decode().lower())
            at += 1 + query[at]
        asked = ".".join(labels)
        (kind,) = struct.unpack("!H", query[end : end + 2])
        records = self.RECORDS.get((asked, kind), [])
        known = any(asked == owner for owner, _ in self.RECORDS)
        code = SERVFAIL if asked.endswith("broken.example") else NO_ERROR if known else NXDOMAIN
        header = query[:2] + struct.pack("!HHHHH", 0x8180 | code, 1, len(records), 0, 0)
        answers = b"".join(b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, 60, len(data)) + data for data in records)
        return header + query[12 : end + 4] + answers

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True, kwargs={"poll_interval": 0.01}).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


class Mx(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.zone = cls.enterClassContext(Zone())
        cls.sink = cls.enterClassContext(RawSink())
        cls.server = cls.enterClassContext(cls.started(["127.0.0.0/8"]))

    @classmethod
    def started(cls, allowed):
        return Tempalias(sections={
            "dns": {"servers": [f"127.0.0.1:{cls.zone.port}"]},
            "delivery": {"mx_port": cls.sink.port, "allow_private": allowed},
        })

    def reply(self, target, server=None):
        server = server or self.server
        alias = server.alias(target, max_usage=1)
        with Connection(server) as sender:
            reply = sender.send(alias.address, letter())
        self.assertNotIn(target.partition("@")[2], reply)
        self.assertEqual(server.remaining(alias), 0 if reply.startswith("250") else 1)
        return reply

    def test_the_second_mx_takes_it_when_the_first_is_down(self):
        # Nothing listens on 127.0.0.2: the sink is bound to 127.0.0.1 alone.
        self.assertRegex(self.reply("hidden@target.example"), "^250 2.0.0 ")
        self.assertEqual(self.sink.mails[-1].recipients, ["hidden@target.example"])

    def test_a_domain_without_mx_has_an_address(self):
        self.assertRegex(self.reply("hidden@bare.example"), "^250 2.0.0 ")

    def test_what_the_dns_says_is_told_in_our_words(self):
        for target, reply in (
            ("hidden@nowhere.example", "^550 5.1.2 "),
            ("hidden@null.example", "^550 5.1.10 "),
            ("hidden@broken.example", "^451 4.4.3 "),
        ):
            with self.subTest(target):
                self.assertRegex(self.reply(target), reply)

    def test_a_private_network_is_no_next_hop(self):
        with self.started([]) as server:
            self.assertRegex(self.reply("hidden@bare.example", server), "^550 5.4.6 ")

    def test_another_next_hop_needs_another_mail(self):
        first, second = self.server.alias("a@target.example", days=1), self.server.alias("b@bare.example", days=1)
        with Connection(self.server) as sender:
            self.assertRegex(sender.envelope(first.address), "^250")
            self.assertRegex(sender.say(f"RCPT TO:<{second.address}>"), "^452 4.5.3 ")
            self.assertRegex(sender.data(letter()), "^250")


if __name__ == "__main__":
    unittest.main()
