"""Fetches a JWK set over HTTP with treq: bounded in time and size, without redirects."""

from __future__ import annotations

from typing import Any, NoReturn

from treq.client import HTTPClient
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import Agent, HTTPConnectionPool, ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers

TIMEOUT = 5.0
"""Seconds for all of it: name, connection, answer and body."""

MAX_BYTES = 256 * 1024
"""Of a body."""

_HEADERS = Headers({"Accept": ["application/jwk-set+json, application/json"], "User-Agent": ["ws-gateway"]})


class Fetcher:
    """Gets the text behind one URL, one fetch at a time."""

    def __init__(self, reactor: Any, url: str) -> None:
        self._reactor = reactor
        self._url = url
        self._connections = _Connections(reactor, persistent=False)
        self._agent: Any = Agent(reactor, connectTimeout=TIMEOUT, pool=self._connections)

    def __call__(self) -> Deferred[bytes]:
        """Errbacks with ValueError for an answer that is none, or none in time, else with what Twisted tells of the
        network. Its connection is gone then; also where it is cancelled."""
        return Deferred.fromCoroutine(self._fetch()).addTimeout(TIMEOUT, self._reactor, _too_late)

    async def _fetch(self) -> bytes:
        client = HTTPClient(self._agent)  # a new one each time: it would keep cookies
        try:
            response = await client.get(
                self._url,
                headers=_HEADERS.copy(),
                allow_redirects=False,
                unbuffered=True,
                reactor=self._reactor,
            )
            if response.code != 200:
                raise ValueError(f"the answer has status {response.code}")
            body = _Body()
            response.deliverBody(body)
            return await body.whole
        finally:
            self._connections.abort()


def _too_late(_result: object, timeout: float) -> NoReturn:
    raise ValueError(f"no whole answer within {timeout:g} s")


class _Connections(HTTPConnectionPool):
    """Remembers its connection: the transport of a response cannot be aborted, and one that stalls would stay."""

    _current: Any = None

    def getConnection(self, key: object, endpoint: Any) -> Deferred[Any]:  # noqa: N802 - Twisted's name
        """As HTTPConnectionPool's."""
        return super().getConnection(key, endpoint).addCallback(self._remember)

    def abort(self) -> None:
        """End the last connection, if it is still there."""
        current, self._current = self._current, None
        if current is not None:
            current.abort()

    def _remember(self, connection: Any) -> Any:
        self._current = connection
        return connection


class _Body(Protocol):
    """Collects a response's body; no more than MAX_BYTES, as they are after gzip."""

    def __init__(self) -> None:
        self.whole: Deferred[bytes] = Deferred()
        self._received = bytearray()

    def dataReceived(self, data: bytes) -> None:
        """As IProtocol's."""
        self._received += data
        if len(self._received) > MAX_BYTES and not self.whole.called:
            self.whole.errback(ValueError(f"the answer is longer than {MAX_BYTES} bytes"))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """As IProtocol's. A body without a length ends with its connection (PotentialDataLoss): JSON shows if it is
        whole."""
        if self.whole.called:
            return
        if reason.check(ResponseDone, PotentialDataLoss):
            self.whole.callback(bytes(self._received))
        else:
            self.whole.errback(reason)
