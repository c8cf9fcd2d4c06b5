"""Nodes on a Redis that is killed, stopped, emptied, filled or made read-only: mail is deferred and never refused, and
flows again with the fault's end. Two nodes together keep what one alone promises."""

import re
import signal
import subprocess
import threading
import time
import unittest

from faults import alive, create, ready, rcpt, resources, timed
from line import Line
from outages import OUTAGES, ROUNDS, SLACK, OutageTest
from redis_server import Node, Redis
from senders import Connection, letter, send
from sinks import RawSink
from test_secrets import CLIENT, CLIENT6, TARGET, Secrets
from waiting import wait_for


class OnRedis(OutageTest):
    def is_deferred(self, server, alias, why):
        """Nobody is told that an alias does not exist; the API says when to come again."""
        def seen():
            reply, took = timed(rcpt, server, alias.address)
            self.assertRegex(reply, "^(250|451 4.3.0)")
            self.soon(took)
            return reply.startswith("451")

        wait_for(seen, "the fault to be seen")
        for _ in range(3):
            for address in (alias.address, "nobodyknowsme@alias.example"):
                reply, took = timed(rcpt, server, address)
                self.assertRegex(reply, "^451 4.3.0")
                self.soon(took)
            self.none_can_be_made(server)
        # A moment before, the reason may still be that of the step before: a connection that broke.
        def tells():
            state = ready(server)
            self.assertEqual(state.status, 503)
            self.soon(state.took)
            return re.search(f"store reading: failed: .*({why})", state.text)

        wait_for(tells, f"/readyz to tell of {why}")
        self.assertTrue(alive(server))

    def test_outages(self):
        with RawSink() as sink, Redis() as redis, Node(redis, sink.port) as server:
            alias = server.alias(max_usage=90)
            self.assertRegex(send(server, alias.address, letter(self.name())), "^250")

            def killed():
                redis.kill()
                self.is_deferred(server, alias, "connection refused|no answer|lost|closed")
                redis.start()

            def stopped():
                redis.signal(signal.SIGSTOP)
                self.is_deferred(server, alias, "in time|no answer")
                redis.signal(signal.SIGCONT)

            def a_replica():
                redis.cli("REPLICAOF", "127.0.0.1", "1")
                self.is_deferred(server, alias, "replica|master")
                redis.cli("REPLICAOF", "NO", "ONE")

            def slow():
                redis.cli("CLIENT", "PAUSE", "400", "ALL")
                reply, took = timed(send, server, alias.address, letter(self.name()))
                self.assertRegex(reply, "^(250|451 4.3.0)")
                self.soon(took)

            def emptied():
                saved = self.copy_of(redis)
                redis.cli("FLUSHALL")
                self.is_deferred(server, alias, "db adopt")
                redis.kill()
                redis.forget()
                redis.start()
                self.is_deferred(server, alias, "db adopt")
                redis.kill()
                redis.forget()
                saved.rename(redis.folder / "appendonlydir")
                redis.start()

            for fault in (killed, stopped, a_replica, slow, emptied):
                with self.subTest(fault.__name__):
                    for _ in range(ROUNDS):
                        fault()
                        self.recovers(server, alias)
                    self.tell(f"Redis: {fault.__name__}")
            wait_for(lambda: not server.look(alias)["held"], "every claim to be settled")

    def test_a_line_of_which_one_direction_is_dead(self):
        with RawSink() as sink, Redis() as redis, Line(redis.port) as line, \
                Node(redis, sink.port, port=line.port) as server:
            alias = server.alias(max_usage=90)
            self.assertRegex(send(server, alias.address, letter(self.name())), "^250")
            for _ in range(ROUNDS):
                line.is_mute = True
                self.is_deferred(server, alias, "in time|no answer")
                line.is_mute = False
                self.recovers(server, alias)
            self.tell("Redis: answers no longer arrive")
            wait_for(lambda: not server.look(alias)["held"], "every claim to be settled")

    def test_failovers(self):
        with RawSink() as sink, Redis() as one, Redis() as other, Line(one.port) as line, \
                Node(one, sink.port, port=line.port) as server:
            alias = server.alias(max_usage=90)
            self.assertRegex(send(server, alias.address, letter(self.name())), "^250")
            master, replica = one, other
            for _ in range(ROUNDS):
                replica.follow(master)
                self.assertRegex(send(server, alias.address, letter(self.name())), "^250")
                used = server.remaining(alias)
                wait_for(lambda: not server.look(alias)["held"], "the claim to be settled")
                replica.has_all_of(master)
                master.kill()
                self.is_deferred(server, alias, "closed the connection|lost")
                replica.cli("REPLICAOF", "NO", "ONE")
                line.to = replica.port
                self.recovers(server, alias)
                self.assertEqual(server.remaining(alias), used - 1, "nothing was forgotten")
                master.forget()
                master.start()
                master, replica = replica, master
            self.tell("Redis: failover")

    @staticmethod
    def copy_of(redis):
        saved = redis.folder / "saved"
        subprocess.run(["cp", "-r", redis.folder / "appendonlydir", saved], check=True)
        return saved

    def test_a_full_redis(self):
        with RawSink() as sink, Redis() as redis, Node(redis, sink.port) as server:
            counted, uncounted = server.alias(max_usage=9), server.alias(days=1)
            for passed in range(1, ROUNDS + 1):
                redis.cli("CONFIG", "SET", "maxmemory", "1")
                reply, took = timed(send, server, counted.address, letter(self.name()))
                self.assertRegex(reply, "^451 4.3.0")
                self.soon(took)
                self.none_can_be_made(server)
                state = ready(server)
                self.assertEqual(state.status, 503)
                self.assertRegex(state.text, "store reading: ok\nstore writing: failed: .*OOM")
                self.assertTrue(alive(server))
                # What needs no write goes on: refusals, and aliases without a limit on messages.
                self.assertRegex(rcpt(server, "nobodyknowsme@alias.example"), "^550 5.1.1")
                self.assertRegex(send(server, uncounted.address, letter(self.name())), "^250")
                redis.cli("CONFIG", "SET", "maxmemory", "0")
                self.recovers(server, counted)
                wait_for(lambda: server.remaining(counted) == 9 - passed,
                         "one use to be spent, by the one message that passed")
            self.tell("Redis: full")

    def test_many_outages_leave_nothing_behind(self):
        with RawSink() as sink, Redis(appendonly="no") as redis, Node(redis, sink.port) as server:
            alias = server.alias(days=1)

            def outage():
                redis.cli("CLIENT", "KILL", "TYPE", "normal", check=False)
                wait_for(lambda: rcpt(server, alias.address).startswith("250"), "the service to be back")

            for _ in range(10):
                outage()
            files, memory = resources(server)
            for _ in range(OUTAGES):
                outage()
            wait_for(lambda: resources(server)[0] <= files, "open files to be what they were")
            grown = resources(server)[1] - memory
            print(f"{OUTAGES} outages: {files} open files as before, {grown:+} KiB of memory", flush=True)
            self.assertLess(grown, 2048)

    def test_two_nodes_share_everything(self):
        with RawSink() as sink, Redis() as redis, Node(redis, sink.port) as one:
            with Node(redis, sink.port, keys=one.folder) as other:
                alias = one.alias(max_usage=5)
                again = {"Idempotency-Key": "a-key-for-both-nodes-01"}
                first = one.alias(headers=again, days=1)
                self.assertEqual(other.alias(headers=again, days=1).aid, first.aid)
                verdicts = []

                def sender(number):
                    verdicts.append(send((one, other)[number % 2], alias.address, letter(f"both.{number}")))

                threads = [threading.Thread(target=sender, args=(number,)) for number in range(24)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
                self.assertEqual(sum(verdict.startswith("250") for verdict in verdicts), 5, verdicts)
                self.assertTrue(all(verdict[:3] in ("250", "450", "550") for verdict in verdicts), verdicts)
                for node in (one, other):
                    with Connection(node) as stranger:
                        self.assertRegex(stranger.envelope(alias.address, "x@stranger.example"), "^550 5.1.1")
                self.assertEqual(len(sink.taken), 5)
                self.assertEqual(other.request("PATCH", f"/aliases/{first.aid}", {"paused": True}, key=first.key)[0], 200)
                self.assertRegex(rcpt(one, first.address), "^550")

    def test_a_node_that_was_only_paused_sends_nothing_that_another_took_over(self):
        gate, second = threading.Event(), threading.Event()

        def verdict(mail):
            if not second.is_set():
                gate.wait(60)
            return "250 2.0.0 taken"

        with RawSink(verdict=verdict) as sink, Redis() as redis, Node(redis, sink.port) as one:
            with Node(redis, sink.port, keys=one.folder) as other:
                alias = one.alias(max_usage=1)
                message = letter("taken.over")
                answers = []
                sending = threading.Thread(target=lambda: answers.append(self.quietly(one, alias.address, message)))
                sending.start()
                wait_for(lambda: one.look(alias)["held"], "the message to be in flight")
                wait_for(lambda: len(sink.mails) == 1, "its dot to be at the next hop")
                one.process.send_signal(signal.SIGSTOP)
                second.set()
                self.assertRegex(send(other, alias.address, message), "^450", "its node may live")
                wait_for(lambda: send(other, alias.address, message).startswith("250"), "the other node to take it over")
                one.process.send_signal(signal.SIGCONT)
                gate.set()
                sending.join(120)
                # It wakes and serves again, under another name; its own verdict for the message changes nothing.
                wait_for(lambda: one.ready() == 200, "the node to be back")
                wait_for(lambda: not one.look(alias)["held"], "nothing to be held")
                self.assertEqual(one.look(alias)["remaining"], 0)
                self.assertEqual({mail.field("Message-ID") for mail in sink.mails}, {"<taken.over@sender.example>"})

    def after_an_outage_between_claim_and_settlement(self, seconds, other_begins=False):
        """Redis dies while the next hop has a message of one node, and its sender comes to the other node as soon as
        Redis is back; how often the message arrived. `other_begins`: that node is started only towards the end."""
        here, gate = threading.Event(), threading.Event()

        def verdict(mail):
            here.set()
            gate.wait(60)
            return "250 2.0.0 taken"

        with RawSink(verdict=verdict) as sink, Redis() as redis, Node(redis, sink.port) as one:
            with Node(redis, sink.port, keys=one.folder) as other:
                alias, message, answers = one.alias(max_usage=1), letter(self.name()), []
                sending = threading.Thread(target=lambda: answers.append(send(one, alias.address, message)))
                sending.start()
                self.assertTrue(here.wait(30))
                redis.kill()
                gate.set()
                sending.join(60)
                self.assertRegex(answers[0], "^250", "its verdict was heard")
                if other_begins:
                    time.sleep(seconds - 4)
                    other.kill()
                    time.sleep(4)
                    other.start()
                else:
                    time.sleep(seconds)
                redis.start()
                back = time.monotonic()
                wait_for(lambda: self.quietly(other, alias.address, message).startswith("250"), "the retry to be answered")
                took = time.monotonic() - back
                self.assertLess(took, 1 + SLACK)
                wait_for(lambda: not other.look(alias)["held"], "every claim to be settled")
                self.assertEqual(other.look(alias)["used"], 1)
                print(f"an outage of {seconds} s: the retry answered {took:.2f} s after it", flush=True)
                return len(sink.taken)

    def test_an_outage_shorter_than_a_lease_delivers_nothing_twice(self):
        self.assertEqual(self.after_an_outage_between_claim_and_settlement(10), 1)

    def test_after_a_longer_outage_every_node_tells_of_its_verdicts_first(self):
        self.assertEqual(self.after_an_outage_between_claim_and_settlement(17), 1)

    def test_a_node_that_begins_during_an_outage_leaves_the_others_time_to_tell_of_their_verdicts(self):
        self.assertEqual(self.after_an_outage_between_claim_and_settlement(17, other_begins=True), 1)

    @staticmethod
    def quietly(server, address, message):
        try:
            return send(server, address, message)
        except OSError as error:
            return str(error)

    def test_an_emptied_redis_is_adopted_by_hand(self):
        with RawSink() as sink, Redis() as redis, Node(redis, sink.port) as server:
            alias = server.alias(max_usage=3)
            redis.cli("FLUSHALL")
            wait_for(lambda: rcpt(server, alias.address).startswith("451"), "the fault to be seen")
            self.assertIn("an empty one begins", server.command("db", "adopt"))
            wait_for(lambda: rcpt(server, alias.address).startswith("550"), "the loss to be accepted")
            self.recovers(server, made_by(server))


def made_by(server):
    """An alias, as soon as one can be made."""
    made = []

    def works():
        if create(server).status == 200:
            made.append(server.alias(max_usage=3))
        return bool(made)

    wait_for(works, "aliases to be made")
    return made[0]


class SecretsOnRedis(Secrets):
    """Snapshot, log of writes and our log show neither aliases nor targets nor clients."""

    def test_nothing_can_be_read_in_store_and_log(self):
        verdicts = iter(["250 2.0.0 taken", "550 5.7.1 hidden.person refuses", None, "451 4.2.0 later", "250 2.0.0 taken"])
        with RawSink(verdict=lambda mail: next(verdicts, "250 2.0.0 taken")) as sink, Redis() as redis:
            with Node(redis, sink.port) as server:
                names = self.use_everything(server)
                self.assertTrue({TARGET, CLIENT, CLIENT6} <= names)
                redis.cli("SAVE")
                server.kill()
                redis.kill()
                files = [path for path in redis.folder.rglob("*") if path.is_file()] + [server.folder / "log"]
                names_of_files = {path.suffix for path in files}
                self.assertTrue({".rdb", ".aof"} <= names_of_files, files)
                for path in files:
                    self.read(path, names)

    test_a_missing_key_is_an_error_and_never_a_new_key = None


del Secrets


if __name__ == "__main__":
    unittest.main()
