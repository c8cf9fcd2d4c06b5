"""Whoever steals the store, or reads the log, learns neither aliases nor targets nor clients' addresses: `strings`
over every file of the server's folder after everything has left its traces there."""

import stat
import subprocess
import unittest
import urllib.parse
import urllib.request

from senders import Connection, letter, send
from sinks import RawSink
from tempalias import Tempalias

TARGET = "hidden.person@target-of-alias.example"
CLIENT = "203.0.113.77"
CLIENT6 = "2001:db8:77:66::55"


class Secrets(unittest.TestCase):
    def test_nothing_can_be_read_in_store_and_log(self):
        verdicts = iter(["250 2.0.0 taken", "550 5.7.1 hidden.person refuses", None, "451 4.2.0 later", "250 2.0.0 taken"])
        with RawSink(verdict=lambda mail: next(verdicts, "250 2.0.0 taken")) as sink, Tempalias(sink.port) as server:
            names = self.use_everything(server)
            self.assertEqual(stat.S_IMODE((server.folder / "server.key").stat().st_mode), 0o600)
            # Killed: the WAL is as it was, not tidied away.
            server.kill()
            files = [path for path in server.folder.iterdir() if path.name.startswith("aliases.db") or path.name == "log"]
            self.assertTrue(any(path.name.endswith("-wal") and path.stat().st_size for path in files), files)
            for path in files:
                self.read(path, names)

    def read(self, path, names):
        raw = path.read_bytes().lower()
        for encoding in ("s", "l"):  # eight bits a character, and sixteen
            text = subprocess.run(["strings", "-n", "4", "-e", encoding, path], capture_output=True, check=True).stdout.lower()
            for name in names:
                self.assertNotIn(name.lower().encode(), text, f"{name} in {path.name}")
                self.assertNotIn(name.lower().encode(), raw, f"{name} in {path.name}")

    def use_everything(self, server):
        """Leaves a trace of every feature; gives what must not be found."""
        secrets = {TARGET, "hidden.person", "target-of-alias", CLIENT, CLIENT6, "2001:db8:77", "operator@real"}
        headers = {"X-Forwarded-For": CLIENT, "Idempotency-Key": "an-idempotency-key-0001"}
        alias = server.alias(TARGET, headers=headers, max_usage=9, days=3)
        self.assertEqual(server.alias(TARGET, headers=headers, max_usage=9, days=3).aid, alias.aid)
        removed = server.alias(TARGET, headers={"X-Forwarded-For": CLIENT6}, max_usage=1)
        uncounted = server.alias(TARGET, days=1)
        form = urllib.parse.urlencode({"target": TARGET, "days": "2", "max-usage": "3"}).encode()
        request = urllib.request.Request(server.url("/"), form, {"Origin": server.url(""), "X-Forwarded-For": CLIENT})
        with urllib.request.urlopen(request) as page:
            secrets.add(page.url.rpartition("/a/")[2].partition(".")[0])
        for number, expected in enumerate(["250", "550", "451", "451", "250"]):
            # One at a time, without a QUIT: each claim stays kept.
            self.assertRegex(send(server, alias.address, letter(number)), f"^{expected}")
        self.assertRegex(send(server, uncounted.address, letter(7)), "^250")
        for to in ("nobody@alias.example", "postmaster@alias.example", "x@not-ours.example"):
            send(server, to, letter(8))
        with Connection(server) as sender:
            sender.say("MAIL FROM:<" + TARGET + "> X=" + TARGET)
            sender.say("RCPT TO:<" + alias.address + "> " + TARGET)
            sender.say("NONSENSE " + alias.address)
        path = f"/aliases/{alias.aid}"
        for body in ({"paused": True}, {"paused": False}, {"max-usage": 20, "days": 9}):
            self.assertEqual(server.request("PATCH", path, body, key=alias.key)[0], 200)
        self.assertEqual(server.request("DELETE", f"/aliases/{removed.aid}", key=removed.key)[0], 204)
        server.request("GET", path, key="wrong-" + alias.key)
        server.request("POST", "/aliases", {"target": TARGET + "@@"})
        for made in (alias, removed, uncounted):
            secrets |= {made.aid, made.key}
        return secrets

    def test_a_missing_key_is_an_error_and_never_a_new_key(self):
        with RawSink() as sink, Tempalias(sink.port) as server:
            alias = server.alias(max_usage=1)
            server.kill()
            key = server.folder / "server.key"
            key.rename(server.folder / "kept.key")
            with self.assertRaisesRegex(RuntimeError, "key"):
                server.start()
            self.assertFalse(key.exists())
            key.write_bytes(bytes(reversed((server.folder / "kept.key").read_bytes())))
            key.chmod(0o600)
            with self.assertRaisesRegex(RuntimeError, "key"):
                server.start()
            (server.folder / "kept.key").rename(key)
            server.start()
            self.assertRegex(send(server, alias.address, letter()), "^250")


if __name__ == "__main__":
    unittest.main()
