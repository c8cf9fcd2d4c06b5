"""Foreign senders reach the target through an alias; what arrives is what they wrote, byte for byte."""

import unittest

from senders import Connection, SENDER, curl, letter, smtp_source, smtplib_send, stuffed, swaks
from sinks import RawSink
from tempalias import Tempalias


class Senders(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.sink = cls.enterClassContext(RawSink())
        cls.server = cls.enterClassContext(Tempalias(cls.sink.port))

    def setUp(self):
        self.sink.mails.clear()

    def arrived(self, message):
        """The one mail at the sink, which must end with `message` and start with header lines of ours."""
        (mail,) = self.sink.mails
        self.assertEqual(mail.recipients, ["hidden@target.example"])
        self.assertEqual(mail.message[-len(message):], message)
        prefix = mail.message[: -len(message)].decode("ascii")
        self.assertTrue(prefix.startswith("Delivered-To: ") and prefix.endswith("\r\n"), prefix)
        self.assertNotIn("hidden", prefix)
        return mail

    def test_swaks(self):
        for options in ([], ["--pipeline"]):
            with self.subTest(options):
                self.sink.mails.clear()
                alias = self.server.alias(max_usage=1)
                message = letter(body=".\r\n..two dots\r\nend\r\n")
                done = swaks(self.server, alias.address, message, *options)
                self.assertEqual(done.returncode, 0, done.stdout)
                # swaks ends what it sends with a line end of its own.
                mail = self.arrived(message.rstrip(b"\r\n") + b"\r\n" * (2 if b"end\r\n\r\n" in self.sink.mails[0].data else 1))
                self.assertEqual(mail.field("X-Tempalias-Remaining"), "0")
                self.server.settled(alias)
                done = swaks(self.server, alias.address, message.replace(b"<1@", b"<2@"), *options)
                self.assertNotEqual(done.returncode, 0)
                self.assertIn(b"550 5.1.1", done.stdout)

    def test_curl(self):
        alias = self.server.alias(max_usage=1)
        message = letter(body=".\r\n.dot\r\n\r\nend\r\n")
        done = curl(self.server, alias.address, message)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.arrived(message)
        self.server.settled(alias)
        done = curl(self.server, alias.address, letter(2), "-v")
        self.assertNotEqual(done.returncode, 0)
        self.assertIn(b"< 550 5.1.1", done.stderr)

    def test_smtplib(self):
        alias = self.server.alias(max_usage=2)
        message = letter(body="ünï\r\n.\r\n..\r\n")
        self.assertIsNone(smtplib_send(self.server, alias.address, message, mail_options=["BODY=8BITMIME"]))
        self.arrived(message)
        self.sink.mails.clear()
        self.assertIsNone(smtplib_send(self.server, alias.address, letter(2)))
        self.arrived(letter(2))
        self.server.settled(alias)
        # At RCPT; or at the dot, as long as the server does not know yet that its last 250 was read.
        refused = smtplib_send(self.server, alias.address, letter(3))
        self.assertIn("(550, b'5.1.1 No such user here')", str(refused))

    def test_smtp_source(self):
        alias = self.server.alias(days=1)
        for options in ([], ["-d"]):
            with self.subTest(options):
                self.sink.mails.clear()
                done = smtp_source(self.server, alias.address, "-s", "10", "-m", "100", "-l", "5000", *options)
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertEqual(len(self.sink.mails), 100)
                self.assertEqual({tuple(mail.recipients) for mail in self.sink.mails}, {("hidden@target.example",)})

    def test_every_octet_arrives_unchanged(self):
        octets = bytes(octet for octet in range(256) if octet not in b"\r\n")
        lines = [octets, b".", b"..", b".x", b"", b"\x00", b"y" * 60_000, b" ", b"\t", octets * 200, b"", b""]
        message = letter() + b"\r\n".join(lines)
        alias = self.server.alias(max_usage=1)
        with Connection(self.server) as sender:
            self.assertRegex(sender.send(alias.address, message), "^250 2.0.0 ")
        mail = self.arrived(message)
        self.assertTrue((mail.data + b".\r\n").endswith(stuffed(message)), "the wire form itself is unchanged")

    def test_one_byte_at_a_time(self):
        alias = self.server.alias(max_usage=1)
        message = letter(body="..\r\n.\r\nend\r\n")
        with Connection(self.server) as sender:
            self.assertRegex(sender.envelope(alias.address), "^250")
            self.assertRegex(sender.say("DATA"), "^354")
            for octet in stuffed(message):
                sender.socket.sendall(bytes([octet]))
            self.assertRegex(sender.reply(), "^250 2.0.0 ")
        self.arrived(message)

    def test_smuggling_variants_are_no_end_of_data(self):
        alias = self.server.alias(days=1)
        smuggled = b"MAIL FROM:<x@sender.example>\r\nRCPT TO:<%s>\r\nDATA\r\nsmuggled\r\n" % alias.address.encode()
        for end in (b"\n.\n", b"\n.\r\n", b"\r.\r", b"\r.\r\n", b"\r\n.\n", b"\r\n.\r", b"\r\n\0.\r\n", b"\r\n.\0\r\n", b"\r\n.\r\r\n"):
            with self.subTest(end), Connection(self.server) as sender:
                self.assertRegex(sender.envelope(alias.address), "^250")
                self.assertRegex(sender.say("DATA"), "^354")
                sender.socket.sendall(b"Subject: x\r\n\r\ntext" + end + smuggled + b"\r\n.\r\n")
                reply = sender.reply()
                if b"\0" in end:
                    self.assertRegex(reply, "^(250|550)")  # content: passes, as one message
                else:
                    self.assertRegex(reply, "^550 5.6.0")
                self.assertRegex(sender.say("NOOP"), "^250", "nothing behind the message was taken for a command")
        self.assertEqual({mail.sender for mail in self.sink.mails}, {f"<{SENDER}>"})
        self.assertLessEqual(len(self.sink.mails), 2)

    def test_null_sender_stays_null(self):
        alias = self.server.alias(max_usage=1)
        with Connection(self.server) as sender:
            self.assertRegex(sender.send(alias.address, letter(), sender=""), "^250")
        (mail,) = self.sink.mails
        self.assertEqual(mail.sender, "<>")

    def test_a_hundred_recipients_share_one_mail(self):
        aliases = [self.server.alias(f"t{number}@target.example", max_usage=1) for number in range(100)]
        with Connection(self.server) as sender:
            sender.say(f"MAIL FROM:<{SENDER}>")
            for alias in aliases:
                self.assertRegex(sender.say(f"RCPT TO:<{alias.address}>"), "^250")
            extra = self.server.alias(max_usage=1)
            self.assertRegex(sender.say(f"RCPT TO:<{extra.address}>"), "^452 4.5.3")
            self.assertRegex(sender.data(letter()), "^250 2.0.0")
        (mail,) = self.sink.mails
        self.assertEqual(len(mail.recipients), 100)
        for alias in aliases:
            self.assertNotIn(alias.aid.encode(), mail.message)
        self.assertEqual({self.server.remaining(alias) for alias in aliases}, {0})
        self.assertEqual(self.server.remaining(extra), 1)


if __name__ == "__main__":
    unittest.main()
