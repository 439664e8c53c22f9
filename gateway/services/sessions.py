"""Sessions from their first frame to their last: what clients ask, and the answers."""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Collection, Mapping

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from gateway import logs
from gateway.config import Limits
from gateway.core import commands, events
from gateway.core.limits import EventWindow, TokenBucket
from gateway.core.roster import Roster
from gateway.core.session import Session, State
from gateway.core.wire import Codec, timestamp
from gateway.errors import Close, GatewayError, Kind, Refused
from gateway.metrics import Metrics
from gateway.model import Audience, Encoding, Principal
from gateway.ports import Authenticator, Channel, Clock
from gateway.services.catchup import CatchUp
from gateway.services.subscriptions import Plan, Subscriptions

_log = Logger()

MINUTE = 60.0
MAX_WAITING = 100  # commands behind a REFRESH that is not answered yet

_BINARY = Refused("binary messages are not supported: send JSON text", Kind.BINARY)
_MALFORMED = (Kind.BAD_JSON, Kind.BAD_MESSAGE, Kind.UNKNOWN_TYPE, Kind.BINARY)


class Sessions:
    """Everybody who is connected to this process; what the web floor calls for them."""

    def __init__(
        self,
        roster: Roster,
        subscriptions: Subscriptions,
        catch_up: CatchUp,
        authenticator: Authenticator,
        codecs: Mapping[Encoding, Codec],
        limits: Limits,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self._roster = roster
        self._subscriptions = subscriptions
        self._catch_up = catch_up
        self._authenticator = authenticator
        self._codecs = codecs
        self._limits = limits
        self._metrics = metrics
        self._clock = clock
        self._positions: dict[tuple[str, int], tuple[int, bytes]] = {}  # by topic and slot: version, frame

    # --- a session's life ---

    def plan(self, principal: Principal, topics: str | None, since: str | None, encoding: Encoding) -> Plan:
        """What a handshake's query asks for, checked. Raises Refused."""
        return self._subscriptions.plan(principal, topics, since, self._codecs[encoding])

    def open(self, principal: Principal, plan: Plan, channel: Channel, address: str) -> Session:
        """A client is in: CONNECTED is its first frame."""
        limits, now = self._limits, self._clock.seconds()
        session = Session(
            secrets.token_hex(16),
            principal,
            plan.codec,
            channel,
            address,
            now,
            TokenBucket(limits.messages_per_second, limits.messages_per_second),
            TokenBucket(limits.bytes_per_second, max(limits.bytes_per_second, limits.message_bytes)),
        )
        session.state = State.LIVE
        self._roster.add(session)
        self._metrics.opened()
        logs.connection_opened(session.id, principal.user, address)
        told = [self._subscriptions.subscribe(session, want, None) for want in plan.wants]
        body = events.connected(
            principal.user,
            session.id,
            told,
            _spell_time(principal.expires_at),
            limits.message_bytes,
            limits.messages_per_second,
            self._now(),
        )
        self._send(session, body)
        return session

    def closed(self, session: Session, code: int) -> None:
        """Its connection is gone; 1006 where no close frame came."""
        if not self._roster.remove(session):
            return
        self._catch_up.detach(session)
        seconds = self._clock.seconds() - session.opened_at
        self._metrics.closed(code, seconds)
        logs.connection_closed(
            session.id,
            session.principal.user,
            session.address,
            code=code,
            seconds=seconds,
            records=session.records,
            messages=session.messages,
        )

    def close(self, session: Session, code: Close, reason: str = "") -> None:
        """End it: nothing more is delivered, the channel sends what waits and the close frame."""
        self._catch_up.end(session, code, reason)

    def drained(self, session: Session) -> None:
        """Its transport has taken everything."""
        if session.state is not State.CLOSING:
            self._catch_up.drained(session)

    def all(self) -> Collection[Session]:
        """Everybody."""
        return self._roster.by_id.values()

    def get(self, connection: str) -> Session | None:
        """The session of this id."""
        return self._roster.by_id.get(connection)

    def of_user(self, user: str) -> Collection[Session]:
        """All sessions of one user."""
        return self._roster.of_user(user)

    # --- what the timer wheel calls ---

    def position_due(self, session: Session, now: float) -> None:
        """Tell a new cursor where a session's own records are rare, if it moved since the last one."""
        if session.stalled or session.state is State.CLOSING:
            return
        for sub in list(session.subscriptions.values()):
            topic, version = sub.topic, sub.topic.window.version
            rare = topic.settings.audience is Audience.USER or (topic.keyed and not sub.whole)
            if not rare or sub.told == version or any(sub.feeds()) or not sub.topic.window.epoch:
                continue
            sub.told = version
            known = self._positions.get((topic.name, session.codec.slot))
            if known is None or known[0] != version:
                frame = session.codec.event(events.position(topic.name, topic.window.epoch, sub.position()))
                known = self._positions[topic.name, session.codec.slot] = version, frame
            self._metrics.messages_sent["POSITION"] += 1
            self._catch_up.send(session, known[1])

    def too_slow(self, session: Session, now: float) -> bool:
        """Whether a topic has been behind by slowness for longer than it allows, without once catching up."""
        return any(now - feed.since > sub.topic.settings.max_lag for sub, feed in session.slow_feeds())

    def expiring(self, session: Session) -> None:
        """Tell that the token runs out soon."""
        self._send(session, events.token_expiring(_spell_time(session.principal.expires_at)))

    # --- commands ---

    def receive(self, session: Session, payload: bytes, binary: bool) -> None:
        """One whole message of the client."""
        if session.state is State.CLOSING:
            return
        session.messages += 1
        command = commands.Bad(_BINARY) if binary else commands.read(payload)
        self._metrics.received(command.type or "", len(payload))
        now = self._clock.seconds()
        wait = session.bucket.take(now) or session.bytes_bucket.take(now, len(payload))
        if not session.codec.tells_gaps and not isinstance(command, commands.Disconnect):
            self.close(session, Close.BAD_REQUEST, "format=raw only receives")
        elif wait and not isinstance(command, commands.Disconnect):
            self._rate_limited(session, command, wait, now)
        else:
            self._take(session, command)

    def _take(self, session: Session, command: commands.Command | commands.Bad) -> None:
        if session.waiting is None:
            self._handle(session, command)
        elif len(session.waiting) < MAX_WAITING:
            session.waiting.append(command)
        else:
            busy = Refused("too much waits behind REFRESH", Kind.BUSY)
            self._error(session, busy, command.type, command.id)

    def _handle(self, session: Session, command: commands.Command | commands.Bad) -> None:
        if session.state is State.CLOSING:
            return
        if isinstance(command, commands.Disconnect):
            self.close(session, Close.NORMAL)
        elif isinstance(command, commands.Bad):
            self._error(session, command.error, command.type, command.id)
            if command.error.kind in _MALFORMED:
                if session.malformed is None:
                    session.malformed = EventWindow(self._limits.malformed, MINUTE)
                if session.malformed.hit(self._clock.seconds()):
                    self.close(session, Close.BAD_REQUEST, "too many malformed messages")
        else:
            self._carry_out(session, command)

    def _carry_out(self, session: Session, command: commands.Command) -> None:
        try:
            if isinstance(command, commands.Subscribe):
                self._subscribe(session, command)
            elif isinstance(command, commands.Unsubscribe):
                for topic, ended in self._subscriptions.unsubscribe(session, command.names):
                    self._answer(session, events.unsubscribed(topic, ended, "asked", command.id))
            elif isinstance(command, commands.Ping):
                self._answer(session, events.pong(command.id))
            elif isinstance(command, commands.Refresh):
                self._refresh(session, command)
        except Refused as refused:
            self._error(session, refused, command.type, command.id)

    def _subscribe(self, session: Session, command: commands.Subscribe) -> None:
        held = session.subscriptions.values()
        wants = self._subscriptions.check(session.principal, held, command.names, command.since or {})
        for want in wants:
            told = self._subscriptions.subscribe(session, want, command.id)
            self._answer(session, events.subscribed(told, command.id))

    def _refresh(self, session: Session, command: commands.Refresh) -> None:
        session.waiting = deque()
        done: Deferred[None] = self._authenticator.authenticate(command.token).addCallbacks(
            lambda principal: self._refreshed(session, principal, command.id),
            lambda failure: self._not_refreshed(session, failure, command.id),
        )
        done.addErrback(lambda failure: self._failed(session, failure, command.id))
        done.addCallback(lambda _: self._go_on(session))

    def _refreshed(self, session: Session, principal: Principal, id: str | None) -> None:
        if session.state is State.CLOSING:
            return
        if principal.user != session.principal.user:
            self._error(session, Refused("the token is another user's", Kind.UNAUTHORIZED), "REFRESH", id)
            return
        gone = self._subscriptions.forbidden(session, principal)
        session.principal = principal
        if gone:
            for topic, ended in self._subscriptions.unsubscribe(session, gone):
                self._answer(session, events.unsubscribed(topic, ended, "forbidden", id))
        self._answer(session, events.ack("REFRESH", id, self._now(), expiresAt=_spell_time(principal.expires_at)))

    def _not_refreshed(self, session: Session, failure: Failure, id: str | None) -> Failure | None:
        error = failure.value
        if not isinstance(error, GatewayError):
            return failure
        self._error(session, error, "REFRESH", id)
        return None

    def _failed(self, session: Session, failure: Failure, id: str | None) -> None:
        _log.failure("REFRESH failed", failure)
        self._error(session, GatewayError("the token could not be checked"), "REFRESH", id)

    def _go_on(self, session: Session) -> None:
        """Commands that came behind a REFRESH; there may be another one among them."""
        waiting, session.waiting = session.waiting, None
        for command in waiting or ():
            self._take(session, command)

    # --- answers ---

    def _rate_limited(
        self, session: Session, command: commands.Command | commands.Bad, wait: float, now: float
    ) -> None:
        refused = Refused("more messages or bytes a second than allowed", Kind.RATE_LIMITED, round(wait, 3))
        self._error(session, refused, command.type, command.id)
        if session.overrun is None:
            session.overrun = EventWindow(20, MINUTE)
        if session.overrun.hit(now):
            self.close(session, Close.RATE_LIMITED, "rate limit")

    def _error(self, session: Session, error: GatewayError, original: str | None, id: str | None) -> None:
        code = error.kind.wire.code
        self._answer(session, events.error(code, error.message, original, id, self._now(), error.retry_after))

    def _send(self, session: Session, body: events.Body) -> None:
        if session.state is State.CLOSING:
            return
        self._metrics.messages_sent[body["type"]] += 1
        frame = session.codec.event(body)
        self._metrics.bytes_sent += len(frame)
        self._catch_up.send(session, frame)

    def _answer(self, session: Session, body: events.Body) -> None:
        """Send what the client's own input asked for: the channel bounds how much of that may wait."""
        if session.state is State.CLOSING:  # a REFRESH may be answered late
            return
        self._metrics.messages_sent[body["type"]] += 1
        frame = session.codec.event(body)
        self._metrics.bytes_sent += len(frame)
        if frame and not session.channel.answer(frame):
            self._catch_up.stall(session)

    def _now(self) -> str:
        return timestamp(int(self._clock.wall() * 1000)) or ""


def _spell_time(seconds: float | None) -> str | None:
    return None if seconds is None else timestamp(int(seconds * 1000))
