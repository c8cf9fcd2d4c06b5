"""The page in a real browser, with and without JavaScript: form, alias, mail, what is left, mail, refused."""

import unittest

from browser import browser
from senders import Connection, letter
from sinks import RawSink
from tempalias import Tempalias
from waiting import wait_for


class Page(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.sink = cls.enterClassContext(RawSink())
        cls.server = cls.enterClassContext(Tempalias(cls.sink.port))

    def send(self, address, number):
        """The verdict on a mail, after as many attempts as that takes."""

        def attempt():
            with Connection(self.server) as sender:
                reply = sender.send(address, letter(number))
                sender.say("QUIT")
            # Told to come again: the one before is not yet settled.
            return reply if not reply.startswith("450 4.2.1") else None

        return wait_for(attempt, "a verdict")

    def make(self, page, target, messages):
        page.open(self.server.url("/"))
        page.type("#target", target)
        page.type("#days", "3")
        page.type("#max-usage", messages)
        page.submit("form button[type=submit]")

    def walk(self, page):
        self.make(page, "hidden@target.example", "2")
        address = page.text("#address")
        self.assertRegex(address, "^[a-z2-9]{12}@alias.example$")
        self.assertIn("/a/" + address.partition("@")[0], page.url)
        self.assertIn("2 messages", page.text("#left"))
        self.assertIn("hidden@target.example", page.text("#left"))

        self.assertRegex(self.send(address, 1), "^250 ")
        page.reload()
        self.assertIn("1 of 2 messages", page.text("#left"))
        self.assertRegex(self.send(address, 2), "^250 ")
        self.assertRegex(self.send(address, 3), "^550 5.1.1 ")
        page.reload()
        self.assertIn("0 of 2 messages", page.text("#left"))
        self.assertEqual([mail.recipients for mail in self.sink.taken[-2:]], [["hidden@target.example"]] * 2)

    def test_with_javascript(self):
        with browser() as page:
            self.walk(page)
            page.click("#copy")
            self.assertTrue(page.script("return document.getElementById('copy').dataset.done"))
            self.assertEqual(page.complaints(), [])

    def test_without_javascript(self):
        with browser(javascript=False) as page:
            self.walk(page)
            self.assertFalse(page.is_shown("#copy"), "what needs JavaScript is not offered without it")
            self.assertEqual(page.complaints(), [])

    def test_mistakes_are_said_beside_the_field_and_what_was_typed_stays(self):
        with browser(javascript=False) as page:
            self.make(page, "not-an-address", "0x")
            self.assertTrue(page.text("#target-fault"))
            self.assertTrue(page.text("#usage-fault"))
            self.assertIn("not-an-address", page.call("GET", f"/session/{page.session}/source"))

    def test_a_use_held_after_a_lost_verdict_is_shown_and_can_be_freed(self):
        with browser(javascript=False) as page:
            self.make(page, "hidden@target.example", "1")
            address = page.text("#address")
            taken, self.sink.verdict = self.sink.verdict, lambda mail: None  # closes instead of answering the dot
            try:
                self.assertRegex(self.send(address, 1), "^451 4.4.2 ")
            finally:
                self.sink.verdict = taken
            with Connection(self.server) as sender:
                self.assertRegex(sender.send(address, letter(2)), "^450 4.2.1 ")
            page.reload()
            self.assertIn("0 of 1 message", page.text("#left"))
            page.submit("button[value=free]")
            self.assertIn("1 of 1 message", page.text("#left"))
            self.assertRegex(self.send(address, 2), "^250 ")

    def test_pause_resume_and_delete(self):
        with browser(javascript=False) as page:
            self.make(page, "hidden@target.example", "5")
            address = page.text("#address")
            page.submit("button[value=pause]")
            self.assertRegex(self.send(address, 1), "^550 5.1.1 ")
            page.submit("button[value=resume]")
            self.assertRegex(self.send(address, 1), "^250 ")
            page.click("details summary")
            page.submit("button[value=delete]")
            self.assertNotIn("hidden@target.example", page.text())
            self.assertRegex(self.send(address, 2), "^550 5.1.1 ")


if __name__ == "__main__":
    unittest.main()
