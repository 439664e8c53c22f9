"""The end of the process: clients are told to move on, at a pace, so that they do not all arrive elsewhere at once."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from gateway.config import Server
from gateway.core.session import Session, State
from gateway.errors import Close
from gateway.ports import Clock

STEP = 0.1  # seconds between two groups

_log = Logger()


class Sessions(Protocol):
    """Who is to be told."""

    def all(self) -> Collection[Session]:
        """Everybody who is still connected."""

    def close(self, session: Session, code: Close, reason: str = "") -> None:
        """End one."""


class Drain:
    """Tells everybody 1001 at ``server.drain.pace``, or faster where that would take too long: those who read have
    their close frame ``server.writeTimeout`` before the end."""

    def __init__(self, server: Server, sessions: Sessions, clock: Clock) -> None:
        self._pace = server.drain.pace
        self._timeout = server.drain.timeout
        self._write_timeout = server.write_timeout
        self._sessions = sessions
        self._clock = clock
        self._over: Deferred[None] | None = None
        self._began = 0.0
        self._told = 0

    @property
    def draining(self) -> bool:
        """Whether the end has begun: nobody is let in any more."""
        return self._over is not None

    def run(self) -> Deferred[None]:
        """Fires when nobody is left, at the latest after ``server.drain.timeout``. To be called once."""
        over = self._over = Deferred()
        self._began = self._clock.seconds()
        self._told = 0
        _log.info("draining: {clients} clients are told to move on", clients=len(self._sessions.all()))
        self._step(over)
        return over

    def _step(self, over: Deferred[None]) -> None:
        """One group. Whoever was at the door when it began is found here, too."""
        present = self._sessions.all()
        gone = self._clock.seconds() - self._began
        left = self._timeout - gone
        if not present or left <= 0:
            for session in list(present):
                session.channel.abort()
            over.callback(None)
            return
        untold = [session for session in present if session.state is not State.CLOSING]
        at_pace = math.ceil(self._pace * (gone + STEP)) - self._told
        in_time = math.ceil(len(untold) / max(1, math.floor((left - self._write_timeout) / STEP)))
        for session in untold[: max(at_pace, in_time)]:
            self._told += 1
            self._sessions.close(session, Close.GOING_AWAY, "the gateway is going away")
        self._clock.callLater(min(STEP, left), self._step, over)
