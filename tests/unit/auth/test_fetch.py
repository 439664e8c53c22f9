"""Fetching a JWK set from a real server, on a reactor of the test's own: well, and from one that misbehaves."""

from __future__ import annotations

import gzip
import time
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError as TwistedConnectionRefusedError
from twisted.internet.selectreactor import SelectReactor
from twisted.python.failure import Failure

from gateway.auth import fetch
from gateway.auth.fetch import MAX_BYTES, Fetcher
from gateway.auth.jwks import parse
from tests.support.jwks_server import JwksServer, Signer

SIGNER = Signer("ES256", "k1")


@pytest.fixture
def server() -> Iterator[JwksServer]:
    with JwksServer(SIGNER) as server:
        yield server


def run(url: str, *, cancel_after: float | None = None) -> tuple[bytes | BaseException, int]:
    """What a fetch gives, and how many connections are left when it has."""
    reactor = SelectReactor()
    results: list[Any] = []
    left: list[int] = []

    def count() -> None:
        left.append(len(reactor.getReaders()) - len(reactor._internalReaders))
        reactor.stop()

    def done(result: object) -> None:
        results.append(result.value if isinstance(result, Failure) else result)
        reactor.callLater(0, reactor.callLater, 0, count)  # an aborted connection is gone a turn later

    def start() -> None:
        fetching: Deferred[bytes] = Fetcher(reactor, url)()
        fetching.addBoth(done)
        if cancel_after is not None:
            reactor.callLater(cancel_after, fetching.cancel)

    reactor.callWhenRunning(start)
    reactor.callLater(20, reactor.crash)
    reactor.run(installSignalHandlers=False)
    return results[0], left[0]


def test_a_set_is_fetched(server: JwksServer) -> None:
    """The whole way: server, treq, keys."""
    body, left = run(server.url)
    assert isinstance(body, bytes)
    assert [key.kid for key in parse(body)] == ["k1"]
    assert (server.requests, left) == (1, 0)


def test_a_set_that_is_compressed(server: JwksServer) -> None:
    """treq offers gzip, so providers use it."""
    server.answer(gzip.compress(b'{"keys":[]}'), headers={"Content-Encoding": "gzip"})
    assert run(server.url) == (b'{"keys":[]}', 0)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(server: JwksServer, status: int) -> None:
    """Keys from a place that nobody configured; or over http."""
    with JwksServer(SIGNER) as elsewhere:
        server.answer(b"", status, {"Location": elsewhere.url})
        error, left = run(server.url)
        assert isinstance(error, ValueError)
        assert str(error) == f"the answer has status {status}"
        assert (elsewhere.requests, left) == (0, 0)


@pytest.mark.parametrize("status", [201, 204, 304, 401, 404, 500, 503])
def test_another_status_is_no_set(server: JwksServer, status: int) -> None:
    """An error page, even if it should look like one."""
    server.answer(b'{"keys":[]}' if status not in (204, 304) else b"", status)
    error, left = run(server.url)
    assert isinstance(error, ValueError)
    assert (str(error), left) == (f"the answer has status {status}", 0)


def test_a_large_answer_is_cut_off(server: JwksServer) -> None:
    """Whoever answers could fill the memory."""
    server.answer(b" " * MAX_BYTES)
    body, left = run(server.url)
    assert (body, left) == (b" " * MAX_BYTES, 0)
    server.answer(b" " * (MAX_BYTES + 1))
    error, left = run(server.url)
    assert isinstance(error, ValueError)
    assert ("longer than" in str(error), left) == (True, 0)


def test_an_endless_answer_is_cut_off(server: JwksServer) -> None:
    """As above, without a length."""
    server.endless()
    error, left = run(server.url)
    assert isinstance(error, ValueError)
    assert ("longer than" in str(error), left) == (True, 0)


def test_a_bomb_is_cut_off(server: JwksServer) -> None:
    """64 MiB in 64 KiB: the size that counts is that after gzip."""
    server.answer(gzip.compress(bytes(64 * 2**20)), headers={"Content-Encoding": "gzip"})
    started = time.process_time()
    error, left = run(server.url)
    assert isinstance(error, ValueError)
    assert ("longer than" in str(error), left) == (True, 0)
    assert time.process_time() - started < 2


@pytest.mark.parametrize("after_head", [False, True])
def test_a_server_that_stalls(server: JwksServer, after_head: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every token with a new key would wait for it, and its connection stay for ever."""
    monkeypatch.setattr(fetch, "TIMEOUT", 0.3)
    server.stall(after_head=after_head)
    error, left = run(server.url)
    assert isinstance(error, ValueError)
    assert (str(error), left) == ("no whole answer within 0.3 s", 0)


@pytest.mark.parametrize("after_head", [False, True])
def test_a_fetch_can_be_cancelled(server: JwksServer, after_head: bool) -> None:
    """A process that ends would wait for the provider."""
    server.stall(after_head=after_head)
    error, left = run(server.url, cancel_after=0.2)
    assert type(error).__name__ in ("CancelledError", "ResponseNeverReceived", "ConnectionAborted")
    assert left == 0


def test_an_answer_that_breaks_off(server: JwksServer) -> None:
    """Half a set is none."""
    server.answer(b'{"keys":', headers={"Content-Length": "100"})
    error, left = run(server.url)
    assert isinstance(error, Exception)
    assert left == 0


def test_nobody_there(server: JwksServer) -> None:
    """An error to tell, not one to raise."""
    url = server.url
    with JwksServer(SIGNER) as gone:
        url = gone.url
    error, left = run(url)
    assert isinstance(error, TwistedConnectionRefusedError)
    assert left == 0


@pytest.mark.parametrize("answer", [b"HELO\r\n\r\n", b"", b"HTTP/1.1 200\r\n"])
def test_a_server_that_speaks_no_http(server: JwksServer, answer: bytes) -> None:
    """Another service behind the configured port."""

    def reply(handler: Any) -> None:
        handler.wfile.write(answer)

    server.reply(reply)
    error, left = run(server.url)
    assert isinstance(error, Exception)
    assert left == 0
