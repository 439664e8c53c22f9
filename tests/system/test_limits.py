"""What one client, one user, one address, or all together may take (``limits``), seen from outside.

A limit that is not held lets one client take what is everybody's; one that is never given back locks everybody out.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.support.daemon import Daemon, until
from tests.support.rawclient import CLOSE, PING, PONG, TEXT, RawClient, frame, upgrade_request

KiB = 1024
MESSAGE_BYTES = KiB


def connect(daemon: Daemon) -> RawClient:
    return RawClient((daemon.host, daemon.port))


def target(
    daemon: Daemon, user: str = "alice", topics: str = "", grants: list[str] | None = None, **claims: Any
) -> str:
    url = daemon.url(token=daemon.token(user, **{"topics": grants, **claims}), topics=topics)
    return url.partition(str(daemon.port))[2]


def session(daemon: Daemon, stack: ExitStack, **options: Any) -> RawClient:
    """An open one, behind CONNECTED."""
    client = stack.enter_context(connect(daemon))
    assert client.upgrade(target(daemon, **options)).status == 101
    client.message()
    return client


def say(client: RawClient, **command: Any) -> Any:
    """The answer to a command."""
    client.send_text(command)
    return client.message()


# Addresses


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """Behind proxies at 127.0.0.1 and in 10.1.0.0/16; two connections an address."""
    config = {
        "server": {"trustedProxies": ["127.0.0.1", "10.1.0.0/16"]},
        "auth": {"tokenInQuery": False},
        "limits": {"connectionsPerAddress": 2},
    }
    with Daemon(config, tmp_path_factory.mktemp("proxied")) as daemon:
        yield daemon


def from_address(daemon: Daemon, client: RawClient, forwarded: Sequence[str]) -> int:
    """The status that a client gets whom these X-Forwarded-For headers describe."""
    headers = [("X-Forwarded-For", value) for value in forwarded]
    headers.append(("Authorization", f"Bearer {daemon.token('alice')}"))
    return client.upgrade("/ws?topics=", headers=headers).status


@pytest.mark.parametrize(
    ("first", "second", "third", "status"),
    [
        (["203.0.113.1"], ["203.0.113.1"], ["203.0.113.1"], 429),
        (["203.0.113.2"], ["203.0.113.2"], ["203.0.113.3"], 101),
        (["203.0.113.4"], ["1.1.1.1, 203.0.113.4"], ["2.2.2.2, 203.0.113.4"], 429),
        (["1.1.1.1, 203.0.113.5"], ["1.1.1.1, 203.0.113.6"], ["1.1.1.1, 203.0.113.7"], 101),
        (["203.0.113.8, 10.1.2.3"], ["203.0.113.8, 10.1.9.9, 10.1.2.3"], ["203.0.113.8"], 429),
        (["1.1.1.1", "203.0.113.9"], ["2.2.2.2", "203.0.113.9"], ["203.0.113.9"], 429),
        (["203.0.113.10:4711"], ["203.0.113.10:4712"], ["203.0.113.10"], 429),
        (["::ffff:203.0.113.11"], ["203.0.113.11"], ["203.0.113.11"], 429),
        (["2001:db8:0:1::1"], ["2001:db8:0:1::2"], ["[2001:db8:0:1:ffff::3]:80"], 429),
        (["2001:db8:0:2::1"], ["2001:db8:0:2::2"], ["2001:db8:0:3::1"], 101),
        (["10.1.7.7"], ["10.1.7.7"], ["10.1.7.7"], 429),
        (["unknown"], ["\\x00"], ["_hidden"], 429),
    ],
    ids=[
        "the-same",
        "another",
        "what-stands-left-is-hearsay",
        "what-stands-left-does-not-count",
        "through-proxies",
        "two-headers",
        "with-ports",
        "mapped",
        "one-64-is-one-host",
        "another-64",
        "nobody-but-proxies",
        "no-address-is-the-proxy",
    ],
)
def test_whose_address_counts(
    proxied: Daemon, first: list[str], second: list[str], third: list[str], status: int
) -> None:
    """The right-most hop that is no proxy of ours: everything left of it, the client itself could have written."""
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(proxied)) for _ in range(3)]
        assert from_address(proxied, clients[0], first) == 101
        assert from_address(proxied, clients[1], second) == 101
        assert from_address(proxied, clients[2], third) == status
    until(lambda: not proxied.api("GET", "/connections?userId=alice")[1]["total"], "their places are free")
    with connect(proxied) as again:
        assert from_address(proxied, again, third) == 101


def test_the_clients_address_is_what_is_shown(proxied: Daemon) -> None:
    """In the log and to operators: the proxy's would be everybody's."""
    with connect(proxied) as client:
        assert from_address(proxied, client, ["1.1.1.1, 203.0.113.99"]) == 101
        hello = client.message()
        listed = proxied.api("GET", "/connections?userId=alice")[1]["connections"]
        assert [entry["address"] for entry in listed if entry["connectionId"] == hello["connectionId"]] == [
            "203.0.113.99"
        ]
    opened = [line for line in proxied.log_lines() if line.get("connection") == hello["connectionId"]]
    assert opened[0]["address"] == "203.0.113.99"


def test_a_token_in_the_query_where_that_is_closed(proxied: Daemon) -> None:
    """``auth.tokenInQuery: false``: URLs are in everybody's logs."""
    with connect(proxied) as client:
        assert client.upgrade(target(proxied)).status == 401
    with connect(proxied) as client:
        offered = [("Sec-WebSocket-Protocol", f"bearer, {proxied.token('alice')}")]
        assert client.upgrade("/ws?token=ignored", headers=offered).status == 101


