"""Who is let in, how the others are told, and that every place at the door is given back exactly once."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_network
from random import Random
from typing import Any

import attrs
import pytest
from prometheus_client import CollectorRegistry
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs

from gateway.config import Auth, Config, Limits, Server
from gateway.errors import AuthError, Close, GatewayError, Kind, Refused
from gateway.metrics import Metrics
from gateway.model import Encoding, Grants, Principal
from gateway.services.door import Admission, Door, Farewell, Handshake
from tests.support.harness import FakeClock


class Tokens:
    """``good-<user>`` is <user>'s; ``slow`` is not decided before the test says so."""

    def __init__(self) -> None:
        self.slow: list[Deferred[Principal]] = []

    def authenticate(self, token: str) -> Deferred[Principal]:
        result: Deferred[Principal] = Deferred()
        if token.startswith("good-"):
            result.callback(principal(token.removeprefix("good-")))
        elif token == "slow":
            self.slow.append(result)
        elif token == "broken":
            result.errback(RuntimeError("secret inside"))
        elif token == "no-keys":
            result.errback(GatewayError("keys cannot be fetched", Kind.UNAVAILABLE))
        elif token == "old":
            result.errback(AuthError("the token has expired", "expired", Kind.EXPIRED))
        else:
            result.errback(AuthError("the token is not valid", "signature"))
        return result


def principal(user: str) -> Principal:
    return Principal(user, Grants(("*",)), Grants(()), None, None)


@attrs.define
class World:
    door: Door[Any]
    clock: FakeClock
    tokens: Tokens
    metrics: Metrics
    plans: list[tuple[Any, ...]]
    ready: bool = True
    draining: bool = False

    def enter(self, handshake: Handshake) -> Any:
        """The outcome, or the error, or None while there is neither."""
        found: list[Any] = []
        self.door.enter(handshake).addCallbacks(found.append, lambda failure: found.append(failure.value))
        return found[0] if found else None


def world(auth: Mapping[str, Any] = {}, limits: Mapping[str, Any] = {}, server: Mapping[str, Any] = {}) -> World:
    config = Config(auth=Auth(**auth), limits=Limits(**limits), server=Server(**server))
    clock, tokens, metrics, plans = FakeClock(), Tokens(), Metrics(CollectorRegistry(), "test"), []

    def plan(who: Principal, topics: str | None, since: str | None, encoding: Encoding) -> str:
        if topics == "forbidden":
            raise Refused("not allowed", Kind.FORBIDDEN)
        if topics == "bad name":
            raise Refused("not a name", Kind.INVALID_TOPICS)
        plans.append((who.user, topics, since, encoding))
        return "plan"

    door: Door[Any] = Door(
        config,
        tokens,
        plan,
        ready=lambda: it.ready,
        draining=lambda: it.draining,
        clock=clock,
        metrics=metrics,
        random=Random(1),
    )
    it = World(door, clock, tokens, metrics, plans)
    return it


def handshake(token: str | None = "good-alice", **changes: Any) -> Handshake:
    query: dict[str, tuple[str, ...]] = {} if token is None else {"token": (token,)}
    query |= changes.pop("query", {})
    plain = Handshake(query, None, (), None, "gateway.example", "192.0.2.1")
    return attrs.evolve(plain, **changes)


OURS = "https://gateway.example"


def test_a_token_and_names_open_the_door() -> None:
    it = world()
    got = it.enter(handshake(query={"topics": ("a,b",), "since": ("latest",), "format": ("raw",)}))
    assert isinstance(got, Admission)
    assert (got.principal.user, got.plan, got.address, got.subprotocol) == ("alice", "plan", "192.0.2.1", None)
    assert it.plans == [("alice", "a,b", "latest", Encoding.RAW)]


