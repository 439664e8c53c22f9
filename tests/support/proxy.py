"""A TCP proxy of the tests' own: it delays, stalls and cuts what goes through it, and can be pointed elsewhere."""

from __future__ import annotations

import selectors
import socket
import threading
import time
from collections import deque
from contextlib import suppress

import attrs

CHUNK = 65536
TURN = 0.01  # s between looks at what is delayed


@attrs.define(eq=False)
class _Way:
    """One direction of a connection: what was read from ``source`` and is not yet written to ``sink``."""

    source: socket.socket
    sink: socket.socket
    waiting: deque[tuple[float, bytes]] = attrs.Factory(deque)  # with the time it came
    ended: bool = False  # the source has said its last


class Proxy:
    """Listens at ``port`` of 127.0.0.1 and hands on to ``target``. Start by ``with``."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.delay = 0.0  # s that each byte takes, in both directions
        self.stalled = False  # connections stay, nothing goes through; new ones are accepted, and stall too
        self.refusing = False  # new connections are closed at once
        self._ways: list[_Way] = []
        self._lock = threading.Lock()
        self._ending = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def address(self) -> str:
        """As a bootstrap address."""
        return f"127.0.0.1:{self.port}"

    def point_at(self, target: int) -> None:
        """Hand new connections on to this port."""
        self._target = target

    def cut(self) -> None:
        """End all connections, with a reset; new ones are taken."""
        with self._lock:
            for way in self._ways:
                with suppress(OSError):
                    way.source.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                way.source.close()
            self._ways = []

    def connections(self) -> int:
        """How many there are."""
        return len(self._ways) // 2

    def __enter__(self) -> Proxy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending = True
        self._thread.join(5)
        self.cut()
        self._listener.close()

    def _run(self) -> None:
        while not self._ending:
            with selectors.DefaultSelector() as selector:
                selector.register(self._listener, selectors.EVENT_READ)
                with self._lock:
                    ways = list(self._ways)
                    if not self.stalled:
                        for way in ways:
                            if not way.ended and len(way.waiting) < 64 and way.source.fileno() >= 0:
                                selector.register(way.source, selectors.EVENT_READ, way)
                for key, _ in selector.select(TURN):
                    self._accept() if key.data is None else self._take(key.data)
            if not self.stalled:
                for way in ways:
                    self._give(way)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        try:
            if self.refusing:
                raise ConnectionRefusedError
            server = socket.create_connection(("127.0.0.1", self._target), 1)
        except OSError:
            client.close()
            return
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            end.setblocking(False)
        with self._lock:
            self._ways += [_Way(client, server), _Way(server, client)]

    def _take(self, way: _Way) -> None:
        try:
            data = way.source.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        way.ended = not data
        way.waiting.append((time.monotonic(), data))
        if not self.delay:
            self._give(way)

    def _give(self, way: _Way) -> None:
        while way.waiting and time.monotonic() >= way.waiting[0][0] + self.delay:
            at, data = way.waiting.popleft()
            try:
                if not data:
                    way.sink.shutdown(socket.SHUT_WR)
                    self._drop_if_over(way)
                    continue
                sent = way.sink.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                self._drop(way)
                return
            if sent < len(data):
                way.waiting.appendleft((at, data[sent:]))
                return

    def _drop_if_over(self, way: _Way) -> None:
        if all(other.ended and not other.waiting for other in self._both(way)):
            self._drop(way)

    def _both(self, way: _Way) -> list[_Way]:
        return [other for other in self._ways if {other.source, other.sink} == {way.source, way.sink}]

    def _drop(self, way: _Way) -> None:
        with self._lock:
            gone = self._both(way)
            self._ways = [other for other in self._ways if other not in gone]
        for end in (way.source, way.sink):
            end.close()
