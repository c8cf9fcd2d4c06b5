"""The embedded store fails under the running program: disk full, I/O errors, locks, a stall, a clock that jumps.

Whatever needs the store is told to come again, within its two seconds; whatever does not need what failed goes on;
and all is well again with the fault's end, without a restart and without anything left behind.
"""

import contextlib
import errno
import fcntl
import pathlib
import sqlite3
import threading
import time
import unittest

from faults import FaultyTempalias, alive, create, ready, rcpt, resources, small_disk, timed
from outages import OUTAGES, ROUNDS, OutageTest
from senders import Connection, letter, send
from sinks import RawSink
from tempalias import Tempalias
from waiting import wait_for


class StoreFaults(OutageTest):
    def writing_fails(self, server, counted, uncounted, why):
        """What needs a write is put off; what does not, goes on."""
        reply, took = timed(send, server, counted.address, letter(self.name()))
        self.assertRegex(reply, "^451 4.3.0")
        self.soon(took)
        self.none_can_be_made(server)
        state = ready(server)
        self.assertEqual(state.status, 503)
        self.assertRegex(state.text, f"store reading: ok\nstore writing: failed: .*{why}")
        self.soon(state.took)
        self.assertTrue(alive(server))
        self.assertRegex(rcpt(server, "nobodyknowsme@alias.example"), "^550 5.1.1")
        self.assertRegex(send(server, uncounted.address, letter(self.name())), "^250")
        self.assertEqual(server.look(counted)["held"], 0)

    def reading_fails(self, server, alias, why):
        """Nobody is told that an alias does not exist."""
        reply, took = timed(rcpt, server, alias.address)
        self.assertRegex(reply, "^451 4.3.0")
        self.soon(took)
        self.none_can_be_made(server)
        state = ready(server)
        self.assertEqual(state.status, 503)
        self.assertRegex(state.text, f"store reading: failed: .*({why})")
        self.assertTrue(alive(server))

    def test_failing_writes_and_syncs(self):
        with RawSink() as sink, FaultyTempalias(sink.port) as server:
            counted, uncounted = server.alias(max_usage=90), server.alias(days=1)
            used = 0
            for part, error, why in (
                ("write", errno.EIO, "(I/O|Input/output) error"),
                ("write", errno.ENOSPC, "(is full|No space left)"),
                ("write", errno.EROFS, "Read-only"),
                ("sync", errno.EIO, "(I/O|Input/output) error"),
            ):
                with self.subTest(part=part, error=errno.errorcode[error]):
                    setattr(server.fault, part, error)
                    self.writing_fails(server, counted, uncounted, why)
                    setattr(server.fault, part, 0)
                    self.recovers(server, counted)
                    used += 1
                    wait_for(lambda: server.remaining(counted) == 90 - used and not server.look(counted)["held"],
                             "one use to be spent, by the one message that passed")
            self.tell("failing writes")

    def test_failing_reads(self):
        with RawSink() as sink, FaultyTempalias(sink.port) as server:
            aliases = [server.alias(max_usage=9) for _ in range(3000)]  # more than the caches hold
            for _ in range(ROUNDS):
                server.fault.read = errno.EIO
                wait_for(lambda: rcpt(server, aliases[0].address).startswith("451"), "the caches to be left")
                for alias in aliases[::50]:
                    self.assertRegex(rcpt(server, alias.address), "^(250|451 4.3.0)")
                self.reading_fails(server, aliases[0], "I/O error")
                server.fault.read = 0
                self.recovers(server, aliases[0])
            self.tell("failing reads")

    def test_a_full_disk(self):
        with contextlib.ExitStack() as stack:
            disk = stack.enter_context(small_disk("1m"))
            if disk is None:
                self.skipTest("this kernel lets us mount no file system; test_failing_writes_and_syncs has ENOSPC too")
            sink = stack.enter_context(RawSink())
            sections = {"store": {"url": f"sqlite:{disk}/aliases.db"}}
            server = stack.enter_context(Tempalias(sink.port, sections=sections))
            counted, uncounted = server.alias(max_usage=100), server.alias(days=1)
            passed = 0
            for _ in range(3):
                # A log that is begun anew gives a page or two of the disk back, so now and then a write gets through
                # before the other one takes them: each is done or put off, and nothing between.
                replies, made, states = [], [], []
                full = stack.enter_context(self.filling(disk))
                while sum(reply.startswith("451") for reply in replies) < 3 or len(made) < 10 or not states:
                    reply, took = timed(send, server, counted.address, letter(self.name()))
                    self.assertRegex(reply, "^(451 4.3.0|250)")
                    replies.append(reply)
                    self.soon(took)
                    made.append(create(server))
                    state = ready(server)
                    if state.status == 503:
                        states.append(state)
                        self.assertRegex(state.text, "store reading: ok\nstore writing: failed: .*(is full|No space left)")
                    self.assertTrue(alive(server))
                    self.assertRegex(rcpt(server, "nobodyknowsme@alias.example"), "^550 5.1.1")
                    self.assertRegex(send(server, uncounted.address, letter(self.name())), "^250")
                    self.assertLess(len(replies), 80, "the disk never became full")
                self.assertEqual({answer.status for answer in made} - {200}, {503})
                self.assertTrue(all(answer.headers["Retry-After"] for answer in made if answer.status == 503))
                full.set()
                wait_for(lambda: not (disk / "ballast").exists(), "the disk to be free")
                self.recovers(server, counted)
                passed += sum(reply.startswith("250") for reply in replies) + 1
                wait_for(lambda: server.remaining(counted) == 100 - passed and not server.look(counted)["held"],
                         "as many uses to be spent as messages have passed")
            self.tell("full disk")

    @staticmethod
    @contextlib.contextmanager
    def filling(disk):
        """Somebody who takes every page that becomes free, until the event is set."""
        enough = threading.Event()

        def fill():
            with open(disk / "ballast", "ab", buffering=0) as ballast:
                while not enough.is_set():
                    try:
                        ballast.write(bytes(4096))
                    except OSError:
                        enough.wait(0.0002)
            (disk / "ballast").unlink()

        filler = threading.Thread(target=fill)
        filler.start()
        try:
            yield enough
        finally:
            enough.set()
            filler.join()

    def test_somebody_else_locks_the_file(self):
        with RawSink() as sink, Tempalias(sink.port) as server:
            counted, uncounted = server.alias(max_usage=90), server.alias(days=1)
            other = sqlite3.connect(server.folder / "aliases.db", isolation_level=None)
            with contextlib.closing(other):
                for _ in range(ROUNDS):
                    other.execute("BEGIN EXCLUSIVE")
                    self.writing_fails(server, counted, uncounted, "(locked|in time)")
                    other.execute("ROLLBACK")
                    self.recovers(server, counted)
            self.tell("locked for writing")

    def test_somebody_else_locks_out_everybody(self):
        with RawSink() as sink, Tempalias(sink.port) as server:
            counted = server.alias(max_usage=90)
            self.assertRegex(rcpt(server, counted.address), "^250")
            with open(server.folder / "aliases.db-shm", "r+b") as shared:
                for _ in range(ROUNDS):
                    # Every lock of the log: readers cannot even begin.
                    fcntl.lockf(shared, fcntl.LOCK_EX, 8, 120)
                    self.reading_fails(server, counted, "lock|in time")
                    fcntl.lockf(shared, fcntl.LOCK_UN, 8, 120)
                    self.recovers(server, counted)
            self.tell("locked for all")

    def test_a_claim_whose_answer_was_lost_costs_no_use(self):
        """The disk hangs in the middle of a claim. The sender is told "later"; the claim stands in the store when the
        disk goes on, and is given back. The retry gets the one use."""
        with RawSink() as sink, FaultyTempalias(sink.port) as server:
            alias = server.alias(max_usage=1)
            for part in range(2):
                message = letter(f"lost-{part}")
                server.fault.stall = 1
                replies = []
                sender = threading.Thread(target=lambda: replies.append(timed(send, server, alias.address, message)))
                sender.start()
                wait_for(lambda: server.fault.stalled, "the claim to hang")
                sender.join()
                [(reply, took)] = replies
                self.assertRegex(reply, "^451 4.3.0")
                self.soon(took)
                self.assertEqual(len(sink.taken), 0)
                made = create(server)
                self.assertEqual(made.status, 503)
                self.soon(made.took)
                self.assertRegex(ready(server).text, "store writing: failed: .*in time")
                server.fault.stall = 0
                if part:
                    # Again and again, as a sender in a hurry would: however it meets the settling, one message passes.
                    wait_for(lambda: send(server, alias.address, message).startswith("250"), "the retry to pass")
                else:
                    wait_for(lambda: server.remaining(alias) == 1 and not server.look(alias)["held"], "the use to be free again")
            server.settled(alias)
            self.assertEqual((len(sink.taken), server.remaining(alias)), (1, 0))
            self.assertRegex(send(server, alias.address, letter("another")), "^550")
            self.tell("stalled claims")

    def test_what_next_hops_said_is_settled_when_the_store_is_back(self):
        """Three senders have their 250 while nothing can be written, and five are put off; each leaves something to
        be settled. The log has one line for all of it, and one when it is over."""
        gate = threading.Event()

        def verdict(mail):
            gate.wait(60)
            return "250 2.0.0 taken"

        with RawSink(verdict=verdict) as sink, FaultyTempalias(sink.port) as server:
            alias = server.alias(max_usage=9)
            replies = []
            senders = [
                threading.Thread(target=lambda message=letter(self.name()): replies.append(send(server, alias.address, message)))
                for _ in range(3)
            ]
            for sender in senders:
                sender.start()
            wait_for(lambda: len(sink.mails) == 3, "three dots to be at the next hop")
            server.fault.write = errno.EIO
            gate.set()
            for sender in senders:
                sender.join()
            self.assertEqual([reply[:3] for reply in replies], ["250"] * 3)
            for _ in range(5):
                self.assertRegex(send(server, alias.address, letter(self.name())), "^451 4.3.0")
            self.assertEqual(server.look(alias)["held"], 3)
            server.fault.write = 0
            server.settled(alias)
            self.assertEqual(server.remaining(alias), 6)
            wait_for(lambda: '"settled":8' in server.log(), "the log to tell of the end")
            told = [line for line in server.log().splitlines() if "tempalias_mail::backlog" in line]
            self.assertEqual(len(told), 2, told)

    def test_nothing_piles_up(self):
        with RawSink() as sink, FaultyTempalias(sink.port) as server:
            alias = server.alias(days=30)
            counted = server.alias(max_usage=100)
            after = []
            for outage in range(OUTAGES + 1):
                part, error = (("read", errno.EIO), ("write", errno.ENOSPC), ("sync", errno.EIO), ("write", errno.EIO))[outage % 4]
                setattr(server.fault, part, error)
                wait_for(lambda: ready(server).status == 503 or part == "read", "the outage")
                for _ in range(3):
                    self.assertRegex(send(server, counted.address, letter(self.name())), "^(451 4.3.0|250)")
                    self.assertIn(create(server).status, (503, 200))
                    self.assertRegex(rcpt(server, alias.address), "^(250|451 4.3.0)")
                setattr(server.fault, part, 0)
                wait_for(lambda: ready(server).status == 200, "the end of the outage")
                if outage % 20 == 0:
                    wait_for(lambda: send(server, alias.address, letter(self.name())).startswith("250"), "a message to pass")
                    after.append(self.at_rest(server))
            print("open files and KiB after every 20 outages:", after, flush=True)
            # The first ones warm up: caches of SQLite, arenas of the allocator.
            (files, memory), (last_files, last_memory) = after[1], after[-1]
            # An idle connection to the next hop more or less is none of the outages'.
            self.assertLessEqual(last_files, files + 2)
            self.assertLessEqual(last_memory, memory * 1.1 + 1024)

    @staticmethod
    def at_rest(server):
        """Once no connection of a client is open any more."""
        seen = []

        def calm():
            seen.append(resources(server))
            time.sleep(0.02)
            return len(seen) > 5 and len({files for files, _ in seen[-5:]}) == 1

        wait_for(calm, "the server to be at rest")
        return seen[-1]

    def test_the_clock_jumps(self):
        with RawSink() as sink, FaultyTempalias(sink.port) as server:
            alias = server.alias(days=3, max_usage=50)
            for days, alive_then in ((2, True), (4, False), (-30, True), (-3000, True), (0, True)):
                with self.subTest(days=days):
                    server.fault.clock = days * 86400
                    reply = send(server, alias.address, letter(self.name()))
                    self.assertRegex(reply, "^250" if alive_then else "^550 5.1.1")
                    self.assertEqual(create(server).status, 200)
                    self.assertEqual(ready(server).status, 200)

    def test_a_clock_that_was_ahead_locks_nobody_out(self):
        limits = {"limits": {"create_burst": 5, "create_every": "1s"}}
        with RawSink() as sink, FaultyTempalias(sink.port, sections=limits) as server:
            server.fault.clock = 86400
            self.assertEqual(create(server).status, 200)
            server.fault.clock = 0
            wait_for(lambda: create(server).status == 200, "a client to be let in again")

    def test_deleted_and_put_back(self):
        with RawSink() as sink, Tempalias(sink.port) as server:
            alias = server.alias(max_usage=90)
            path = pathlib.Path(server.folder / "aliases.db")
            away = path.with_name("away.db")
            for say, spoil in (("gone", lambda: None), ("replaced", lambda: path.write_bytes(away.read_bytes()))):
                path.rename(away)
                spoil()
                self.reading_fails(server, alias, say)
                away.replace(path)
                self.recovers(server, alias)
            self.tell("moved away")


if __name__ == "__main__":
    unittest.main()
