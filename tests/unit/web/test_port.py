"""One port: who is handed to whom, what a bad request gets, and that nobody costs more than the bounds say."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.errors import Close
from tests.support.edge import HELLO, Edge, until
from tests.support.rawclient import PONG, TEXT, Closed, RawClient, frame, upgrade_request

GET = b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.fixture(scope="module")
def edge() -> Iterator[Edge]:
    with Edge(auth={"reject_with": "auto"}) as running:
        yield running


def test_a_websocket_and_a_page_share_the_port(edge: Edge) -> None:
    with edge.client() as client, edge.connect() as http:
        client.send_text("echo hi")
        assert client.frame().payload == b"hi"
        answer = http.request(GET)
        assert (answer.status, answer.body) == (200, b'"hello"')
        assert http.ended() == b""


def test_a_request_in_single_bytes(edge: Edge) -> None:
    with edge.connect() as client:
        client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in upgrade_request("/ws?token=good-alice"):
            client.send(bytes([byte]))
        assert client.answer().status == 101


def test_frames_behind_the_request_come_after_the_101(edge: Edge) -> None:
    """A25: in order, and none is lost."""
    with edge.connect() as client:
        client.send(upgrade_request("/ws?token=good-alice") + frame(9, b"early") + frame(TEXT, b"echo next"))
        assert client.answer().status == 101
        assert [client.frame().payload for _ in range(3)] == [HELLO, b"early", b"next"]


def test_the_body_of_a_post_reaches_the_site(edge: Edge) -> None:
    with edge.connect() as http:
        http.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
        assert http.sock.recv(25, socket.MSG_WAITALL) == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert http.request(b"body").body == b"body"


@pytest.mark.parametrize(
    ("data", "status", "code", "header"),
    [
        (b"nonsense\r\n\r\n", 400, "bad_request", None),
        (b"GET /ws HTTP/1.1\r\nHost: a\r\n\r\n", 426, "upgrade_required", ("sec-websocket-version", "13")),
        (upgrade_request("/ws", method="POST"), 405, "method_not_allowed", ("allow", "GET")),
        (upgrade_request("/other"), 404, "not_found", None),
        (upgrade_request("/hello"), 404, "not_found", None),
        (upgrade_request("/ws/"), 404, "not_found", None),
        (upgrade_request("/WS"), 404, "not_found", None),
        (upgrade_request("/ws", headers=[("Origin", "https://evil.example")]), 403, "forbidden", None),
        (upgrade_request("/ws"), 401, "unauthorized", ("www-authenticate", "Bearer")),
        (upgrade_request("/ws?token=good-a&topics=forbidden"), 403, "forbidden", None),
        (b"GET /ws?" + b"x" * 20000, 414, "too_large", None),
        (b"GET /ws HTTP/1.1\r\nX: " + b"x" * 20000, 431, "too_large", None),
        (b"GET / HTTP/3.0\r\n\r\n", 505, "bad_request", None),
        (b"BREW / HTTP/1.1\r\n\r\n", 501, "not_implemented", None),
    ],
)
def test_refusals(edge: Edge, data: bytes, status: int, code: str, header: tuple[str, str] | None) -> None:
    with edge.connect() as client:
        answer = client.request(data)
        assert (answer.status, answer.json()["type"], answer.json()["code"]) == (status, "ERROR", code)
        assert answer.headers["connection"] == "close"
        assert answer.headers["x-content-type-options"] == "nosniff"
        if header is not None:
            assert answer.headers[header[0]] == header[1]
        assert client.ended() == b""


def test_head_is_answered_without_a_body(edge: Edge) -> None:
    with edge.connect() as client:
        client.send(upgrade_request("/ws", method="HEAD"))
        head, _, body = client.ended().partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 405 ")
        assert body == b""


@pytest.mark.parametrize("first", [upgrade_request("/ws"), GET])
def test_a_second_request_is_not_served(edge: Edge, first: bytes) -> None:
    """A18: a proxy that takes the first for a tunnel lets the second through unchecked."""
    with edge.connect() as client:
        client.send(first + GET)
        client.answer()
        assert client.ended() == b""


def test_a_refusal_arrives_although_more_was_sent(edge: Edge) -> None:
    """A close with unread input is a reset, which takes the answer with it."""
    with edge.connect() as client:
        client.send(b"nonsense\r\n\r\n")
        for _ in range(20):
            client.send(b"x" * 5000)
        assert client.answer().status == 400


def test_a_browser_is_told_by_a_close_code(edge: Edge) -> None:
    page = [("Origin", "http://127.0.0.1"), ("Sec-WebSocket-Protocol", "bearer, forged")]
    with edge.connect() as client:
        answer = client.upgrade("/ws", headers=page)
        assert (answer.status, answer.headers["sec-websocket-protocol"]) == (101, "bearer")
        assert client.closed() == Closed(Close.UNAUTHORIZED, "the token is not valid")
    until(lambda: edge.door.connections == 0, "the slot is given back")


def test_an_error_of_our_own_closes_with_1011(edge: Edge) -> None:
    with edge.connect() as client:
        assert client.upgrade("/ws?token=good-alice&topics=unopened").status == 101
        assert client.closed() == Closed(Close.INTERNAL)
    until(lambda: edge.door.connections == 0, "the slot is given back")


def test_the_address_behind_a_trusted_proxy() -> None:
    from ipaddress import ip_network

    forwarded = [("X-Forwarded-For", "203.0.113.9, 127.0.0.9")]
    with Edge(server={"trusted_proxies": (ip_network("127.0.0.0/8"),)}) as edge, edge.client(headers=forwarded):
        assert edge.session.address == "203.0.113.9"
    with Edge() as edge, edge.client(headers=forwarded):
        assert edge.session.address == "127.0.0.1"


@pytest.mark.parametrize("endpoint", ["tcp6:0:interface=\\:\\:1", "unix:{}/sock"])
def test_ipv6_and_unix_sockets(endpoint: str, tmp_path: Path) -> None:
    with Edge(endpoint=endpoint.format(tmp_path)) as edge, edge.client() as client:
        client.send(frame(9, b"there?"))
        assert client.frame()[:2] == (PONG, b"there?")
        assert edge.session.address == ("unix" if "unix" in endpoint else "::1")
        client.send_text("flood 3000000")
        assert len(client.frame().payload) == 3_000_000
        until(lambda: edge.session.drained, "the channel tells that nothing waits")


def test_who_sends_no_request_is_dropped_in_time() -> None:
    """A15: nothing at all, or too little."""
    with Edge(server={"read_timeout": 0.3}) as edge, edge.connect() as silent, edge.connect() as slow:
        slow.send(b"GET /ws HT")
        assert silent.ended() == b""
        assert slow.answer().status == 408


def test_a_token_that_is_not_decided_in_time() -> None:
    with Edge(server={"read_timeout": 0.3}) as edge, edge.connect() as client:
        answer = client.request(upgrade_request("/ws?token=slow"))
        assert (answer.status, answer.json()["code"]) == (503, "unavailable")
        assert int(answer.headers["retry-after"]) >= 1
        assert edge.door.connections == 0


def test_half_open_connections_have_a_bound() -> None:
    """A15: the oldest go, and whoever completes its request is served."""
    with Edge(limits={"handshakes_pending": 10}) as edge:
        idle = [edge.connect() for _ in range(30)]
        until(lambda: len(edge.port._pending) == 10, "ten are left")
        with edge.client():
            for client in idle[:20]:
                assert client.ended() == b""
        for client in idle:
            client.sock.close()


def test_a_client_that_is_gone_at_the_door_leaves_nothing() -> None:
    with Edge() as edge:
        for _ in range(20):
            client = edge.connect()
            client.send(upgrade_request("/ws?token=slow"))
            until(lambda: edge.door.connections, "it is at the door")
            client.reset()
            until(lambda: not edge.door.connections, "it has left")


def test_not_ready() -> None:
    with Edge() as edge, edge.connect() as client:
        edge.ready = False
        answer = client.request(upgrade_request("/ws?token=good-alice", headers=[("Origin", "http://127.0.0.1")]))
        assert (answer.status, answer.json()["code"]) == (503, "not_ready")
        assert 1 <= int(answer.headers["retry-after"]) <= 10


def test_answers_are_counted_by_route_and_never_by_path() -> None:
    with Edge() as edge:
        for data in (upgrade_request("/ws"), upgrade_request("/secret"), b"nonsense\r\n\r\n"):
            with edge.connect() as client:
                client.request(data)
        with edge.client():
            pass
        assert dict(edge.metrics.http_requests) == {("GET", "/ws"): 2, ("GET", "other"): 1, ("other", "other"): 1}
        assert edge.metrics.http_responses == {"401": 1, "404": 1, "400": 1, "101": 1}


def test_a_peer_that_never_takes_its_answer_is_aborted(edge: Edge) -> None:
    """The client shuts nothing and reads nothing: the linger after the answer is bounded."""
    client = RawClient(edge.address)
    client.send(b"nonsense\r\n\r\n")
    client.answer()
    client.sock.settimeout(5)
    assert client.sock.recv(1) == b""
    until(lambda: not edge.port._pending, "nothing is kept")
    client.sock.close()
