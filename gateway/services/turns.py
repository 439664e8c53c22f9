"""Sessions that read from windows take turns, and the reactor's other work has its turn between theirs."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from gateway.core.session import Session
from gateway.ports import Clock

TURN = 0.005  # seconds that reading takes before other work of the reactor gets its turn


class Turns:
    """Who is next. ``read`` is called once for each time that a session was added."""

    def __init__(self, clock: Clock, read: Callable[[Session], None]) -> None:
        self._clock = clock
        self._read = read
        self._queue: deque[Session] = deque()
        self._call: Any = None

    def add(self, session: Session) -> None:
        """It is to read, behind those who are waiting for it already."""
        if not session.queued:
            session.queued = True
            self._queue.append(session)
            self._go_on()

    def _turn(self) -> None:
        self._call = None
        until = self._clock.seconds() + TURN
        while self._queue:
            session = self._queue.popleft()
            session.queued = False
            self._read(session)
            if self._clock.seconds() >= until:
                break
        if self._queue:
            self._go_on()

    def _go_on(self) -> None:
        if self._call is None:
            self._call = self._clock.callLater(0, self._turn)