@pytest.mark.parametrize(
    ("changes", "user"),
    [
        ({"authorization": "Bearer good-bob"}, "bob"),
        ({"authorization": "bearer   good-bob"}, "bob"),
        ({"subprotocols": ("chat", "Bearer", "good-bob")}, "bob"),
        ({"authorization": "Bearer good-bob", "subprotocols": ("bearer", "good-bob")}, "bob"),
        ({"query": {"token": ("good-bob", "good-bob")}}, "bob"),
        ({"authorization": "Basic Z29vZC1ldmU6eA==", "query": {"token": ("good-bob",)}}, "bob"),
    ],
)
def test_a_token_has_three_places(changes: dict[str, Any], user: str) -> None:
    got = world().enter(handshake(None, **changes))
    assert isinstance(got, Admission)
    assert got.principal.user == user
    assert got.subprotocol in {None, *(name for name in changes.get("subprotocols", ()) if name.lower() == "bearer")}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, "missing"),
        ({"query": {"token": ("",)}}, "missing"),
        ({"authorization": "Bearer"}, "missing"),
        ({"authorization": "Basic good-bob"}, "missing"),
        ({"subprotocols": ("bearer",)}, "missing"),
        ({"subprotocols": ("good-bob",)}, "missing"),
        ({"authorization": "Bearer good-bob", "query": {"token": ("good-eve",)}}, "conflict"),
        ({"query": {"token": ("good-bob", "good-eve")}}, "conflict"),
        ({"subprotocols": ("bearer", "good-bob"), "authorization": "Bearer good-eve"}, "conflict"),
        ({"query": {"token": ("forged",)}}, "signature"),
    ],
)
def test_tokens_that_do_not_open(changes: dict[str, Any], reason: str) -> None:
    it = world()
    got = it.enter(handshake(None, **changes))
    assert isinstance(got, AuthError)
    assert got.kind is Kind.UNAUTHORIZED
    assert it.metrics.auth_errors == {reason: 1}


def test_the_query_can_be_closed_for_tokens() -> None:
    it = world({"token_in_query": False})
    assert it.enter(handshake("good-alice")).kind is Kind.UNAUTHORIZED
    both = it.enter(handshake("good-eve", authorization="Bearer good-alice"))
    assert both.principal.user == "alice"


@pytest.mark.parametrize(
    ("changes", "close"),
    [
        ({"query": {"token": ("forged",)}}, Close.UNAUTHORIZED),
        ({"query": {"token": ("old",)}}, Close.TOKEN_EXPIRED),
        ({"query": {"topics": ("forbidden",)}}, Close.FORBIDDEN),
        ({"query": {"topics": ("bad name",)}}, Close.BAD_REQUEST),
        ({"query": {"topics": ("a", "b")}}, Close.BAD_REQUEST),
        ({"query": {"since": ("a", "b")}}, Close.BAD_REQUEST),
        ({"query": {"format": ("xml",)}}, Close.BAD_REQUEST),
    ],
)
@pytest.mark.parametrize(
    ("reject_with", "origin", "by_close"),
    [
        ("auto", OURS, True),
        ("auto", None, False),
        ("http", OURS, False),
        ("close", OURS, True),
        ("close", None, True),
    ],
)
def test_refusals_for_good(
    changes: dict[str, Any], close: Close, reject_with: str, origin: str | None, by_close: bool
) -> None:
    """A browser is told by a close code, since it shows its page no status; everybody else by HTTP."""
    it = world({"reject_with": reject_with})
    got = it.enter(handshake(origin=origin, **changes))
    if by_close:
        assert isinstance(got, Farewell)
        assert got.code is close
        got.slot.release()
    else:
        assert isinstance(got, Refused)
        assert got.kind.wire.close is close
    assert it.door.connections == 0


@pytest.mark.parametrize("reject_with", ["auto", "http", "close"])
def test_foreign_origins_get_http_and_a_line_in_the_log(reject_with: str) -> None:
    """The line names what is to be changed: behind nginx the Host is rewritten by default."""
    with capturedLogs() as lines:
        got = world({"reject_with": reject_with}).enter(handshake(origin="https://evil.example"))
    assert got.kind is Kind.BAD_ORIGIN
    assert [(line["origin"], line["host"], line["key"]) for line in lines] == [
        ("https://evil.example", "gateway.example", "server.origins")
    ]


def test_what_may_pass_is_told_by_http_with_a_time_to_come_back() -> None:
    """An ``onopen`` would reset a browser's back-off."""
    it = world({"reject_with": "close"}, {"handshakes_per_second": 4})
    it.ready = False
    not_ready = it.enter(handshake(origin=OURS))
    it.ready, it.draining = True, True
    draining = it.enter(handshake(origin=OURS))
    it.draining = False
    keys = it.enter(handshake("no-keys", origin=OURS))
    for _ in range(3):
        assert isinstance(it.enter(handshake(origin=OURS)), Admission)
    rate = it.enter(handshake(origin=OURS))
    assert [error.kind for error in (not_ready, draining, keys, rate)] == [
        Kind.NOT_READY,
        Kind.DRAINING,
        Kind.UNAVAILABLE,
        Kind.TOO_MANY_HANDSHAKES,
    ]
    waits = [error.retry_after for error in (not_ready, draining, keys, rate)]
    assert all(1 <= wait <= 10 for wait in waits)
    assert len(set(waits)) == 4, "spread: those who leave together do not come together"
    it.clock.advance(1)
    assert isinstance(it.enter(handshake(origin=OURS)), Admission)


