"""Health, metrics, and how requests are read and answered: over twisted.web's own machinery, without a socket."""

from __future__ import annotations

import attrs
import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.config import Admin, Auth
from gateway.model import Health, Written
from gateway.web.http import admin_site, public_site
from gateway.web.routes import Reply, Site
from tests.support.http import KEY, Asked, World, ask, logged, request, session


def test_health_is_what_probes_of_the_predecessor_ask_for() -> None:
    world = World()
    world.sessions.there = [session("a", "alice"), session("b", "bob")]
    answer = ask(public_site(world.parts), request("GET", "/health"))
    assert (answer.status, answer.json) == (200, {"status": "ok", "client_count": 2})


def test_alive_says_so_whatever_the_log_does() -> None:
    world = World(draining=True)
    world.reader.is_positioned = False
    assert ask(public_site(world.parts), request("GET", "/healthz")).status == 200


@pytest.mark.parametrize(
    ("positioned", "draining", "kafka", "status", "told"),
    [
        (True, False, Health.OK, 200, "ok"),
        (True, False, Health.DEGRADED, 200, "degraded"),
        (True, False, Health.FAILED, 200, "degraded"),
        (False, False, Health.OK, 503, "failed"),
        (True, True, Health.OK, 503, "failed"),
    ],
)
def test_ready(positioned: bool, draining: bool, kafka: Health, status: int, told: str) -> None:
    """503 before the first position and while draining; an outage of Kafka must not make all processes unready."""
    world = World(draining=draining)
    world.reader.is_positioned = positioned
    world.reader.checks = {"kafka": (kafka, "broker.internal:9092 says no"), "topic:news": (Health.OK, "")}
    answer = ask(public_site(world.parts), request("GET", "/readyz"))
    assert answer.status == status
    assert answer.json == {
        "status": told,
        "checks": {
            "kafka": kafka.value,
            "topic:news": "ok",
            "positioned": "ok" if positioned else "failed",
            "draining": "failed" if draining else "ok",
        },
    }


def test_metrics_are_prometheus_text() -> None:
    answer = ask(public_site(World().parts), request("GET", "/metrics"))
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    names = {family.name for family in text_string_to_metric_families(answer.body.decode())}
    assert {"ws_gateway_build_info", "process_open_fds", "python_gc_collections"} <= names


@pytest.mark.parametrize("path", ["/metrics", "/api/info"])
def test_an_admin_port_takes_metrics_and_api_away_from_the_public_one(path: str) -> None:
    """Else a firewall around the admin port would protect nothing."""
    world = World(admin=Admin(port=9090, api_keys=(KEY,)))
    assert ask(public_site(world.parts), request("GET", path, key=KEY)).status == 404
    assert ask(admin_site(world.parts), request("GET", path, key=KEY)).status == 200


@pytest.mark.parametrize("path", ["/health", "/healthz", "/readyz"])
def test_the_health_paths_answer_on_both_ports(path: str) -> None:
    world = World(admin=Admin(port=9090))
    assert ask(public_site(world.parts), request("GET", path)).status == 200
    assert ask(admin_site(world.parts), request("GET", path)).status == 200


def test_metrics_have_the_path_that_is_configured_and_can_be_off() -> None:
    parts = World().parts
    moved = attrs.evolve(parts.config.metrics, path="/internal/metrics")
    site = public_site(attrs.evolve(parts, config=attrs.evolve(parts.config, metrics=moved)))
    assert ask(site, request("GET", "/internal/metrics")).status == 200
    assert ask(site, request("GET", "/metrics")).status == 404
    off = attrs.evolve(parts.config.metrics, enabled=False)
    site = public_site(attrs.evolve(parts, config=attrs.evolve(parts.config, metrics=off)))
    assert ask(site, request("GET", "/metrics")).status == 404


@pytest.mark.parametrize(
    "target", ["/", "/health/", "/HEALTH", "//health", "/x/../health", "/health%00", "*", "/metrics/x"]
)
def test_paths_match_exactly(target: str) -> None:
    answer = ask(public_site(World().parts), request("GET", target))
    assert (answer.status, answer.json["type"], answer.json["code"]) == (404, "ERROR", "not_found")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "get", "BREW"])
def test_a_method_that_is_not_for_the_path_is_told_what_is(method: str) -> None:
    answer = ask(public_site(World().parts), request(method, "/health"))
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")


def test_head_has_the_headers_of_get_and_no_body() -> None:
    site = public_site(World().parts)
    get, head = (ask(site, request(method, "/healthz")) for method in ("GET", "HEAD"))
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-length"] == get.headers["content-length"] == str(len(get.body))


