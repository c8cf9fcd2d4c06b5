"""What tests of a store that fails have in common, whatever the store is."""

import os
import unittest

from faults import create, until_works

# What a busy machine may add to the 2 s that an answer may take and to the 1 s after the fault; the true numbers are printed.
SLACK = 5
OUTAGES = int(os.environ.get("OUTAGES", "100"))


class OutageTest(unittest.TestCase):
    def setUp(self):
        self.longest = self.back = 0
        self.names = iter(range(1_000_000))

    def name(self):
        """A name that no other message has."""
        return f"{self.id()}.{next(self.names)}"

    def soon(self, took):
        self.longest = max(self.longest, took)
        self.assertLess(took, 2 + SLACK)

    def recovers(self, server, alias):
        took = until_works(server, alias.address, self.name())
        self.back = max(self.back, took)
        self.assertLess(took, 1 + SLACK)

    def none_can_be_made(self, server):
        """The API says when to come again."""
        made = create(server)
        self.assertEqual((made.status, made.headers["Retry-After"] is not None), (503, True), made.text)
        self.soon(made.took)

    def tell(self, what):
        print(f"{what}: slowest answer {self.longest:.2f} s, back after {self.back:.2f} s at most", flush=True)
