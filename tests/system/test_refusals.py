"""Which refusal gets which status and which close code, as ``docs/protocol.md`` says (*Connecting*, *Close codes*).

A client decides by these whether it comes back, and a browser's page sees a close code or nothing. So: told by HTTP, or
by a close code of the same meaning, never by the wrong one, and what may pass never by a close code.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from gateway.errors import Close
from tests.support.daemon import Config, Daemon, free_port, until
from tests.support.rawclient import BINARY, CLOSE, TEXT, Answer, Closed, RawClient, close_frame, frame, upgrade_request

ALLOWED, FOREIGN = "https://app.example", "https://evil.example"
ORIGINS = {"no-origin": None, "allowed": ALLOWED, "foreign": FOREIGN}
REJECT_WITH = ("auto", "http", "close")
MALFORMED = 3  # limits.malformed


def now() -> int:
    return int(datetime.now(UTC).timestamp())


class Refusal(NamedTuple):
    """How one is told: by HTTP, or by its close code."""

    status: int
    code: str
    close: Close | None = None


BAD_TOPICS = Refusal(400, "invalid_topics", Close.BAD_REQUEST)
BAD_SINCE = Refusal(400, "bad_since", Close.BAD_REQUEST)
BAD_MESSAGE = Refusal(400, "bad_message", Close.BAD_REQUEST)
TOO_MANY_NAMES = Refusal(400, "limit", Close.BAD_REQUEST)
UNAUTHORIZED = Refusal(401, "unauthorized", Close.UNAUTHORIZED)
EXPIRED = Refusal(401, "unauthorized", Close.TOKEN_EXPIRED)
FORBIDDEN = Refusal(403, "forbidden", Close.FORBIDDEN)
FOREIGN_ORIGIN = Refusal(403, "forbidden")

# For good: of a valid upgrade. What is asked -> how it is told.
FOR_GOOD: dict[str, tuple[dict[str, Any], Refusal]] = {
    "no-token": ({"token": None}, UNAUTHORIZED),
    "bad-token": ({"token": "x.y.z"}, UNAUTHORIZED),
    "expired": ({"lifetime": -60}, EXPIRED),
    "name-forbidden": ({"claim": ["notifications"], "topics": "news"}, FORBIDDEN),
    "name-unknown": ({"topics": "no-such-topic"}, FORBIDDEN),
    "name-beside-an-allowed-one": ({"topics": "news,no-such-topic"}, FORBIDDEN),
    "bad-topics": ({"topics": "a*"}, BAD_TOPICS),
    "key-without-keys": ({"topics": "news/a"}, BAD_TOPICS),
    "topics-twice": ({"topics": "news", "extra": "&topics=news"}, BAD_TOPICS),
    "too-many-names": ({"claim": ["prices"], "topics": ",".join(f"prices/{n}" for n in range(11))}, TOO_MANY_NAMES),
    "bad-since": ({"topics": "news", "since": "yesterday"}, BAD_SINCE),
    "since-later": ({"topics": "news", "since": "earliest"}, BAD_SINCE),
    "since-not-asked-for": ({"topics": "news", "since": "notifications@0:1"}, BAD_SINCE),
    "since-twice": ({"topics": "news", "since": "latest", "extra": "&since=latest"}, BAD_SINCE),
    "raw-not-whole": ({"topics": "news", "since": "news~another@0:0", "format": "raw"}, BAD_SINCE),
    "bad-format": ({"format": "xml"}, BAD_MESSAGE),
    "format-twice": ({"format": "raw", "extra": "&format=raw"}, BAD_MESSAGE),
}


@pytest.fixture(scope="module")
def daemons(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, Daemon]]:
    """One for each ``auth.rejectWith``."""
    with ExitStack() as stack:
        found = {}
        for reject_with in REJECT_WITH:
            config: Config = {
                "server": {"origins": [ALLOWED]},
                "auth": {"rejectWith": reject_with, "leeway": "1s"},
                "limits": {"connectionsPerUser": 1, "subscriptions": 10},
            }
            found[reject_with] = stack.enter_context(Daemon(config, tmp_path_factory.mktemp(reject_with)))
        yield found


def connect(daemon: Daemon, **options: Any) -> RawClient:
    return RawClient((daemon.host, daemon.port), **options)


def query(
    daemon: Daemon,
    user: str = "alice",
    token: str | None = "",
    lifetime: float = 3600,
    claim: list[str] | None = None,
    extra: str = "",
    **parameters: str,
) -> str:
    """The target of a handshake. ``token``: not a good one; ``claim``: its topics; ``extra``: behind the rest."""
    if token == "":
        token = daemon.token(user, lifetime=lifetime, topics=claim)
    return daemon.url(token=token, **parameters).partition(str(daemon.port))[2] + extra


def ask(daemon: Daemon, target: str, origin: str | None, **options: Any) -> tuple[Answer, Closed | None]:
    """The answer to a handshake, and the close frame, where that is the first thing behind a 101."""
    headers = [*options.pop("headers", ()), *([] if origin is None else [("Origin", origin)])]
    with connect(daemon) as client:
        client.send(upgrade_request(target, headers=headers, **options))
        answer = client.answer()
        if answer.status != 101:
            assert client.ended() == b""
            return answer, None
        got = client.frame()
        if got.opcode != CLOSE:
            return answer, None
        assert client.ended() == b""
        return answer, Closed(int.from_bytes(got.payload[:2], "big"), got.payload[2:].decode())


def told_by_http(answer: Answer, refusal: Refusal) -> None:
    """Status and body, and with what may pass, when to come back."""
    assert (answer.status, answer.json()["code"]) == (refusal.status, refusal.code)
    assert (answer.json()["type"], answer.headers["connection"]) == ("ERROR", "close")
    assert ("retry-after" in answer.headers) == (refusal.status in (429, 503))
    if refusal.status in (429, 503):
        assert 1 <= int(answer.headers["retry-after"]) <= 10


def by_close_code(reject_with: str, origin: str) -> bool:
    """``auto`` needs an allowed Origin, ``close`` does it without one too, never for a foreign one."""
    if reject_with == "auto":
        return origin == "allowed"
    return reject_with == "close" and origin != "foreign"


@pytest.mark.parametrize("cause", FOR_GOOD)
@pytest.mark.parametrize("origin", ORIGINS)
@pytest.mark.parametrize("reject_with", REJECT_WITH)
def test_refused_for_good(daemons: Mapping[str, Daemon], reject_with: str, origin: str, cause: str) -> None:
    asked, refusal = FOR_GOOD[cause]
    daemon = daemons[reject_with]
    answer, closed = ask(daemon, query(daemon, **asked), ORIGINS[origin])
    if origin == "foreign":
        told_by_http(answer, FOREIGN_ORIGIN)
    elif by_close_code(reject_with, origin):
        assert answer.status == 101
        assert closed is not None
        assert closed.code == refusal.close
        assert closed.reason
    else:
        told_by_http(answer, refusal)


@pytest.mark.parametrize("origin", ["no-origin", "allowed"])
@pytest.mark.parametrize("reject_with", REJECT_WITH)
def test_who_is_not_refused_comes_in(daemons: Mapping[str, Daemon], reject_with: str, origin: str) -> None:
    """The same way as above, with nothing wrong."""
    daemon = daemons[reject_with]
    answer, closed = ask(daemon, query(daemon, f"good-{origin}", topics="news"), ORIGINS[origin])
    assert (answer.status, closed) == (101, None)


@pytest.mark.parametrize("offered", ["bearer, x.y.z", "chat, Bearer, x.y.z"])
@pytest.mark.parametrize("reject_with", ["auto", "close"])
def test_a_refusal_by_close_code_selects_bearer(daemons: Mapping[str, Daemon], reject_with: str, offered: str) -> None:
    """A browser that offered subprotocols and gets none fails the connection itself, and shows no code."""
    answer, closed = ask(daemons[reject_with], "/ws", ALLOWED, headers=[("Sec-WebSocket-Protocol", offered)])
    assert answer.headers["sec-websocket-protocol"] in ("bearer", "Bearer")
    assert answer.headers["sec-websocket-protocol"] in offered
    assert closed is not None
    assert closed.code == Close.UNAUTHORIZED


# By HTTP always


@pytest.mark.parametrize("origin", ORIGINS)
@pytest.mark.parametrize("reject_with", REJECT_WITH)
@pytest.mark.parametrize(
    ("options", "refusal"),
    [
        pytest.param({"target": "/other"}, Refusal(404, "not_found"), id="path"),
        pytest.param({"leave_out": ["Upgrade"]}, Refusal(426, "upgrade_required"), id="no-upgrade"),
        pytest.param({"leave_out": ["Sec-WebSocket-Version"]}, Refusal(426, "upgrade_required"), id="no-version"),
        pytest.param({"leave_out": ["Sec-WebSocket-Key"]}, Refusal(400, "bad_request"), id="no-key"),
        pytest.param({"method": "POST"}, Refusal(405, "method_not_allowed"), id="method"),
        pytest.param({"version": "HTTP/1.0"}, Refusal(505, "bad_request"), id="version"),
        pytest.param({"target": "/ws?topics=%ff"}, Refusal(400, "bad_request"), id="query-not-utf8"),
    ],
)
def test_what_is_no_valid_upgrade(
    daemons: Mapping[str, Daemon], reject_with: str, origin: str, options: dict[str, Any], refusal: Refusal
) -> None:
    answer, _ = ask(
        daemons[reject_with],
        options.get("target", "/ws"),
        ORIGINS[origin],
        **{name: value for name, value in options.items() if name != "target"},
    )
    told_by_http(answer, refusal)


@pytest.mark.parametrize("origin", ["no-origin", "allowed"])
@pytest.mark.parametrize("reject_with", REJECT_WITH)
def test_too_many_connections_of_one_user(daemons: Mapping[str, Daemon], reject_with: str, origin: str) -> None:
    """429 may pass: told by a close code, the client's back-off would begin anew with each try."""
    daemon = daemons[reject_with]
    user = f"crowd-{origin}"
    with connect(daemon) as first:
        assert first.upgrade(query(daemon, user)).status == 101
        answer, _ = ask(daemon, query(daemon, user), ORIGINS[origin])
        told_by_http(answer, Refusal(429, "too_many_connections"))
        assert ask(daemon, query(daemon, f"other-{user}"), ORIGINS[origin])[0].status == 101
    until(lambda: ask(daemon, query(daemon, user), ORIGINS[origin])[0].status == 101, "the place is free again")


