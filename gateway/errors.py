"""Every error that a client, an API caller or an operator can be told, as one tree.

Below the codecs an error is a :class:`Kind`; what it looks like on the wire (ERROR code, HTTP status,
close code) stands here once, so that the three can never disagree (``docs/protocol.md``).
"""

from __future__ import annotations

import enum

import attrs


class Close(enum.IntEnum):
    """WebSocket close codes that the gateway sends (RFC 6455 section 7.4, and 4xxx of its own)."""

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    BAD_UTF8 = 1007
    TOO_BIG = 1009
    INTERNAL = 1011
    BAD_REQUEST = 4400
    UNAUTHORIZED = 4401
    FORBIDDEN = 4403
    OPERATOR = 4411
    TOKEN_EXPIRED = 4500
    TOO_SLOW = 4501
    NO_PONG = 4502
    RATE_LIMITED = 4503


@attrs.frozen
class Wire:
    """How one kind of error is told: ERROR ``code``, HTTP ``status``, close code at the door if it is for good."""

    code: str
    status: int
    close: Close | None = None


class Kind(enum.Enum):
    """What went wrong, whoever is told. ``value`` is how it is told."""

    BAD_JSON = Wire("bad_json", 400, Close.BAD_REQUEST)
    BAD_MESSAGE = Wire("bad_message", 400, Close.BAD_REQUEST)
    BAD_REQUEST = Wire("bad_request", 400)
    UNKNOWN_TYPE = Wire("unknown_type", 400)
    BINARY = Wire("binary_not_supported", 400)
    INVALID_TOPICS = Wire("invalid_topics", 400, Close.BAD_REQUEST)
    BAD_SINCE = Wire("bad_since", 400, Close.BAD_REQUEST)
    UNAUTHORIZED = Wire("unauthorized", 401, Close.UNAUTHORIZED)
    EXPIRED = Wire("unauthorized", 401, Close.TOKEN_EXPIRED)
    FORBIDDEN = Wire("forbidden", 403, Close.FORBIDDEN)
    BAD_ORIGIN = Wire("forbidden", 403)
    NOT_FOUND = Wire("not_found", 404)
    METHOD_NOT_ALLOWED = Wire("method_not_allowed", 405)
    TIMEOUT = Wire("timeout", 408)
    BODY_TOO_LARGE = Wire("too_large", 413)
    URI_TOO_LONG = Wire("too_large", 414)
    UNSUPPORTED_MEDIA_TYPE = Wire("unsupported_media_type", 415)
    UPGRADE_REQUIRED = Wire("upgrade_required", 426)
    TOO_MANY_CONNECTIONS = Wire("too_many_connections", 429)
    HEADERS_TOO_LARGE = Wire("too_large", 431)
    LIMIT = Wire("limit", 400, Close.BAD_REQUEST)
    RATE_LIMITED = Wire("rate_limited", 429)
    TOO_LARGE = Wire("too_large", 413)
    INTERNAL = Wire("internal", 500, Close.INTERNAL)
    NOT_IMPLEMENTED = Wire("not_implemented", 501)
    BUSY = Wire("busy", 503)
    UNAVAILABLE = Wire("unavailable", 503)
    NOT_READY = Wire("not_ready", 503)
    DRAINING = Wire("draining", 503)
    TOO_MANY_HANDSHAKES = Wire("rate_limited", 503)
    UNKNOWN_OUTCOME = Wire("unknown_outcome", 504)
    BAD_VERSION = Wire("bad_request", 505)

    # Wires may be equal (expired and invalid tokens share a code): identity keeps enum from folding them.
    def __new__(cls, wire: Wire) -> Kind:
        member = object.__new__(cls)
        member._value_ = (len(cls.__members__), wire)
        return member

    @property
    def wire(self) -> Wire:
        found: Wire = self.value[1]
        return found


class GatewayError(Exception):
    """Base of what the gateway raises on purpose. ``str()`` is safe to show: it never holds a token or a stack."""

    kind: Kind = Kind.INTERNAL

    def __init__(self, message: str, kind: Kind | None = None, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after = retry_after  # seconds, where the client may come back
        if kind is not None:
            self.kind = kind


class Refused(GatewayError):
    """A client's request is refused for the reason given by ``kind``."""


class ConfigError(GatewayError):
    """The configuration cannot be used. ``problems`` has one line each, with the dotted key."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class PublishError(GatewayError):
    """A record was not (``UNAVAILABLE``, ``BUSY``, ``TOO_LARGE``), or perhaps (``UNKNOWN_OUTCOME``), written."""


class AuthError(Refused):
    """A token does not let its bearer in; ``reason`` is a metric label of a fixed set."""

    def __init__(self, message: str, reason: str, kind: Kind = Kind.UNAUTHORIZED) -> None:
        super().__init__(message, kind)
        self.reason = reason
