"""The call of 2010 as people still type it, and the mail that follows."""

import json
import subprocess
import unittest

from senders import Connection, letter, run
from sinks import RawSink
from tempalias import Tempalias

# Verbatim but for the host.
CALL = """curl --no-keepalive -H "Content-Type: application/json" \\
     --data-binary '{"target":"t@example.com","days": 3,"max-usage": 5}' \\
     -qsS http://tempalias.com/aliases"""


class Api(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.sink = cls.enterClassContext(RawSink())
        cls.server = cls.enterClassContext(Tempalias(cls.sink.port))

    def test_the_call_of_2010(self):
        call = CALL.replace("http://tempalias.com", self.server.url(""))
        done = subprocess.run(["sh", "-c", call], capture_output=True, check=True, timeout=30)
        reply = json.loads(done.stdout)
        self.assertEqual((reply["target"], reply["days"], reply["max_usage"]), ("t@example.com", 3, 5))
        for name in ("aid", "valid_from", "valid_until", "updatekey", "currentDate"):
            self.assertIn(name, reply)
        with Connection(self.server) as sender:
            self.assertRegex(sender.send(f"{reply['aid']}@alias.example", letter()), "^250 ")
        self.assertEqual(self.sink.mails[-1].recipients, ["t@example.com"])

    def test_errors_are_those_of_2010(self):
        for body, kind, status, code in (
            ("{}", "application/json", 400, "invalid-data"),
            ("{", "application/json", 400, "invalid-data"),
            ('{"target":"t@example.com","days":3}', "text/plain", 400, "invalid-request-type"),
            ('{"target":"' + "x" * 100_000 + '"}', "application/json", 400, "too-much-data"),
        ):
            with self.subTest(code):
                done = run(["curl", "-qsS", "-w", "\n%{http_code}", "-H", f"Content-Type: {kind}", "-H", "Expect:",
                            "--data-binary", "@-", self.server.url("/aliases")], input=body.encode())
                text, _, seen = done.stdout.decode().rpartition("\n")
                self.assertEqual((int(seen), json.loads(text)["error"]), (status, code))

    def test_the_owner_looks_changes_and_removes(self):
        alias = self.server.alias(max_usage=2)
        path = f"/aliases/{alias.aid}"
        self.assertEqual(self.server.request("GET", path)[0], 401)
        self.assertEqual(self.server.request("PATCH", path, {"paused": True}, key=alias.key)[0], 200)
        with Connection(self.server) as sender:
            self.assertRegex(sender.envelope(alias.address), "^550 5.1.1")
        self.assertEqual(self.server.request("PATCH", path, {"paused": False}, key=alias.key)[0], 200)
        with Connection(self.server) as sender:
            self.assertRegex(sender.send(alias.address, letter()), "^250 ")
        self.assertEqual(self.server.remaining(alias), 1)
        self.assertEqual(self.server.request("DELETE", path, key=alias.key)[0], 204)
        with Connection(self.server) as sender:
            self.assertRegex(sender.send(alias.address, letter(2)), "^550 5.1.1")

    def test_too_many_aliases_are_refused(self):
        with Tempalias(self.sink.port, sections={"limits": {"create_burst": 2, "create_every": "30s"}}) as server:
            for _ in range(2):
                server.alias(days=1)
            done = run(["curl", "-qsSi", "-H", "Content-Type: application/json", "--data-binary",
                        '{"target":"t@example.com","days":1}', server.url("/aliases")])
            self.assertRegex(done.stdout, rb"^HTTP/1.1 429 ")
            self.assertRegex(done.stdout.lower(), rb"\nretry-after: \d+\r")
            self.assertIn(b'"rate-limited"', done.stdout)
            # Another client, said by a proxy that is trusted, has a budget of its own.
            self.assertTrue(server.alias(days=1, headers={"X-Forwarded-For": "203.0.113.9"}))


if __name__ == "__main__":
    unittest.main()
