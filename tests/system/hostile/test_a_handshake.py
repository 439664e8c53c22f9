"""Section A of the hostile inputs: the opening handshake. The ids begin with the rows' ids.

Each case is what an attacker, a broken proxy or a scanner sends. Answered with anything but the refusal named here it
is a hole: a request smuggled, a header forged, a page of another site let in, or memory taken by somebody unknown.
"""

from __future__ import annotations

import random
import socket
import time

import pytest

from tests.support.hostile import PATIENCE, Target
from tests.support.rawclient import KEY, TEXT, RawClient, frame, upgrade_request

UPGRADE = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13"
GOOD_KEY = f"Sec-WebSocket-Key: {KEY}"


def lines(*rows: str | bytes, end: bytes = b"\r\n") -> bytes:
    """A request of these lines, and the empty one."""
    return end.join(row.encode() if isinstance(row, str) else row for row in rows) + end * 2


def upgrade(*extra: bytes | str, request: bytes | str = "GET /ws HTTP/1.1") -> bytes:
    """A good opening handshake with more header lines behind it."""
    return lines(request, "Host: 127.0.0.1", UPGRADE, GOOD_KEY, *extra)


def case(id: str, status: int, data: bytes) -> object:
    return pytest.param(data, status, id=id)


def bad_value(byte: int) -> bytes:
    return upgrade(b"X-Forwarded-User: a" + bytes([byte]) + b"X-Forwarded-For: 10.1.2.3")


