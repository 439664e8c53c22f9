"""HTTP requests and answers over twisted.web: a table of routes, one answer a connection, bounded in size and time.

A handler takes a :class:`Call` and gives a :class:`Reply`, or raises a GatewayError; what that looks like is decided
in one place. Paths match exactly and undecoded. Every connection ends with its answer: whatever a proxy thinks comes
behind it is never read (RFC 9112 section 11.2).
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web import http

from gateway.core.origins import is_loopback
from gateway.errors import GatewayError, Kind, Refused
from gateway.metrics import OTHER, Metrics
from gateway.ports import Clock

_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
_LATE = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"

_log = Logger()


@attrs.frozen
class Call:
    """One whole request. ``query`` and ``headers`` (by lower-case name) hold every value that was sent."""

    method: str
    path: str
    query: Mapping[bytes, list[bytes]]
    headers: Mapping[bytes, list[bytes]] = attrs.field(repr=False)
    body: bytes = attrs.field(repr=False)
    address: str

    def header(self, name: bytes) -> str:
        """The header's one value, or "" where it is missing or stands there twice."""
        values = self.headers.get(name, [])
        return values[0].decode("latin-1") if len(values) == 1 else ""


@attrs.frozen
class Reply:
    """What is answered. ``headers`` beside those that every answer has."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: Mapping[str, str] = attrs.Factory(dict)


Handler = Callable[[Call], Awaitable[Reply]]
Routes = Mapping[str, Mapping[str, Handler]]  # path -> method -> handler


def json_reply(value: object, status: int = 200) -> Reply:
    """``value`` as JSON."""
    return Reply(status, json.dumps(value, separators=(",", ":")).encode())


def error_reply(error: GatewayError, path: str) -> Reply:
    """Under ``/api`` a problem document (RFC 9457), elsewhere the body that a refused client gets."""
    wire = error.kind.wire
    headers = {"WWW-Authenticate": "Bearer"} if wire.status == HTTPStatus.UNAUTHORIZED else {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(math.ceil(error.retry_after))
    if not path.startswith("/api/"):
        body: dict[str, object] = {"type": "ERROR", "code": wire.code, "message": error.message}
        return Reply(wire.status, json.dumps(body).encode(), headers=headers)
    title = HTTPStatus(wire.status).phrase
    body = {"type": "about:blank", "title": title, "status": wire.status, "detail": error.message, "code": wire.code}
    return Reply(wire.status, json.dumps(body).encode(), "application/problem+json", headers)


class Site(http.HTTPFactory):
    """Answers requests by ``routes``. ``buildProtocol`` makes what reads them from a connection.

    ``max_body``: bytes of a request's body; ``read_timeout``: seconds in which a request must be whole;
    ``write_timeout``: seconds in which the peer must have taken the answer; ``loopback_only``: the Host must name this
    machine, so that no page elsewhere can point a name of its own at it (DNS rebinding).
    """

    noisy = False

    def __init__(
        self,
        routes: Routes,
        metrics: Metrics,
        clock: Clock,
        *,
        max_body: int,
        read_timeout: float,
        write_timeout: float,
        loopback_only: bool = False,
    ) -> None:
        super().__init__(timeout=None, reactor=clock)  # type: ignore[arg-type]
        self.routes = routes
        self.metrics = metrics
        self.clock = clock
        self.max_body = max_body
        self.read_timeout = read_timeout
        self.write_timeout = write_timeout
        self.loopback_only = loopback_only

    def startFactory(self) -> None:
        """No access log: Twisted's would hold queries, and tokens in them."""

    def stopFactory(self) -> None:
        """There is nothing to end."""

    def log(self, request: http.Request) -> None:
        """As said in startFactory."""

    async def answer(self, call: Call) -> Reply:
        """The answer to a request, whatever its handler does."""
        try:
            return await self._handler(call)(call)
        except _NotAllowed as error:
            return attrs.evolve(error_reply(error, call.path), headers={"Allow": error.allowed})
        except GatewayError as error:
            return error_reply(error, call.path)
        except Exception:
            _log.failure("{method} {route} failed", method=call.method, route=self.route(call.path))
            return error_reply(GatewayError("this is an error of the gateway's own; its log has more"), call.path)

    def route(self, path: str) -> str:
        """The metric label of a path."""
        return path if path in self.routes else OTHER

    def _handler(self, call: Call) -> Handler:
        if self.loopback_only and not is_loopback(call.header(b"host")):
            raise Refused("the Host must be a loopback name: see auth.allowInsecure", Kind.FORBIDDEN)
        methods = self.routes.get(call.path)
        if methods is None:
            raise Refused("there is nothing at this path", Kind.NOT_FOUND)
        handler = methods.get("GET" if call.method == "HEAD" else call.method)
        if handler is None:
            raise _NotAllowed(methods)
        return handler