@pytest.fixture(scope="module")
def same_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """``server.origins`` and ``auth.rejectWith`` left out."""
    with Daemon({}, tmp_path_factory.mktemp("same-host")) as daemon:
        yield daemon


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("http://127.0.0.1:{port}", True),
        ("HTTP://127.0.0.1:{port}", True),
        ("http://127.0.0.1", False),
        ("http://localhost:{port}", False),
        ("https://app.example", False),
        ("null", False),
    ],
)
def test_without_origins_it_is_the_same_host(same_host: Daemon, origin: str, allowed: bool) -> None:
    """The default: a page of the gateway's own host, and no other."""
    spelt, host = origin.format(port=same_host.port), f"127.0.0.1:{same_host.port}"
    answer, _ = ask(same_host, query(same_host), spelt, host=host)
    assert answer.status == (101 if allowed else 403)
    answer, closed = ask(same_host, query(same_host, token=None), spelt, host=host)
    if allowed:
        assert closed is not None
        assert closed.code == Close.UNAUTHORIZED
    else:
        told_by_http(answer, FOREIGN_ORIGIN)


# 503: what may pass


def test_not_ready(tmp_path: Path) -> None:
    """Kafka was never reached: clients are told to come again, whatever they ask, and whoever they are."""
    config: Config = {
        "server": {"origins": [ALLOWED]},
        "auth": {"rejectWith": "close"},
        "kafka": {"bootstrapServers": f"127.0.0.1:{free_port()}"},
    }
    daemon = Daemon(config, tmp_path).start(ready=False)
    try:
        for origin, token in product((None, ALLOWED), ("", None)):
            answer, _ = ask(daemon, query(daemon, token=token), origin)
            told_by_http(answer, Refusal(503, "not_ready"))
        assert daemon.http("GET", "/readyz")[0] == 503
    finally:
        daemon.stop()