REFUSED = [
    # A1, methods
    *(
        case(f"A1-{method}", 405, upgrade_request(method=method))
        for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT")
    ),
    *(case(f"A1-{method}", 501, upgrade_request(method=method)) for method in ("get", "Get", "GETX", "PROPFIND", "X!")),
    case("A1-none", 400, lines("/ws HTTP/1.1", "Host: a")),
    case("A1-not-a-token", 400, upgrade(request="G(T /ws HTTP/1.1")),
    case("A1-CONNECT-authority", 400, lines("CONNECT evil.example:443 HTTP/1.1", "Host: evil.example:443")),
    # A2, versions
    case("A2-1.0", 505, upgrade_request(version="HTTP/1.0")),
    case("A2-0.9", 400, b"GET /ws\r\n\r\n"),
    case("A2-1.2", 505, upgrade_request(version="HTTP/1.2")),
    case("A2-2.0", 505, upgrade_request(version="HTTP/2.0")),
    case("A2-preface", 505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    *(
        case(f"A2-{name}", 400, upgrade_request(version=version))
        for name, version in {
            "1.1.1": "HTTP/1.1.1",
            "11.1": "HTTP/11.1",
            "lower-case": "http/1.1",
            "blank": "HTTP/ 1.1",
            "two": "HTTP/1.1 HTTP/1.1",
            "ws": "WS/1.1",
            "minus": "HTTP/-1.1",
        }.items()
    ),
    # A3, A4: no upgrade
    case("A3-plain", 426, lines("GET /ws HTTP/1.1", "Host: a")),
    case("A3-plain-with-key", 426, lines("GET /ws HTTP/1.1", "Host: a", GOOD_KEY, "Sec-WebSocket-Version: 13")),
    case("A4-redirect", 426, lines("GET /ws?redirect=https://evil.example HTTP/1.1", "Host: a")),
    case("A4-javascript", 426, lines("GET /ws?redirect=javascript:alert(1)&after=0 HTTP/1.1", "Host: a")),
    # A5, Connection and Upgrade
    case("A5-no-connection", 400, upgrade_request(leave_out=["Connection"])),
    *(
        case(f"A5-connection-{value}", 400, upgrade_request(leave_out=["Connection"], headers=[("Connection", value)]))
        for value in ("close", "keep-alive", "upgraded", "Up grade")
    ),
    *(
        case(f"A5-upgrade-{value}", 400, upgrade_request(leave_out=["Upgrade"], headers=[("Upgrade", value)]))
        for value in ("h2c", "websocket/13", "WebSockets", "TLS/1.0", "web socket")
    ),
    # A6, A7: versions of the protocol
    case(
        "A6-version-8",
        426,
        upgrade_request(
            leave_out=["Sec-WebSocket-Version"],
            headers=[
                ("Sec-WebSocket-Version", "8"),
                ("Sec-WebSocket-Origin", "https://app.example"),
                ("Origin", "https://evil.example"),
            ],
        ),
    ),
    *(
        case(
            f"A7-{version or 'empty'}",
            426,
            upgrade_request(leave_out=["Sec-WebSocket-Version"], headers=[("Sec-WebSocket-Version", version)]),
        )
        for version in ("0", "7", "14", "255", "-13", "+13", "abc", "13, 8", "1_3", "013", "13.0", "1 3", "")
    ),
    case("A7-missing", 426, upgrade_request(leave_out=["Sec-WebSocket-Version"])),
    case("A7-twice", 400, upgrade("Sec-WebSocket-Version: 13")),
    # A8, keys
    case("A8-missing", 400, upgrade_request(leave_out=["Sec-WebSocket-Key"])),
    case("A8-twice", 400, upgrade(GOOD_KEY)),
    *(
        case(f"A8-{name}", 400, upgrade_request(key=key))
        for name, key in {
            "empty": "",
            "short": "c2hvcnQ=",
            "15-bytes": "AAAAAAAAAAAAAAAAAAAA",
            "17-bytes": "AAAAAAAAAAAAAAAAAAAAAAA=",
            "long": "QUFB" * 1000,
            "not-base64": "!" * 24,
            "url-base64": "-_" * 11 + "==",
            "blank": KEY[:11] + " " + KEY[12:],
            "no-padding": KEY.rstrip("="),
            "padding-in-the-middle": "AAAA====" * 3,
        }.items()
    ),
    # A9, Host
    case("A9-missing", 400, upgrade_request(leave_out=["Host"])),
    case("A9-twice", 400, upgrade("Host: 127.0.0.1")),
    case("A9-twice-other", 400, upgrade("Host: evil.example")),
    *(
        case(f"A9-{name}", 400, upgrade_request(host=host))
        for name, host in {
            "empty": "",
            "port-99999": "127.0.0.1:99999",
            "port-text": "127.0.0.1:http",
            "port-minus": "127.0.0.1:-1",
            "port-twice": "127.0.0.1:80:80",
            "userinfo": "admin@127.0.0.1",
            "path": "127.0.0.1/ws",
            "blank": "127.0.0.1 evil.example",
            "list": "127.0.0.1, evil.example",
            "bracket": "[::1",
            "escape": "127.0.0.1%zz",
            "long": "a" * 256,
        }.items()
    ),
    # A10, targets
    *(
        case(f"A10-{name}", 404, upgrade_request(target))
        for name, target in {
            "other": "/other",
            "root": "/",
            "slash": "/ws/",
            "below": "/ws/x",
            "dots": "/ws/../ws",
            "dots-out": "/x/../ws",
            "dots-escaped": "/%2e%2e/ws",
            "dot": "/./ws",
            "double-slash": "//ws",
            "upper-case": "/WS",
            "prefix": "/wsx",
            "parameter": "/ws;v=1",
            "NUL": "/ws%00",
            "slash-escaped": "/ws%2f",
            "slash-escaped-first": "/%2fws",
            "query-escaped": "/ws%3ftoken=a",
            "twice-escaped": "/%2577s",
            "backslash": "/ws%5c..%5cx",
            "CR-LF": "/ws%0d%0aX:%20y",
            "8-bit-escaped": "/ws%ff",
            "overlong": "/%c0%afws",
            "api": "/api/info",
        }.items()
    ),
    *(
        case(f"A10-{name}", 400, upgrade_request(target))
        for name, target in {
            "star": "*",
            "absolute": "http://127.0.0.1/ws",
            "absolute-ws": "ws://127.0.0.1/ws",
            "authority": "127.0.0.1:80",
            "no-slash": "ws",
            "question-mark": "?token=a",
            "fragment": "/ws#x",
            "bad-escape": "/ws%zz",
            "half-escape": "/ws%2",
            "8-bit": "/ws\xff",
            "control": "/ws\x01",
            "DEL": "/ws\x7f",
        }.items()
    ),
    # A11, foreign origins
    *(
        case(f"A11-{name}", 403, upgrade_request(headers=[("Origin", origin)]))
        for name, origin in {
            "other": "https://evil.example",
            "null": "null",
            "empty": "",
            "star": "*",
            "scheme": "http://app.example",
            "suffix": "https://app.example.evil.example",
            "prefix": "https://evilapp.example",
            "subdomain": "https://x.app.example",
            "userinfo": "https://app.example@evil.example",
            "userinfo-self": "https://evil@app.example",
            "port": "https://app.example:8443",
            "port-of-dev": "http://dev.example",
            "port-80": "https://app.example:80",
            "escape": "https://app.example%00.evil.example",
            "slash": "https://app.example/",
            "path": "https://app.example/x",
            "dot": "https://app.example.",
            "query": "https://app.example?https://evil.example",
            "two": "https://app.example https://evil.example",
            "list": "https://app.example, https://evil.example",
            "no-scheme": "app.example",
            "double-slash": "//app.example",
            "file": "file://",
            "extension": "chrome-extension://app.example",
            "malformed": "https://[::1",
            "ipv6": "https://[2001:db8::2]",
            "underscore": "https://app_example",
            "dotless": "https://appxexample",
        }.items()
    ),
    case("A11-twice", 403, upgrade("Origin: https://app.example", "Origin: https://evil.example")),
    case("A11-twice-the-same", 403, upgrade("Origin: https://app.example", "Origin: https://app.example")),
    # A12, no origin, no token: not a browser, and nobody in particular
    case("A12-no-origin-no-token", 401, upgrade_request()),
    # A13, too much
    case("A13-long-header", 431, upgrade_request(headers=[("X-Long", "x" * 17_000)])),
    case("A13-1-MiB-query", 414, upgrade_request("/ws?x=" + "x" * (1 << 20))),
    case("A13-1-MiB-path", 414, upgrade_request("/" + "x" * (1 << 20))),
    case("A13-10000-headers", 431, upgrade(*["a: b"] * 10_000)),
    case("A13-101-headers", 431, upgrade(*["a: b"] * 96)),
    case("A13-200000-parameters", 414, upgrade_request("/ws?" + "a&" * 200_000)),
    case("A13-5000-parameters", 400, upgrade_request("/ws?" + "a&" * 5000)),
    case("A13-33-parameters", 400, upgrade_request("/ws?" + "&".join(f"p{n}=" for n in range(33)))),
    case("A13-long-name", 431, upgrade("x" * 17_000 + ": y")),
    # A16, what Autobahn takes for the end of a line
    *(
        case(f"A16-{name}-in-value", 400, bad_value(byte))
        for name, byte in {
            "NUL": 0x00,
            "BEL": 0x07,
            "BS": 0x08,
            "vt": 0x0B,
            "ff": 0x0C,
            "ESC": 0x1B,
            "fs": 0x1C,
            "gs": 0x1D,
            "rs": 0x1E,
            "us": 0x1F,
            "DEL": 0x7F,
            "nel": 0x85,
            "nbsp": 0xA0,
            "8-bit": 0xFF,
            "CR": 0x0D,
            "LF": 0x0A,
        }.items()
    ),
    case("A16-vt-in-name", 400, upgrade("X\x0bOrigin: https://app.example")),
    case("A16-nel-in-target", 400, upgrade_request("/ws?\x85Origin:")),
    case("A16-CR-before-the-name", 400, upgrade("\rOrigin: https://app.example")),
    case("A16-line-separator", 400, upgrade("X: a\u2028Origin: https://app.example")),
    # A17, framing
    case("A17-CL-and-TE", 400, upgrade("Content-Length: 5", "Transfer-Encoding: chunked")),
    case("A17-TE", 400, upgrade("Transfer-Encoding: chunked")),
    case("A17-TE-identity", 400, upgrade("Transfer-Encoding: identity")),
    case("A17-TE-odd", 400, upgrade("Transfer-Encoding: xchunked")),
    case("A17-TE-tab", 400, upgrade("Transfer-Encoding:\tchunked")),
    case("A17-TE-twice", 400, upgrade("Transfer-Encoding: identity", "Transfer-Encoding: chunked")),
    case("A17-TE-api", 400, lines("POST /api/publish HTTP/1.1", "Host: a", "Transfer-Encoding: chunked")),
    case("A17-body-on-GET", 400, upgrade("Content-Length: 5") + b"hello"),
    case("A17-body-on-GET-health", 400, lines("GET /healthz HTTP/1.1", "Host: a", "Content-Length: 5") + b"hello"),
    case("A17-two-CL", 400, upgrade("Content-Length: 0", "Content-Length: 5")),
    case("A17-two-CL-the-same", 400, upgrade("Content-Length: 0", "Content-Length: 0")),
    *(
        case(f"A17-CL-{name}", 400, lines("POST /api/publish HTTP/1.1", "Host: a", f"Content-Length: {value}") + b"{}")
        for name, value in {
            "negative": "-1",
            "plus": "+2",
            "hex": "0x2",
            "list": "2, 2",
            "float": "2.0",
            "underscore": "1_0",
            "empty": "",
            "text": "two",
            "huge": "9" * 400,
        }.items()
    ),
    case("A17-folded", 400, upgrade("X: a", " Origin: https://app.example")),
    case("A17-folded-tab", 400, upgrade("X: a", "\tOrigin: https://app.example")),
    case("A17-space-before-colon", 400, upgrade("Origin : https://app.example")),
    case("A17-tab-before-colon", 400, upgrade("Origin\t: https://app.example")),
    case("A17-no-colon", 400, upgrade("Origin")),
    case("A17-no-name", 400, upgrade(": value")),
    case("A17-name-not-a-token", 400, upgrade("X(Y): value")),
    case("A17-NUL-line", 400, upgrade(b"\x00")),
    case("A17-bare-LF", 400, lines("GET /ws HTTP/1.1", "Host: a", *UPGRADE.split("\r\n"), GOOD_KEY, end=b"\n")),
    case("A17-bare-LF-once", 400, upgrade_request().replace(b"127.0.0.1\r\n", b"127.0.0.1\n")),
    case("A17-bare-CR", 400, upgrade_request().replace(b"127.0.0.1\r\n", b"127.0.0.1\r")),
    case("A17-blank-line-first", 400, b"\r\n" + upgrade_request()),
    case("A17-two-blanks", 400, upgrade_request().replace(b"GET /ws", b"GET  /ws")),
    case("A17-tab-in-request-line", 400, upgrade_request().replace(b"GET /ws", b"GET\t/ws")),
    # A19, PROXY from nobody we know
    case("A19-proxy-v1", 400, b"PROXY TCP4 10.1.2.3 127.0.0.1 1 2\r\n" + upgrade_request()),
    case(
        "A19-proxy-v2",
        400,
        b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c" + bytes([10, 1, 2, 3, 127, 0, 0, 1, 0, 1, 0, 2]) + upgrade_request(),
    ),
    # A21, behind the limit of the head
    case("A21-50000-blanks", 431, upgrade("Sec-WebSocket-Protocol: b" + " " * 50_000 + "x")),
    # A22, other protocols
    case("A22-TLS", 400, bytes.fromhex("16030100c8010000c40303") + bytes(range(32)) + b"\x20" * 160),
    case("A22-TLS-alert", 400, bytes.fromhex("15030100020246")),
    case("A22-HTTP2-preface", 505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"),
    case("A22-SSH", 400, b"SSH-2.0-OpenSSH_9.6\r\n"),
    case("A22-redis", 400, b"*2\r\n$4\r\nAUTH\r\n$6\r\nsecret\r\n"),
    case("A22-redis-inline", 400, b"CONFIG SET dir /tmp\r\n"),
    case("A22-smtp", 400, b"EHLO evil.example\r\n"),
    case("A22-flash-policy", 400, b"<policy-file-request/>\x00"),
    case("A22-kafka", 400, bytes.fromhex("000000110012000000000001000461626364") + b"\x00"),
    case("A22-noise", 400, random.Random(22).randbytes(4096)),
    case("A22-a-frame", 400, frame(TEXT, b"hello")),
    case("A22-text-that-ends-nowhere", 408, b"hello"),
    # A23, what Autobahn would log whole
    *(
        case(f"A23-{name}", 400, upgrade(request=request))
        for name, request in {
            "blank-in-target": "GET /ws a?token=SECRET-SECRET-SECRET-SECRET HTTP/1.1",
            "no-version": "GET /ws?token=SECRET-SECRET-SECRET-SECRET",
            "version": "GET /ws?token=SECRET-SECRET-SECRET-SECRET HTTP/x",
            "control": "GET /ws?token=SECRET-SECRET-SECRET-SECRET\x01 HTTP/1.1",
            "fragment": "GET /ws?token=SECRET-SECRET-SECRET-SECRET# HTTP/1.1",
        }.items()
    ),
    case("A23-header", 400, upgrade("Authorization Bearer SECRET-SECRET-SECRET-SECRET")),
    case("A23-host", 400, upgrade_request(host="SECRET-SECRET-SECRET-SECRET@a")),
    # A24, what would raise inside the handshake
    *(
        case(f"A24-{name}", 400, upgrade_request(f"/ws?{query}"))
        for name, query in {
            "token-not-utf8": "token=%ff",
            "name-not-utf8": "%ff=1",
            "overlong": "topics=%c0%80",
            "surrogate": "topics=%ed%a0%80",
        }.items()
    ),
]


@pytest.mark.parametrize(("data", "status"), REFUSED)
def test_a_handshake_that_is_refused(target: Target, data: bytes, status: int) -> None:
    target.known("SECRET-SECRET-SECRET-SECRET")
    counter = f'ws_gateway_http_response_status_code_total{{code="{status}"}}'
    before = target.daemon.metrics().get(counter, 0)
    answer = target.refused(data)
    assert answer.status == status, answer
    assert target.daemon.metrics()[counter] == before + 1
    (warning,) = [event for event in target.events() if event["level"] == "warn"]
    assert "127.0.0.1" in warning["fields"]["address"]
    if status == 405:
        assert answer.headers["allow"] == "GET"
    if status == 426:
        assert answer.headers["sec-websocket-version"] == "13"
        assert answer.headers["upgrade"] == "websocket"
    assert "location" not in answer.headers
    assert b"evil" not in answer.body
    assert b"policy" not in answer.body


@pytest.mark.parametrize(
    "query",
    [
        pytest.param({"topics": "a\0b"}, id="A24-topics"),
        pytest.param({"since": "9" * 4000}, id="A24-since"),
        pytest.param({"since": "@@@@"}, id="A24-since-garbage"),
        pytest.param({"format": "__class__"}, id="A24-format"),
    ],
)
def test_a_query_that_nobody_expects(target: Target, query: dict[str, str]) -> None:
    """Autobahn would answer with the text of the exception."""
    assert target.upgrade(target.target(target.token(), **query)).status == 400


@pytest.mark.parametrize(
    "target_",
    [
        pytest.param(path, id=f"A10-http-{name}")
        for name, path in {
            "dots": "/ws/../healthz",
            "dots-escaped": "/%2e%2e/healthz",
            "escaped": "/%68ealthz",
            "double-slash": "//healthz",
            "slash": "/healthz/",
            "upper-case": "/HEALTHZ",
            "NUL": "/healthz%00",
            "parameter": "/healthz;a",
            "admin": "/api/../metrics",
            "backslash": "/healthz%5c",
        }.items()
    ],
)
def test_a_path_is_exact_over_http_too(target: Target, target_: str) -> None:
    """A proxy that keeps /metrics from the world compares other text than the gateway would."""
    assert target.refused(lines(f"GET {target_} HTTP/1.1", "Host: a")).status == 404


@pytest.mark.parametrize("path", [pytest.param("/ws", id="A1-HEAD"), pytest.param("/nothing", id="A1-HEAD-elsewhere")])
def test_head_has_no_body(target: Target, path: str) -> None:
    """A body behind the answer to HEAD is taken for the next answer by a proxy."""
    with target.connect() as client:
        client.send(upgrade_request(path, method="HEAD"))
        head, _, body = client.ended().partition(b"\r\n\r\n")
    assert head.startswith((b"HTTP/1.1 405", b"HTTP/1.1 404"))
    assert body == b""


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([], id="A12-none"),
        *(
            pytest.param([("Origin", origin)], id=f"A11-allowed-{origin}")
            for origin in (
                "https://app.example",
                "https://app.example:443",
                "HTTPS://APP.EXAMPLE",
                "http://dev.example:3000",
                "https://[2001:db8::1]",
            )
        ),
        pytest.param([("Connection", "keep-alive, Upgrade")], id="A5-firefox"),
        pytest.param([("connection", "UPGRADE")], id="A5-case"),
    ],
)
def test_a_handshake_that_is_right(target: Target, headers: list[tuple[str, str]]) -> None:
    """Strict with everybody would be easy: these must come in."""
    leave_out = ["Connection"] if "onnection" in str(headers) else []
    with target.connect() as client:
        answer = client.upgrade(target.target(target.token()), headers=headers, leave_out=leave_out)
        assert answer.status == 101
        assert client.message()["type"] == "CONNECTED"


