"""Octets of the store's file change by themselves, under the running program and before its start."""

import os
import random
import re
import subprocess
import unittest

from faults import alive, create, ready, rcpt, timed
from senders import letter, send
from sinks import RawSink
from tempalias import PROGRAM, Tempalias
from waiting import wait_for

PAGE = 4096


class Damage(unittest.TestCase):
    def setUp(self):
        seed = int(os.environ.get("DAMAGE_SEED", random.randrange(1 << 32)))
        self.random = random.Random(seed)
        self.place = f"seed {seed}"

    def store(self, server, count=400):
        """Aliases whose rows stand in the file and not in the log. The program is stopped."""
        aliases = [server.alias(max_usage=5) for _ in range(count)]
        server.terminate()
        server.process.wait()
        return aliases, server.folder / "aliases.db"

    def spoil(self, path, pages):
        """Noise in the middle of some pages; the first page, which says what the file is, stays."""
        count = path.stat().st_size // PAGE
        with open(path, "r+b") as file:
            for page in self.random.sample(range(count // 3, count), pages):
                start = self.random.randrange(PAGE - 512)
                file.seek(page * PAGE + start)
                file.write(self.random.randbytes(self.random.choice((1, 16, 500))))

    def served(self, server, aliases):
        """How many are answered and put off; none may be refused."""
        replies = [rcpt(server, alias.address) for alias in aliases]
        for reply in replies:
            self.assertRegex(reply, "^(250|451 4.3.0)", self.place)
        return sum(reply.startswith("250") for reply in replies), sum(reply.startswith("451") for reply in replies)

    def unready(self, server):
        state = ready(server)
        self.assertEqual(state.status, 503, self.place)
        self.assertRegex(state.text, r"store reading: failed: .*damaged.*backup", self.place)
        self.assertTrue(alive(server))
        self.assertIn("is damaged", server.log())

    def test_before_the_start(self):
        with RawSink() as sink, Tempalias(sink.port) as server:
            aliases, path = self.store(server)
            whole = path.read_bytes()
            self.spoil(path, 12)
            server.start()
            self.unready(server)
            fine, put_off = self.served(server, aliases)
            print(f"{fine} aliases served, {put_off} put off", flush=True)
            self.assertGreater(fine, 50, self.place)
            self.assertGreater(put_off, 0, self.place)
            # A message to an alias that the damage has not hit passes, as far as its claim can be written.
            self.assertIn(send(server, aliases[0].address, letter())[:3], ("250", "451"), self.place)
            server.kill()
            # The backup is put in its place, as the message says.
            for suffix in ("-wal", "-shm"):
                path.with_name(path.name + suffix).unlink(missing_ok=True)
            path.write_bytes(whole)
            server.start()
            self.assertEqual(ready(server).status, 200)
            self.assertEqual(self.served(server, aliases), (len(aliases), 0))

    def test_while_running(self):
        with RawSink() as sink, Tempalias(sink.port) as server:
            aliases, path = self.store(server, 3000)  # more than the caches hold
            server.start()
            whole = path.read_bytes()
            self.spoil(path, 60)
            fine, put_off = self.served(server, aliases)
            print(f"{fine} aliases served, {put_off} put off", flush=True)
            self.assertGreater(put_off, 0, self.place)
            self.unready(server)
            damaged = next(alias for alias in aliases if rcpt(server, alias.address).startswith("451"))
            status, problem = server.request("GET", f"/aliases/{damaged.aid}", key=damaged.key)
            self.assertEqual(status, 503, problem)
            # The disk reads well again: nothing but a look is needed.
            with open(path, "r+b") as file:
                file.write(whole)
            _, took = timed(wait_for, lambda: ready(server).status == 200, "the damage to be over")
            print(f"back after {took:.2f} s", flush=True)
            self.assertEqual(self.served(server, aliases), (len(aliases), 0))
            self.assertEqual(create(server).status, 200)

    def test_a_file_that_cannot_be_opened_says_what_to_do(self):
        with RawSink() as sink, Tempalias(sink.port) as server:
            _, path = self.store(server, 10)
            whole = path.read_bytes()
            for what, spoilt in (("head", b"\0" * 100 + whole[100:]), ("tables", whole[:100] + bytes(PAGE - 100) + whole[PAGE:]),
                                 ("cut", whole[: PAGE * 3])):
                with self.subTest(what):
                    path.write_bytes(spoilt)
                    end = subprocess.run([PROGRAM, "serve", "--config", server.folder / "tempalias.toml"], capture_output=True,
                                         timeout=60, check=False) if what != "cut" else None
                    if end:
                        self.assertEqual(end.returncode, 1)
                        self.assertTrue(re.search(rb"backup", end.stderr + end.stdout), end.stderr)
                        continue
                    # A file that was cut short may start; then it says so.
                    try:
                        server.start()
                    except RuntimeError as error:
                        self.assertIn("backup", str(error))
                    else:
                        self.unready(server)
                        server.kill()


if __name__ == "__main__":
    unittest.main()
