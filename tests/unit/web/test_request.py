"""The head of a request is read as RFC 9112 says and no more generously: what two readers could take for two different
requests is none (ids in brackets are rows of the table of hostile inputs)."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import Kind, Refused
from gateway.web.request import MAX_HEAD, check_upgrade, end_of_head, is_upgrade, parse, parse_query

LINES = (
    "Host: gateway.example",
    "Upgrade: websocket",
    "Connection: keep-alive, Upgrade",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version: 13",
)


def head(*more: str, line: str = "GET /ws HTTP/1.1", without: str = "") -> bytes:
    lines = [line, *(text for text in LINES if not without or not text.startswith(without)), *more, "", ""]
    return "\r\n".join(lines).encode("latin-1")


def refusal(data: bytes) -> Kind:
    """How a request is refused that is whole, whichever step finds it."""
    with pytest.raises(Refused) as caught:
        assert end_of_head(data) == len(data)
        check_upgrade(parse(data))
    assert "secret" not in str(caught.value)
    return caught.value.kind


def test_a_good_handshake_is_understood() -> None:
    data = head("Origin: https://app.example", "X-Empty:", "X-Forwarded-For: 10.0.0.1", "x-forwarded-for: 10.0.0.2 ")
    assert end_of_head(data + b"\x81\x85early") == len(data)
    found = parse(data)
    assert (found.method, found.target, found.path, found.version) == ("GET", "/ws", b"/ws", (1, 1))
    assert found.headers["origin"] == "https://app.example"
    assert found.headers["x-empty"] == ""
    assert found.headers["x-forwarded-for"] == "10.0.0.1, 10.0.0.2"
    assert found.tokens("connection") == ("keep-alive", "upgrade")
    assert is_upgrade(found)
    assert check_upgrade(found) == "dGhlIHNhbXBsZSBub25jZQ=="


def test_a_head_is_awaited_byte_by_byte() -> None:
    """A head in small pieces is as good as one in a segment; nothing is decided too early."""
    data = head()
    assert {end_of_head(data[:size]) for size in range(len(data))} == {0}
    assert end_of_head(data) == len(data)


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("get /ws HTTP/1.1", Kind.NOT_IMPLEMENTED),  # A1
        ("POST /ws HTTP/1.1", Kind.METHOD_NOT_ALLOWED),
        ("HEAD /ws HTTP/1.1", Kind.METHOD_NOT_ALLOWED),
        ("CONNECT /ws HTTP/1.1", Kind.METHOD_NOT_ALLOWED),
        ("CONNECT gateway.example:443 HTTP/1.1", Kind.BAD_REQUEST),
        ("GET /ws HTTP/1.0", Kind.BAD_VERSION),  # A2
        ("GET /ws HTTP/2.0", Kind.BAD_VERSION),
        ("GET /ws HTTP/1.1.1", Kind.BAD_REQUEST),
        ("GET /ws http/1.1", Kind.BAD_REQUEST),
        ("GET /ws", Kind.BAD_REQUEST),
        ("PRI * HTTP/2.0", Kind.BAD_VERSION),
        ("GET  /ws HTTP/1.1", Kind.BAD_REQUEST),
        ("GET /ws  HTTP/1.1", Kind.BAD_REQUEST),
        (" GET /ws HTTP/1.1", Kind.BAD_REQUEST),
        ("GET\t/ws HTTP/1.1", Kind.BAD_REQUEST),
        ("GET /ws a?token=secret HTTP/1.1", Kind.BAD_REQUEST),  # A23
        ("GET * HTTP/1.1", Kind.BAD_REQUEST),  # A10
        ("GET http://gateway.example/ws HTTP/1.1", Kind.BAD_REQUEST),
        ("GET ws HTTP/1.1", Kind.BAD_REQUEST),
        ("GET /ws#part HTTP/1.1", Kind.BAD_REQUEST),
        ("GET /ws\x01 HTTP/1.1", Kind.BAD_REQUEST),
        ("GET /ws\xe9 HTTP/1.1", Kind.BAD_REQUEST),
        ("GET /ws?token=%zz HTTP/1.1", Kind.BAD_REQUEST),
        ("", Kind.BAD_REQUEST),
    ],
)
def test_request_line(line: str, kind: Kind) -> None:
    assert refusal(head(line=line)) is kind


@pytest.mark.parametrize(
    "field",
    [
        *(f"X-A: b{char}Origin: https://app.example" for char in "\x0b\x0c\x1c\x1d\x1e\x85\x00\x7f\r\n\xff"),  # A16
        "Transfer-Encoding: chunked",  # A17
        "Transfer-Encoding: identity",
        "Content-Length: 5",
        "Content-Length: -1",
        "Content-Length: +1",
        "Content-Length: 0x10",
        "Content-Length: 1_0",
        "Content-Length: 0, 0",
        "Content-Length: 0\r\nContent-Length: 0",
        "Content-Length: 0\r\nTransfer-Encoding: chunked",
        "X-A: b\r\n folded",
        "X-A: b\r\n\tfolded",
        "X-A : b",
        "X-A",
        ": b",
        "X A: b",
        "Host: gateway.example",  # A9
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",  # A8
        "Authorization: Bearer secret\r\nAuthorization: Bearer secret",
    ],
)
def test_header_lines_that_are_refused(field: str) -> None:
    assert refusal(head(field)) is Kind.BAD_REQUEST


@pytest.mark.parametrize(
    ("without", "instead", "kind"),
    [
        ("Host", "", Kind.BAD_REQUEST),  # A9
        ("Host", "Host:", Kind.BAD_REQUEST),
        ("Host", "Host: a b", Kind.BAD_REQUEST),
        ("Host", "Host: gateway.example:99999", Kind.BAD_REQUEST),
        ("Host", "Host: gateway.example:", Kind.BAD_REQUEST),
        ("Host", "Host: user@gateway.example", Kind.BAD_REQUEST),
        ("Host", "Host: gateway.example/ws", Kind.BAD_REQUEST),
        ("Upgrade", "", Kind.UPGRADE_REQUIRED),  # A3
        ("Upgrade", "Upgrade: h2c", Kind.BAD_REQUEST),  # A5
        ("Connection", "", Kind.BAD_REQUEST),
        ("Connection", "Connection: keep-alive", Kind.BAD_REQUEST),
        ("Sec-WebSocket-Version", "", Kind.UPGRADE_REQUIRED),  # A6, A7
        *(
            ("Sec-WebSocket-Version", f"Sec-WebSocket-Version: {version}", Kind.UPGRADE_REQUIRED)
            for version in ("8", "0", "7", "14", "255", "-13", "abc", "13, 8", "1_3", "13.0", "+13", "013")
        ),
        ("Sec-WebSocket-Key", "", Kind.BAD_REQUEST),  # A8
        ("Sec-WebSocket-Key", "Sec-WebSocket-Key: c2hvcnQ=", Kind.BAD_REQUEST),
        ("Sec-WebSocket-Key", "Sec-WebSocket-Key: " + "A" * 44, Kind.BAD_REQUEST),
        ("Sec-WebSocket-Key", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25j!Q==", Kind.BAD_REQUEST),
    ],
)
def test_handshake_headers(without: str, instead: str, kind: Kind) -> None:
    assert refusal(head(*filter(None, [instead]), without=without)) is kind


@pytest.mark.parametrize(
    "noise",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",  # a TLS hello
        b"SSH-2.0-OpenSSH_9.7\r\n",
        b"*1\r\n$4\r\nPING\r\n",
        b"<policy-file-request/>\x00",
        b"\x80\x0f" * 100,
        b"GET /ws HTTP/1.1\nHost: gateway.example\n\n",  # bare LF
        b"GET /ws HTTP/1.1\rHost: gateway.example\r\r",
        b"\r\nGET /ws HTTP/1.1\r\n",
        b"GET /ws\r\n",  # HTTP/0.9
    ],
)
def test_what_is_no_http_is_refused_before_it_ends(noise: bytes) -> None:
    """A22: such a peer never sends an empty line; waiting for one would keep it for server.readTimeout."""
    with pytest.raises(Refused):
        end_of_head(noise)


def test_size_is_bounded() -> None:
    """A13, A14."""
    with pytest.raises(Refused) as caught:
        end_of_head(b"GET /ws?" + b"x" * MAX_HEAD)
    assert caught.value.kind is Kind.URI_TOO_LONG
    with pytest.raises(Refused) as caught:
        end_of_head(b"GET /ws HTTP/1.1\r\nX-A: " + b"x" * MAX_HEAD)
    assert caught.value.kind is Kind.HEADERS_TOO_LARGE
    assert refusal(head(*(f"X-{n}: {n}" for n in range(100)))) is Kind.HEADERS_TOO_LARGE
    with pytest.raises(Refused):
        parse_query("&".join(f"p{n}=1" for n in range(100)))


def test_no_value_costs_more_than_its_length() -> None:
    """A20, A21: a pattern that backtracks would take minutes for this."""
    started = time.perf_counter()
    parse(head("Sec-WebSocket-Protocol: b" + " " * 12000 + "x" + " " * 3000))
    assert time.perf_counter() - started < 0.5


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/ws/../x", b"/ws/../x"),
        ("//ws", b"//ws"),
        ("/%2e%2e/ws", b"/../ws"),
        ("/WS", b"/WS"),
        ("/ws%00", b"/ws\x00"),
        ("/%77s", b"/ws"),
        ("/ws;x", b"/ws;x"),
        ("/ws/", b"/ws/"),
    ],
)
def test_paths_are_decoded_once_and_not_resolved(target: str, path: bytes) -> None:
    """A10: the WebSocket is at exactly one decoded path."""
    assert parse(head(line=f"GET {target} HTTP/1.1")).path == path


def test_http_1_0_is_http_but_no_websocket() -> None:
    """Health checks of proxies speak it, without Host."""
    found = parse(b"GET /healthz HTTP/1.0\r\n\r\n")
    assert (found.version, found.path) == ((1, 0), b"/healthz")


def test_the_length_of_a_body() -> None:
    assert parse(b"POST /api/publish HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\n\r\n").length == 12
    assert parse(b"POST /api/publish HTTP/1.1\r\nHost: a\r\n\r\n").length == 0


def test_queries() -> None:
    assert parse_query("token=a&topics=rooms%2F42%2Crooms&token=b&since=") == {
        "token": ("a", "b"),
        "topics": ("rooms/42,rooms",),
        "since": ("",),
    }
    with pytest.raises(Refused):
        parse_query("token=%ff")


@given(st.binary(max_size=300))
def test_nothing_but_a_refusal_comes_of_noise(data: bytes) -> None:
    try:
        size = end_of_head(data)
        if size:
            parse(data[:size])
    except Refused:
        pass


@given(st.text(st.characters(max_codepoint=255), max_size=40))
def test_no_value_makes_a_second_header(value: str) -> None:
    """Whatever a value holds, there are the headers that were sent, or the request is refused."""
    data = head(f"X-A: {value}")
    try:
        found = parse(data[: end_of_head(data)])
    except Refused:
        return
    names = {"host", "upgrade", "connection", "sec-websocket-key", "sec-websocket-version", "x-a"}
    assert set(found.headers) == names
