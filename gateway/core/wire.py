"""What clients see: records and events as finished WebSocket frames, one :class:`Codec` an encoding.

A codec owns all that is on the wire of its clients. Frames go from server to client, so they bear no mask
(RFC 6455 section 5.1) and one joined ``bytes`` serves any number of clients.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping
from json.encoder import encode_basestring, encode_basestring_ascii
from typing import Protocol

from gateway.core.content import Form

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10  # RFC 6455 section 11.8

_dumps = json.JSONEncoder(separators=(",", ":"), check_circular=False, allow_nan=False).encode


def frame(payload: bytes, opcode: int = TEXT) -> bytes:
    """One final, unmasked frame (RFC 6455 section 5.2)."""
    size = len(payload)
    if size < 126:
        return bytes((0x80 | opcode, size)) + payload
    if size < 65536:
        return b"%c\x7e%b%b" % (0x80 | opcode, size.to_bytes(2, "big"), payload)
    return b"%c\x7f%b%b" % (0x80 | opcode, size.to_bytes(8, "big"), payload)


def close_frame(code: int, reason: str = "") -> bytes:
    """A close frame; the reason is cut at the 123 bytes that fit (RFC 6455 section 5.5)."""
    text = reason.encode()[:123].decode(errors="ignore").encode()
    return frame(code.to_bytes(2, "big") + text, CLOSE)


def timestamp(ms: int) -> str | None:
    """RFC 3339 in UTC with milliseconds; None where the year has not four digits."""
    seconds, rest = divmod(ms, 1000)
    try:
        t = time.gmtime(seconds)
    except (OverflowError, OSError, ValueError):
        return None
    if not 0 <= t.tm_year <= 9999:
        return None
    return f"{t.tm_year:04}-{t.tm_mon:02}-{t.tm_mday:02}T{t.tm_hour:02}:{t.tm_min:02}:{t.tm_sec:02}.{rest:03}Z"


class Viewed(Protocol):
    """What a codec needs of a window's entry to show it."""

    partition: int
    offset: int
    timestamp: int | None
    key: bytes | None
    value: bytes | None
    form: Form


class Codec(Protocol):
    """One encoding. ``slot`` is where an entry keeps its view."""

    slot: int
    tells_gaps: bool  # False: a client of this encoding cannot be told of a gap, so its session ends

    def record(self, topic: str, entry: Viewed) -> bytes:
        """The frame of one record; empty where clients of this encoding are not shown it."""

    def event(self, body: Mapping[str, object]) -> bytes:
        """The frame of anything else (``core/events.py``); empty where clients of this encoding have no such frames."""


class Envelope:
    """``format=envelope``: JSON objects with a ``type``."""

    slot = 0
    tells_gaps = True

    def __init__(self) -> None:
        self._heads: dict[tuple[str, int], bytes] = {}
        self._second: int | None = None  # the last second that was spelt, since neighbours in a log share it
        self._spelt = b""

    def record(self, topic: str, entry: Viewed) -> bytes:
        head = self._heads.get((topic, entry.partition))
        if head is None:
            text = f'{{"type":"MESSAGE","topic":{_dumps(topic)},"partition":{entry.partition},"offset":'
            head = self._heads[topic, entry.partition] = text.encode()
        return frame(
            b'%b%d,"timestamp":%b,"key":%b,"data":%b}'
            % (head, entry.offset, self._timestamp(entry.timestamp), _key(entry.key), _data(entry))
        )

    def event(self, body: Mapping[str, object]) -> bytes:
        return frame(_dumps(body).encode())

    def _timestamp(self, ms: int | None) -> bytes:
        if ms is None:
            return b"null"
        second = ms // 1000
        if second != self._second:
            spelt = timestamp(second * 1000)
            if spelt is None:
                return b"null"
            self._second, self._spelt = second, spelt[:-4].encode()
        return b'"%b%03dZ"' % (self._spelt, ms % 1000)


def _key(key: bytes | None) -> bytes:
    if key is None:
        return b"null"
    try:
        return encode_basestring_ascii(key.decode()).encode()
    except UnicodeDecodeError:
        return b'"%b","keyEncoding":"base64"' % base64.b64encode(key)


def _data(entry: Viewed) -> bytes:
    form, value = entry.form, entry.value
    if value is None:
        return b'null,"tombstone":true'
    if form is Form.JSON:
        return value
    if form is Form.TEXT:
        return encode_basestring(value.decode()).encode() + b',"encoding":"text"'
    return b'"%b","encoding":"base64"' % base64.b64encode(value)


class Raw:
    """``format=raw``: a record's value as it stands in the log, and nothing else."""

    slot = 1
    tells_gaps = False

    def record(self, topic: str, entry: Viewed) -> bytes:
        value = entry.value
        if value is None:
            return b""
        try:
            value.decode()
        except UnicodeDecodeError:
            return frame(value, BINARY)
        return frame(value)

    def event(self, body: Mapping[str, object]) -> bytes:
        return b""