@pytest.mark.parametrize(
    "path", [pytest.param("/%77s", id="A10-decoded-once"), pytest.param("/%77%73", id="A10-decoded-all")]
)
def test_the_path_is_decoded_once(target: Target, path: str) -> None:
    """RFC 3986 section 6.2.2.2: the same resource."""
    with target.connect() as client:
        assert client.upgrade(f"{path}?token={target.token()}").status == 101


# A14, A15: heads that never end


HEADS_WITHOUT_END = {
    "value": (b"GET /ws HTTP/1.1\r\nX: ", b"a" * 65536, 431),
    "lines": (b"GET /ws HTTP/1.1\r\n", b"a: b\r\n" * 10_000, 431),
    "blanks": (b"GET /ws HTTP/1.1\r\nX:", b" " * 65536, 431),
    "target": (b"GET /ws?", b"a" * 65536, 414),
    "method": (b"", b"A" * 65536, 414),
}


@pytest.mark.parametrize(
    ("begin", "more", "status"), [pytest.param(*head, id=f"A14-{name}") for name, head in HEADS_WITHOUT_END.items()]
)
def test_a_head_that_never_ends(target: Target, begin: bytes, more: bytes, status: int) -> None:
    """Autobahn keeps all of it: one client took 34 MiB in 4 s. Here it is told off after 16 KiB."""
    answer = target.refused(begin + more)
    assert answer.status == status


