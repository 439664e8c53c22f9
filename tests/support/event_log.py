"""An observer for ``twistd --logger``: every event with everything in it, for tests of what must not be in any.

The gateway's own log takes tokens out, and writes what repeats only ten times a minute; here nothing is hidden. Its
lines are written too, to stderr as always. ``EVENT_LOG`` in the environment names the file, one JSON object a line.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from twisted.logger import ILogObserver, LogEvent, formatEvent
from zope.interface import implementer

from gateway.logs import Observer


@implementer(ILogObserver)
class EventLog:
    """Made by twistd, once, before it replaces sys.stderr."""

    def __init__(self) -> None:
        self._events = Path(os.environ["EVENT_LOG"]).open("a", buffering=1)  # noqa: SIM115 - until the process ends
        self._lines = Observer("info", "json", os.fdopen(os.dup(2), "wb", 0))

    def __call__(self, event: LogEvent) -> None:
        """Write it down."""
        told: dict[str, object] = {
            "text": formatEvent(event),
            "level": getattr(event.get("log_level"), "name", "none"),
            "fields": {name: repr(value) for name, value in event.items()},
        }
        failure = event.get("log_failure")
        if failure is not None:
            told["traceback"] = failure.getTraceback()
        self._events.write(json.dumps(told) + "\n")
        self._lines(event)
