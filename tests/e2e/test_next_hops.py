"""Foreign next hops: what they accept counts, what they refuse or break off costs no use, and whatever they do,
the sender is told the truth in words that do not name the target."""

import signal
import threading
import time
import unittest

from senders import Connection, letter
from sinks import RawSink, postfix, smtp_sink
from tempalias import Tempalias
from waiting import free_port, wait_for


class Asleep(unittest.TestCase):
    def test_a_verdict_that_came_while_the_machine_slept_is_heard(self):
        """The deadline is over when it wakes, and the answer lies there: it counts."""
        judging, woken = threading.Event(), threading.Event()

        def verdict(_):
            judging.set()
            woken.wait(10)
            return "250 2.0.0 taken"

        with (
            RawSink(verdict) as sink,
            Tempalias(sink.port, sections={"delivery": {"dot_timeout": "2s"}}) as server,
        ):
            alias = server.alias(max_usage=1)
            replies = []
            with Connection(server) as sender:
                sending = threading.Thread(target=lambda: replies.append(sender.send(alias.address, letter())))
                sending.start()
                self.assertTrue(judging.wait(10))
                server.process.send_signal(signal.SIGSTOP)
                woken.set()
                time.sleep(2.5)  # the deadline passes meanwhile
                server.process.send_signal(signal.SIGCONT)
                sending.join(10)
            self.assertRegex(replies[0], "^250 2.0.0 Delivered")
            self.assertEqual(server.look(alias).get("held", 0), 0)


