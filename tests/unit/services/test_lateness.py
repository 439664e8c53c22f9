"""The reactor's lateness: measured from when the timer was due, without a timer left behind."""

from __future__ import annotations

from twisted.internet.task import Clock

from gateway.metrics import Histogram
from gateway.services.lateness import Lateness


class WallClock(Clock):
    """A clock that also tells the time of day."""

    def wall(self) -> float:
        """Some day in 2023."""
        return 1_700_000_000.0 + self.seconds()


def test_lateness_is_what_the_timer_is_late() -> None:
    clock, histogram = WallClock(), Histogram((0.001, 0.1, 1.0))
    service = Lateness(clock, histogram)
    service.startService()
    clock.pump([0.1] * 5)
    assert histogram.counts == [5, 0, 0, 0]
    clock.advance(0.6)  # the reactor was kept for half a second longer than the timer asked for
    assert histogram.counts == [5, 0, 1, 0]
    assert abs(histogram.sum - 0.5) < 1e-6
    clock.advance(0.1)  # and is on time again
    assert histogram.counts == [6, 0, 1, 0]


def test_no_timer_is_left_behind() -> None:
    clock = WallClock()
    service = Lateness(clock, Histogram((1.0,)))
    service.startService()
    clock.advance(0.1)
    service.stopService()
    assert clock.getDelayedCalls() == []
