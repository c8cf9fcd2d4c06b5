"""Senders: one whose every byte a test decides, and the foreign ones."""

import shutil
import smtplib
import socket
import subprocess

from sinks import POSTFIX, postfix_environment
from waiting import PATIENCE

SENDER = "author@sender.example"


def letter(number=1, body="A letter.\r\n", to="you@alias.example"):
    """A small message with an id of its own."""
    return (
        f"Message-ID: <{number}@sender.example>\r\nDate: Sun, 01 Nov 2026 10:00:00 +0000\r\n"
        f"From: {SENDER}\r\nTo: {to}\r\nSubject: letter {number}\r\n\r\n{body}"
    ).encode()


class Connection:
    """An SMTP connection by hand."""

    def __init__(self, server, hello="EHLO client.example"):
        self.socket = socket.create_connection(("127.0.0.1", server.smtp_port), timeout=PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.reader = self.socket.makefile("rb")
        try:
            self.banner = self.reply()
            self.hello = self.say(hello) if hello else None
        except OSError:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.reader.close()
        self.socket.close()

    def reply(self):
        """The next reply, all its lines; "" if the connection was closed."""
        lines = []
        while line := self.reader.readline():
            lines.append(line.decode())
            if line[3:4] != b"-":
                break
        return "".join(lines).rstrip()

    def say(self, line):
        self.socket.sendall(line.encode() + b"\r\n")
        return self.reply()

    def envelope(self, to, sender=SENDER):
        """MAIL and RCPT; the reply to the latter."""
        reply = self.say(f"MAIL FROM:<{sender}>")
        return self.say(f"RCPT TO:<{to}>") if reply.startswith("250") else reply

    def data(self, message):
        """DATA and the message; the reply to the dot."""
        reply = self.say("DATA")
        if not reply.startswith("354"):
            return reply
        self.socket.sendall(stuffed(message))
        return self.reply()

    def send(self, to, message, sender=SENDER):
        """A whole mail; the reply that ended it. The connection is ready for the next one then."""
        reply = self.envelope(to, sender)
        if reply.startswith("250"):
            return self.data(message)
        if reply and not reply.startswith("421"):
            self.say("RSET")
        return reply


def stuffed(message):
    """The wire form, with its final dot."""
    lines = message.split(b"\r\n")
    return b"\r\n".join(b"." + line if line.startswith(b".") else line for line in lines) + b".\r\n"


def send(server, to, message, sender=SENDER):
    """One mail on its own connection; the reply that ended it, or "" when the connection broke."""
    try:
        with Connection(server) as connection:
            return connection.send(to, message, sender)
    except OSError:
        return ""


def run(command, **options):
    return subprocess.run(command, capture_output=True, timeout=PATIENCE, check=False, **options)


def swaks(server, to, message, *options):
    """swaks; it takes a file with LF or CRLF and stuffs dots itself."""
    command = ["swaks", "--server", f"127.0.0.1:{server.smtp_port}", "--from", SENDER, "--to", to,
               "--helo", "client.example", "--data", "-", *options]
    return run(command, input=message.replace(b"\r\n", b"\n"))


def curl(server, to, message, *options):
    command = ["curl", "-sS", f"smtp://127.0.0.1:{server.smtp_port}/client.example", "--mail-from", SENDER,
               "--mail-rcpt", to, "--upload-file", "-", *options]
    return run(command, input=message)


def smtp_source(server, to, *options):
    command = [POSTFIX / "usr/sbin/smtp-source", "-f", SENDER, "-t", to, *options, f"127.0.0.1:{server.smtp_port}"]
    return run(command, env=postfix_environment())


def smtplib_send(server, to, message, **options):
    """Python's smtplib; gives its exception or None."""
    try:
        with smtplib.SMTP("127.0.0.1", server.smtp_port, "client.example", timeout=PATIENCE) as client:
            client.sendmail(SENDER, to, message, **options)
    except smtplib.SMTPException as error:
        return error
    return None


assert shutil.which("swaks") and shutil.which("curl"), "run tests/install first"
