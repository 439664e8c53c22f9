"""A TCP relay between a client and the gateway that a test can cut: as a network that goes away and comes back."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType
from typing import Self


class Relay:
    """Passes bytes from its own ``port`` on to ``target`` of 127.0.0.1. A context manager."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._is_cut = False
        self._threads = [threading.Thread(target=self._accept)]

    def cut(self) -> None:
        """End every connection, without a close frame; new ones end at once."""
        with self._lock:
            self._is_cut = True
            for sock in self._open:
                _shut(sock)

    def mend(self) -> None:
        """Let connections through again."""
        with self._lock:
            self._is_cut = False

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _shut(self._listener)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(10)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # the end
                return
            self._connect(client)

    def _connect(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(("127.0.0.1", self._target), 5)
        except OSError:  # the gateway is away
            client.close()
            return
        server.settimeout(None)
        with self._lock:
            self._open |= {client, server}
            if self._is_cut:
                _shut(client)
                _shut(server)
        # Each direction closes what it reads from, once the other end has been told.
        for source, sink in ((client, server), (server, client)):
            thread = threading.Thread(target=self._pass_on, args=(source, sink))
            self._threads.append(thread)
            thread.start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        with self._lock:
            _shut(sink)
            self._open.discard(source)
            source.close()


def _shut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