@pytest.mark.parametrize("begin", [pytest.param(b"GET /ws HTTP/1.1\r\nX: ", id="A14-cut-off")])
def test_who_goes_on_sending_is_cut_off(target: Target, begin: bytes) -> None:
    """What comes behind the answer is read and dropped, so that the answer arrives; but for a second, not for good."""
    with target.connect() as client:
        client.send(begin)
        cut_off = time.monotonic() + 3.0
        with pytest.raises(ConnectionError):
            while time.monotonic() < cut_off:
                client.send(b"a" * 65536)


def drip(client: RawClient, data: bytes, every: float) -> float:
    """Send ``data`` byte by byte until the server has had enough; the seconds that this took."""
    began = time.monotonic()
    client.sock.settimeout(every)
    for at in range(len(data)):
        try:
            client.send(data[at : at + 1])
            if client.sock.recv(65536) in (b"", None):
                break
        except TimeoutError:
            continue
        except ConnectionError:
            break
    return time.monotonic() - began


@pytest.mark.parametrize(
    "begin",
    [
        pytest.param(b"", id="A15-nothing"),
        pytest.param(b"GET /ws HTTP/1.1\r\nHost: a\r\n", id="A15-half"),
        pytest.param(b"POST /api/publish HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{", id="A15-half-a-body"),
    ],
)
def test_half_open_connections(target: Target, begin: bytes) -> None:
    """300 at once, of which nothing comes: all are dropped in time, and a client that is honest gets in meanwhile."""
    waiting = [target.connect(timeout=5) for _ in range(300)]
    for client in waiting:
        if begin:
            client.send(begin)
    began = time.monotonic()
    with target.connect() as honest:
        target.open(honest)
    assert time.monotonic() - began < PATIENCE
    for client in waiting:
        with client:
            rest = client.ended()
            assert rest == b"" or rest.startswith(b"HTTP/1.1 408"), rest


