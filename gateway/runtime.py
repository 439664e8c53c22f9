"""The process itself: its clock, descriptors, threads' turns, the cyclic collector, and the signals that end it."""

from __future__ import annotations

import gc
import resource
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

from twisted.application.service import Service
from twisted.logger import Logger

from gateway.ports import Clock

SWITCH_INTERVAL = 0.0005  # s; with Python's 5 ms, decoding in the log reader's thread delays the reactor by 20 ms
SPARE_DESCRIPTORS = 100  # beside one a client: listening sockets, Kafka, files, HTTP
YOUNG = 5_000  # new containers between two collections of the youngest
UNFROZEN = 20_000  # new containers that a whole collection may have to look at: 2 to 4 ms
COLLECTOR_TURN = 0.1  # s between two looks at how many there are

_log = Logger()


class ReactorClock:
    """The ``Clock`` of the services: the reactor's timers, and the wall clock for tokens and timestamps."""

    def __init__(self, reactor: Any, wall: Callable[[], float]) -> None:
        self.seconds: Callable[[], float] = reactor.seconds
        self.callLater = reactor.callLater
        self.wall = wall


def share_the_interpreter() -> None:
    """Let the reactor's thread have its turn soon, whatever the log's threads decode."""
    sys.setswitchinterval(SWITCH_INTERVAL)


def raise_descriptors(connections: int) -> None:
    """Raise the soft limit of descriptors to the hard one; warn where it is too low for ``connections`` (0: any)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard != resource.RLIM_INFINITY and hard < connections + SPARE_DESCRIPTORS:
        _log.warn(
            "limits.connections is {connections}, but this process may open {descriptors} files: connections above "
            "that are not accepted; raise the limit (ulimit -n, LimitNOFILE=) or lower limits.connections",
            connections=connections,
            descriptors=hard,
        )


class Collector(Service):
    """Keeps the cyclic collector from stopping the reactor.

    A whole collection looks at every container: 10 ms for each 1,000 connections, several times while they come. So
    what has lived through one is frozen, which takes it out of all that follow; the next one only looks at what has
    come since, and is due when that is ``UNFROZEN`` containers. Python's own whole collections are off. What is frozen
    is freed by its reference count like anything else, but never as a part of a circle: a closed connection must leave
    none behind (``tests/system/test_memory.py``).
    """

    name = "collector"

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._call: Any = None
        self._seen = 0

    def startService(self) -> None:
        """Freeze what there is: modules, configuration, the gateway's own parts."""
        super().startService()
        gc.set_threshold(YOUNG, 10, 1_000_000)
        self._freeze()
        self._wait()

    def stopService(self) -> None:
        """Leave no timer behind."""
        super().stopService()
        self._call.cancel()

    def _wait(self) -> None:
        self._call = self._clock.callLater(COLLECTOR_TURN, self._look)

    def _look(self) -> None:
        self._wait()
        if (self._collections() - self._seen) * YOUNG >= UNFROZEN:
            self._freeze()

    def _freeze(self) -> None:
        gc.collect()
        gc.freeze()
        self._seen = self._collections()

    @staticmethod
    def _collections() -> int:
        """How often one has run, of whatever generation: each stands for ``YOUNG`` new containers."""
        return sum(generation["collections"] for generation in gc.get_stats())


class Signals(Service):
    """SIGTERM and SIGINT: the first ends in order, the second at once.

    Twisted's own handlers would make ``twistd`` end by the signal, not with exit code 0, once all is done in order.
    """

    name = "signals"

    def __init__(self, reactor: Any, at_once: Callable[[], None]) -> None:
        self._reactor = reactor
        self._at_once = at_once
        self._stopping = False

    def startService(self) -> None:
        """Take over from the reactor's handlers, which are there once it runs."""
        super().startService()
        self._reactor.callWhenRunning(self._install)

    def _install(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._received)

    def _received(self, number: int, frame: FrameType | None) -> None:
        self._reactor.callFromThread(self._act, signal.Signals(number).name)

    def _act(self, name: str) -> None:
        if self._stopping:
            _log.info("{signal} again: ending at once", signal=name)
            self._at_once()
        else:
            self._stopping = True
            _log.info("{signal}: ending in order; a second one ends at once", signal=name)
            self._reactor.stop()