class _NotAllowed(Refused):
    """RFC 9110 section 15.5.6."""

    kind = Kind.METHOD_NOT_ALLOWED

    def __init__(self, methods: Mapping[str, Handler]) -> None:
        super().__init__("this method is not for this path")
        self.allowed = ", ".join(sorted({*methods, *(("HEAD",) if "GET" in methods else ())}))


class _Request(http.Request):
    """A request that is being read, then answered."""

    def __init__(self, channel: Any, queued: object) -> None:
        super().__init__(channel, queued, parsePOSTFormSubmission=False)
        self._site: Site = channel.factory
        self._began = self._site.clock.seconds()
        self._too_large = False

    def gotLength(self, length: int | None) -> None:
        """The body stays in memory: it is small, and a temporary file can fail."""
        self.content = self._body = io.BytesIO()

    def handleContentChunk(self, data: bytes) -> None:
        """What is above the limit is read and dropped, so that the peer gets to see the answer."""
        if self._body.tell() + len(data) > self._site.max_body:
            self._too_large = True
        else:
            self._body.write(data)

    def process(self) -> None:
        """The request is whole."""
        call = Call(
            method=self.method.decode("latin-1"),
            path=self.path.decode("latin-1"),
            query=self.args,
            headers={name.lower(): list(values) for name, values in self.requestHeaders.getAllRawHeaders()},
            body=self._body.read(),
            address=str(getattr(self.channel.getPeer(), "host", "local")),
        )
        if self._too_large:
            error = Refused(f"a body here has at most {self._site.max_body} bytes", Kind.BODY_TOO_LARGE)
            self._send(error_reply(error, call.path), call)
        else:
            answered = Deferred.fromCoroutine(self._site.answer(call))
            answered.addCallback(self._send, call)
            answered.addErrback(self._failed)

    def _send(self, reply: Reply, call: Call) -> None:
        seconds = self._site.clock.seconds() - self._began
        self._site.metrics.answered(call.method, self._site.route(call.path), reply.status, seconds)
        if self._disconnected:
            return
        self.setResponseCode(reply.status)
        self.setHeader("Date", http.datetimeToString())
        self.setHeader("Content-Type", reply.content_type)
        self.setHeader("Content-Length", str(len(reply.body)))
        for name, value in (_HEADERS | dict(reply.headers)).items():
            self.setHeader(name, value)
        self.write(reply.body)
        self.finish()

    def _failed(self, failure: Failure) -> None:
        _log.failure("an answer could not be sent", failure)
        transport: Any = self.transport
        transport.abortConnection()


class _Channel(http.HTTPChannel):
    """Reads one request, with one deadline for all of it and one for the peer to take the answer."""

    requestFactory = _Request  # type: ignore[assignment]
    maxHeaders = 100
    factory: Site
    _deadline: Any = None

    def connectionMade(self) -> None:
        """The clock runs from here."""
        super().connectionMade()
        self._set_deadline(self.factory.read_timeout, self._late)

    def checkPersistence(self, request: http.Request, version: bytes) -> bool:
        """One request a connection."""
        request.responseHeaders.setRawHeaders("Connection", ["close"])
        return False

    def allContentReceived(self) -> None:
        """The handler's own time is its own matter."""
        self._clear_deadline()
        super().allContentReceived()

    def loseConnection(self) -> None:
        """A peer that does not take its answer is not waited for."""
        self._set_deadline(self.factory.write_timeout, self.forceAbortClient)
        super().loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Leaves no timer behind."""
        self._clear_deadline()
        super().connectionLost(reason)

    def _late(self) -> None:
        self.writeSequence((_LATE,))
        self.loseConnection()

    def _set_deadline(self, seconds: float, then: Callable[[], None]) -> None:
        self._clear_deadline()
        self._deadline = self.callLater(seconds, then)

    def _clear_deadline(self) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()


Site.protocol = _Channel  # type: ignore[assignment]