def test_answers_tell_no_version_are_not_kept_and_end_the_connection() -> None:
    """A connection that stays open would be read on, behind what a proxy takes for the end (A18)."""
    asked = Asked(public_site(World().parts), request("GET", "/health") + request("GET", "/metrics"))
    answer = asked.answer()
    assert answer is not None
    headers = answer.headers
    assert "server" not in headers
    assert (headers["x-content-type-options"], headers["cache-control"]) == ("nosniff", "no-store")
    assert headers["connection"] == "close"
    assert asked.transport.disconnecting
    assert asked.transport.value().count(b"HTTP/1.1") == 1


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8080", 200),
        ("127.0.0.1", 200),
        ("[::1]:8080", 200),
        ("evil.example", 403),
        ("localhost.evil.example", 403),
    ],
)
def test_without_tokens_only_loopback_names_are_answered(host: str, status: int) -> None:
    """DNS rebinding: a page elsewhere points a name of its own at 127.0.0.1, and is same-origin with us."""
    raw = request("GET", "/metrics", host=host)
    assert ask(public_site(World(auth=Auth(mode="none")).parts), raw).status == status
    assert ask(public_site(World(auth=Auth(mode="none", allow_insecure=True)).parts), raw).status == 200
    assert ask(public_site(World().parts), raw).status == 200


def test_requests_are_counted_by_route_never_by_path() -> None:
    """A label of a path that anybody may choose would fill the memory of every Prometheus that looks."""
    world = World()
    site = public_site(world.parts)
    for target in ("/health", "/health?x=1", "/secret-1", "/secret-2"):
        ask(site, request("GET", target))
    ask(site, request("BREW", "/health"))
    assert world.metrics.http_requests == {("GET", "/health"): 2, ("GET", "other"): 2, ("other", "/health"): 1}
    assert world.metrics.http_responses == {"200": 2, "404": 2, "405": 1}
    assert set(world.metrics.http_seconds) == {"/health", "other"}


def test_a_request_in_single_bytes_is_a_request() -> None:
    raw = request("POST", "/api/publish", b'{"topic":"news","data":1}', KEY)
    world = World()
    Asked(public_site(world.parts), *(raw[i : i + 1] for i in range(len(raw))))
    assert len(world.writer.published) == 1


@pytest.mark.parametrize("pieces", [(), (b"GET /hea",), (request("POST", "/api/publish", b"{}" * 99, KEY)[:-1],)])
def test_a_request_that_does_not_become_whole_is_cut_off(pieces: tuple[bytes, ...]) -> None:
    """Bytes that drip in must not put the end off: it is counted from the connection on."""
    world = World()
    asked = Asked(public_site(world.parts), *pieces)
    for _ in range(9):
        world.clock.advance(1.0)
        assert asked.answer() is None
        asked.send(*([b"x"] if pieces == (b"GET /hea",) else []))
    world.clock.advance(1.1)
    answer = asked.answer()
    assert answer is not None
    assert answer.status == 408
    assert asked.transport.disconnecting


def test_a_peer_that_does_not_take_its_answer_is_aborted() -> None:
    """``loseConnection`` with a full buffer never ends by itself."""
    world = World()
    asked = Asked(public_site(world.parts), request("GET", "/metrics"))
    world.clock.advance(9.9)
    assert not asked.transport.disconnected
    world.clock.advance(0.2)
    assert asked.transport.disconnected


def test_no_timer_is_left_behind() -> None:
    world = World()
    asked = Asked(public_site(world.parts), request("GET", "/health"))
    asked.protocol.connectionLost()
    late = Asked(public_site(world.parts), b"GET /")
    late.protocol.connectionLost()
    assert world.clock.getDelayedCalls() == []


def test_a_body_above_the_limit_is_read_dropped_and_refused() -> None:
    """A socket closed on unread input resets, and the client would see no answer."""
    world = World()
    size = 10_000_000
    head = f"POST /api/publish HTTP/1.1\r\nHost: g\r\nContent-Length: {size}\r\n\r\n".encode()
    asked = Asked(public_site(world.parts), head)
    for _ in range(size // 100_000 - 1):
        asked.send(b"x" * 100_000)
    assert asked.answer() is None
    assert asked.protocol.requests[0].content.tell() < 200_000
    asked.send(b"x" * 100_000)
    answer = asked.answer()
    assert answer is not None
    assert (answer.status, answer.json["code"]) == (413, "too_large")
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_handler_that_fails_is_a_500_without_its_text_and_is_logged() -> None:
    """I12 and R1: the process lives, and no exception reaches a client."""
    world = World()

    async def broken(call: object) -> Reply:
        raise RuntimeError("secret")

    site = Site({"/x": {"GET": broken}}, world.metrics, world.clock, max_body=9, read_timeout=9, write_timeout=9)
    with logged() as events:
        answer = ask(site, request("GET", "/x"))
    assert (answer.status, answer.json["code"]) == (500, "internal")
    assert b"secret" not in answer.body
    assert [event["log_failure"].type for event in events] == [RuntimeError]


def test_a_peer_that_left_before_its_answer_costs_nothing() -> None:
    world = World()
    asked = Asked(public_site(world.parts), request("POST", "/api/publish", b'{"topic":"news","data":1}', KEY))
    asked.protocol.connectionLost()
    with logged() as events:
        world.writer.published[0].written.callback(Written(0, 0))
    assert not [event for event in events if event.get("log_failure")]
    assert asked.answer() is None
