"""The door: who may open a session, decided before the upgrade is answered.

The order is from what costs nothing to what costs a signature: draining and readiness, handshakes a second, connections
in all and by address, origin, token, names and cursor, connections by user. What may pass is raised (``Refused``, told
by HTTP, with a time to come back); what is refused for good may also be told by a close code (``Farewell``), because a
browser shows its page no HTTP status (``docs/protocol.md``, Connecting).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random
from typing import Generic, TypeVar

import attrs
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from gateway.config import Config
from gateway.core import access
from gateway.core.addresses import LOCAL, is_private, limit_key
from gateway.core.limits import Occupancy, TokenBucket
from gateway.core.origins import Origin, is_loopback, judge
from gateway.errors import AuthError, Close, GatewayError, Kind, Refused
from gateway.metrics import Metrics
from gateway.model import Encoding, Principal
from gateway.ports import Authenticator, Clock

_log = Logger()

Plan = TypeVar("Plan")
# (principal, ``topics``, ``since``, encoding) -> what the session will begin with; raises Refused.
Planner = Callable[[Principal, str | None, str | None, Encoding], Plan]

BEARER = "bearer"
MAX_USER = 255  # bytes of a user id that a client claims with auth.mode none


@attrs.frozen
class Handshake:
    """What a well-formed WebSocket upgrade asks for. ``address`` is the client's, behind proxies that are trusted;
    ``forwarded``: somebody sent X-Forwarded-For."""

    query: Mapping[str, tuple[str, ...]] = attrs.field(repr=False)  # it may hold a token, as the next two
    authorization: str | None = attrs.field(repr=False)
    subprotocols: tuple[str, ...] = attrs.field(repr=False)
    origin: str | None
    host: str
    address: str
    forwarded: bool = False

    def one(self, name: str, kind: Kind) -> str | None:
        """The only value of a query parameter. Raises Refused(kind) where it stands twice."""
        values = self.query.get(name, ())
        if len(values) > 1:
            raise Refused(f"{name} may stand once", kind)
        return values[0] if values else None


@attrs.frozen
class Admission(Generic[Plan]):
    """Come in. The slot belongs to the connection from here on, which releases it."""

    principal: Principal
    plan: Plan
    address: str
    subprotocol: str | None
    slot: Slot


@attrs.frozen
class Farewell:
    """Refused for good, to be told by a close code right after the upgrade. The slot is as in ``Admission``."""

    code: Close
    reason: str
    subprotocol: str | None
    slot: Slot


class Slot:
    """A connection's place in the counts, in all and by address and user. Released once, however often it is asked."""

    __slots__ = ("_address", "_counts", "_user")

    def __init__(self, counts: _Counts, address: str | None) -> None:
        self._counts: _Counts | None = counts
        self._address = address
        self._user: str | None = None

    def occupy(self, user: str) -> None:
        """Count for this user, too. Raises Refused."""
        if self._counts is not None:
            if not self._counts.users.enter(user):
                raise Refused("this user has too many connections", Kind.TOO_MANY_CONNECTIONS)
            self._user = user

    def release(self) -> None:
        """The connection is gone."""
        if self._counts is not None:
            self._counts.leave(self._address, self._user)
            self._counts = None


@attrs.define
class _Counts:
    """Connections that are there, or at the door."""

    limit: int
    users: Occupancy
    addresses: Occupancy
    total: int = 0

    def enter(self, address: str | None) -> Slot:
        """A place for a connection from ``address`` (None: from nowhere that could be counted). Raises Refused."""
        if 0 < self.limit <= self.total:
            raise Refused("there are too many connections", Kind.BUSY)
        if address is not None and not self.addresses.enter(address):
            raise Refused("there are too many connections from this address", Kind.TOO_MANY_CONNECTIONS)
        self.total += 1
        return Slot(self, address)

    def leave(self, address: str | None, user: str | None) -> None:
        self.total -= 1
        if address is not None:
            self.addresses.leave(address)
        if user is not None:
            self.users.leave(user)


