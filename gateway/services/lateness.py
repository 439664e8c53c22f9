"""How late the reactor is: what stops it (a collection, a long callback) shows here, whoever did it."""

from __future__ import annotations

from typing import Any

from twisted.application.service import Service

from gateway.metrics import Histogram
from gateway.ports import Clock

INTERVAL = 0.1  # seconds


class Lateness(Service):
    """A timer of 100 ms that measures how much later than asked it is called."""

    name = "lateness"

    def __init__(self, clock: Clock, histogram: Histogram) -> None:
        self._clock = clock
        self._histogram = histogram
        self._due = 0.0
        self._call: Any = None

    def startService(self) -> None:
        """Begin to measure."""
        super().startService()
        self._wait()

    def stopService(self) -> None:
        """Leaves no timer behind."""
        super().stopService()
        self._call.cancel()

    def _wait(self) -> None:
        self._due = self._clock.seconds() + INTERVAL
        self._call = self._clock.callLater(INTERVAL, self._fire)

    def _fire(self) -> None:
        self._histogram.observe(max(0.0, self._clock.seconds() - self._due))
        self._wait()