# In all, and by user


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """Next to nothing of everything, and no proxies."""
    config = {
        "auth": {"leeway": "0s", "expiryWarning": "1s", "rejectWith": "close"},
        "limits": {
            "connections": 8,
            "connectionsPerUser": 3,
            "connectionsPerAddress": 6,
            "handshakesPending": 10,
            "messageBytes": MESSAGE_BYTES,
            "messagesPerSecond": 5,
            "bytesPerSecond": MESSAGE_BYTES,
            "subscriptions": 5,
            "subscriptionBytes": 256,
        },
    }
    with Daemon(config, tmp_path_factory.mktemp("small")) as daemon:
        yield daemon


@pytest.fixture
def client(small: Daemon) -> Iterator[RawClient]:
    """A session that may have everything."""
    with ExitStack() as stack:
        yield session(small, stack, grants=["news", "prices"])


def nobody_left(daemon: Daemon) -> None:
    """Places are given back when the gateway has seen the end of a connection."""
    until(lambda: not daemon.metrics()["ws_gateway_websocket_active_connections"], "everybody is gone")


def test_places_of_a_user(small: Daemon) -> None:
    """Three; a fourth has to wait until one is gone, another user does not."""
    nobody_left(small)
    with ExitStack() as stack:
        clients = [session(small, stack) for _ in range(3)]
        with connect(small) as fourth:
            assert fourth.upgrade(target(small)).status == 429
        session(small, stack, user="bob")
        clients[1].reset()
        until(lambda: opens(small, "alice"), "a place is free")


def opens(daemon: Daemon, user: str) -> bool:
    """Whether this user gets in just now."""
    with connect(daemon) as client:
        return client.upgrade(target(daemon, user)).status == 101


@pytest.mark.parametrize(
    "bad", ["/ws", "/ws?token=x.y.z", "/other", "", "GET"], ids=["no-token", "bad-token", "path", "nothing", "half"]
)
def test_who_is_refused_takes_no_place(small: Daemon, bad: str) -> None:
    """Refused by a status or by a close code, or gone before there was an answer: ten times the places there are."""
    nobody_left(small)
    for _ in range(80):
        with connect(small) as client:
            if bad.startswith("/"):
                client.request(upgrade_request(bad))
            else:
                client.send(bad.encode())
    until(lambda: opens(small, "carol"), "there is a place")


def test_places_of_an_address_do_not_depend_on_what_it_says(small: Daemon) -> None:
    """Without trusted proxies X-Forwarded-For changes nothing, and one line says what to do if it should."""
    nobody_left(small)
    with ExitStack() as stack:
        for number in range(6):
            session(small, stack, user=f"user-{number}")
        for number in range(3):
            with connect(small) as client:
                headers = [("X-Forwarded-For", f"203.0.113.{number}")]
                assert client.upgrade(target(small, "late"), headers=headers).status == 429
    warnings = [line["message"] for line in small.log_lines() if "server.trustedProxies" in line["message"]]
    assert len(warnings) == 1
    assert "limits.connectionsPerAddress" in warnings[0]


# At the door


def test_connections_that_wait_for_an_answer(small: Daemon) -> None:
    """Of 25 that say nothing the ten newest may wait; who asks is answered all the while."""
    nobody_left(small)
    with ExitStack() as stack:
        silent = [stack.enter_context(connect(small)) for _ in range(25)]
        for client in silent[:15]:
            assert client.ended() == b""
        assert opens(small, "honest")
        assert small.http("GET", "/healthz")[0] == 200
        for client in silent[20:]:
            client.sock.settimeout(0.05)
            with pytest.raises(TimeoutError):
                client.ended()


