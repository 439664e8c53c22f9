"""The process: collector, signals, descriptors."""

from __future__ import annotations

import gc
import os
import resource
import signal
import sys
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.logger import LogEvent, capturedLogs

from gateway.runtime import (
    COLLECTOR_TURN,
    SPARE_DESCRIPTORS,
    UNFROZEN,
    Collector,
    ReactorClock,
    Signals,
    raise_descriptors,
    share_the_interpreter,
)


class Circle:
    """Two of these that hold each other are garbage which only the collector finds."""

    def __init__(self) -> None:
        self.other: Circle | None = None


def circle() -> weakref.ref[Circle]:
    one, two = Circle(), Circle()
    one.other, two.other = two, one
    return weakref.ref(one)


class TestCollector:
    @pytest.fixture(autouse=True)
    def as_before(self) -> Iterator[None]:
        thresholds = gc.get_threshold()
        yield
        gc.unfreeze()
        gc.set_threshold(*thresholds)

    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    @pytest.fixture
    def collector(self, clock: Clock) -> Iterator[Collector]:
        collector = Collector(ReactorClock(clock, lambda: 0.0))
        collector.startService()
        yield collector
        collector.stopService()
        assert not clock.getDelayedCalls()

    def test_it_freezes_what_is_there_at_the_start(self, collector: Collector) -> None:
        """Else every collection looks at all modules again."""
        assert gc.get_freeze_count() > 1000

    def test_garbage_is_collected_before_it_would_be_frozen_for_ever(self, collector: Collector, clock: Clock) -> None:
        """What is frozen inside a circle is never freed."""
        gone = circle()
        kept = [[number] for number in range(UNFROZEN + 10_000)]
        clock.advance(COLLECTOR_TURN)
        assert gone() is None
        assert len(kept) > UNFROZEN

    def test_many_new_objects_are_frozen(self, collector: Collector, clock: Clock) -> None:
        """Sessions that have come since the start would be looked at by each collection."""
        before = gc.get_freeze_count()
        kept = [[number] for number in range(UNFROZEN + 10_000)]
        clock.advance(COLLECTOR_TURN)
        assert gc.get_freeze_count() - before >= UNFROZEN
        assert kept

    def test_few_new_objects_cost_no_collection(self, collector: Collector, clock: Clock) -> None:
        """A whole collection at every turn would be the pause that this is against."""
        before = gc.get_stats()[2]["collections"]
        for _ in range(10):
            clock.advance(COLLECTOR_TURN)
        assert gc.get_stats()[2]["collections"] == before

    def test_python_itself_collects_no_more_as_a_whole(self, collector: Collector) -> None:
        """Python's own threshold is 10 of the middle generation: 110 ms at 10,000 connections, several times."""
        assert gc.get_threshold()[2] > 100_000


class FakeReactor(Clock):
    """What Signals uses of a reactor."""

    def __init__(self) -> None:
        super().__init__()
        self.stopped = 0

    def callWhenRunning(self, call: Callable[[], None]) -> None:
        call()

    def callFromThread(self, call: Callable[..., None], *arguments: Any) -> None:
        self.callLater(0, call, *arguments)

    def stop(self) -> None:
        self.stopped += 1


class TestSignals:
    @pytest.fixture(autouse=True)
    def handlers(self) -> Iterator[None]:
        before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        yield
        for number, handler in before.items():
            signal.signal(number, handler)

    @pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
    @pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
    def test_the_first_stops_and_the_second_ends(self, first: signal.Signals, second: signal.Signals) -> None:
        """An operator whose first Ctrl-C waits for clients must be able to end it with another."""
        reactor = FakeReactor()
        ended: list[bool] = []
        Signals(reactor, lambda: ended.append(True)).startService()
        os.kill(os.getpid(), first)
        reactor.advance(0)
        assert (reactor.stopped, ended) == (1, [])
        os.kill(os.getpid(), second)
        reactor.advance(0)
        assert (reactor.stopped, ended) == (1, [True])


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[int, int]]:
    """The process's own limits, without touching them."""
    state = {"now": (1024, 4096)}
    monkeypatch.setattr(resource, "getrlimit", lambda _: state["now"])
    monkeypatch.setattr(resource, "setrlimit", lambda _, limit: state.update(now=limit))
    return state


@pytest.fixture
def logged() -> Iterator[Sequence[LogEvent]]:
    with capturedLogs() as events:
        yield events


class TestDescriptors:
    def test_the_soft_limit_is_raised_to_the_hard_one(
        self, limits: dict[str, tuple[int, int]], logged: Sequence[LogEvent]
    ) -> None:
        """1024 is the usual soft limit: without this the 1,000th client is not accepted."""
        raise_descriptors(4096 - SPARE_DESCRIPTORS)
        assert limits["now"] == (4096, 4096)
        assert not logged

    def test_too_few_warns_with_both_numbers(
        self, limits: dict[str, tuple[int, int]], logged: Sequence[LogEvent]
    ) -> None:
        """An operator learns of it at the start, and not from the 4,000th client."""
        raise_descriptors(10_000)
        (event,) = logged
        assert (event["connections"], event["descriptors"]) == (10_000, 4096)

    def test_no_limit_needs_no_warning(self, limits: dict[str, tuple[int, int]], logged: Sequence[LogEvent]) -> None:
        """RLIM_INFINITY is -1, which is less than anything."""
        limits["now"] = (1024, resource.RLIM_INFINITY)
        raise_descriptors(10_000)
        assert not logged


def test_the_clock_is_the_reactors_and_the_wall() -> None:
    """Timers on the wall clock would all fire at once when it is set forward."""
    reactor = Clock()
    clock = ReactorClock(reactor, lambda: 1_700_000_000.0)
    called: list[str] = []
    clock.callLater(5, called.append, "late")
    reactor.advance(5)
    assert called == ["late"]
    assert clock.seconds() == 5
    assert clock.wall() == 1_700_000_000


def test_threads_have_their_turn_soon() -> None:
    """With Python's 5 ms, decoding in the reader's thread delays every timer of the reactor."""
    before = sys.getswitchinterval()
    try:
        share_the_interpreter()
        assert sys.getswitchinterval() <= 0.001
    finally:
        sys.setswitchinterval(before)
