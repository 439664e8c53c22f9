"""Frozen values that every floor speaks of: records, log events, names, cursors, principals."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import NamedTuple

import attrs


class Audience(enum.Enum):
    """Who sees a topic's records: one user each, the subscribers of one key each, or everybody."""

    USER = "user"
    KEY = "key"
    EVERYONE = "everyone"


class Encoding(enum.Enum):
    """What a client asked for with ``format``."""

    ENVELOPE = "envelope"
    RAW = "raw"


class Record(NamedTuple):
    """One record of the log. A NamedTuple: made once a record on the hot path, where attrs costs thrice."""

    topic: str
    partition: int
    offset: int
    timestamp: int | None  # ms since 1970, None where the record has none
    key: bytes | None
    value: bytes | None  # None: a tombstone
    headers: tuple[tuple[str, bytes], ...] = ()


# What a LogReader tells, in this order for one topic: Opened, then Fetched and Lost, Opened again for new partitions or
# a new epoch, Deleted. Offsets are Kafka's own.


class Start(NamedTuple):
    """Where reading of a partition begins (``first``); records below ``live`` are warm-up, for those who ask only."""

    first: int
    live: int


@attrs.frozen
class Opened:
    """A topic, or more partitions of it, is read from here. Another ``epoch`` than before: the topic was made anew."""

    topic: str
    epoch: str
    partitions: Mapping[int, Start]


class Fetched(NamedTuple):
    """What one poll brought of a partition. Everything from the last ``next`` up to this one has been read, so offsets
    without a record are no gap. ``end`` is the log's end (high watermark) as the last fetch answer told it."""

    topic: str
    partition: int
    records: tuple[Record, ...]
    next: int
    end: int


@attrs.frozen
class Lost:
    """Retention overtook the reader: the offsets from ``first`` (inclusive) to ``next`` (exclusive) are gone."""

    topic: str
    partition: int
    first: int
    next: int


@attrs.frozen
class Deleted:
    """The topic is no longer there. Its subscriptions stay; nothing comes until it is opened again."""

    topic: str


LogEvent = Opened | Fetched | Lost | Deleted


class Health(enum.Enum):
    """How a part of the gateway is, as ``/readyz`` names it."""

    OK = "ok"
    DEGRADED = "degraded"
    FAILED = "failed"


class Written(NamedTuple):
    """Where the log put a record."""

    partition: int
    offset: int


class Name(NamedTuple):
    """What a client subscribes to: a topic, or one key of it (``docs/protocol.md``, Names). ``key`` is decoded."""

    topic: str
    key: str | None = None


@attrs.frozen
class Cursor:
    """A client's entry of ``since``: the next offset wanted of each partition, and the epoch these belong to."""

    epoch: str | None
    position: Mapping[int, int]


@attrs.frozen
class Grants:
    """Names, perhaps with ``*``, that a token allows; made by ``core/access.py``. ``defaulted``: from the
    configuration, the claim being absent; a ``*`` of these never reaches a keyed topic."""

    patterns: tuple[str, ...]
    defaulted: bool = False
    exact: frozenset[str] = attrs.field(init=False, eq=False, repr=False)  # without *: one look-up for all of them
    wild: tuple[str, ...] = attrs.field(init=False, eq=False, repr=False)  # with *

    @exact.default
    def _exact(self) -> frozenset[str]:
        return frozenset(pattern for pattern in self.patterns if "*" not in pattern)

    @wild.default
    def _wild(self) -> tuple[str, ...]:
        return tuple(pattern for pattern in self.patterns if "*" in pattern)


@attrs.frozen
class Principal:
    """Who a token speaks for. ``expires_at`` is ``exp``, in seconds since 1970 (None only with ``auth.mode: none``);
    ``ends_at`` is when its sessions end: ``exp`` plus leeway."""

    user: str
    topics: Grants
    publish: Grants
    expires_at: float | None
    ends_at: float | None


class GapReason(enum.Enum):
    """Why records are missing (``docs/protocol.md``, GAP)."""

    WINDOW = "window"
    EXPIRED = "expired"
    RECREATED = "recreated"
    TOO_LARGE = "too_large"


class Gap(NamedTuple):
    """Offsets of a partition that a client will not get: from ``first`` (inclusive) to ``next`` (exclusive)."""

    partition: int
    first: int
    next: int
    reason: GapReason
