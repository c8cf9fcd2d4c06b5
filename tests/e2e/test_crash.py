"""`kill -9` of the real program at random moments under load. Afterwards, once every sender has retried:

* every message that its sender was told 250 for is at the next hop;
* no alias has passed more than N distinct messages;
* no use was lost: each alias has passed exactly N.

A kill between our 250 and the commit that settles it leaves a use held for a sender that will not come again: the
message that is one too many is then told "later" instead of "no such user". It may hear that only once all the
others have been taken.
"""

import os
import random
import threading
import time
import unittest
from collections import defaultdict

from senders import letter, send
from sinks import RawSink
from tempalias import Tempalias

ROUNDS = int(os.environ.get("ROUNDS", "50"))
SENDERS = 8
# Aliases of a round, by how many messages they may pass. Each is offered one message more.
LIMITS = (1, 1, 1, 2, 2, 3, 5, 8)
# Nobody retries for ever: the end of a test that would not end.
RETRIES = 400


class Load:
    """The senders of one round: each message is offered until it is taken or refused for good."""

    def __init__(self, server, aliases):
        self.server = server
        self.accepted, self.refused, self.postponed, self.unfinished = set(), set(), set(), set()
        self.lock = threading.Lock()
        self.most = {alias.aid: most for alias, most in aliases}
        self.letters = [(alias, f"{alias.aid}.{number}") for alias, most in aliases for number in range(most + 1)]
        random.shuffle(self.letters)
        self.threads = [threading.Thread(target=self._work) for _ in range(SENDERS)]

    def start(self):
        for thread in self.threads:
            thread.start()

    def join(self):
        for thread in self.threads:
            thread.join()

    def _work(self):
        while True:
            with self.lock:
                if not self.letters:
                    return
                alias, name = self.letters.pop()
            outcome = self._deliver(alias, name)
            with self.lock:
                outcome.add(name)

    def _deliver(self, alias, name):
        for _ in range(RETRIES):
            reply = send(self.server, alias.address, letter(name))
            if reply.startswith("250"):
                return self.accepted
            if reply.startswith("5"):
                return self.refused
            if reply.startswith("450 4.2.1") and self.all_taken(alias):
                return self.postponed
            time.sleep(0.01)  # told to come again, or nobody is there: this is what retrying is
        return self.unfinished

    def all_taken(self, alias):
        with self.lock:
            return sum(name.startswith(alias.aid) for name in self.accepted) == self.most[alias.aid]


class Crash(unittest.TestCase):
    def test_kill_9_under_load(self):
        seed = random.randrange(1 << 32)
        random.seed(seed)
        moments = random.Random(seed)
        # A verdict that takes a moment leaves more to be in flight when the end comes.
        slow = random.Random(seed + 1)
        killed_busy = 0
        with RawSink(verdict=lambda mail: time.sleep(slow.random() * 0.01) or "250 2.0.0 taken") as sink:
            with Tempalias(sink.port) as server:
                whole = min(self.calm(server, sink) for _ in range(3))
                for number in range(ROUNDS):
                    with self.subTest(round=number, seed=seed):
                        killed_busy += self.play(server, sink, moments.random() * whole)
        self.assertGreater(killed_busy, ROUNDS // 4, "most rounds were over before the kill: they showed nothing")
        print(f"{ROUNDS} kills, {killed_busy} of them in the middle of the load", flush=True)

    def calm(self, server, sink):
        """How long a round takes that nothing disturbs."""
        began = time.monotonic()
        self.play(server, sink, None)
        return time.monotonic() - began

    def play(self, server, sink, moment):
        sink.mails.clear()
        sink.taken.clear()
        aliases = [(server.alias(max_usage=most), most) for most in LIMITS]
        load = Load(server, aliases)
        load.start()
        busy = False
        if moment is not None:
            time.sleep(moment)
            busy = any(thread.is_alive() for thread in load.threads)
            server.kill()
            server.start()
        load.join()
        self.assertEqual(load.unfinished, set(), "no answer but 'later' to these")
        delivered = defaultdict(set)
        for mail in sink.taken:
            name = mail.field("Message-ID").strip("<>").removesuffix("@sender.example")
            delivered[name.split(".")[0]].add(name)
        everything = set().union(*delivered.values())
        self.assertLessEqual(load.accepted, everything, "told 250, and not at the next hop")
        for alias, most in aliases:
            self.assertEqual(len(delivered[alias.aid]), most, "distinct messages through one alias")
            self.assertEqual(server.remaining(alias), 0)
        return busy


if __name__ == "__main__":
    unittest.main()
