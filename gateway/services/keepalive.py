"""Whether clients are still there, and keep up: one timer for all, which looks at a few of them at a time.

Every session has a :class:`Pulse` that says when it is to be looked at next. For an idle one that is a few times a
``server.pingInterval``; one with bytes that wait, or a PONG that is late, is looked at each second. Three clocks:

- *pong*: a PONG proves that everything before its PING was read, so a client has a second more for each KiB that went
  to it between the last PING it answered and this one;
- *host gone*: packets are in flight and none is acknowledged; a reader that only stands still has none in flight, but
  for the moment when its window opens, however long it was closed;
- *lag*: something waits and nothing is acknowledged, or a topic is behind by slowness without catching up.

Time here is *awake* time: what passes while the process is stopped (SIGSTOP, a suspended machine) or the reactor hangs
does not count against clients, whose PONGs lie unread in the kernel.
"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from random import Random
from typing import Any, Protocol

import attrs
from twisted.logger import Logger

from gateway.config import Config
from gateway.core.wire import frame
from gateway.errors import Close
from gateway.model import Principal
from gateway.ports import Channel, Clock

_log = Logger()

TICK = 0.25  # seconds between two looks at the wheel
SLICE = 100  # sessions looked at in one turn of the reactor
WATCH = 1.0  # seconds between two looks at a session that is in trouble
LATE = 1.0  # seconds; a tick that is later than this was slept through
MAX_PATIENCE = 300.0  # seconds a PONG may take at most, however much was sent
BYTES_A_SECOND = 1024  # that a client must read
JITTER = 0.2  # of connections.maxAge
PING = 9  # opcode
NEVER = float("inf")


class Watched(Protocol):
    """What a session shows here. ``slow_since``: when a topic fell behind because the client is slow."""

    principal: Principal

    @property
    def slow_since(self) -> float | None:
        """Seconds, as ``Clock.seconds``."""


class Sessions(Protocol):
    """What is done with sessions from here."""

    def position_due(self, session: Any, now: float) -> None:
        """Send POSITION, if there is a new one."""

    def expiring(self, session: Any) -> None:
        """Send TOKEN_EXPIRING."""

    def too_slow(self, session: Any, now: float) -> bool:
        """Whether some topic has been behind for longer than it may."""

    def close(self, session: Any, code: Close, reason: str = "") -> None:
        """End it."""


@attrs.define(eq=False)
class Pulse:
    """How one client is doing. Times are awake seconds."""

    session: Watched | None  # None: gone
    channel: Channel | None
    next_ping: float
    next_position: float
    retire_at: float
    due: int = 0  # tick of the next look; entries of other ticks are stale
    pinged: float | None = None  # when the PING went out that has no PONG yet
    payload: bytes = b""  # of that PING
    pinged_at: int = 0  # bytes sent when it went out
    answered_at: int = 0  # the same for the last PING that has its PONG
    acked: int = 0  # bytes acknowledged, as last seen
    acked_since: float = 0.0  # when that last grew
    flying_since: float = NEVER  # since when packets have been seen in flight without any being acknowledged
    waiting: bool = False  # bytes wait in the transport
    warned: float | None = None  # ``expires_at`` of the token whose end was announced


class KeepAlive:
    """The wheel. ``start`` it, ``add`` sessions, and tell it what their channels see."""

    def __init__(self, config: Config, sessions: Sessions, clock: Clock, random: Random) -> None:
        server = config.server
        self._ping_interval = server.ping_interval
        self._ping_timeout = server.ping_timeout
        self._position_interval = server.position_interval or NEVER
        self._max_age = config.connections.max_age or NEVER
        self._max_lag = config.slow_client.max_lag
        self._warning = config.auth.expiry_warning
        self._sessions = sessions
        self._clock = clock
        self._random = random
        self._asleep = 0.0  # seconds that did not count, in all
        self._slept: deque[tuple[float, float]] = deque(maxlen=100)  # when that ended (Clock.seconds), for how long
        self._wheel: defaultdict[int, list[Pulse]] = defaultdict(list)
        self._expected = clock.seconds()
        self._tick = int(self._expected / TICK)
        self._ping = self._payload = b""
        self._call: Any = None

    # What channels tell

    def add(self, session: Watched, channel: Channel) -> Pulse:
        """Look after a session. The first PING comes at a random time, so that clients that came together spread."""
        now, spread = self._now(), self._random.uniform
        pulse = Pulse(
            session,
            channel,
            next_ping=now + self._ping_interval * spread(0.5, 1.0),
            next_position=now + self._position_interval * spread(0.5, 1.0),
            retire_at=now + self._max_age * spread(1 - JITTER, 1 + JITTER),
        )
        self._schedule(pulse, session, now)
        return pulse

    def remove(self, pulse: Pulse) -> None:
        """The session is closing or gone; its entries in the wheel hold on to nothing."""
        pulse.session = pulse.channel = None

    def pong(self, pulse: Pulse, payload: bytes) -> bool:
        """A PONG came. False: to no PING that waits for one."""
        if pulse.pinged is None or payload != pulse.payload:
            return False
        pulse.pinged = None
        pulse.answered_at = pulse.pinged_at
        return True

    def waiting(self, pulse: Pulse) -> None:
        """Bytes wait in the transport: look at it soon."""
        now = self._now()
        pulse.waiting = True
        pulse.acked_since = now
        self._enter(pulse, now + WATCH)

    def drained(self, pulse: Pulse) -> None:
        """None wait any more."""
        pulse.waiting = False

    # The wheel

    def start(self) -> None:
        """Begin to turn."""
        self._expected = self._clock.seconds() + TICK
        self._call = self._clock.callLater(TICK, self._turn)

    def stop(self) -> None:
        """Leaves no timer behind."""
        self._call.cancel()

    def _turn(self) -> None:
        now = self._clock.seconds()
        late = now - self._expected
        if late > LATE:
            self._asleep += late
            self._slept.append((now, late))
        self._expected = now + TICK
        last, self._tick = self._tick, int(self._now() / TICK)
        self._payload = self._tick.to_bytes(8, "big")
        self._ping = frame(self._payload, PING)
        due: list[Pulse] = []
        for tick in range(last + 1, self._tick + 1):
            due += self._wheel.pop(tick, ())
        self._look(due)

    def _look(self, due: list[Pulse]) -> None:
        """At a slice of those that are due, the rest in the next turn of the reactor."""
        now = self._now()
        for pulse in due[-SLICE:]:
            session, channel = pulse.session, pulse.channel
            if session is not None and channel is not None and pulse.due <= self._tick:  # else it is entered elsewhere
                try:
                    self._visit(pulse, session, channel, now)
                except Exception:
                    _log.failure("a session could not be looked after")
                    self._sessions.close(session, Close.INTERNAL)
        del due[-SLICE:]
        if due:
            self._call = self._clock.callLater(0, self._look, due)
        else:
            self._call = self._clock.callLater(max(0.0, self._expected - self._clock.seconds()), self._turn)

    def _visit(self, pulse: Pulse, session: Watched, channel: Channel, now: float) -> None:
        ends_at = session.principal.ends_at
        if ends_at is not None and self._clock.wall() >= ends_at:
            self._sessions.close(session, Close.TOKEN_EXPIRED, "token expired")
        elif now >= pulse.retire_at:
            self._sessions.close(session, Close.GOING_AWAY, "connection is old")
        elif not (self._in_trouble(pulse, session, now) and self._given_up(pulse, session, channel, now)):
            self._warn(pulse, session)
            if now >= pulse.next_position:
                pulse.next_position = now + self._position_interval
                self._sessions.position_due(session, self._clock.seconds())
            if now >= pulse.next_ping and pulse.pinged is None and not pulse.waiting:
                self._send_ping(pulse, channel, now)
            if pulse.session is not None:
                self._schedule(pulse, session, now)

    def _warn(self, pulse: Pulse, session: Watched) -> None:
        expires_at = session.principal.expires_at
        if expires_at not in (None, pulse.warned) and self._clock.wall() >= expires_at - self._warning:
            pulse.warned = expires_at
            self._sessions.expiring(session)

    def _send_ping(self, pulse: Pulse, channel: Channel, now: float) -> None:
        pulse.pinged = pulse.acked_since = now
        pulse.payload = self._payload
        pulse.next_ping = now + self._ping_interval
        channel.push(self._ping)
        progress = channel.progress()
        pulse.acked, pulse.pinged_at = progress.acked, progress.sent
        pulse.flying_since = now if progress.in_flight else NEVER  # else it lies in our kernel

    def _in_trouble(self, pulse: Pulse, session: Watched, now: float) -> bool:
        late = pulse.pinged is not None and now - pulse.pinged >= self._ping_timeout
        return late or pulse.waiting or session.slow_since is not None

    def _given_up(self, pulse: Pulse, session: Watched, channel: Channel, now: float) -> bool:
        """The three clocks. True: the session is closed."""
        progress = channel.progress()
        if not progress.in_flight:
            pulse.flying_since = NEVER
        elif progress.acked != pulse.acked or pulse.flying_since == NEVER:
            pulse.flying_since = now
        if progress.acked != pulse.acked:
            pulse.acked, pulse.acked_since = progress.acked, now
        if now - pulse.flying_since >= self._ping_timeout:
            self._sessions.close(session, Close.NO_PONG, "host is gone")
            channel.abort()
            return True
        if pulse.waiting and now - pulse.acked_since >= self._max_lag:
            self._sessions.close(session, Close.TOO_SLOW, "nothing was read for too long")
            return True
        if self._sessions.too_slow(session, self._awake(session.slow_since)):
            self._sessions.close(session, Close.TOO_SLOW, "behind for too long")
            return True
        if pulse.pinged is None:
            return False
        if progress.paused:
            pulse.pinged += WATCH  # its PONG would not be read
        unread = (pulse.pinged_at - pulse.answered_at) / BYTES_A_SECOND
        if now - pulse.pinged >= min(self._ping_timeout + unread, max(self._ping_timeout, MAX_PATIENCE)):
            self._sessions.close(session, Close.NO_PONG, "no pong")
            return True
        return False

    def _schedule(self, pulse: Pulse, session: Watched, now: float) -> None:
        """Enter it where it is next to be looked at."""
        due = min(pulse.next_position, pulse.retire_at)
        due = min(due, pulse.next_ping if pulse.pinged is None else pulse.pinged + self._ping_timeout)
        principal = session.principal
        if principal.ends_at is not None and principal.expires_at is not None:
            wall = self._clock.wall()
            warn_at = NEVER if pulse.warned == principal.expires_at else principal.expires_at - self._warning
            due = min(due, now + min(principal.ends_at, warn_at) - wall)
        if self._in_trouble(pulse, session, now):
            due = now + WATCH
        pulse.due = 0
        self._enter(pulse, due)

    def _enter(self, pulse: Pulse, due: float) -> None:
        """In the wheel, unless it is to be looked at earlier anyhow."""
        tick = max(self._tick + 1, math.ceil(due / TICK))
        if pulse.due <= self._tick or tick < pulse.due:
            pulse.due = tick
            self._wheel[tick].append(pulse)

    def _now(self) -> float:
        return self._clock.seconds() - self._asleep

    def _awake(self, since: float | None) -> float:
        """Now, as Clock.seconds, less what was slept through after ``since``."""
        now = self._clock.seconds()
        return now if since is None else now - sum(slept for at, slept in self._slept if at > since)
