"""The head of one HTTP request: read strictly, because everything behind it believes what stands there.

What RFC 9112 and 9110 let a server tolerate (bare LF, folded lines, blanks before the colon, two lengths) is how
requests are smuggled past a proxy; what they let stand in a value (controls, 8-bit bytes) is how headers are forged.
All of it is refused here, with texts that never repeat what the client sent. Pure: bytes in, values out.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from urllib.parse import parse_qsl, unquote_to_bytes

import attrs

from gateway.errors import Kind, Refused

MAX_HEAD = 16 * 1024  # bytes, request line and headers together
MAX_LINES = 100  # header lines
MAX_PARAMETERS = 32  # of a query

_ALLOWED = bytes([9, 10, 13, *range(0x20, 0x7F)])
_END = b"\r\n\r\n"
_NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # RFC 9110 section 5.6.2
_REQUEST_LINE = re.compile(rf"({_NAME}) ([!-~]+) HTTP/([0-9])\.([0-9])")
_FIELD = re.compile(rf"({_NAME}):[ \t]*(|[!-~](?:[\t -~]*[!-~])?)[ \t]*")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._~!$&'()*+,;=%-]{1,255})(?::([0-9]{1,5}))?")
_LENGTH = re.compile(r"[0-9]{1,12}")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT"))
# Fields that mean one thing: a second one is a way to make two readers see two different requests.
_SINGLE = (
    "host",
    "content-length",
    "transfer-encoding",
    "authorization",
    "expect",
    "sec-websocket-key",
    "sec-websocket-version",
)


@attrs.frozen
class Head:
    """A request line and its headers, valid as far as HTTP goes. ``headers`` has lower-case names; lists that came in
    several lines are joined. ``path`` is decoded once, ``query`` is not. ``length``: bytes of the body."""

    method: str
    target: str
    path: bytes
    query: str
    version: tuple[int, int]
    headers: Mapping[str, str]
    length: int

    def tokens(self, name: str) -> tuple[str, ...]:
        """The elements of a comma-separated list, in lower case."""
        return tuple(element.lower() for element in self.elements(name))

    def elements(self, name: str) -> tuple[str, ...]:
        """The elements of a comma-separated list as they stand, without empty ones (RFC 9110 section 5.6.1)."""
        return tuple(element for part in self.headers.get(name, "").split(",") if (element := part.strip(" \t")))


def end_of_head(data: bytes) -> int:
    """Where the body begins, or 0 while the head is not whole. Refused is raised as early as can be."""
    end = data.find(_END, 0, MAX_HEAD)
    head = data[: end + len(_END)] if end >= 0 else data[:MAX_HEAD]
    _check_bytes(head)
    line, found, _ = head.partition(b"\r\n")
    if found:
        _request_line(line)
    if end >= 0:
        return end + len(_END)
    if len(data) < MAX_HEAD:
        return 0
    if found:
        raise Refused("the headers are too large", Kind.HEADERS_TOO_LARGE)
    raise Refused("the request line is too long", Kind.URI_TOO_LONG)


def parse(head: bytes) -> Head:
    """A whole head, as ``end_of_head`` found it. Raises Refused."""
    line, *fields = head[: -len(_END)].split(b"\r\n")
    method, target, version = _request_line(line)
    if len(fields) > MAX_LINES:
        raise Refused("there are too many headers", Kind.HEADERS_TOO_LARGE)
    headers = _headers(fields)
    _check_host(headers, version)
    path, _, query = target.partition("?")
    return Head(method, target, unquote_to_bytes(path), query, version, headers, _length(method, headers))


def _check_bytes(head: bytes) -> None:
    """Only visible ASCII, blanks, and CR LF in pairs (a CR at the end may still find its LF)."""
    if head.translate(None, _ALLOWED):
        raise Refused("the request has bytes that HTTP does not allow", Kind.BAD_REQUEST)
    whole = head[:-1] if head.endswith(b"\r") else head
    pairs = whole.count(b"\r\n")
    if whole.count(b"\n") != pairs or whole.count(b"\r") != pairs:
        raise Refused("lines of the request do not end in CR LF", Kind.BAD_REQUEST)


def _request_line(line: bytes) -> tuple[str, str, tuple[int, int]]:
    match = _REQUEST_LINE.fullmatch(line.decode("ascii"))
    if match is None:
        raise Refused("the request line is malformed", Kind.BAD_REQUEST)
    method, target, version = match[1], match[2], (int(match[3]), int(match[4]))
    if version not in ((1, 1), (1, 0)):
        raise Refused("HTTP/1.1 is spoken here", Kind.BAD_VERSION)
    if method not in _METHODS:
        raise Refused("the method is not known", Kind.NOT_IMPLEMENTED)
    if not target.startswith("/") or "#" in target or _BAD_ESCAPE.search(target):
        raise Refused("the request target is not a path", Kind.BAD_REQUEST)
    return method, target, version


def _headers(fields: list[bytes]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for field in fields:
        match = _FIELD.fullmatch(field.decode("ascii"))
        if match is None:
            raise Refused("a header line is malformed", Kind.BAD_REQUEST)
        name, value = match[1].lower(), match[2]
        if name not in headers:
            headers[name] = value
        elif name in _SINGLE:
            raise Refused("a header that may stand once stands there twice", Kind.BAD_REQUEST)
        else:
            headers[name] = f"{headers[name]}, {value}"
    return headers


def _check_host(headers: Mapping[str, str], version: tuple[int, int]) -> None:
    """RFC 9112 section 3.2: one Host, and a valid one."""
    host = headers.get("host")
    if host is None:
        if version == (1, 0):
            return
        raise Refused("the Host header is missing", Kind.BAD_REQUEST)
    match = _HOST.fullmatch(host)
    if match is None or _BAD_ESCAPE.search(host) or int(match[2] or 0) > 65535:
        raise Refused("the Host header is malformed", Kind.BAD_REQUEST)


def _length(method: str, headers: Mapping[str, str]) -> int:
    """RFC 9112 section 6, without transfer codings: no client of the API needs them, every smuggler does."""
    if "transfer-encoding" in headers:
        raise Refused("Transfer-Encoding is not taken: send a Content-Length", Kind.BAD_REQUEST)
    text = headers.get("content-length")
    if text is None:
        return 0
    if _LENGTH.fullmatch(text) is None:
        raise Refused("the Content-Length is malformed", Kind.BAD_REQUEST)
    length = int(text)
    if length and method in ("GET", "HEAD", "TRACE", "CONNECT"):
        raise Refused("this method has no body", Kind.BAD_REQUEST)
    return length


def is_upgrade(head: Head) -> bool:
    """Whether the client asks for a WebSocket, well or badly."""
    return "websocket" in head.tokens("upgrade")


def check_upgrade(head: Head) -> str:
    """The key of a valid opening handshake (RFC 6455 section 4.2.1). Raises Refused."""
    if head.method != "GET":
        raise Refused("a WebSocket begins with GET", Kind.METHOD_NOT_ALLOWED)
    if "upgrade" not in head.headers:
        raise Refused("this is a WebSocket: send Upgrade: websocket", Kind.UPGRADE_REQUIRED)
    if head.version != (1, 1):
        raise Refused("a WebSocket needs HTTP/1.1", Kind.BAD_VERSION)
    if not is_upgrade(head) or "upgrade" not in head.tokens("connection"):
        raise Refused("Upgrade: websocket and Connection: Upgrade belong together", Kind.BAD_REQUEST)
    if head.headers.get("sec-websocket-version") != "13":
        raise Refused("WebSocket version 13 is spoken here", Kind.UPGRADE_REQUIRED)
    key = head.headers.get("sec-websocket-key", "")
    try:
        nonce = base64.b64decode(key, validate=True)
    except (binascii.Error, ValueError):
        nonce = b""
    if len(nonce) != 16 or len(key) != 24:
        raise Refused("the Sec-WebSocket-Key is not 16 bytes in base64", Kind.BAD_REQUEST)
    return key


def parse_query(query: str) -> dict[str, tuple[str, ...]]:
    """Every parameter with its values, decoded once. Raises Refused for too many, and for what is not UTF-8."""
    try:
        pairs = parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=MAX_PARAMETERS)
    except ValueError:  # UnicodeDecodeError is one
        raise Refused("the query is malformed, or has too many parameters", Kind.BAD_REQUEST) from None
    found: dict[str, tuple[str, ...]] = {}
    for name, value in pairs:
        found[name] = (*found.get(name, ()), value)
    return found
