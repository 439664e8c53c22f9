"""The edge alone: the real port, door and WebSocket connections on a reactor of its own in a thread, with sessions that
only note what they are told. Clients are real sockets (:mod:`tests.support.rawclient`)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from random import Random
from typing import Any, Self, TypeVar

import attrs
from prometheus_client import CollectorRegistry
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.threads import blockingCallFromThread

from gateway.config import Auth, Config, Connections, Limits, Server, SlowClient
from gateway.core.wire import frame
from gateway.errors import AuthError, Close, Kind, Refused
from gateway.metrics import Metrics
from gateway.model import Encoding, Grants, Principal
from gateway.ports import Channel
from gateway.services.door import Door
from gateway.services.keepalive import KeepAlive
from gateway.web.port import Port
from gateway.web.routes import Call, Reply, Site
from gateway.web.websocket import WebSockets
from tests.support.rawclient import RawClient

T = TypeVar("T")
HELLO = b'{"type":"CONNECTED"}'


def until(condition: Callable[[], T], what: str, deadline: float = 10.0) -> T:
    """Wait for a condition that can be observed."""
    end = time.monotonic() + deadline
    while not (found := condition()):
        assert time.monotonic() < end, f"not within {deadline} s: {what}"
        time.sleep(0.005)
    return found


@attrs.define(eq=False)
class FakeSession:
    """One session; ``closing`` is how it was told to end, ``code`` how its connection ended."""

    principal: Principal
    channel: Channel
    address: str
    slow_since: float | None = None
    received: list[tuple[bytes, bool]] = attrs.Factory(list)
    drained: int = 0
    closing: int | None = None
    code: int | None = None


class FakeSessions:
    """Notes what it is told. Messages of clients make it act: see ``receive``."""

    def __init__(self) -> None:
        self.opened: list[FakeSession] = []
        self.positions = 0

    def plan(self, principal: Principal, topics: str | None, since: str | None, encoding: Encoding) -> Any:
        """Everything but ``forbidden``."""
        if topics == "forbidden":
            raise Refused("not allowed", Kind.FORBIDDEN)
        return topics

    def open(self, principal: Principal, plan: Any, channel: Channel, address: str) -> FakeSession:
        """CONNECTED; ``topics=unopened`` is an error of ours, ``topics=much`` more than the kernel takes,
        ``topics=short`` is over at once."""
        if plan == "unopened":
            raise RuntimeError("secret inside")
        session = FakeSession(principal, channel, address)
        self.opened.append(session)
        channel.push(frame(HELLO))
        if plan == "much":
            channel.push(frame(b"x" * 5_000_000))
        if plan == "short":
            self.close(session, Close.TOO_SLOW)
        return session

    def receive(self, session: FakeSession, payload: bytes, binary: bool) -> None:
        """``boom``: an error of ours; ``bye``: DISCONNECT; ``echo <text>``: an answer; ``flood <n>``: n bytes."""
        session.received.append((payload, binary))
        verb, _, rest = payload.partition(b" ")
        if verb == b"boom":
            raise RuntimeError("secret inside")
        if verb == b"bye":
            self.close(session, Close.NORMAL)
        elif verb == b"echo":
            session.channel.answer(frame(rest))
        elif verb == b"flood":
            session.channel.push(frame(b"x" * int(rest)))

    def drained(self, session: FakeSession) -> None:
        """Nothing waits."""
        session.drained += 1

    def closed(self, session: FakeSession, code: int) -> None:
        """The connection is gone."""
        assert session.code is None, "told twice"
        session.code = code

    def close(self, session: FakeSession, code: Close, reason: str = "") -> None:
        """As the real ones."""
        session.closing = code
        session.channel.close(code, reason)

    def position_due(self, session: FakeSession, now: float) -> None:
        """Count."""
        self.positions += 1

    def expiring(self, session: FakeSession) -> None:
        """Tell."""
        session.channel.push(frame(b'{"type":"TOKEN_EXPIRING"}'))

    def too_slow(self, session: FakeSession, now: float) -> bool:
        """Never by itself."""
        return False


class FakeTokens:
    """``good-<user>`` is <user>'s, ``slow`` is never decided."""

    def authenticate(self, token: str) -> Deferred[Principal]:
        """As ``ports.Authenticator``."""
        result: Deferred[Principal] = Deferred()
        if token.startswith("good-"):
            user = token.removeprefix("good-")
            result.callback(Principal(user, Grants(("*",)), Grants(()), None, None))
        elif token != "slow":
            result.errback(AuthError("the token is not valid", "signature"))
        return result