@pytest.mark.parametrize(
    ("limits", "refusal"),
    [
        ({"handshakesPerSecond": 1}, Refusal(503, "rate_limited")),
        ({"connections": 1}, Refusal(503, "busy")),
        ({"connectionsPerAddress": 1}, Refusal(429, "too_many_connections")),
    ],
    ids=["handshakes-a-second", "connections-in-all", "connections-of-one-address"],
)
def test_too_many(limits: dict[str, int], refusal: Refusal, tmp_path: Path) -> None:
    config: Config = {"server": {"origins": [ALLOWED]}, "auth": {"rejectWith": "close"}, "limits": limits}
    with Daemon(config, tmp_path) as daemon, connect(daemon) as first:
        assert first.upgrade(query(daemon, "first")).status == 101
        for origin in (None, ALLOWED):
            answer, _ = ask(daemon, query(daemon), origin)
            told_by_http(answer, refusal)


def test_draining(tmp_path: Path) -> None:
    """1001 to those who are there, 503 to those who come, whatever ``rejectWith`` says."""
    config: Config = {
        "server": {"origins": [ALLOWED], "drain": {"pace": 1, "timeout": "60s"}},
        "auth": {"rejectWith": "close"},
    }
    with Daemon(config, tmp_path) as daemon, ExitStack() as stack:
        clients = [stack.enter_context(connect(daemon)) for _ in range(5)]
        for client in clients:
            assert client.upgrade(query(daemon)).status == 101
        daemon.signal(signal.SIGTERM)
        assert clients[0].closed().code == Close.GOING_AWAY
        for origin, token in product((None, ALLOWED), ("", None)):
            answer, _ = ask(daemon, query(daemon, token=token), origin)
            told_by_http(answer, Refusal(503, "draining"))
        daemon.signal(signal.SIGTERM)
        assert daemon.wait(10) == 0