@pytest.mark.parametrize("data", [pytest.param(upgrade(*["X: y"] * 20), id="A15-byte-by-byte")])
def test_a_byte_every_now_and_then(target: Target, data: bytes) -> None:
    """The deadline is for the whole request: it does not begin anew with each byte."""
    with target.connect() as client:
        assert drip(client, data, 0.3) < 3


# A18


@pytest.mark.parametrize(
    ("first", "status"),
    [
        pytest.param(upgrade_request(), 401, id="A18-no-token"),
        pytest.param(upgrade_request(leave_out=["Sec-WebSocket-Key"]), 400, id="A18-no-key"),
        pytest.param(upgrade_request("/other"), 404, id="A18-path"),
        pytest.param(upgrade_request(headers=[("Sec-WebSocket-Version", "1")]), 400, id="A18-version"),
        pytest.param(lines("GET /healthz HTTP/1.1", "Host: a"), 200, id="A18-http"),
        pytest.param(lines("GET /ws HTTP/1.1", "Host: a", "Connection: keep-alive"), 426, id="A18-keep-alive"),
        pytest.param(
            lines("POST /api/publish HTTP/1.1", "Host: a", "Content-Length: 2") + b"{}", 401, id="A18-http-body"
        ),
    ],
)
def test_nothing_behind_a_refused_upgrade_is_served(target: Target, first: bytes, status: int) -> None:
    """A proxy that believes in the tunnel passes what follows unchecked, to /api if it can."""
    second = lines("GET /metrics HTTP/1.1", "Host: a")
    for together in (True, False):
        with target.connect() as client:
            if together:
                client.send(first + second)
            else:
                client.send(first)
            answer = client.answer()
            assert answer.status == status
            assert answer.headers["connection"] == "close"
            if not together:
                client.send(second)
            assert client.ended() == b""


