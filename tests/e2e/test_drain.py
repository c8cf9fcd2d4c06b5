"""SIGTERM: no new connections, idle sessions hear 421, a mail past its dot is finished; then the end, in order."""

import threading
import unittest

from senders import Connection, letter
from sinks import RawSink
from tempalias import Tempalias
from waiting import PATIENCE, accepts, wait_for


class Drain(unittest.TestCase):
    def test_a_mail_past_its_dot_is_finished(self):
        asked, answer = threading.Event(), threading.Event()

        def verdict(_):
            asked.set()
            answer.wait(PATIENCE)
            return "250 2.0.0 taken"

        with RawSink(verdict=verdict) as sink, Tempalias(sink.port) as server:
            alias = server.alias(max_usage=1)
            self.assertEqual(server.ready(), 200)
            idle, open_transaction = Connection(server), Connection(server)
            self.assertRegex(open_transaction.envelope(server.alias(days=1).address), "^250")
            replies = []
            with Connection(server) as busy:
                mail = threading.Thread(target=lambda: replies.append(busy.send(alias.address, letter())))
                mail.start()
                self.assertTrue(asked.wait(PATIENCE))
                server.terminate()
                self.assertRegex(idle.reply(), "^421 ")
                self.assertEqual(idle.reply(), "", "and then it is closed")
                self.assertRegex(open_transaction.reply(), "^421 ")
                wait_for(lambda: not accepts(server.smtp_port), "the port to be closed")
                self.assertIsNone(server.process.poll(), "it does not end before the mail did")
                answer.set()
                mail.join(PATIENCE)
                self.assertRegex(replies[0], "^250 2.0.0 ")
                self.assertRegex(busy.reply(), "^421 ", "and its session is over then")
            self.assertEqual(server.process.wait(PATIENCE), 0)
            self.assertEqual(len(sink.taken), 1)
            idle.close()
            open_transaction.close()
            server.start()
            self.assertEqual(server.remaining(alias), 0)

    def test_a_message_coming_in_is_cut_without_a_dot(self):
        with RawSink() as sink, Tempalias(sink.port) as server:
            alias = server.alias(max_usage=1)
            with Connection(server) as sender:
                self.assertRegex(sender.envelope(alias.address), "^250")
                self.assertRegex(sender.say("DATA"), "^354")
                sender.socket.sendall(b"Subject: x\r\n\r\nhalf a mess")
                server.terminate()
                wait_for(lambda: not accepts(server.smtp_port), "the port to be closed")
                sender.socket.sendall(b"age\r\n.\r\n")
                # Either it was finished in time, or it was not taken: never anything in between.
                reply = sender.reply()
            self.assertEqual(server.process.wait(PATIENCE), 0)
            self.assertEqual(reply.startswith("250"), len(sink.taken) == 1, reply)
            self.assertNotRegex(reply, "^5")


if __name__ == "__main__":
    unittest.main()