def test_connections_are_counted_in_all_by_address_and_by_user() -> None:
    it = world(limits={"connections": 4, "connections_per_user": 2, "connections_per_address": 3})
    first, second = it.enter(handshake()), it.enter(handshake())
    assert it.enter(handshake()).kind is Kind.TOO_MANY_CONNECTIONS  # alice's third
    third = it.enter(handshake("good-bob"))
    assert it.enter(handshake("good-carol")).kind is Kind.TOO_MANY_CONNECTIONS  # the address's fourth
    assert isinstance(it.enter(handshake("good-carol", address="192.0.2.2")), Admission)
    assert it.enter(handshake("good-dave", address="192.0.2.3")).kind is Kind.BUSY
    for slot in (first.slot, second.slot, third.slot, third.slot):  # twice is once
        slot.release()
    assert it.door.connections == 1
    assert isinstance(it.enter(handshake()), Admission)


def test_refused_handshakes_leave_their_place() -> None:
    it = world(limits={"connections": 1})
    for token in ("forged", "broken", "no-keys"):
        assert isinstance(it.enter(handshake(token)), GatewayError)
    assert isinstance(it.enter(handshake()), Admission)


def test_handshakes_over_a_unix_socket_have_no_address_to_count() -> None:
    it = world(limits={"connections_per_address": 1})
    assert isinstance(it.enter(handshake(address="unix")), Admission)
    assert isinstance(it.enter(handshake(address="unix")), Admission)


def test_a_proxy_that_is_not_named_is_named_in_the_log_once() -> None:
    with capturedLogs() as lines:
        for proxies, address in (((), "10.0.0.1"), ((ip_network("10.0.0.0/8"),), "10.0.0.2"), ((), "8.8.8.8")):
            it = world(limits={"connections_per_address": 1}, server={"trusted_proxies": proxies})
            for _ in range(3):
                it.enter(handshake(address=address, forwarded=True))
    warnings = [line["log_format"] for line in lines if "X-Forwarded-For" in line["log_format"]]
    assert len(warnings) == 1
    assert "server.trustedProxies" in warnings[0]
    assert "limits.connectionsPerAddress" in warnings[0]


def test_an_error_of_our_own_is_not_shown() -> None:
    """A24: Autobahn would send the exception's text."""
    with capturedLogs() as lines:
        got = world().enter(handshake("broken", origin=OURS))
    assert (got.kind, got.message) == (Kind.UNAVAILABLE, "try again later")
    assert [line["log_failure"].type for line in lines if "log_failure" in line] == [RuntimeError]


def test_a_drain_that_begins_meanwhile_is_noticed() -> None:
    it = world()
    found: list[Any] = []
    it.door.enter(handshake("slow")).addErrback(lambda failure: found.append(failure.value))
    it.draining = True
    it.tokens.slow[0].callback(principal("alice"))
    assert [error.kind for error in found] == [Kind.DRAINING]
    assert it.door.connections == 0


def test_a_client_that_goes_away_at_the_door_leaves_its_place() -> None:
    it = world()
    entering = it.door.enter(handshake("slow"))
    entering.addErrback(lambda failure: None)
    assert it.door.connections == 1
    entering.cancel()
    assert it.door.connections == 0


def test_without_tokens_a_user_is_who_it_says() -> None:
    it = world({"mode": "none"})
    here = {"host": "localhost:8080", "token": None}
    got = it.enter(handshake(query={"user_id": ("bob",)}, **here))
    assert got.principal == Principal("bob", Grants(("*",), True), Grants(("*",), True), None, None)
    made_up = {it.enter(handshake(**here)).principal.user for _ in range(3)}
    assert len(made_up) == 3
    for user in ("", "x" * 256, "a\nb", "\x1b[31m"):
        assert it.enter(handshake(query={"user_id": (user,)}, **here)).kind is Kind.BAD_MESSAGE


def test_without_tokens_the_host_must_be_this_machine() -> None:
    """A page of another site whose name was re-bound to 127.0.0.1 (DNS rebinding) gets no session."""
    evil = handshake(None, host="evil.example:8080", origin="http://evil.example:8080")
    assert world({"mode": "none"}).enter(evil).kind is Kind.BAD_ORIGIN
    assert isinstance(world({"mode": "none", "allow_insecure": True}).enter(evil), Admission)
