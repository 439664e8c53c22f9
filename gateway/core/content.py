"""What a record's value is: JSON by the letter, text, or bytes; and whose it is.

``json.loads`` on bytes takes UTF-16, a byte order mark and ``NaN``; what reaches a client as JSON must be what every
JSON parser reads: strict UTF-8 without a mark, RFC 8259, at most 64 deep.
"""

from __future__ import annotations

import enum
import json
import math
from collections.abc import Callable, Sequence

from gateway.model import Record

MAX_DEPTH = 64


class Form(enum.Enum):
    """How a value is shown to clients."""

    JSON = "json"
    TEXT = "text"
    BINARY = "binary"
    NONE = "none"  # no value: a tombstone


def _no_constant(name: str) -> object:
    raise json.JSONDecodeError(f"{name} is not JSON", name, 0)


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError("a number is too large")
    return number


_decode = json.JSONDecoder(parse_constant=_no_constant).decode
# Python refuses to convert integers of more than 4,300 digits; as JSON they are fine, nobody here computes with them.
_decode_long = json.JSONDecoder(parse_constant=_no_constant, parse_int=str).decode
_decode_finite = json.JSONDecoder(parse_constant=_no_constant, parse_float=_finite).decode


def parse(text: str, *, finite: bool = False) -> object:
    """The JSON value of ``text``, strictly; ValueError where it is none, or more than 64 deep. ``finite``: also where a
    number is too large to compute with (``1e999``, more than 4,300 digits)."""
    try:
        try:
            value = _decode_finite(text) if finite else _decode(text)
        except json.JSONDecodeError:
            raise
        except ValueError:
            if finite:
                raise
            value = _decode_long(text)
    except RecursionError:
        raise ValueError("nested too deep") from None
    if text.count("[") + text.count("{") > MAX_DEPTH and _deeper_than(value, MAX_DEPTH):
        raise ValueError("nested too deep")
    return value


def _deeper_than(value: object, depth: int) -> bool:
    level = [value]
    for _ in range(depth):
        level = [
            child
            for parent in level
            if isinstance(parent, (dict, list))
            for child in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(child, (dict, list))
        ]
        if not level:
            return False
    return True


def examine(value: bytes | None) -> tuple[Form, object]:
    """How a value is shown, and the JSON value where it is one."""
    if value is None:
        return Form.NONE, None
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return Form.BINARY, None
    try:
        return Form.JSON, parse(text)
    except ValueError:
        return Form.TEXT, None


# --- whose a record is ---------------------------------------------------------------------------------------------

# Finds the users of a record; takes the record and its parsed value. None: the place named does not exist in it.
Finder = Callable[[Record, object], Sequence[str] | None]


def user_finder(places: Sequence[str]) -> Finder:
    """For ``userFrom``: the first of ``places`` (``value.a.b``, ``key``, ``header.x``) that is there counts."""
    finders = [_finder(place) for place in places]
    if len(finders) == 1:
        return finders[0]

    def first(record: Record, value: object) -> Sequence[str] | None:
        for find in finders:
            users = find(record, value)
            if users is not None:
                return users
        return None

    return first


def _finder(place: str) -> Finder:
    if place == "key":
        return lambda record, _: _text(record.key)
    kind, _, rest = place.partition(".")
    if kind == "header":
        return lambda record, _: _text(_last_header(record, rest))
    path = rest.split(".")
    if len(path) == 1:
        step = path[0]
        return lambda _, value: _users(value[step]) if isinstance(value, dict) and step in value else None
    return lambda _, value: _users_at(value, path)


def _users_at(value: object, path: Sequence[str]) -> Sequence[str] | None:
    for step in path:
        if not isinstance(value, dict) or step not in value:
            return None
        value = value[step]
    return _users(value)


def _users(found: object) -> Sequence[str] | None:
    if isinstance(found, str):
        return (found,) if found else ()
    if isinstance(found, list):
        return tuple(dict.fromkeys(user for item in found if not isinstance(item, list) for user in _users(item) or ()))
    if isinstance(found, int) and not isinstance(found, bool):
        return (str(found),)
    return None if found is None else ()


def _last_header(record: Record, name: str) -> bytes | None:
    # Of a header that stands twice the last one counts, as Kafka's own Headers.lastHeader() has it.
    for key, value in reversed(record.headers):
        if key == name:
            return value
    return None


def _text(raw: bytes | None) -> Sequence[str] | None:
    if not raw:
        return None
    try:
        return (raw.decode(),)
    except UnicodeDecodeError:
        return ()
