"""Kinds of configuration values: what a key may hold, how it is read, and how it is written in a file.

A kind takes what the YAML file or the environment gave and returns the value that the program works with (durations as
float seconds, sizes as int bytes). It raises :class:`InvalidValueError`, whose text says what is right where that is
more than ``allowed`` says. Reading is strict: ``true`` is no number, and neither is ``"10"`` in a file; the environment
has only text, so there text is read.
"""

from __future__ import annotations

import enum
import ipaddress
import json
import re
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

import attrs

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

_WHOLE = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,18})")
_SIZE = re.compile(r"([0-9]{1,15})(B|KiB|MiB|GiB)?")
_DURATION = re.compile(r"(?:([0-9]{1,9})h)?(?:([0-9]{1,9})m)?(?:([0-9]{1,9}(?:\.[0-9]{1,6})?)s)?(?:([0-9]{1,9})ms)?")
_HALF = re.compile("[\ud800-\udfff]")  # of a surrogate pair: what the environment has for bytes that are no UTF-8
_PLAIN = re.compile(r"[A-Za-z_/][A-Za-z0-9_./-]*|[0-9]+(\.[0-9]+){3}")
_WORDS = ("true", "false", "yes", "no", "on", "off", "null")
_UNITS = {None: 1, "B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class InvalidValueError(ValueError):
    """The value is not one of its kind. The text, where there is one, says what would be better than ``allowed`` does.
    ``index`` and ``found`` name the element of a list that is wrong."""

    def __init__(self, advice: str = "", index: int | None = None, found: object = None) -> None:
        super().__init__(advice)
        self.index = index
        self.found = found


class EnvText(str):
    """Text from the environment, which has no other type."""

    __slots__ = ()


@attrs.frozen
class Odd:
    """A YAML scalar that YAML versions read differently (``010``, ``1:30``, a date): no kind takes it unquoted."""

    text: str


class Kind(Protocol[T_co]):
    """What one key may hold."""

    @property
    def allowed(self) -> str:
        """Says so in words that follow "allowed: "."""

    def read(self, value: object) -> T_co:
        """The value, or InvalidValueError."""

    def show(self, value: Any) -> str:
        """The value as it is written in a YAML file."""


@attrs.frozen
class Text:
    """Text, perhaps of a pattern."""

    allowed: str = "text"
    pattern: str = r"[^\x00-\x1f\x7f]{1,4096}"

    def read(self, value: object) -> str:
        """The text itself; blanks around it count."""
        if isinstance(value, bool | int | float | Odd):
            raise InvalidValueError(f"allowed: {self.allowed}, in quotes where it looks like something else")
        if not isinstance(value, str) or not re.fullmatch(self.pattern, value) or _HALF.search(value):
            raise InvalidValueError
        return str(value)

    def show(self, value: str) -> str:
        """Quoted where YAML would take it for something else, or might."""
        plain = _PLAIN.fullmatch(value) and value.lower() not in _WORDS
        return value if plain else json.dumps(value, ensure_ascii=False)


@attrs.frozen
class Flag:
    """true or false."""

    allowed: str = "true or false"

    def read(self, value: object) -> bool:
        """Only the two words; ``yes`` and ``on`` are true in a YAML file as well."""
        if isinstance(value, EnvText) and value.lower() in ("true", "false"):
            return value.lower() == "true"
        if not isinstance(value, bool):
            raise InvalidValueError
        return value

    def show(self, value: bool) -> str:
        """The word."""
        return "true" if value else "false"


@attrs.frozen
class Whole:
    """A whole number within bounds."""

    low: int
    high: int

    @property
    def allowed(self) -> str:
        """The bounds."""
        return f"a whole number from {self.low} to {self.high}"

    def read(self, value: object) -> int:
        """Decimal digits only."""
        if isinstance(value, EnvText) and _WHOLE.fullmatch(value):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not self.low <= value <= self.high:
            raise InvalidValueError
        return value

    def show(self, value: int) -> str:
        """Decimal digits."""
        return str(value)


@attrs.frozen
class Size:
    """A number of bytes within bounds."""

    low: int
    high: int

    @property
    def allowed(self) -> str:
        """The bounds."""
        return f"a size from {self.show(self.low)} to {self.show(self.high)}, as 64KiB, 1MiB, 1GiB or plain bytes"

    def read(self, value: object) -> int:
        """Bytes."""
        if isinstance(value, str) and (match := _SIZE.fullmatch(value)):
            if match[2] is None and not isinstance(value, EnvText):
                raise InvalidValueError  # "10" in quotes is no number
            value = int(match[1]) * _UNITS[match[2]]
        if isinstance(value, bool) or not isinstance(value, int) or not self.low <= value <= self.high:
            raise InvalidValueError
        return value

    def show(self, value: int) -> str:
        """The largest unit that divides it."""
        for unit in ("GiB", "MiB", "KiB"):
            if value and value % _UNITS[unit] == 0:
                return f"{value // _UNITS[unit]}{unit}"
        return str(value)


@attrs.frozen
class Duration:
    """A time span within bounds, in seconds; ``zero`` says what 0 means where it is allowed beside them."""

    low: float
    high: float
    zero: str | None = None

    @property
    def allowed(self) -> str:
        """The bounds."""
        zero = f", or 0 ({self.zero})" if self.zero else ""
        return f"a duration from {self.show(self.low)} to {self.show(self.high)}{zero}, as 500ms, 10s, 1m30s, 24h"

    def read(self, value: object) -> float:
        """Seconds."""
        if (type(value) is int or isinstance(value, EnvText)) and str(value) == "0":
            value = "0s"
        if type(value) is int or type(value) is float or (isinstance(value, EnvText) and _WHOLE.fullmatch(value)):
            raise InvalidValueError(f"a unit is missing; allowed: {self.allowed}")
        match = _DURATION.fullmatch(value) if isinstance(value, str) and value else None
        if match is None:
            raise InvalidValueError
        hours, minutes, seconds, millis = (float(part or 0) for part in match.groups())
        total = round(hours * 3600 + minutes * 60 + seconds + millis / 1000, 6)
        if not (self.low <= total <= self.high or (total == 0 and self.zero)):
            raise InvalidValueError
        return total

    def show(self, value: float) -> str:
        """As an operator would write it: 1m30s."""
        if value and value < 1:
            return f"{value * 1000:g}ms"
        minutes, seconds = divmod(value, 60)
        hours, minutes = divmod(minutes, 60)
        parts = [(hours, "h"), (minutes, "m"), (seconds, "s")]
        return "".join(f"{number:.9g}{unit}" for number, unit in parts if number) or "0s"


@attrs.frozen
class Choice(Generic[T]):
    """One of some words, or of an Enum whose values are words."""

    options: tuple[T, ...]

    @property
    def allowed(self) -> str:
        """The words."""
        words = [self.show(option) for option in self.options]
        return f"{', '.join(words[:-1])} or {words[-1]}"

    def read(self, value: object) -> T:
        """Exactly one of them, in its own case."""
        for option in self.options:
            if isinstance(value, str) and value == self.show(option):
                return option
        raise InvalidValueError

    def show(self, value: T) -> str:
        """The word."""
        return str(value.value if isinstance(value, enum.Enum) else value)


@attrs.frozen
class Parsed(Generic[T]):
    """Text that a function turns into a value; it raises InvalidValueError."""

    allowed: str
    parse: Callable[[str], T]

    def read(self, value: object) -> T:
        """What the function makes of it."""
        return self.parse(Text(self.allowed).read(value))

    def show(self, value: T) -> str:
        """As a file would have it."""
        return Text().show(str(value))


@attrs.frozen
class Maybe(Generic[T]):
    """A kind, or nothing."""

    kind: Kind[T]

    @property
    def allowed(self) -> str:
        """As the kind says."""
        return self.kind.allowed

    def read(self, value: object) -> T | None:
        """None where the file has the key without a value."""
        return None if value is None else self.kind.read(value)

    def show(self, value: T | None) -> str:
        """Nothing for None."""
        return "" if value is None else self.kind.show(value)


@attrs.frozen
class Many(Generic[T]):
    """A list, or text with commas; each value once. ``least`` is the shortest that makes sense where one is given."""

    kind: Kind[T]
    least: int = 0
    most: int = 1000

    @property
    def allowed(self) -> str:
        """The elements."""
        return f"a list (or text with commas), each {self.kind.allowed}"

    def read(self, value: object) -> tuple[T, ...]:
        """The elements, in order."""
        if isinstance(value, str):
            value = [type(value)(part.strip()) for part in value.split(",")] if value.strip() else []
        if not isinstance(value, list):
            raise InvalidValueError
        if not self.least <= len(value) <= self.most:
            raise InvalidValueError(f"allowed: from {self.least} to {self.most} elements")
        found: list[T] = []
        for index, element in enumerate(value):
            try:
                found.append(self.kind.read(element))
            except InvalidValueError as wrong:
                raise InvalidValueError(str(wrong) or f"allowed: {self.kind.allowed}", index, element) from None
            if found[-1] in found[:-1]:
                raise InvalidValueError("allowed: each element once", index, element)
        return tuple(found)

    def show(self, value: tuple[T, ...]) -> str:
        """In brackets."""
        return f"[{', '.join(self.kind.show(element) for element in value)}]"