# A19


@pytest.mark.parametrize(
    ("header", "value"),
    [
        pytest.param("X-Forwarded-For", "10.1.2.3", id="A19-x-forwarded-for"),
        pytest.param("X-Forwarded-For", "10.1.2.3, 127.0.0.1", id="A19-x-forwarded-for-list"),
        pytest.param("X-Forwarded-For", "\\x1b[31m'; DROP", id="A19-x-forwarded-for-garbage"),
        pytest.param("X-Real-IP", "10.1.2.3", id="A19-x-real-ip"),
        pytest.param("Forwarded", "for=10.1.2.3;proto=https;by=127.0.0.1", id="A19-forwarded"),
        pytest.param("True-Client-IP", "10.1.2.3", id="A19-true-client-ip"),
    ],
)
def test_a_peer_says_who_it_is(target: Target, header: str, value: str) -> None:
    """Whoever may choose their address escapes every limit by address, and puts others into the log."""
    with target.connect() as client:
        assert client.upgrade(target.target(target.token("mallory")), headers=[(header, value)]).status == 101
        assert target.connection(client.message())["address"] == "127.0.0.1"
    logged = [event for event in target.events() if event["text"] == "connection opened"]
    assert [event["fields"]["address"] for event in logged] == ["'127.0.0.1'"]
    assert not any(value in event["text"] for event in target.events())


