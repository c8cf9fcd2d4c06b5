"""The line between a node and its Redis, where a test cuts it or leads it elsewhere."""

import contextlib
import socket
import threading


class Line:
    """Hands everything on to port `to` of this machine. A context manager."""

    def __init__(self, to):
        self.to = to
        self.is_mute = False
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.ends = []

    def __enter__(self):
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.listener.close()
        self.cut()

    def cut(self):
        """All connections end."""
        for end in self.ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self.ends = []

    def _serve(self):
        with contextlib.suppress(OSError):  # the listener is closed: the test is over
            while True:
                client, _ = self.listener.accept()
                try:
                    server = socket.create_connection(("127.0.0.1", self.to))
                except OSError:
                    client.close()
                    continue
                self.ends += [client, server]
                for source, sink, is_answer in ((client, server, False), (server, client, True)):
                    source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    threading.Thread(target=self._pump, args=(source, sink, is_answer), daemon=True).start()

    def _pump(self, source, sink, is_answer):
        # A connection that was mute once stays so, as one whose other half is gone.
        heard = True
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                heard = heard and not (is_answer and self.is_mute)
                if heard:
                    sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
