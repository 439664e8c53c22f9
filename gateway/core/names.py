"""Names and cursors as text: one spelling each, whoever writes it (``docs/protocol.md``, Names and ``since``).

A name is a topic, or ``topic/key``. As there is one spelling only, the index of subscribers and the grants of tokens
compare plain strings, and no second spelling slips past a check that saw the first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import quote_from_bytes, unquote_to_bytes

from gateway.errors import Kind, Refused
from gateway.model import Cursor, Name

MAX_KEY_BYTES = 255
"""Of a key, decoded: UTF-8 bytes."""

MAX_LIST_LENGTH = 32 * 1024
"""Characters of a comma-separated list. A request's head is smaller, so this costs nobody; it bounds the work."""

MAX_URL_SINCE = 4 * 1024
"""Characters of ``since`` on the URL; SUBSCRIBE takes what its message size allows."""

_MAX_TOPIC = 249  # Kafka: org.apache.kafka.common.internals.Topic
_MAX_NAME = _MAX_TOPIC + 1 + 3 * MAX_KEY_BYTES
_MAX_PARTITION = 2**31 - 1
_MAX_OFFSET = 2**63 - 1
_SHOWN = 64  # characters of a client's input that a message repeats

_TOPIC = re.compile(rf"[a-zA-Z0-9._-]{{1,{_MAX_TOPIC}}}")
_KEY = re.compile(r"(?:[A-Za-z0-9._-]|%[0-9A-F]{2})*")
_EPOCH = re.compile(r"[A-Za-z0-9._-]{1,64}")
_OFFSET = re.compile(r"(0|[1-9][0-9]{0,9}):(0|[1-9][0-9]{0,18})")


def parse(text: str) -> Name:
    """The name that ``text`` spells; raises :class:`Refused` (INVALID_TOPICS) for any other text."""
    return _parse(text, Kind.INVALID_TOPICS)


def parse_all(texts: Iterable[str]) -> tuple[Name, ...]:
    """As :func:`parse` for each; a name that stands twice is taken once, the order is kept."""
    return tuple(_parse(text, Kind.INVALID_TOPICS) for text in dict.fromkeys(texts))


def parse_list(text: str) -> tuple[Name, ...]:
    """Names joined by commas, after the query's one decoding. Empty text: none; an empty item is no name, so commas
    alone are refused."""
    if len(text) > MAX_LIST_LENGTH:
        raise Refused(f"the list of names is longer than {MAX_LIST_LENGTH} characters", Kind.INVALID_TOPICS)
    return parse_all(text.split(",")) if text else ()


def spell(name: Name) -> str:
    """The one spelling of ``name``; the inverse of :func:`parse`."""
    return name.topic if name.key is None else f"{name.topic}/{spell_key(name.key)}"


def spell_key(key: str) -> str:
    """``key`` as it stands behind the slash: only ``A-Z a-z 0-9 . _ -`` bare, every other byte ``%XX`` in capitals."""
    return quote_from_bytes(key.encode(), safe="").replace("~", "%7E")  # RFC 3986 leaves ~ bare, names do not


def is_topic(text: str) -> bool:
    """Whether clients may name this topic: a Kafka topic name, and none of those that Kafka and its tools keep for
    themselves (``__consumer_offsets``, ``_schemas``), whatever a token or the configuration says."""
    return _TOPIC.fullmatch(text) is not None and text not in (".", "..", "_schemas") and not text.startswith("__")


def parse_since(text: str, limit: int = MAX_URL_SINCE) -> dict[Name, Cursor] | None:
    """``name~epoch@partition:offset,...;name@...`` as cursors by name; None for ``latest``.

    Raises :class:`Refused` (BAD_SINCE) for everything else, and for more than ``limit`` characters.
    """
    if text == "latest":
        return None
    if len(text) > limit:
        raise _bad_since(f"is longer than {limit} characters")
    if "@" not in text:
        raise _bad_since("is neither latest nor a cursor; earliest, -N, a time and state are not available")
    cursors: dict[Name, Cursor] = {}
    for entry in text.split(";"):
        name, cursor = _parse_entry(entry)
        if name in cursors:
            raise _bad_since(f"has {_shown(spell(name))} twice")
        cursors[name] = cursor
    return cursors


def spell_cursor(name: Name, cursor: Cursor) -> str:
    """One entry of ``since``; several are joined by ``;``. Needs at least one partition in ``cursor``."""
    epoch = "" if cursor.epoch is None else f"~{cursor.epoch}"
    position = ",".join(f"{partition}:{offset}" for partition, offset in sorted(cursor.position.items()))
    return f"{spell(name)}{epoch}@{position}"


def _parse(text: str, kind: Kind) -> Name:
    topic, slash, spelt = text.partition("/")
    if len(text) > _MAX_NAME or not is_topic(topic) or (slash and not _KEY.fullmatch(spelt)):
        raise Refused(f"{_shown(text)} is not a name", kind)
    if not slash:
        return Name(topic)
    if "%" not in spelt:  # the usual case
        key = spelt
    else:
        try:
            key = unquote_to_bytes(spelt).decode()
        except UnicodeDecodeError:
            raise Refused(f"the key of {_shown(text)} is not UTF-8", kind) from None
        if spell_key(key) != spelt:
            raise Refused(f"{_shown(text)} has another spelling: only bytes other than A-Z a-z 0-9 . _ - are %XX", kind)
    if len(key.encode()) > MAX_KEY_BYTES:
        raise Refused(f"the key of {_shown(text)} is longer than {MAX_KEY_BYTES} bytes", kind)
    return Name(topic, key)


def _parse_entry(entry: str) -> tuple[Name, Cursor]:
    head, at, offsets = entry.partition("@")
    spelt, tilde, epoch = head.partition("~")
    if not at or (tilde and not _EPOCH.fullmatch(epoch)):
        raise _bad_since(f"has an entry that is not name~epoch@partition:offset,...: {_shown(entry)}")
    position: dict[int, int] = {}
    for pair in offsets.split(","):
        match = _OFFSET.fullmatch(pair)
        if match is None:
            raise _bad_since(f"has {_shown(pair)} where partition:offset belongs")
        partition, offset = int(match[1]), int(match[2])
        if partition > _MAX_PARTITION or offset > _MAX_OFFSET or partition in position:
            raise _bad_since(f"has a partition twice, or a number that is too large, at {_shown(pair)}")
        position[partition] = offset
    return _parse(spelt, Kind.BAD_SINCE), Cursor(epoch if tilde else None, position)


def _bad_since(problem: str) -> Refused:
    return Refused(f"since {problem}", Kind.BAD_SINCE)


def _shown(text: str) -> str:
    """What a message may repeat of a client's input: its beginning, escaped, so that it does no harm in a log."""
    return f"{text!a}" if len(text) <= _SHOWN else f"{text[:_SHOWN]!a}..."