# Close codes of sessions


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """Patient with nobody."""
    config: Config = {
        "server": {"pingInterval": "1s", "pingTimeout": "1s"},
        "auth": {"leeway": "0s", "expiryWarning": "10s"},
        "limits": {"malformed": MALFORMED, "messagesPerSecond": 10},
        "slowClient": {"maxLag": "1s"},
        "publish": {"maxBytes": "1MiB"},
    }
    with Daemon(config, tmp_path_factory.mktemp("strict")) as daemon:
        yield daemon


@pytest.fixture
def session(strict: Daemon) -> Iterator[RawClient]:
    """A session on it that has seen CONNECTED."""
    with connect(strict) as client:
        assert client.upgrade(query(strict, topics="news")).status == 101
        assert client.message()["type"] == "CONNECTED"
        yield client


@pytest.mark.parametrize(
    ("data", "code"),
    [
        pytest.param(frame(TEXT, b'{"type":"DISCONNECT"}'), Close.NORMAL, id="DISCONNECT"),
        pytest.param(close_frame(1000), Close.NORMAL, id="close"),
        pytest.param(frame(TEXT, b"{}", mask=None), Close.PROTOCOL_ERROR, id="unmasked"),
        pytest.param(frame(TEXT, b"\xff"), Close.BAD_UTF8, id="not-utf8"),
        pytest.param(frame(TEXT, length=65537), Close.TOO_BIG, id="too-big"),
        pytest.param(frame(TEXT, b"{") * MALFORMED, Close.BAD_REQUEST, id="bad_json"),
        pytest.param(frame(TEXT, b"[]") * MALFORMED, Close.BAD_REQUEST, id="bad_message"),
        pytest.param(frame(TEXT, b'{"type":"X"}') * MALFORMED, Close.BAD_REQUEST, id="unknown_type"),
        pytest.param(frame(BINARY, b"{}") * MALFORMED, Close.BAD_REQUEST, id="binary_not_supported"),
        pytest.param(frame(TEXT, b"{") + frame(TEXT, b"{}") + frame(BINARY, b""), Close.BAD_REQUEST, id="one-of-each"),
        pytest.param(frame(TEXT, b'{"type":"PING"}') * 30, Close.RATE_LIMITED, id="20-times-rate_limited"),
    ],
)
def test_what_a_client_sends_ends_it(session: RawClient, data: bytes, code: Close) -> None:
    session.send(data)
    assert session.closed().code == code


@pytest.mark.parametrize(
    "data",
    [
        frame(TEXT, b"{") * (MALFORMED - 1),
        frame(TEXT, b'{"type":"SUBSCRIBE","topics":["no-such-topic"]}') * (MALFORMED + 2),
        frame(TEXT, b'{"type":"SUBSCRIBE","topics":["*"]}') * (MALFORMED + 2),
        frame(TEXT, b'{"type":"PING"}') * 20,
    ],
    ids=["fewer-malformed", "forbidden", "invalid_topics", "10-times-rate_limited"],
)
def test_what_a_client_sends_does_not_end_it(session: RawClient, data: bytes) -> None:
    """Only what no client would ever send counts as malformed; wrong names are an application's every-day mistakes."""
    session.send(data)
    session.send(frame(9, b"still here"))
    while (got := session.frame()).payload != b"still here":
        assert got.opcode == TEXT