class SmtpSink(unittest.TestCase):
    """Postfix's smtp-sink and its faults."""

    def setUp(self):
        self.port = free_port()
        self.server = self.enterContext(Tempalias(self.port))

    def deliver(self, alias, number=1):
        with Connection(self.server) as sender:
            reply = sender.send(alias.address, letter(number))
        self.assertNotIn("hidden", reply)
        self.assertNotIn("target.example", reply)
        return reply

    def check(self, options, reply, remaining, held=0):
        """What the sender hears and what is left of two uses; and that all is well once the fault is over."""
        alias = self.server.alias(max_usage=2)
        with smtp_sink(*options, port=self.port):
            self.assertRegex(self.deliver(alias), reply)
        left = self.server.look(alias)
        self.assertEqual((left["remaining"], left.get("held", 0)), (remaining, held), left)
        with smtp_sink(port=self.port) as (_, folder):
            self.assertRegex(self.deliver(alias), "^250 2.0.0 ")
            self.assertEqual(self.server.remaining(alias), 1)
            self.assertRegex(self.deliver(alias, 2), "^250 2.0.0 ")
            self.assertEqual(self.server.remaining(alias), 0)
            self.server.settled(alias)
            self.assertRegex(self.deliver(alias, 3), "^550 5.1.1 ")
            wait_for(lambda: len(list(folder.glob("mail.*"))) == 2, "two messages")

    def test_accepts(self):
        alias = self.server.alias(max_usage=1)
        with smtp_sink(port=self.port) as (_, folder):
            self.assertRegex(self.deliver(alias), "^250 2.0.0 ")
            (file,) = wait_for(lambda: list(folder.glob("mail.*")), "the message")
            text = wait_for(lambda: (found := file.read_bytes()).endswith(b"\n") and found, "all of it")
        self.assertIn(b"X-Rcpt-Args: <hidden@target.example>", text)
        self.assertIn(letter().replace(b"\r\n", b"\n"), text)

    def test_is_not_there(self):
        alias = self.server.alias(max_usage=1)
        self.assertRegex(self.deliver(alias), "^451 4.4.1 ")
        self.assertEqual(self.server.remaining(alias), 1)

    def test_refuses_everything(self):
        self.check(["-f", "connect"], "^451 4.4.1 ", 2)
        self.check(["-r", "connect"], "^451 4.4.1 ", 2)

    def test_refuses_mail(self):
        self.check(["-f", "mail"], "^550 5.", 2)
        self.check(["-r", "mail"], "^45. 4.", 2)

    def test_refuses_rcpt(self):
        self.check(["-f", "rcpt"], "^550 5.", 2)
        self.check(["-r", "rcpt"], "^45. 4.", 2)

    def test_refuses_data(self):
        self.check(["-f", "data"], "^550 5.", 2)
        self.check(["-r", "data"], "^45. 4.", 2)

    def test_refuses_the_message(self):
        self.check(["-f", "."], "^550 5.", 2)
        self.check(["-r", "."], "^45. 4.", 2)

    def test_hangs_up_before_the_dot(self):
        for command in ("connect", "ehlo", "mail", "rcpt", "data"):
            with self.subTest(command):
                self.check(["-q", command], "^451 4.4.", 2)

    def test_says_421_before_the_dot(self):
        for command in ("connect", "ehlo", "mail", "rcpt", "data"):
            with self.subTest(command):
                self.check(["-Q", command], "^45. 4.", 2)

    def test_hangs_up_at_the_dot(self):
        # The verdict is lost: the use is held for this message, whose retry takes it.
        self.check(["-q", "."], "^451 4.4.2 ", 1, held=1)

    def test_speaks_without_extensions(self):
        alias = self.server.alias(max_usage=1)
        with smtp_sink("-e", port=self.port):  # an old server: HELO only
            self.assertRegex(self.deliver(alias), "^250 2.0.0 ")

    def test_a_message_whose_250_was_not_read_is_not_sent_twice(self):
        alias = self.server.alias(max_usage=1)
        with RawSink(port=self.port) as sink:
            self.assertRegex(self.deliver(alias), "^250 2.0.0 ")  # and the sender is gone without a QUIT
            self.server.settled(alias)
            self.assertRegex(self.deliver(alias), "^250 2.0.0 ")
            self.assertEqual(len(sink.mails), 1)
            self.assertRegex(self.deliver(alias, 2), "^550 5.1.1 ")

    def test_speaks_without_pipelining(self):
        alias = self.server.alias(max_usage=1)
        with smtp_sink("-p", port=self.port):
            self.assertRegex(self.deliver(alias), "^250 2.0.0 ")

    def test_one_recipient_of_several_is_refused(self):
        refuse = lambda to: "550 5.1.1 no such user" if "second" in to else "250 2.1.5 fine"
        with RawSink(rcpt=refuse, port=self.port) as sink, Connection(self.server) as sender:
            first, second = self.server.alias("first@target.example", days=1), self.server.alias("second@target.example", days=1)
            sender.say("MAIL FROM:<author@sender.example>")
            self.assertRegex(sender.say(f"RCPT TO:<{first.address}>"), "^250")
            self.assertRegex(sender.say(f"RCPT TO:<{second.address}>"), "^550 5.1.1")
            self.assertRegex(sender.data(letter()), "^250")
            self.assertEqual([mail.recipients for mail in sink.taken], [["first@target.example"]])


class Postfix(unittest.TestCase):
    def test_a_message_gets_into_a_mailbox_of_postfix(self):
        with postfix() as (port, mailbox), Tempalias(port) as server:
            alias, other = server.alias(max_usage=2), server.alias("nobody@target.example", max_usage=2)
            message = letter(body="..two dots\r\n.\r\n" + "x" * 900 + "\r\nend\r\n")
            with Connection(server) as sender:
                self.assertRegex(sender.send(alias.address, message), "^250 2.0.0 ")
                reply = sender.send(other.address, letter(2))
                self.assertRegex(reply, "^550 5.1.1 ")
                self.assertNotIn("nobody", reply)
                self.assertRegex(sender.send(alias.address, letter(3)), "^250 2.0.0 ")
                server.settled(alias)
                self.assertRegex(sender.send(alias.address, letter(4)), "^550 5.1.1 ")
            files = wait_for(lambda: len(found := list(mailbox.glob("new/*"))) == 2 and found, "both messages")
            texts = [file.read_bytes() for file in files]
            self.assertTrue(any(text.endswith(message.replace(b"\r\n", b"\n")) for text in texts), texts)
            self.assertEqual(server.remaining(other), 2)


if __name__ == "__main__":
    unittest.main()
