"""One port for WebSocket and HTTP: the head of a request is read here, bounded and strictly, then the connection is
handed to the one or the other.

Neither Autobahn nor twisted.web sees a byte before the head is whole and valid, and what they get is the only request
of its connection. One that never gets so far costs at most 16 KiB for ``server.readTimeout``. Of connections without
an answer there are at most ``limits.handshakesPending``; beyond that the oldest goes, hardly ever an honest one.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress, IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from gateway.config import Config
from gateway.core.addresses import LOCAL, client_address
from gateway.errors import GatewayError, Kind, Refused
from gateway.metrics import OTHER, Metrics
from gateway.ports import Clock
from gateway.services.door import Admission, Door, Farewell, Handshake
from gateway.services.subscriptions import Plan
from gateway.web.request import Head, check_upgrade, end_of_head, is_upgrade, parse, parse_query
from gateway.web.routes import Site, error_reply
from gateway.web.websocket import LINGER, Upgrade, WebSockets

_log = Logger()

MAX_EARLY = 64 * 1024  # bytes behind a handshake that is not answered yet
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Connection": "close",
}
_OF_KIND: Mapping[Kind, Mapping[str, str]] = {
    Kind.METHOD_NOT_ALLOWED: {"Allow": "GET"},
    Kind.UPGRADE_REQUIRED: {"Upgrade": "websocket", "Sec-WebSocket-Version": "13"},
}


class Port(Factory):
    """The listening factory. ``site`` serves what is not a WebSocket."""

    noisy = False

    def __init__(
        self, config: Config, door: Door[Plan], websockets: WebSockets, site: Site, clock: Clock, metrics: Metrics
    ) -> None:
        self.path = config.server.path
        self.trusted = config.server.trusted_proxies
        self.read_timeout = config.server.read_timeout
        self.write_timeout = config.server.write_timeout
        self.door = door
        self.websockets = websockets
        self.site = site
        self.clock = clock
        self.metrics = metrics
        self._max_pending = config.limits.handshakes_pending
        self._pending: dict[Connection, None] = {}  # the oldest first

    def buildProtocol(self, addr: IAddress | None) -> Connection:  # type: ignore[override]
        """A connection came in."""
        return Connection(self, addr)

    def opened(self, connection: Connection) -> None:
        """It waits for an answer from here on."""
        self._pending[connection] = None
        if len(self._pending) > self._max_pending:
            _log.warn("more connections than limits.handshakesPending wait for an answer: the oldest go")
            next(iter(self._pending)).evict()

    def settled(self, connection: Connection) -> None:
        """It does not wait any more."""
        self._pending.pop(connection, None)


class _State(enum.Enum):
    HEAD = enum.auto()  # the request line and headers are being read
    DOOR = enum.auto()  # the door decides
    SITE = enum.auto()  # twisted.web answers
    ENDING = enum.auto()  # an error was answered: read and drop
    GONE = enum.auto()  # lost, or a WebSocket's


@implementer(IHalfCloseableProtocol)
class Connection(Protocol):
    """A connection until it is a WebSocket, or until its one request is answered."""

    transport: Any
    factory: Port

    def __init__(self, factory: Port, peer: IAddress | None) -> None:
        self.factory = factory
        self._peer = peer
        self._state = _State.HEAD
        self._data = b""
        self._head: Head | None = None
        self._since = factory.clock.seconds()
        self._timer: Any = None
        self._entering: Any = None
        self._channel: Any = None

    def connectionMade(self) -> None:
        """Give it ``server.readTimeout`` for a request."""
        self._wait(self.factory.read_timeout, self._too_late)
        self.factory.opened(self)

    def dataReceived(self, data: bytes) -> None:
        """Bytes of the client; one request is all that is looked at."""
        if self._state is _State.HEAD:
            self._data += data
            try:
                self._read()
            except GatewayError as error:
                self._reject(error)
            except Exception:
                _log.failure("a request could not be read")
                self._refuse(Refused("try again later", Kind.UNAVAILABLE, 1.0))
        elif self._state is _State.SITE:
            self._channel.dataReceived(data)
        elif self._state is _State.DOOR:
            self._data += data
            if len(self._data) > MAX_EARLY:
                self.transport.pauseProducing()  # not before: a peer that goes away would not be noticed

    def _read(self) -> None:
        size = end_of_head(self._data)
        if size:
            head = self._head = parse(self._data[:size])
            if head.path == self.factory.path.encode():
                self._enter(head, size)
            elif is_upgrade(head):
                raise Refused("there is no WebSocket at this path", Kind.NOT_FOUND)
            else:
                self._hand_to_site()

    def _hand_to_site(self) -> None:
        self._cancel()  # the site has its own deadlines
        self._state = _State.SITE
        data, self._data = self._data, b""
        self._channel = self.factory.site.buildProtocol(self._peer)
        self._channel.makeConnection(self.transport)
        self._channel.dataReceived(data)

    # WebSocket

    def _enter(self, head: Head, size: int) -> None:
        upgrade = Upgrade(check_upgrade(head), head.headers.get("sec-websocket-extensions", ""))
        forwarded = head.headers.get("x-forwarded-for")
        handshake = Handshake(
            query=parse_query(head.query),
            authorization=head.headers.get("authorization"),
            subprotocols=head.elements("sec-websocket-protocol"),
            origin=head.headers.get("origin"),
            host=head.headers.get("host", ""),
            address=client_address(self._peer_address(), forwarded, self.factory.trusted),
            forwarded=forwarded is not None,
        )
        self.factory.settled(self)
        self._data = self._data[size:]
        self._state = _State.DOOR
        self._entering = self.factory.door.enter(handshake)
        self._entering.addCallbacks(self._entered, self._turned_away, callbackArgs=(upgrade,))

    def _entered(self, outcome: Admission[Plan] | Farewell, upgrade: Upgrade) -> None:
        if self._state is not _State.DOOR:
            outcome.slot.release()
            return
        self._cancel()
        self._state = _State.GONE
        self._count(101)
        self.transport.resumeProducing()
        self.factory.websockets.switch(self.transport, upgrade, outcome, self._data)

    def _turned_away(self, failure: Failure) -> None:
        if self._state is _State.DOOR:
            self.transport.resumeProducing()
            self._refuse(failure.value)  # type: ignore[arg-type]
        failure.value.__traceback__ = None  # type: ignore[union-attr]

    def _peer_address(self) -> str:
        return self._peer.host if isinstance(self._peer, IPv4Address | IPv6Address) else LOCAL

    # The end

    def _reject(self, error: GatewayError) -> None:
        """Refuse what did not get as far as the door, which logs its refusals itself."""
        _log.warn("request refused: {reason}", reason=error.message, address=self._peer_address())
        self._refuse(error)

    def _refuse(self, error: GatewayError) -> None:
        """Answer, half-close, and drop what else comes for a moment: a close with unread input resets the answer."""
        self.factory.settled(self)
        self._state = _State.ENDING
        self._wait(self.factory.write_timeout, self.transport.abortConnection)
        head, self._data = self._head, b""
        reply = error_reply(error, head.path.decode("latin-1") if head is not None else "")
        headers = {**_HEADERS, **reply.headers, **_OF_KIND.get(error.kind, {})}
        headers |= {"Content-Type": reply.content_type, "Content-Length": str(len(reply.body))}
        lines = [f"HTTP/1.1 {reply.status} {HTTPStatus(reply.status).phrase}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        body = b"" if head is not None and head.method == "HEAD" else reply.body
        self._count(reply.status)
        self.transport.write("\r\n".join((*lines, "\r\n")).encode() + body)
        self.transport.loseWriteConnection()

    def _count(self, status: int) -> None:
        """In the metrics, under a route of ours and never under the path that was asked for."""
        factory, head = self.factory, self._head
        route = factory.path if head is not None and head.path == factory.path.encode() else OTHER
        seconds = factory.clock.seconds() - self._since
        factory.metrics.answered(head.method if head is not None else OTHER, route, status, seconds)

    def _too_late(self) -> None:
        if self._state is _State.DOOR:
            self._entering.cancel()
        elif self._data:
            self._reject(Refused("the request did not come in time", Kind.TIMEOUT))
        else:
            self.transport.loseConnection()

    def evict(self) -> None:
        """Others need the place."""
        self.factory.settled(self)
        self.transport.abortConnection()

    def writeConnectionLost(self) -> None:
        """The kernel has the whole answer."""
        if self._state is _State.ENDING:
            self._wait(LINGER, self.transport.loseConnection)

    def readConnectionLost(self) -> None:
        """The peer has sent all it will. An answer that it waits for is still written."""
        if self._state is not _State.SITE:
            self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Gone before it was a WebSocket."""
        self._cancel()
        self.factory.settled(self)
        self._state = _State.GONE
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.connectionLost(reason)
        if self._entering is not None:
            self._entering.cancel()

    def _wait(self, seconds: float, then: Callable[[], object]) -> None:
        self._cancel()
        self._timer = self.factory.clock.callLater(seconds, then)

    def _cancel(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
