"""The author's DKIM signature is still valid behind us (dkimpy signs and verifies)."""

import base64
import subprocess
import unittest

import dkim
from senders import Connection, letter, smtplib_send
from sinks import RawSink
from tempalias import Tempalias


def openssl(*arguments, **options):
    return subprocess.run(["openssl", *arguments], check=True, capture_output=True, **options).stdout


class Dkim(unittest.TestCase):
    def test_a_signed_message_verifies_behind_us(self):
        private = openssl("genrsa", "-traditional", "2048")
        public = base64.b64encode(openssl("rsa", "-pubout", "-outform", "DER", input=private))
        zone = {b"s1._domainkey.sender.example.": b"v=DKIM1; k=rsa; p=" + public}
        verify = lambda message: dkim.verify(message, dnsfunc=lambda name, timeout=5: zone.get(name))

        with RawSink() as sink, Tempalias(sink.port) as server:
            for number, kinds in enumerate(((b"simple", b"simple"), (b"relaxed", b"relaxed"), (b"relaxed", b"simple"))):
                with self.subTest(kinds):
                    message = letter(number, body=" leading\r\n..dots\r\ntrailing  \t\r\n\r\nünï\r\n\r\n\r\n")
                    signed = dkim.sign(message, b"s1", b"sender.example", private, canonicalize=kinds) + message
                    self.assertTrue(verify(signed))
                    self.assertFalse(verify(signed.replace(b"leading", b"Leading")), "the verifier can say no")
                    sink.mails.clear()
                    by_hand, by_smtplib = server.alias(max_usage=1), server.alias(days=1)
                    with Connection(server) as sender:
                        self.assertRegex(sender.send(by_hand.address, signed), "^250 ")
                    self.assertIsNone(smtplib_send(server, by_smtplib.address, signed))
                    self.assertEqual(len(sink.mails), 2)
                    for mail in sink.mails:
                        self.assertIsNotNone(mail.field("Delivered-To"))
                        self.assertTrue(verify(mail.message))


if __name__ == "__main__":
    unittest.main()