# A20, A21: lists of what is offered


def offers(header: str, value: str, id: str) -> object:
    return pytest.param(header, value, id=id)


EXTENSIONS, PROTOCOL = "Sec-WebSocket-Extensions", "Sec-WebSocket-Protocol"


@pytest.mark.parametrize(
    ("header", "value"),
    [
        *(
            offers(EXTENSIONS, value, f"A20-{name}")
            for name, value in {
                "garbage": ",;=\"',;;==,,",
                "unknown": "x-webkit-deflate-frame, bbf-usp-protocol",
                "1000-unknown": "x; a=1, " * 1000,
                "window-bits-7": "permessage-deflate; server_max_window_bits=7",
                "window-bits-99": "permessage-deflate; client_max_window_bits=99",
                "window-bits-5000-digits": "permessage-deflate; client_max_window_bits=" + "9" * 5000,
                "window-bits-negative": "permessage-deflate; client_max_window_bits=-15",
                "window-bits-text": "permessage-deflate; client_max_window_bits=x",
                "window-bits-none": "permessage-deflate; server_max_window_bits",
                "unknown-parameter": "permessage-deflate; x=1",
                "parameter-twice": "permessage-deflate; client_no_context_takeover; client_no_context_takeover",
                "unclosed-quote": 'permessage-deflate; client_max_window_bits="' + "a" * 14_000,
                "quote-blanks": 'permessage-deflate; client_max_window_bits="' + " " * 14_000,
                "semicolons": "permessage-deflate" + ";" * 14_000,
                "commas": "," * 14_000,
            }.items()
        ),
        *(
            offers(PROTOCOL, value, f"A21-{name}")
            for name, value in {
                "blanks": "b" + " " * 14_000 + "x",
                "unknown": "soap, wamp.2.json",
                "empty": "",
                "commas": "," * 14_000,
                "1000": ", ".join(f"p{number}" for number in range(1000)),
                "not-tokens": 'a b, "c", <d>',
                "like-bearer": "bearerx, x-bearer, be arer",
                "duplicates": "chat, chat, chat",
            }.items()
        ),
    ],
)
def test_an_offer_that_is_not_taken(target: Target, header: str, value: str) -> None:
    """101 without it, or 400, at once: a parser that is slow here stops everybody (CVE-2020-7662, CVE-2021-32640)."""
    with target.connect() as client:
        request = upgrade_request(target.target(target.token()), headers=[(header, value)])
        began = time.monotonic()
        answer = client.request(request)
        assert time.monotonic() - began < PATIENCE
        assert answer.status == 101
        assert header.lower() not in answer.headers
        assert client.message()["type"] == "CONNECTED"


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(f"{'x; a=1, ' * 100}permessage-deflate", id="A20-good-behind-100"),
        pytest.param("permessage-deflate; client_max_window_bits=99, permessage-deflate", id="A20-second-offer"),
        pytest.param("PerMessage-Deflate", id="A20-case"),
    ],
)
def test_an_offer_of_compression_that_is_taken(target: Target, value: str) -> None:
    """What is strict about one offer must not lose the next."""
    with target.connect() as client:
        answer = client.upgrade(target.target(target.token()), headers=[(EXTENSIONS, value)])
        assert answer.headers["sec-websocket-extensions"].startswith("permessage-deflate; client_no_context_takeover")