class ReactorClock:
    """A reactor and the wall clock."""

    def __init__(self, reactor: Any) -> None:
        self.seconds = reactor.seconds = time.monotonic
        self.callLater = reactor.callLater
        self.wall = lambda: datetime.now(UTC).timestamp()


async def _hello(call: Call) -> Reply:
    return Reply(200, b'"hello"')


async def _echo(call: Call) -> Reply:
    return Reply(200, call.body)


class Edge:
    """A context: listening inside of it. Sections of the configuration by name, their keys as mappings."""

    def __init__(
        self,
        server: Mapping[str, Any] = {},
        limits: Mapping[str, Any] = {},
        auth: Mapping[str, Any] = {},
        max_lag: float = 60.0,
        max_age: float | None = None,
        endpoint: str = "tcp:0:interface=127.0.0.1",
    ) -> None:
        self.reactor: Any = EPollReactor()
        self.sessions = FakeSessions()
        self.metrics = Metrics(CollectorRegistry(), "test")
        self.ready = True
        self.config = config = Config(
            server=Server(**server),
            limits=Limits(**limits),
            auth=Auth(**auth),
            slow_client=SlowClient(max_lag=max_lag),
            connections=Connections(max_age=max_age),
        )
        clock: Any = ReactorClock(self.reactor)
        random = Random(1)
        self.keepalive = KeepAlive(config, self.sessions, clock, random)
        self.door: Door[Any] = Door(
            config,
            FakeTokens(),
            self.sessions.plan,
            ready=lambda: self.ready,
            draining=lambda: False,
            clock=clock,
            metrics=self.metrics,
            random=random,
        )
        sessions: Any = self.sessions
        limits_, server_ = config.limits, config.server
        self.websockets = WebSockets(
            sessions, self.keepalive, clock, limits_.message_bytes, server_.compression, server_.write_timeout
        )
        site = Site(
            {"/hello": {"GET": _hello}, "/echo": {"POST": _echo}},
            self.metrics,
            clock,
            max_body=1024,
            read_timeout=server_.read_timeout,
            write_timeout=server_.write_timeout,
        )
        self.port = Port(config, self.door, self.websockets, site, clock, self.metrics)
        self._endpoint = endpoint
        self._thread = threading.Thread(target=self.reactor.run, kwargs={"installSignalHandlers": False}, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._listening = self.call(serverFromString(self.reactor, self._endpoint).listen, self.port)
        self.call(self.keepalive.start)
        host = self._listening.getHost()
        name = getattr(host, "name", None)
        self.address: Any = (host.host, host.port) if name is None else name.decode()
        return self

    def __exit__(self, *_: object) -> None:
        self.call(self.keepalive.stop)
        self.call(self._listening.stopListening)
        self.reactor.callFromThread(self.reactor.stop)
        self._thread.join(10)
        assert not self._thread.is_alive(), "the reactor does not stop"

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """The result of a call on the reactor's thread."""
        return blockingCallFromThread(self.reactor, function, *args)

    def connect(self, **options: Any) -> RawClient:
        """A raw connection."""
        return RawClient(self.address, **options)

    def client(self, query: str = "token=good-alice", receive_buffer: int | None = None, **options: Any) -> RawClient:
        """A WebSocket that has had its CONNECTED."""
        client = self.connect(receive_buffer=receive_buffer)
        assert client.upgrade(f"/ws?{query}", **options).status == 101
        assert client.frame().payload == HELLO
        return client

    @property
    def session(self) -> FakeSession:
        """The last that was opened."""
        return self.sessions.opened[-1]
