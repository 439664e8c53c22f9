"""What clients send, as values: text in, a command out (``docs/protocol.md``, *Client to server*).

JSON that is no JSON by the letter is refused (``core/content.py``); of a key that stands twice the last one counts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from gateway.core import names
from gateway.core.content import parse
from gateway.errors import Kind, Refused
from gateway.model import Cursor, Name

MAX_ID = 64  # bytes
_SHOWN = 32  # characters of a type that an answer repeats


@attrs.frozen
class Subscribe:
    names: tuple[Name, ...]
    since: dict[Name, Cursor] | None
    id: str | None = None
    type = "SUBSCRIBE"


@attrs.frozen
class Unsubscribe:
    names: tuple[Name, ...]
    id: str | None = None
    type = "UNSUBSCRIBE"


@attrs.frozen
class Refresh:
    token: str = attrs.field(repr=False)
    id: str | None = None
    type = "REFRESH"


@attrs.frozen
class Ping:
    id: str | None = None
    type = "PING"


@attrs.frozen
class Disconnect:
    id: str | None = None
    type = "DISCONNECT"


Command = Subscribe | Unsubscribe | Refresh | Ping | Disconnect


@attrs.frozen
class Bad:
    """A message that is no command: what to answer, and to what."""

    error: Refused
    type: str | None = None
    id: str | None = None


def read(payload: bytes) -> Command | Bad:
    """The command that a text message holds."""
    try:
        message = parse(payload.decode(), finite=True)
    except ValueError:
        return Bad(Refused("the message is not JSON, more than 64 deep, or has too large a number", Kind.BAD_JSON))
    if not isinstance(message, dict):
        return Bad(Refused("the message is not an object", Kind.BAD_MESSAGE))
    kind = message.get("type")
    shown = kind if isinstance(kind, str) and len(kind) <= _SHOWN else None
    try:
        id = _id(message)
    except Refused as wrong:
        return Bad(wrong, shown)
    make = _COMMANDS.get(kind) if isinstance(kind, str) else None
    if make is None:
        return Bad(Refused(f"type is none of {', '.join(_COMMANDS)}", Kind.UNKNOWN_TYPE), shown, id)
    try:
        return make(message, id, len(payload))
    except Refused as wrong:
        return Bad(wrong, shown, id)


def _id(message: dict[str, Any]) -> str | None:
    id = message.get("id")
    if id is None:
        return None
    if not isinstance(id, str) or len(id.encode("utf-8", "surrogatepass")) > MAX_ID:
        raise Refused(f"id is not a string of at most {MAX_ID} bytes", Kind.BAD_MESSAGE)
    return id


def _names(message: dict[str, Any]) -> tuple[Name, ...]:
    topics = message.get("topics")
    if not isinstance(topics, list) or not all(isinstance(topic, str) for topic in topics):
        raise Refused("topics is not a list of strings", Kind.BAD_MESSAGE)
    if not topics:
        raise Refused("topics is empty", Kind.INVALID_TOPICS)
    return names.parse_all(topics)


def _subscribe(message: dict[str, Any], id: str | None, size: int) -> Command:
    since = message.get("since")
    if since is not None and not isinstance(since, str):
        raise Refused("since is not a string", Kind.BAD_MESSAGE)
    return Subscribe(_names(message), names.parse_since(since, size) if since is not None else None, id)


def _unsubscribe(message: dict[str, Any], id: str | None, size: int) -> Command:
    return Unsubscribe(_names(message), id)


def _refresh(message: dict[str, Any], id: str | None, size: int) -> Command:
    token = message.get("token")
    if not isinstance(token, str):
        raise Refused("token is not a string", Kind.BAD_MESSAGE)
    return Refresh(token, id)


_COMMANDS: dict[str, Callable[[dict[str, Any], str | None, int], Command]] = {
    "SUBSCRIBE": _subscribe,
    "UNSUBSCRIBE": _unsubscribe,
    "REFRESH": _refresh,
    "PING": lambda message, id, size: Ping(id),
    "DISCONNECT": lambda message, id, size: Disconnect(id),
}
