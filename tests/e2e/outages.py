"""What tests of a store that fails have in common, whatever the store is."""

import os
import statistics
import unittest

from faults import create, until_works

# What is promised: an answer while the store fails, and the service after the fault's end. In seconds.
ANSWER = 2
BACK = 1
# What the way there and back adds to an answer that takes all of its time.
WAY = 0.2
# What a busy machine may add to a single one. Half of several outages must keep what is promised without it.
SLACK = 5
# How often a fault is repeated, so that there are several.
ROUNDS = 3
OUTAGES = int(os.environ.get("OUTAGES", "100"))


class OutageTest(unittest.TestCase):
    def setUp(self):
        self.forget()
        self.names = iter(range(1_000_000))

    def name(self):
        """A name that no other message has."""
        return f"{self.id()}.{next(self.names)}"

    def forget(self):
        self.longest, self.slowest, self.backs = 0, [], []

    def soon(self, took):
        self.longest = max(self.longest, took)
        self.assertLess(took, ANSWER + SLACK)

    def recovers(self, server, alias):
        took = until_works(server, alias.address, self.name())
        self.backs.append(took)
        self.assertLess(took, BACK + SLACK)
        self.ends()

    def ends(self):
        """One outage is over: its slowest answer counts."""
        self.slowest.append(self.longest)
        self.longest = 0

    def none_can_be_made(self, server):
        """The API says when to come again."""
        made = create(server)
        self.assertEqual((made.status, made.headers["Retry-After"] is not None), (503, True), made.text)
        self.soon(made.took)

    def tell(self, what):
        """Holds what these outages took against what is promised, prints it, and begins anew."""
        if self.longest:
            self.ends()
        slowest, backs = ([round(took, 2) for took in times] for times in (self.slowest, self.backs))
        print(f"{what}: slowest answers {slowest} s, back after {backs} s", flush=True)
        self.assertLess(statistics.median(self.slowest), ANSWER + WAY, what)
        if self.backs:
            self.assertLess(statistics.median(self.backs), BACK, what)
        self.forget()
