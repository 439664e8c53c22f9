"""One client's WebSocket connection: finished bytes out, whole messages in. It knows nothing of topics.

Inwards, ``frames.py`` reads. Outwards, :meth:`GatewayProtocol.push` is the hot path: as long as nothing waits, bytes
go from the caller's hands into the socket, without a turn of the reactor. What the kernel does not take waits in the
transport, and the session hears of it. The kernel is kept from becoming a queue by ``TCP_NOTSENT_LOWAT``.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import socket
import struct
from typing import Any

import attrs
from twisted.internet.interfaces import IHalfCloseableProtocol, IPullProducer
from twisted.internet.protocol import Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from gateway.core.limits import TokenBucket
from gateway.core.session import Session
from gateway.core.wire import close_frame, frame
from gateway.errors import Close
from gateway.ports import Clock, Progress
from gateway.services.door import Admission, Farewell
from gateway.services.keepalive import KeepAlive, Pulse
from gateway.services.sessions import Sessions
from gateway.services.subscriptions import Plan
from gateway.web import deflate
from gateway.web.frames import NEGOTIATED, FrameReader

_log = Logger()

CLOSE, PONG = 8, 10  # opcodes
MAX_ANSWERS = 64 * 1024  # bytes of answers that may wait before reading pauses
# Frames beside the first of each message (PINGs, PONGs nobody asked for, continuations): a second, and at once.
EXTRA_FRAMES, EXTRA_BURST = 200, 2048
# Seconds of reading and dropping after a close frame, and as many more until the peer has taken it: a close with unread
# input would reset it away, and what a closed socket still holds would stay in the kernel for minutes.
LINGER = 1.0
UNSENT = 16 * 1024  # bytes the kernel takes beyond what the peer's window lets out
NO_STATUS, ABNORMAL = 1005, 1006  # RFC 6455 section 7.4.1: never sent
_UNLIMITED = 2**31 - 1
_MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3
_TCP_INFO = struct.Struct("=B23xI92xQ")  # linux/tcp.h: tcpi_state, tcpi_unacked, tcpi_bytes_acked
_TAKEN = (5, 6, 7)  # net/tcp_states.h: FIN_WAIT2, TIME_WAIT, CLOSE: the peer has everything, and knows that it is all


@attrs.frozen
class Upgrade:
    """What the answer to a valid opening handshake depends on."""

    key: str
    extensions: str  # Sec-WebSocket-Extensions as it came


@attrs.frozen
class WebSockets:
    """What all connections share."""

    sessions: Sessions
    keepalive: KeepAlive
    clock: Clock
    message_bytes: int
    compression: bool
    write_timeout: float  # seconds

    isServer = True  # noqa: N815 - Autobahn's name; it asks its factory

    def switch(self, transport: Any, upgrade: Upgrade, outcome: Admission[Plan] | Farewell, early: bytes) -> None:
        """Make ``transport`` a WebSocket. ``early``: what came behind the request."""
        protocol = GatewayProtocol(self)
        transport.protocol = protocol
        protocol.makeConnection(transport)
        protocol.begin(upgrade, outcome, early)


@implementer(IHalfCloseableProtocol, IPullProducer)
class GatewayProtocol(Protocol, FrameReader):
    """Implements ``ports.Channel``.

    The attributes of the class are those of a connection that is gone: ``connectionLost`` empties the instance, which
    leaves no circle for the cyclic collector, and whoever still holds it may push, close and abort without effect.
    """

    session: Session | None = None
    _pulse: Pulse | None = None
    _slot: Any = None
    _send: Any = staticmethod(len)  # bytes taken
    _pushed = 0  # bytes accepted
    _waiting = False  # something is in the transport's buffer
    _answers = 0  # bytes of answers since something began to wait
    _paused = False  # reading
    _code: int | None = ABNORMAL  # set: the connection is closing, or gone
    _timer: Any = None
    _abort_at = 0.0
    _extra: TokenBucket | None = None
    _is_tcp = False
    transport: Any = None

    def __init__(self, shared: WebSockets) -> None:
        # Not Autobahn's __init__: it makes Deferreds that hold the connection in a circle.
        self.factory: Any = shared
        self._code = None

    # The beginning

    def begin(self, upgrade: Upgrade, outcome: Admission[Plan] | Farewell, early: bytes) -> None:
        """Answer the handshake and open the session, or say why not."""
        self._slot = outcome.slot
        sock = self.transport.getHandle()
        self._is_tcp = sock.family != socket.AF_UNIX
        if self._is_tcp:
            self.transport.setTcpNoDelay(True)
        self._limit_kernel(UNSENT)
        self._send = sock.send
        self.push(self._response(upgrade, outcome.subprotocol))
        if isinstance(outcome, Farewell):
            self.close(outcome.code, outcome.reason)
            return
        shared = self.factory
        try:
            self.session = shared.sessions.open(outcome.principal, outcome.plan, self, outcome.address)
        except Exception:
            _log.failure("a session did not open")
            self.close(Close.INTERNAL)
            return
        if self._code is None:
            self._pulse = shared.keepalive.add(self.session, self)
            if self._waiting:
                shared.keepalive.waiting(self._pulse)
            if early:
                self.dataReceived(early)

    def _response(self, upgrade: Upgrade, subprotocol: str | None) -> bytes:
        accept = base64.b64encode(hashlib.sha1(upgrade.key.encode() + _MAGIC, usedforsecurity=False).digest())
        lines = [
            "HTTP/1.1 101 Switching Protocols",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Accept: {accept.decode()}",
        ]
        if subprotocol is not None:
            lines.append(f"Sec-WebSocket-Protocol: {subprotocol}")
        if self.factory.compression and (extension := deflate.negotiate(upgrade.extensions)):
            self._perMessageCompress = NEGOTIATED
            lines.append(f"Sec-WebSocket-Extensions: {extension}")
        return "\r\n".join((*lines, "\r\n")).encode()

    def _limit_kernel(self, unsent: int) -> None:
        """How many bytes the kernel takes that it cannot send yet. A UNIX socket has its send buffer for that."""
        sock = self.transport.getHandle()
        with contextlib.suppress(OSError):  # of a peer that has gone; the reactor has not told yet
            if self._is_tcp:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, unsent)
            else:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, min(unsent, 1 << 18))

    # Out

    def push(self, data: bytes) -> bool:
        """As ``Channel.push``. At a hundred thousand calls a second every name that is looked up here counts."""
        if self._waiting:
            self._pushed += len(data)
            self.transport.write(data)
            return False
        try:
            sent = self._send(data)
        except BlockingIOError:
            sent = 0
        except OSError:  # as in _limit_kernel
            self.abort()
            return True
        self._pushed += len(data)
        return sent == len(data) or self._wait(data[sent:])

    def answer(self, data: bytes) -> bool:
        """As ``Channel.answer``: a client that sends and does not read is not listened to for a while."""
        if self.push(data):
            return True
        self._answers += len(data)
        if self._answers > MAX_ANSWERS and not self._paused:
            self._paused = True
            self.transport.pauseProducing()
        return False

    def _wait(self, rest: bytes) -> bool:
        transport = self.transport
        # A pull producer is asked for more whenever the buffer has run empty, and once at its registration.
        transport.registerProducer(self, False)
        self._waiting = True
        transport.write(rest)
        if self._pulse is not None:
            self.factory.keepalive.waiting(self._pulse)
        return False

    def resumeProducing(self) -> None:
        """Nothing waits any more."""
        if not self._waiting:
            return
        self.transport.unregisterProducer()
        self._waiting = False
        self._answers = 0
        if self._pulse is not None:
            self.factory.keepalive.drained(self._pulse)
        if self.session is not None:
            self.factory.sessions.drained(self.session)
        if self._paused and self._code is None and self._answers <= MAX_ANSWERS:
            self._paused = False
            self.transport.resumeProducing()
            self._read()

    def stopProducing(self) -> None:
        """The transport is gone; ``connectionLost`` follows."""

    def progress(self) -> Progress:
        """As ``Channel.progress``."""
        transport = self.transport
        if transport is None or not transport.connected:
            return Progress(0, 0, 0)
        waiting = len(transport.dataBuffer) - transport.offset + transport._tempDataLen
        if not self._is_tcp:
            return Progress(waiting, self._pushed - waiting, 0, self._paused, self._pushed)
        _, in_flight, acked = self._tcp_info()
        return Progress(waiting, acked, in_flight, self._paused, self._pushed)

    def _tcp_info(self) -> tuple[int, int, int]:
        info = self.transport.getHandle().getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
        state, in_flight, acked = _TCP_INFO.unpack(info)
        return state, in_flight, acked

    # The end

    def close(self, code: Close, reason: str = "") -> None:
        """As ``Channel.close``."""
        if self._code is None:
            self._end(code, close_frame(code, reason))

    def abort(self) -> None:
        """As ``Channel.abort``."""
        if self.transport is not None:
            self._send, self._waiting = len, False
            self.transport.abortConnection()

    def _end(self, code: int, last: bytes) -> None:
        """Send ``last`` behind what waits, half-close, and give the peer a while to take it."""
        self._code = code
        self._send, self.unread, self.data = len, b"", b""
        transport, shared = self.transport, self.factory
        if self._pulse is not None:
            shared.keepalive.remove(self._pulse)
        if self._waiting:
            self._waiting = False
            transport.unregisterProducer()
        self._limit_kernel(_UNLIMITED)  # else a peer whose window is closed would never be sent the close frame
        if self._paused:
            self._paused = False
            transport.resumeProducing()
        self._abort_at = shared.clock.seconds() + shared.write_timeout
        self._timer = shared.clock.callLater(shared.write_timeout, self.abort)
        transport.write(last)
        transport.loseWriteConnection()

    def writeConnectionLost(self) -> None:
        """The kernel has all: read and drop what the peer still sends, until it has taken all, too."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = self.factory.clock.callLater(LINGER, self._leave)

    def _leave(self) -> None:
        left = self._abort_at - self.factory.clock.seconds()
        if self._is_taken():
            self.transport.loseConnection()
        elif left <= 0:
            self.abort()
        else:
            self._timer = self.factory.clock.callLater(min(LINGER, left), self._leave)

    def _is_taken(self) -> bool:
        return not self._is_tcp or self._tcp_info()[0] in _TAKEN

    def readConnectionLost(self) -> None:
        """The peer has sent all it will: with a close frame this is the end of the handshake, without it a loss."""
        if self._code is None:
            self.abort()
        elif self._is_taken():
            self.transport.loseConnection()

    def connectionLost(self, reason: Failure | None = None) -> None:
        """Tell everybody once, and forget everything."""
        shared, session = self.factory, self.session
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        if self._pulse is not None:
            shared.keepalive.remove(self._pulse)
        self._slot.release()
        code = ABNORMAL if self._code is None else self._code
        self.__dict__.clear()
        if session is not None:
            shared.sessions.closed(session, code)

    # In

    def dataReceived(self, data: bytes) -> None:
        """Bytes of the client. What comes behind a close frame, theirs or ours, is dropped."""
        if self._code is None:
            self.unread += data
            self._read()

    def _read(self) -> None:
        try:
            self.parse()
        except Exception:
            _log.failure("a message of a client failed")
            self.close(Close.INTERNAL)

    def reading(self) -> bool:
        """Not behind the end, and not while answers pile up."""
        return self._code is None and not self._paused

    def message(self, payload: bytes, binary: bool) -> None:
        """A whole message."""
        self.factory.sessions.receive(self.session, payload, binary)

    def ping(self, payload: bytes) -> None:
        """A PING; there are only so many."""
        self.extra_frame()
        if self._code is None:
            self.answer(frame(payload, PONG))

    def pong(self, payload: bytes) -> None:
        """A PONG; one that nobody asked for is as good as a PING."""
        if not self.factory.keepalive.pong(self._pulse, payload):
            self.extra_frame()

    def extra_frame(self) -> None:
        """A frame beside the first of a message."""
        if self._extra is None:
            self._extra = TokenBucket(EXTRA_FRAMES, EXTRA_BURST)
        if self._extra.take(self.factory.clock.seconds()):
            self.close(Close.RATE_LIMITED, "too many frames")

    def peer_closes(self, code: int | None) -> None:
        """A close frame: answered in kind (RFC 6455 section 5.5.1)."""
        self._end(code or NO_STATUS, frame(b"" if code is None else code.to_bytes(2, "big"), CLOSE))

    def fail(self, code: Close, reason: str) -> None:
        """A frame broke a rule."""
        self.close(code, reason)