@pytest.mark.parametrize(
    "offered",
    [
        pytest.param("bearer, {token}", id="A21-bearer"),
        pytest.param("Bearer, {token}, chat", id="A21-bearer-as-written"),
        pytest.param("chat, BEARER, {token}", id="A21-bearer-last"),
    ],
)
def test_the_token_is_never_selected(target: Target, offered: str) -> None:
    """It would come back in a header that proxies log. What is selected is ``bearer``, in the client's own spelling."""
    token = target.token()
    with target.connect() as client:
        answer = client.upgrade(headers=[(PROTOCOL, offered.format(token=token))])
        (bearer,) = [part for part in offered.split(", ") if part.lower() == "bearer"]
        assert answer.headers["sec-websocket-protocol"] == bearer
        assert token not in str(answer)
        assert client.message()["type"] == "CONNECTED"


# A25


@pytest.mark.parametrize("cut", [pytest.param(cut, id=f"A25-cut-{cut}") for cut in (0, 1, 30, 100)])
def test_frames_that_come_with_the_handshake(target: Target, cut: int) -> None:
    """They count, behind the 101 and in their order: some servers answer them first, some lose them."""
    early = [frame(TEXT, b'{"type":"PING","id":"%d"}' % number) for number in range(5)]
    with target.connect() as client:
        client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        data = upgrade_request(target.target(target.token())) + b"".join(early)
        client.send(data[: len(data) - cut])
        assert client.answer().status == 101
        if cut:
            client.send(data[len(data) - cut :])
        assert client.message()["type"] == "CONNECTED"
        assert [client.message()["id"] for _ in early] == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize(
    "early",
    [pytest.param(frame(TEXT, b"x", mask=None), id="A25-wrong"), pytest.param(b"\xff" * 100_000, id="A25-noise")],
)
def test_early_frames_are_held_to_the_rules(target: Target, early: bytes) -> None:
    """What came before the session must not be trusted more than what comes in it."""
    with target.connect() as client:
        client.send(upgrade_request(target.target(target.token())) + early)
        assert client.answer().status == 101
        assert client.closed().code == 1002
