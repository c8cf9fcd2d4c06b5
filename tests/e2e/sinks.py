"""Next hops: a small one whose every word a test decides, and the foreign ones."""

import contextlib
import os
import pathlib
import shutil
import socketserver
import subprocess
import tempfile
import threading

from tempalias import TOOLS
from waiting import accepts, free_port, wait_for

POSTFIX = TOOLS / "postfix"


class Mail:
    """One message as it came over the wire: `data` is dot-stuffed, without the final dot."""

    def __init__(self, sender, recipients, data):
        self.sender, self.recipients, self.data = sender, recipients, data

    @property
    def message(self):
        """What the author wrote, plus the lines that were put on top."""
        return b"\r\n".join(line[1:] if line.startswith(b".") else line for line in self.data.split(b"\r\n"))

    def field(self, name):
        for line in self.message.split(b"\r\n\r\n")[0].split(b"\r\n"):
            if line.lower().startswith(name.lower().encode() + b":"):
                return line.split(b":", 1)[1].strip().decode()
        return None


class RawSink:
    """Keeps every message byte for byte. `verdict` is asked for the reply to a final dot; None closes instead."""

    EHLO = ("mx.sink.example", "PIPELINING", "8BITMIME", "SMTPUTF8", "SIZE 0", "ENHANCEDSTATUSCODES")

    def __init__(self, verdict=lambda mail: "250 2.0.0 taken", rcpt=lambda to: "250 2.1.5 fine", port=0):
        self.verdict, self.rcpt = verdict, rcpt
        self.mails, self.taken, self.said = [], [], []
        self.lock = threading.Lock()
        self.connections = 0
        sink = self

        class Handler(socketserver.StreamRequestHandler):
            disable_nagle_algorithm = True

            def handle(self):
                with sink.lock:
                    sink.connections += 1
                with contextlib.suppress(ConnectionError):
                    sink._serve(self.rfile, self.wfile)

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address, daemon_threads, request_queue_size = True, True, 1024

        self.server = Server(("127.0.0.1", port), Handler)
        self.port = self.server.server_address[1]

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True, kwargs={"poll_interval": 0.01}).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def _serve(self, reader, writer):
        writer.write(b"220 mx.sink.example ESMTP\r\n")
        sender, recipients = None, []
        while line := reader.readline():
            text = line.decode().rstrip("\r\n")
            with self.lock:
                self.said.append(text)
            verb = text.split(" ")[0].upper()
            if verb == "EHLO":
                lines = [f"250-{word}" for word in self.EHLO[:-1]] + [f"250 {self.EHLO[-1]}"]
                reply = "\r\n".join(lines)
            elif verb == "MAIL":
                sender, recipients, reply = text[10:].split(" ")[0], [], "250 2.1.0 fine"
            elif verb == "RCPT":
                reply = self.rcpt(text[8:])
                if reply.startswith("2"):
                    recipients.append(text[8:].strip("<>"))
            elif verb == "DATA":
                writer.write(b"354 go\r\n")
                data = self._data(reader)
                if data is None:
                    return
                reply = self._judge(Mail(sender, recipients, data))
                if reply is None:
                    return
            elif verb == "QUIT":
                writer.write(b"221 2.0.0 bye\r\n")
                return
            else:
                reply = "250 2.0.0 fine"
            writer.write(reply.encode() + b"\r\n")

    @staticmethod
    def _data(reader):
        lines = []
        while (line := reader.readline()) != b".\r\n":
            if not line:
                return None  # closed before the dot: this was no message
            lines.append(line)
        return b"".join(lines)

    def _judge(self, mail):
        with self.lock:
            self.mails.append(mail)
        reply = self.verdict(mail)
        if reply and reply.startswith("2"):
            with self.lock:
                self.taken.append(mail)
        return reply


@contextlib.contextmanager
def smtp_sink(*options, port=0):
    """Postfix's smtp-sink with its options; gives the port and the folder where it leaves messages."""
    port = port or free_port()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="smtp-sink-"))
    folder.chmod(0o777)
    command = [POSTFIX / "usr/sbin/smtp-sink", "-u", "nobody", "-d", "mail.", "-R", folder, *options]
    if os.getuid() != 0:
        del command[1:3]
    process = subprocess.Popen([*command, f"127.0.0.1:{port}", "1024"], env=postfix_environment())
    try:
        wait_for(lambda: accepts(port), "smtp-sink")
        yield port, folder
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def postfix_environment():
    return {**os.environ, "LD_LIBRARY_PATH": str(POSTFIX / "usr/lib/postfix")}


POSTFIX_MAIN = """
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
command_directory = {postfix}/usr/sbin
daemon_directory = {postfix}/usr/lib/postfix/sbin
shlib_directory = {postfix}/usr/lib/postfix
meta_directory = {postfix}/etc/postfix
mail_owner = daemon
setgid_group = games
maillog_file = {folder}/log/maillog
maillog_file_prefixes = {folder}
import_environment = MAIL_CONFIG LD_LIBRARY_PATH
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
myhostname = real.example
mydestination =
alias_maps =
alias_database =
local_recipient_maps =
virtual_mailbox_domains = target.example
virtual_mailbox_base = {folder}/mailboxes
virtual_mailbox_maps = inline:{{hidden@target.example=hidden/}}
virtual_uid_maps = static:1
virtual_gid_maps = static:1
virtual_minimum_uid = 1
smtpd_delay_reject = no
"""

POSTFIX_MASTER = """
127.0.0.1:{port} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
error unix - - n - - error
retry unix - - n - - error
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
proxymap unix - - n - - proxymap
postlog unix-dgram n - n - 1 postlogd
"""


@contextlib.contextmanager
def postfix():
    """A whole Postfix of our own with one mailbox, hidden@target.example; gives its port and that maildir."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="postfix-"))
    port = free_port()
    folder.chmod(0o755)
    names = {"folder": folder, "postfix": POSTFIX, "port": port}
    for name in ("config", "data", "log", "mailboxes/hidden"):
        (folder / name).mkdir(parents=True)
    for name in ("incoming", "active", "deferred", "defer", "bounce", "flush", "trace", "hold", "corrupt", "saved",
                 "private", "public", "maildrop", "pid"):
        (folder / "queue" / name).mkdir(parents=True)
    for path in [*folder.glob("queue/*"), *folder.glob("mailboxes/**/"), folder / "data"]:
        shutil.chown(path, "daemon", "daemon")
    shutil.chown(folder / "queue/pid", "root")
    (folder / "config/main.cf").write_text(POSTFIX_MAIN.format(**names))
    (folder / "config/master.cf").write_text(POSTFIX_MASTER.format(**names))
    environment = {**postfix_environment(), "MAIL_CONFIG": str(folder / "config")}
    log = open(folder / "log/master", "wb")
    process = subprocess.Popen(
        [POSTFIX / "usr/lib/postfix/sbin/master", "-c", folder / "config", "-d"],
        env=environment, stderr=log, stdout=log, start_new_session=True,
    )
    try:
        wait_for(lambda: accepts(port) or process.poll() is not None, "Postfix")
        if process.poll() is not None:
            raise RuntimeError("".join(path.read_text() for path in folder.glob("log/*")))
        yield port, folder / "mailboxes/hidden"
    except BaseException:
        print("Postfix's log:", *(path.read_text() for path in folder.glob("log/*")), sep="\n")
        raise
    finally:
        os.killpg(process.pid, 15)
        process.wait()
        log.close()
        shutil.rmtree(folder, ignore_errors=True)