class Door(Generic[Plan]):
    """Lets handshakes in or turns them away."""

    def __init__(
        self,
        config: Config,
        authenticator: Authenticator,
        plan: Planner[Plan],
        *,
        ready: Callable[[], bool],
        draining: Callable[[], bool],
        clock: Clock,
        metrics: Metrics,
        random: Random,
    ) -> None:
        self._auth = config.auth
        self._origins = config.server.origins
        self._no_proxies = not config.server.trusted_proxies
        self._authenticator = authenticator
        self._plan = plan
        self._ready = ready
        self._draining = draining
        self._clock = clock
        self._metrics = metrics
        self._random = random
        limits = config.limits
        self._rate = TokenBucket(limits.handshakes_per_second, limits.handshakes_per_second)
        self._counts = _Counts(
            limits.connections, Occupancy(limits.connections_per_user), Occupancy(limits.connections_per_address)
        )
        self._warned = False

    @property
    def connections(self) -> int:
        """How many hold a place, those at the door included."""
        return self._counts.total

    def enter(self, handshake: Handshake) -> Deferred[Admission[Plan] | Farewell]:
        """Errback is always a GatewayError, to be told by HTTP."""
        return Deferred.fromCoroutine(self._enter(handshake))

    async def _enter(self, handshake: Handshake) -> Admission[Plan] | Farewell:
        try:
            self._check_open()
            self._check_rate()
            origin = self._check_origin(handshake)
            slot = self._take_slot(handshake)
        except Refused as refused:
            self._tell(refused, handshake)
            raise
        subprotocol = next((name for name in handshake.subprotocols if name.lower() == BEARER), None)
        try:
            principal = await self._principal(handshake)
            self._check_open()  # it may have begun to drain meanwhile
            plan = self._plan(
                principal,
                handshake.one("topics", Kind.INVALID_TOPICS),
                handshake.one("since", Kind.BAD_SINCE),
                _encoding(handshake),
            )
            slot.occupy(principal.user)
        except GatewayError as error:
            self._tell(error, handshake)
            code = error.kind.wire.close
            if code is not None and self._by_close_code(origin):
                return Farewell(code, error.message, subprotocol, slot)
            slot.release()
            raise
        except Exception:
            slot.release()
            _log.failure("a handshake failed")
            raise Refused("try again later", Kind.UNAVAILABLE, self._soon()) from None
        return Admission(principal, plan, handshake.address, subprotocol, slot)

    def _check_open(self) -> None:
        if self._draining():
            raise Refused("this gateway is going away", Kind.DRAINING)
        if not self._ready():
            raise Refused("this gateway is not ready yet", Kind.NOT_READY)

    def _check_rate(self) -> None:
        wait = self._rate.take(self._clock.seconds())
        if wait > 0:
            raise Refused("there are too many handshakes", Kind.TOO_MANY_HANDSHAKES, wait)

    def _check_origin(self, handshake: Handshake) -> Origin:
        if self._auth.mode == "none" and not self._auth.allow_insecure and not is_loopback(handshake.host):
            # A page elsewhere whose name was re-bound to 127.0.0.1: its Host still names it.
            raise Refused("auth.mode none is for this machine only", Kind.BAD_ORIGIN)
        origin = judge(handshake.origin, handshake.host, self._origins)
        if origin is Origin.FOREIGN:
            _log.warn(
                "a page from {origin} was refused: for Host {host}, server.origins does not allow it",
                origin=handshake.origin,
                host=handshake.host,
                address=handshake.address,
                key="server.origins",
            )
            raise Refused("this origin is not allowed", Kind.BAD_ORIGIN)
        return origin

    def _take_slot(self, handshake: Handshake) -> Slot:
        try:
            return self._counts.enter(None if handshake.address == LOCAL else limit_key(handshake.address))
        except Refused as refused:
            by_address = refused.kind is Kind.TOO_MANY_CONNECTIONS
            if by_address and handshake.forwarded and self._no_proxies and is_private(handshake.address):
                self._warn_of_proxy(handshake.address)
            raise

    def _warn_of_proxy(self, address: str) -> None:
        if not self._warned:
            self._warned = True
            _log.warn(
                "{address} sends X-Forwarded-For and has reached limits.connectionsPerAddress: "
                "if it is a proxy of yours, name it in server.trustedProxies",
                address=address,
            )

    async def _principal(self, handshake: Handshake) -> Principal:
        if self._auth.mode == "none":
            return self._claimed(handshake)
        return await self._authenticator.authenticate(self._token(handshake))

    def _claimed(self, handshake: Handshake) -> Principal:
        """Whoever the client says it is: ``auth.mode: none``."""
        user = handshake.one("user_id", Kind.BAD_MESSAGE)
        if user is None:
            user = f"guest-{self._random.getrandbits(40):010x}"
        if not user or not user.isprintable() or len(user.encode()) > MAX_USER:
            raise Refused(f"user_id is 1 to {MAX_USER} bytes of printable text", Kind.BAD_MESSAGE)
        topics = access.grants(self._auth.default_topics, user, defaulted=True)
        publish = access.grants(self._auth.default_publish, user, defaulted=True)
        return Principal(user, topics, publish, None, None)

    def _token(self, handshake: Handshake) -> str:
        """The one token of the three places. Raises AuthError for none, and for two different ones."""
        tokens = set(handshake.query.get("token", ())) if self._auth.token_in_query else set()
        scheme, _, credentials = (handshake.authorization or "").partition(" ")
        if scheme.lower() == BEARER:
            tokens.add(credentials.strip())
        offered = handshake.subprotocols
        tokens.update(offered[i + 1] for i, name in enumerate(offered[:-1]) if name.lower() == BEARER)
        tokens.discard("")
        if len(tokens) > 1:
            raise AuthError("two different tokens were sent", "conflict")
        if not tokens:
            raise AuthError("a token is needed", "missing")
        return tokens.pop()

    def _by_close_code(self, origin: Origin) -> bool:
        if self._auth.reject_with == "auto":
            return origin is Origin.ALLOWED
        return self._auth.reject_with == "close"

    def _tell(self, error: GatewayError, handshake: Handshake) -> None:
        """Count and log a refusal, and say when to come back if it may pass."""
        error.__traceback__ = None  # its frames hold it in a circle, which a flood of bad tokens would fill memory with
        if isinstance(error, AuthError):
            self._metrics.auth_errors[error.reason] += 1
        wire = error.kind.wire
        if wire.status in (429, 503):
            error.retry_after = (error.retry_after or 0.0) + self._soon()
        if error.kind is not Kind.BAD_ORIGIN:
            _log.warn("handshake refused: {reason}", reason=error.message, code=wire.code, address=handshake.address)

    def _soon(self) -> float:
        """Seconds until a client may come back, spread so that those who leave together do not come together."""
        return 1.0 + self._random.uniform(0.0, 5.0)


def _encoding(handshake: Handshake) -> Encoding:
    text = handshake.one("format", Kind.BAD_MESSAGE)
    try:
        return Encoding(text or Encoding.ENVELOPE)
    except ValueError:
        raise Refused("format is envelope or raw", Kind.BAD_MESSAGE) from None
