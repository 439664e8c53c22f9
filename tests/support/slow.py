"""Clients that read slowly or not at all, and what the gateway holds for them."""

from __future__ import annotations

import json
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.conversation import path
from tests.support.daemon import Daemon, until
from tests.support.hostile import Target
from tests.support.rawclient import CLOSE, PING, PONG, TEXT, Frame, RawClient, frame

RATE = 1000  # bytes a second of a slow reader
STEP = 0.1  # seconds between two reads
DEADLINE = 60.0  # seconds that anything awaited while reading may take


class Reader(RawClient):
    """A client that reads at its own pace, and answers each PING when it comes to it. ``taken``: what it has read."""

    def __init__(self, address: tuple[str, int], timeout: float = 10.0, receive_buffer: int | None = None) -> None:
        super().__init__(address, timeout, receive_buffer)
        self.taken: list[Frame] = []
        self.pongs = True  # False: it never answers

    def trickle(self, over: Callable[[], object], rate: int = RATE) -> None:
        """Read ``rate`` bytes a second until ``over``. The pace is the clock's, whatever ``over`` takes."""
        started, read = time.monotonic(), 0
        end = started + DEADLINE
        self.sock.settimeout(STEP)
        while not over():
            assert time.monotonic() < end, f"not within {DEADLINE} s"
            due = int((time.monotonic() - started) * rate) - read
            if due > 0:
                try:
                    chunk = self.sock.recv(due)
                except TimeoutError:
                    started, read = time.monotonic(), 0  # what it did not get it does not get later
                    continue
                assert chunk, "the gateway ended the connection"
                read += len(chunk)
                self._data += chunk
                self._take()
            time.sleep(STEP)
        self.sock.settimeout(10.0)

    def read_until(self, wanted: Callable[[Frame], object]) -> list[Frame]:
        """Read as fast as it comes until a frame is ``wanted``; everything that was ever read."""
        while not (self.taken and wanted(self.taken[-1])):
            while not self._whole():
                self._more()
            self._take_one()
        return self.taken

    def records(self) -> list[dict[str, Any]]:
        """The MESSAGE and GAP frames among what was read."""
        told = [got.json() for got in self.taken if got.opcode == TEXT]
        return [message for message in told if message["type"] in ("MESSAGE", "GAP")]

    def code(self) -> int:
        """Read to the close frame, which must be the last thing that comes; its code."""
        last = self.read_until(lambda got: got.opcode == CLOSE)[-1]
        assert self.ended() == b""
        (code,) = struct.unpack("!H", last.payload[:2])
        return int(code)

    def _take(self) -> None:
        while self._whole():
            self._take_one()

    def _take_one(self) -> None:
        got = self.frame()
        if got.opcode == PING and self.pongs:
            self.send(frame(PONG, got.payload))
        self.taken.append(got)

    def _whole(self) -> bool:
        if len(self._data) < 10:
            return len(self._data) >= 2 and self._data[1] < 126 and len(self._data) >= 2 + self._data[1]
        head = {126: 4, 127: 10}.get(self._data[1], 2)
        length = self._data[1] if head == 2 else int.from_bytes(self._data[2:head], "big")
        return len(self._data) >= head + length


@contextmanager
def reader(target: Target, user: str = "tortoise", receive_buffer: int | None = None, **query: str) -> Iterator[Reader]:
    """An open session, its CONNECTED taken."""
    with Reader((target.daemon.host, target.daemon.port), receive_buffer=receive_buffer) as client:
        assert client.upgrade(path(target, user, **query)).status == 101
        assert client.message()["type"] == "CONNECTED"
        yield client


class Firehose:
    """Publishes records of ``size`` bytes, ``rate`` a second, in a thread, inside of the context."""

    def __init__(self, daemon: Daemon, topic: str, size: int, rate: float) -> None:
        self.last = -1  # offset
        self._daemon, self._topic, self._text, self._pause = daemon, topic, "x" * size, 1 / rate
        self._over = threading.Event()
        self._problem: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Firehose:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        assert self._problem is None

    def _run(self) -> None:
        due = time.monotonic()
        try:
            while not self._over.wait(max(0.0, due - time.monotonic())):
                due += self._pause
                _, self.last = self._daemon.publish(self._topic, self._text)
        except BaseException as problem:
            self._problem = problem


def burst(daemon: Daemon, topic: str, size: int, count: int) -> int:
    """Publish so many records; the offset of the last."""
    last = -1
    for _ in range(count):
        _, last = daemon.publish(topic, "x" * size)
    return last


def behind(target: Target) -> int:
    """How many sessions cannot be pushed to."""
    return int(target.daemon.metrics()["ws_gateway_websocket_sessions_behind"])


def turned_behind(target: Target) -> float:
    """When a session did (monotonic seconds); it is waited for."""
    until(lambda: behind(target), "it is behind")
    return time.monotonic()


def contiguous(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each record once, in order, and what is missing is told; the gaps."""
    gaps = [gap for record in records if record["type"] == "GAP" for gap in record["gaps"]]
    next = None
    for record in records:
        if record["type"] == "GAP":
            (gap,) = record["gaps"]
            assert next in (None, gap["from"]), json.dumps(record)[:200]
            next = gap["to"]
        else:
            assert next in (None, record["offset"]), json.dumps(record)[:200]
            next = record["offset"] + 1
    return gaps
