"""The log: one line an event, JSON or text, whoever speaks.

Modules of the gateway log with Twisted's ``Logger``: a constant text, and fields by name::

    _log = Logger()
    _log.warn("request refused", address=address, code=kind.wire.code)

What goes through the standard library's ``logging`` (kafka-python) is led into Twisted's log, so that one observer,
ours or the one of ``twistd --logger``, gets everything. Here it becomes lines:

- values from outside are escaped, so that they cannot end a line, colour a terminal or turn the direction of text;
- what looks like a token is taken out, in case that somebody logged one after all;
- a warning or an error that repeats is written ten times a minute, then counted;
- libraries' ``info`` is shown with ``debug`` only, and their ``debug`` never: it holds records and requests.

Nothing here raises: a full disk or a closed stream costs lines, not the service.
"""

from __future__ import annotations

import json
import logging
import math
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

from twisted.logger import (
    ILogObserver,
    Logger,
    LogLevel,
    formatEvent,
    globalLogBeginner,
    globalLogPublisher,
)
from twisted.python.failure import Failure
from twisted.python.reflect import safe_str
from zope.interface import implementer

MAX_TEXT = 8192  # characters of a message
MAX_FIELD = 1024  # characters of a field
MAX_TRACEBACK = 32768  # characters, counted from the end
REPEATS = 10  # lines of one template in WINDOW
WINDOW = 60.0  # seconds
MAX_TEMPLATES = 1000  # that are counted at a time

_LEVELS = ("never", "debug", "info", "warn", "error", "critical")
_LOWER = {"info": "debug", "debug": "never"}
_LIBRARIES = ("twisted", "autobahn", "txaio", "kafka", "log_legacy")
_TOKENS = re.compile(
    # A JWT (RFC 7519): base64url of '{"', and two dots. It begins where a run of these characters does, so that a long
    # text without one is looked through once.
    r"(?:(?<![\w-])|(?<=%[0-9a-f]{2}))eyJ[\w-]{4,}\.[\w-]+\.[\w-]*"
    r"|(?<=token=)[^\s&\"'<>]+"
    r"|(?<=bearer )[^\s,\"'<>]+",
    re.IGNORECASE,
)
_PLAIN = re.compile(r"[^\s\"=]+")

Event = Mapping[str, Any]


class Stream(Protocol):
    """Where lines go: a binary file. Without a buffer of its own nothing is left over to fail at the end."""

    def write(self, data: bytes, /) -> object:
        """As io.RawIOBase's."""

    def flush(self) -> object:
        """As io.RawIOBase's."""


def configure(level: str, style: str, stream: Stream) -> None:
    """Start logging, for a process that twistd did not start: everything goes to ``stream``."""
    adopt_stdlib()
    globalLogBeginner.beginLoggingTo([Observer(level, style, stream)], redirectStandardIO=False)  # type: ignore[list-item]


def adopt_stdlib() -> None:
    """Lead the standard library's ``logging`` into Twisted's log. Libraries' debug lines are not even made."""
    root = logging.getLogger()
    root.handlers = [_ToTwisted()]
    root.setLevel(logging.INFO)


def connection_opened(connection: str, user: str, address: str, **fields: object) -> None:
    """The first of the two lines of a connection's life."""
    _connections.info("connection opened", connection=connection, user=user, address=address, **fields)


def connection_closed(connection: str, user: str, address: str, *, code: int, seconds: float, **counts: object) -> None:
    """The second: why it ended, how long it lasted, and what went over it."""
    _connections.info(
        "connection closed",
        connection=connection,
        user=user,
        address=address,
        code=int(code),
        seconds=round(seconds, 3),
        **counts,
    )


@implementer(ILogObserver)
class Observer:
    """Writes events from ``level`` on as lines of ``style`` (``json`` or ``text``). May be called in any thread.

    For twistd: ``application.setComponent(ILogObserver, Observer(...))``; its ``--logger`` goes before that.
    """

    def __init__(self, level: str, style: str, stream: Stream) -> None:
        self._from = _LEVELS.index(level)
        self._line: Callable[[Event, str], str] = _json_line if style == "json" else _text_line
        self._stream = stream
        self._repeats = _Repeats()
        self._lock = threading.RLock()  # reentrant: writing a line may run a finaliser that logs

    def __call__(self, event: Event) -> None:
        """Write the event, if it is to be seen."""
        try:
            level = _level(event)
            if _LEVELS.index(level) < self._from:
                return
            with self._lock:
                for due in self._repeats.pass_on(event, level):
                    self._write(self._line(due, _level(due)))
        except Exception:  # noqa: S110 - a line that cannot be written has nowhere to be told
            pass

    def _write(self, line: str) -> None:
        self._stream.write(line.encode("utf-8", "backslashreplace") + b"\n")
        self._stream.flush()