def test_handshakes_a_second(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Above the rate they are told to come back, before their tokens are looked at; later there is room again."""
    with Daemon({"limits": {"handshakesPerSecond": 5}}, tmp_path_factory.mktemp("rate")) as daemon:
        statuses = []
        for _ in range(30):
            with connect(daemon) as client:
                statuses.append(client.upgrade("/ws?token=x.y.z").status)
        assert statuses[:5] == [401] * 5
        assert statuses.count(503) >= 10
        assert daemon.http("GET", "/readyz")[0] == 200
        until(lambda: opens(daemon, "alice"), "there is room again")


# What a session may send


def test_the_limits_are_told(small: Daemon) -> None:
    with ExitStack() as stack:
        client = stack.enter_context(connect(small))
        assert client.upgrade(target(small)).status == 101
        assert client.message()["limits"] == {"messageBytes": MESSAGE_BYTES, "messagesPerSecond": 5}


def test_the_size_of_a_message(small: Daemon) -> None:
    """To the byte."""
    with ExitStack() as stack:
        fits, exceeds = session(small, stack), session(small, stack)
        padded = json.dumps({"type": "PING", "id": "a"}).ljust(MESSAGE_BYTES)
        fits.send(frame(TEXT, padded.encode()))
        assert fits.message() == {"type": "PONG", "id": "a"}
        exceeds.send(frame(TEXT, padded.encode() + b" "))
        assert exceeds.closed().code == 1009


def pong(client: RawClient) -> bool:
    """Whether a PING is answered; it may only be refused by its rate."""
    answer = say(client, type="PING")
    assert answer["type"] == "PONG" or (answer["code"] == "rate_limited" and answer["retryAfter"] > 0), answer
    return bool(answer["type"] == "PONG")


def test_messages_a_second(client: RawClient) -> None:
    """Five at once; then each is refused with the time until the next may come, and comes through after it."""
    began = time.monotonic()
    answers = [say(client, type="PING", id=str(number)) for number in range(10)]
    took = time.monotonic() - began
    passed = sum(answer["type"] == "PONG" for answer in answers)
    assert 5 <= passed <= 5 + 5 * took + 1
    refused = [answer for answer in answers if answer["type"] == "ERROR"]
    assert all((answer["code"], answer["originalType"]) == ("rate_limited", "PING") for answer in refused)
    assert all(0 < answer["retryAfter"] <= 0.2 for answer in refused)
    until(lambda: pong(client), "the next may come", interval=0.2)


def test_bytes_a_second(client: RawClient) -> None:
    """A message of the largest size passes; one right behind it has to wait."""
    large = frame(TEXT, json.dumps({"type": "PING"}).ljust(MESSAGE_BYTES).encode())
    client.send(large + large)
    assert client.message()["type"] == "PONG"
    refused = client.message()
    assert refused["code"] == "rate_limited"
    assert 0.5 < refused["retryAfter"] <= 1


def test_names_of_a_session(client: RawClient) -> None:
    """Five: refused is what would be more, as a whole; names that are held already, or given up, do not count."""
    assert say(client, type="SUBSCRIBE", topics=[f"prices/{n}" for n in range(4)])["type"] == "SUBSCRIBED"
    assert say(client, type="SUBSCRIBE", topics=["prices/4", "prices/5"])["code"] == "limit"
    assert say(client, type="SUBSCRIBE", topics=["prices/0", "prices/4"])["type"] == "SUBSCRIBED"
    assert until(lambda: unlimited(client, type="SUBSCRIBE", topics=["news"]), "asked")["code"] == "limit"
    assert until(lambda: unlimited(client, type="UNSUBSCRIBE", topics=["prices/1"]), "asked")["type"] == "UNSUBSCRIBED"
    assert until(lambda: unlimited(client, type="SUBSCRIBE", topics=["news"]), "asked")["type"] == "SUBSCRIBED"


def unlimited(client: RawClient, **command: Any) -> Any:
    """The answer to a command, or None where the rate refused it."""
    answer = say(client, **command)
    return None if answer.get("code") == "rate_limited" else answer


def test_bytes_of_the_names_of_a_session(client: RawClient) -> None:
    """256, as they are spelt."""
    long = "prices/" + "a" * 200
    assert say(client, type="SUBSCRIBE", topics=[long])["type"] == "SUBSCRIBED"
    assert say(client, type="SUBSCRIBE", topics=["prices/" + "b" * 43])["code"] == "limit"
    assert say(client, type="SUBSCRIBE", topics=["prices/" + "b" * 42])["type"] == "SUBSCRIBED"


@pytest.mark.parametrize(
    "topics", [",".join(f"prices/{n}" for n in range(6)), "prices/" + "a" * 250], ids=["names", "bytes"]
)
def test_names_on_the_url(small: Daemon, topics: str) -> None:
    """The same limits at the door: 4400, since coming back with the same names is of no use."""
    with connect(small) as client:
        assert client.upgrade(target(small, topics=topics, grants=["prices"])).status == 101
        assert client.closed().code == 4400


# Tokens while connected


def test_a_refresh_prolongs_the_session(small: Daemon) -> None:
    """It outlives its first token, is warned before the end of the second one, and ends with that."""
    first, second = (int(datetime.now(UTC).timestamp()) + seconds for seconds in (2, 4))
    seen: list[Any] = []
    with ExitStack() as stack:
        client = session(small, stack, exp=first)
        client.send_text({"type": "REFRESH", "token": small.token("alice", exp=second), "id": "r"})
        while (got := client.frame()).opcode != CLOSE:
            if got.opcode == PING:
                client.send(frame(PONG, got.payload))
            else:
                seen.append(got.json())
        ended = datetime.now(UTC).timestamp()
    assert got.payload[:2] == (4500).to_bytes(2, "big")
    assert second <= ended
    spelt = datetime.fromtimestamp(second, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    ack, warning = [message for message in seen if message.get("expiresAt") == spelt]
    assert (ack["type"], ack["originalType"], ack["id"]) == ("ACK", "REFRESH", "r")
    assert warning == {"type": "TOKEN_EXPIRING", "expiresAt": spelt}