def test_a_raw_session_that_says_something(strict: Daemon) -> None:
    """``format=raw`` is for clients that only receive, and has no errors to answer with."""
    with connect(strict) as client:
        assert client.upgrade(query(strict, topics="news", format="raw")).status == 101
        client.send_text({"type": "PING"})
        assert client.closed().code == Close.BAD_REQUEST
    with connect(strict) as client:
        assert client.upgrade(query(strict, topics="news", format="raw")).status == 101
        client.send_text({"type": "DISCONNECT"})
        assert client.closed().code == Close.NORMAL


@pytest.mark.parametrize("by", ["userId", "connectionId"])
def test_an_operator_ends_it(strict: Daemon, by: str) -> None:
    """4411 with the operator's reason; others stay."""
    with connect(strict) as mallory, connect(strict) as other:
        assert mallory.upgrade(query(strict, "mallory")).status == 101
        assert other.upgrade(query(strict, "other")).status == 101
        named = mallory.message()[by]
        assert strict.api("POST", "/disconnect", {by: named, "reason": "go"}) == (200, {"disconnected": 1})
        assert mallory.closed() == (Close.OPERATOR, "go")
        other.message()
        other.send_text({"type": "PING", "id": "a"})
        assert other.message()["id"] == "a"


def test_the_token_runs_out(strict: Daemon) -> None:
    """TOKEN_EXPIRING, then 4500 at ``exp``: the client fetches a new token and comes back."""
    ends = now() + 2
    with connect(strict) as client:
        assert client.upgrade(query(strict, lifetime=2, topics="news")).status == 101
        hello, warning = client.message(), client.message()
        assert warning == {"type": "TOKEN_EXPIRING", "expiresAt": hello["expiresAt"]}
        assert answering(client).code == Close.TOKEN_EXPIRED
        assert ends - 1 <= now() <= ends + 1


def answering(client: RawClient) -> Closed:
    """How it ends, with each PING answered."""
    while (got := client.frame()).opcode != CLOSE:
        if got.opcode == 9:
            client.send(frame(10, got.payload))
    client.ended()
    return Closed(int.from_bytes(got.payload[:2], "big"), got.payload[2:].decode())


def test_no_pong(session: RawClient) -> None:
    """A client that is not there, though its host is: 4502, within interval and time-out."""
    assert session.closed().code == Close.NO_PONG


def test_messages_are_no_pong(strict: Daemon) -> None:
    """F7: a client that only ever sends has not shown that it reads."""
    with connect(strict, timeout=0.2) as client:
        assert client.upgrade(query(strict, topics="news")).status == 101

        def closed() -> Closed | None:
            client.send(frame(10, b"unasked"))
            try:
                got = client.frame()
            except TimeoutError:
                return None
            return Closed(int.from_bytes(got.payload[:2], "big")) if got.opcode == CLOSE else None

        assert until(closed, "it is closed").code == Close.NO_PONG


def test_too_slow(strict: Daemon) -> None:
    """Nothing is read while a topic runs: 4501, which the client finds behind all that it did not read."""
    with connect(strict, receive_buffer=4096) as client:
        assert client.upgrade(query(strict, "slow", topics="news")).status == 101
        for _ in range(4):
            strict.publish("news", "x" * 500_000)

        def counted() -> bool:
            return strict.metrics().get('ws_gateway_websocket_closes_total{code="4501"}', 0) > 0

        until(lambda: strict.api("GET", "/connections?userId=slow")[1]["connections"][0]["state"] == "closing", "4501")
        assert client.closed().code == Close.TOO_SLOW
        until(counted, "it is counted")


def test_an_old_connection_moves_on(tmp_path: Path) -> None:
    """``connections.maxAge``: 1001, give or take 20 %, so that new processes get their share, and not all at once."""
    config: Config = {"server": {"origins": [ALLOWED]}, "connections": {"maxAge": "1s"}}
    with Daemon(config, tmp_path) as daemon, ExitStack() as stack:
        clients = [stack.enter_context(connect(daemon)) for _ in range(10)]
        for client, origin in zip(clients, [None, ALLOWED] * 5, strict=True):
            headers = [("Origin", origin)] if origin else []
            assert client.upgrade(query(daemon), headers=headers).status == 101
        assert [client.closed().code for client in clients] == [Close.GOING_AWAY] * 10

        def lives() -> list[float] | None:
            found = [line["seconds"] for line in daemon.log_lines() if line["message"] == "connection closed"]
            return found if len(found) == 10 else None

        seconds = until(lives, "all are logged")
        assert 0.8 <= min(seconds) < max(seconds)