class _Repeats:
    """Lets ten of a kind through in a minute, and tells how many more there were once the minute is over."""

    def __init__(self) -> None:
        self._seen: dict[tuple[object, ...], list[Any]] = {}  # kind -> [since, count, the last event]

    def pass_on(self, event: Event, level: str) -> Iterator[Event]:
        """What is to be written now: summaries that are due, and the event itself unless it is one too many."""
        now: float = event.get("log_time") or 0.0
        if self._seen:
            yield from self._due(now)
        if level in ("warn", "error", "critical"):
            failure = event.get("log_failure")
            kind = (event.get("log_namespace"), _template(event), failure.type if failure else None)
            seen = self._seen.setdefault(kind, [now, 0, event])
            seen[1:] = seen[1] + 1, event
            if seen[1] > REPEATS:
                return
        yield event

    def _due(self, now: float) -> Iterator[Event]:
        full = len(self._seen) >= MAX_TEMPLATES
        for kind, (since, count, event) in list(self._seen.items()):
            if full or not 0 <= now - since < WINDOW:
                del self._seen[kind]
                if count > REPEATS:
                    yield {
                        "log_time": now,
                        "log_level": event.get("log_level"),
                        "log_namespace": event.get("log_namespace"),
                        "log_format": "repeated {repeated} more times: {last}",
                        "repeated": count - REPEATS,
                        "last": formatEvent(dict(event)),
                    }


class _ToTwisted(logging.Handler):
    """Makes a standard library's record an event of Twisted's log."""

    def emit(self, record: logging.LogRecord) -> None:
        """Never raises: a record that cannot be formatted is told by its template."""
        try:
            text = record.getMessage()
        except Exception:
            text = str(record.msg)
        event: dict[str, Any] = {
            "log_level": _twisted_level(record.levelno),
            "log_namespace": record.name,
            "log_time": record.created,
            "log_format": "{log_text}",
            "log_text": text,
            "log_template": str(record.msg),
        }
        if record.exc_info and record.exc_info[1] is not None:
            kind, error, trace = record.exc_info
            event["log_failure"] = Failure(error, kind, trace)
        globalLogPublisher(event)


def _twisted_level(number: int) -> Any:
    for limit, level in ((40, LogLevel.error), (30, LogLevel.warn), (20, LogLevel.info)):
        if number >= limit:
            return level
    return LogLevel.debug


def _level(event: Event) -> str:
    """The level's name. Libraries' ``info`` and ``debug`` count for one lower."""
    level: str = getattr(event.get("log_level"), "name", "error" if event.get("isError") else "info")
    return _LOWER.get(level, level) if _of_library(event) else level


def _of_library(event: Event) -> bool:
    return str(event.get("log_namespace", "")).partition(".")[0] in _LIBRARIES


def _template(event: Event) -> str:
    return str(event.get("log_template") or event.get("log_format") or formatEvent(dict(event)))[:MAX_FIELD]


def _json_line(event: Event, level: str) -> str:
    line: dict[str, object] = {
        "time": _time(event),
        "level": level,
        "logger": _clean(event.get("log_namespace", ""), MAX_FIELD),
        "message": _clean(formatEvent(dict(event)), MAX_TEXT),
    }
    for name, value in _fields(event):
        line.setdefault(name, value)
    if traceback := _traceback(event):
        line["traceback"] = _clean(traceback, MAX_TRACEBACK)
    return json.dumps(line)  # ASCII: what is not, is escaped


def _text_line(event: Event, level: str) -> str:
    text = _visible(_clean(formatEvent(dict(event)), MAX_TEXT))
    line = [_time(event), level.upper().ljust(5), _visible(_clean(event.get("log_namespace", ""), MAX_FIELD)), text]
    shown = str(event.get("log_format", ""))
    for name, value in _fields(event):
        if f"{{{name}" not in shown:
            plain = not isinstance(value, str) or (_PLAIN.fullmatch(value) and value.isprintable())
            line.append(f"{name}={value if plain else json.dumps(value)}")
    rows = _clean(_traceback(event), MAX_TRACEBACK).splitlines()
    return "\n    ".join((" ".join(line), *map(_visible, rows)))  # indented: no row can pass for a line


def _time(event: Event) -> str:
    """RFC 3339 in UTC, to the millisecond."""
    moment = datetime.fromtimestamp(event.get("log_time") or 0.0, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _fields(event: Event) -> Iterator[tuple[str, object]]:
    """What the event names beside Twisted's own keys, as values that JSON has. Not of libraries: theirs are objects."""
    if _of_library(event):
        return
    for name, value in event.items():
        if name.startswith("log_") or name in _LEGACY:
            continue
        if isinstance(value, bool) or value is None:
            yield name, value
        elif isinstance(value, int):
            yield name, int(value)
        elif isinstance(value, float) and math.isfinite(value):
            yield name, value
        else:
            yield name, _clean(value, MAX_FIELD)


def _traceback(event: Event) -> str:
    failure = event.get("log_failure")
    return "" if failure is None else str(failure.getTraceback())[-MAX_TRACEBACK:]


def _clean(value: object, limit: int) -> str:
    """Bounded, without tokens, and UTF-8 can say it."""
    text = safe_str(value)
    if len(text) > limit:
        text = text[:limit] + "..."
    return _TOKENS.sub("[removed]", text).encode("utf-8", "replace").decode()


def _visible(text: str) -> str:
    """Characters that a terminal would act on, or that are not seen, as escapes."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


_LEGACY = frozenset(("message", "time", "system", "isError", "format", "failure", "why", "legacyLogObserver"))
_connections = Logger(namespace="gateway.connection")
