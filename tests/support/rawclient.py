"""A WebSocket and HTTP client that sends exactly the bytes it is told to: for what no honest client would send.

Blocking, without Twisted: it talks to a daemon in another process, or to a reactor in another thread. Everything that
waits gives up after ``timeout`` seconds.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import socket
import struct
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Self

TEXT, BINARY, CLOSE, PING, PONG, CONTINUATION = 1, 2, 8, 9, 10, 0
KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # RFC 6455 section 1.3
_MAGIC = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

Address = tuple[str, int] | str  # host and port, or the path of a UNIX socket


class Answer(NamedTuple):
    """An HTTP answer. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body."""
        return json.loads(self.body)


class Frame(NamedTuple):
    """A frame as it came."""

    opcode: int
    payload: bytes
    fin: bool = True
    rsv: int = 0

    def json(self) -> Any:
        """The payload of a text frame."""
        assert self.opcode == TEXT, self
        return json.loads(self.payload)


class Closed(NamedTuple):
    """How the server closed: 1005 for a close frame without a code, 1006 for none."""

    code: int
    reason: str = ""


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    mask: bytes | None = b"\x11\x22\x33\x44",
    length: int | None = None,
    size: int | None = None,
) -> bytes:
    """A client's frame, right or wrong: ``mask`` None is unmasked; ``length`` is what the header says instead of the
    truth; ``size`` the bytes that say it (0, 2, 8), instead of the least."""
    told = len(payload) if length is None else length
    if size is None:
        size = 0 if told < 126 else 2 if told < 65536 else 8
    head = bytes([fin << 7 | rsv << 4 | opcode])
    flag = 0x80 if mask is not None else 0
    if size == 0:
        head += bytes([flag | told])
    elif size == 2:
        head += struct.pack("!BH", flag | 126, told)
    else:
        head += struct.pack("!BQ", flag | 127, told)
    if mask is None:
        return head + payload
    repeated = mask * (len(payload) // 4 + 1)
    masked = (int.from_bytes(payload, "big") ^ int.from_bytes(repeated[: len(payload)], "big")).to_bytes(
        len(payload), "big"
    )
    return head + mask + masked


def close_frame(code: int | None = 1000, reason: bytes = b"") -> bytes:
    """A client's close frame."""
    return frame(CLOSE, b"" if code is None else struct.pack("!H", code) + reason)


def upgrade_request(
    target: str = "/ws",
    *,
    host: str = "127.0.0.1",
    key: str = KEY,
    headers: Iterable[tuple[str, str]] = (),
    leave_out: Iterable[str] = (),
    method: str = "GET",
    version: str = "HTTP/1.1",
) -> bytes:
    """An opening handshake, without the headers in ``leave_out`` and with ``headers`` behind the rest."""
    usual = {
        "Host": host,
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": key,
        "Sec-WebSocket-Version": "13",
    }
    fields = [(name, value) for name, value in usual.items() if name not in set(leave_out)] + list(headers)
    lines = [f"{method} {target} {version}", *(f"{name}: {value}" for name, value in fields), "", ""]
    return "\r\n".join(lines).encode("latin-1")


class RawClient:
    """One connection."""

    def __init__(self, address: Address, timeout: float = 10.0, receive_buffer: int | None = None) -> None:
        family = (
            socket.AF_UNIX if isinstance(address, str) else socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        )
        self.sock = socket.socket(family, socket.SOCK_STREAM)
        self.sock.settimeout(timeout)
        if receive_buffer is not None:  # before connect: it decides the window that is offered
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._data = b""
        try:
            self.sock.connect(address)
        except BaseException:
            self.sock.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.sock.close()

    # Out

    def send(self, data: bytes) -> None:
        """These bytes."""
        self.sock.sendall(data)

    def send_text(self, text: str | Mapping[str, Any]) -> None:
        """A text message: as it stands, or an object as JSON."""
        self.send(frame(TEXT, (text if isinstance(text, str) else json.dumps(text)).encode()))

    def finish(self) -> None:
        """FIN: nothing more is sent."""
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """RST: the connection is gone without another word."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    # In

    def answer(self) -> Answer:
        """The next HTTP answer: with its body, where its length is told. 1xx other than 101 are passed over."""
        while True:
            head = self._until(b"\r\n\r\n").decode("latin-1")
            status_line, *lines = head.split("\r\n")
            headers = {
                name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)
            }
            status = int(status_line.split(" ")[1])
            if status == 101 or status >= 200:
                return Answer(status, headers, self._exactly(int(headers.get("content-length", "0"))))

    def request(self, data: bytes) -> Answer:
        """Send, and take the answer."""
        self.send(data)
        return self.answer()

    def upgrade(self, target: str = "/ws", **options: Any) -> Answer:
        """An opening handshake, as ``upgrade_request``. A 101 is checked."""
        answer = self.request(upgrade_request(target, **options))
        if answer.status == 101:
            digest = hashlib.sha1((options.get("key", KEY) + _MAGIC).encode()).digest()
            assert answer.headers["sec-websocket-accept"] == base64.b64encode(digest).decode()
            assert answer.headers["upgrade"].lower() == "websocket"
        return answer

    def frame(self) -> Frame:
        """The next frame. Raises EOFError where there is none any more."""
        first, second = self._exactly(2)
        assert not second & 0x80, "a server does not mask"
        length = second & 0x7F
        if length == 126:
            (length,) = struct.unpack("!H", self._exactly(2))
        elif length == 127:
            (length,) = struct.unpack("!Q", self._exactly(8))
        return Frame(first & 0x0F, self._exactly(length), bool(first & 0x80), first >> 4 & 7)

    def message(self) -> Any:
        """The next text message as JSON; PINGs before it are answered."""
        while True:
            got = self.frame()
            if got.opcode != PING:
                return got.json()
            self.send(frame(PONG, got.payload))

    def closed(self) -> Closed:
        """How the server closes, whatever comes before; the end of the connection is waited for."""
        try:
            while (got := self.frame()).opcode != CLOSE:
                pass
        except (EOFError, ConnectionError):
            return Closed(1006)
        self.ended()
        with contextlib.suppress(OSError):
            self.finish()
        if not got.payload:
            return Closed(1005)
        return Closed(int.from_bytes(got.payload[:2], "big"), got.payload[2:].decode())

    def ended(self) -> bytes:
        """What comes until the server ends the connection. Raises TimeoutError where it does not."""
        try:
            while chunk := self.sock.recv(65536):
                self._data += chunk
        except ConnectionError:
            pass
        rest, self._data = self._data, b""
        return rest

    def _until(self, end: bytes) -> bytes:
        while end not in self._data:
            self._more()
        found, _, self._data = self._data.partition(end)
        return found

    def _exactly(self, size: int) -> bytes:
        while len(self._data) < size:
            self._more()
        found, self._data = self._data[:size], self._data[size:]
        return found

    def _more(self) -> None:
        chunk = self.sock.recv(65536)
        if not chunk:
            raise EOFError(f"the server ended the connection behind {os.fsencode(repr(self._data[-200:]))!r}")
        self._data += chunk
