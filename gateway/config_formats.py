"""The kinds that keys share, and texts with a syntax of their own: origins, networks, brokers, URLs, paths, names.

Each function takes the text and returns the value, or raises InvalidValueError, with the right spelling where it can
be told.
"""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

from gateway.config_values import Duration, InvalidValueError, Kind, Many, Network, Parsed, Size, Text, Whole

KiB, MiB, GiB = 1024, 1024**2, 1024**3
MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0

_ORIGIN = re.compile(
    r"([A-Za-z][A-Za-z0-9+.-]*)://(\[[0-9A-Fa-f:.]+\]|[^\s/?#@:\[\]]+)(?::([0-9]{1,5}))?(.*)", re.DOTALL
)
_HOST = re.compile(r"\[[0-9a-f:.]+\]|[a-z0-9._-]+")
_BROKER = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]{1,255}):([0-9]{1,5})")
_SOURCE = re.compile(r"value(\.[^.\s\[\],]+)+|key|header\.[^\s\[\],]+")

TOPIC: Kind[str] = Text("a Kafka topic name: 1 to 249 of A-Z a-z 0-9 . _ -", r"[a-zA-Z0-9._-]{1,249}")
PATH: Kind[str] = Text(
    "a path: / and then A-Z a-z 0-9 . _ ~ - /, without empty segments or dots alone",
    r"(/(?!\.\.?(/|$))[A-Za-z0-9._~-]+)+",
)
CLAIM: Kind[str] = Text("a claim, or a path of claims with dots", r"[^.\s]{1,128}(\.[^.\s]{1,128}){0,9}")
PREFIX: Kind[str] = Text("a metric prefix: a letter or _, then A-Z a-z 0-9 _", r"[a-zA-Z_][a-zA-Z0-9_]{0,63}")


def topic(text: str) -> str:
    """A topic's name that Kafka takes and that is not one of its own."""
    if text in (".", ".."):
        raise InvalidValueError("allowed: a Kafka topic name, and . and .. are none")
    if text.startswith("__") or text == "_schemas":
        raise InvalidValueError("allowed: a topic that is not internal to Kafka and its tools (__..., _schemas)")
    return TOPIC.read(text)


def origin(text: str) -> str:
    """``scheme://host[:port]`` as browsers send it: lower case, without a default port (RFC 6454 section 6.2)."""
    if text == "*":
        return text
    match = _ORIGIN.fullmatch(text)
    if match is None or (match[3] and not 0 < int(match[3]) < 65536):
        raise InvalidValueError("allowed: scheme://host or scheme://host:port, as https://app.example.com")
    scheme, host = match[1].lower(), match[2].lower()
    if not host.isascii():
        host = _punycode(host)
    if not _HOST.fullmatch(host):
        raise InvalidValueError("allowed: one host each, without patterns")
    default = {"http": 80, "https": 443}.get(scheme)
    port = "" if match[3] is None or int(match[3]) == default else f":{int(match[3])}"
    right = f"{scheme}://{host}{port}"
    if text != right:
        raise InvalidValueError(f"write it as browsers send it: {right}")
    return right


def _punycode(host: str) -> str:
    try:
        return host.encode("idna").decode("ascii")
    except UnicodeError:
        raise InvalidValueError("allowed: a host name") from None


def network(text: str) -> Network:
    """An address or a network in CIDR notation."""
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        pass
    try:
        right = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise InvalidValueError("allowed: an IP address or a network, as 10.0.0.0/8 or 2001:db8::/32") from None
    raise InvalidValueError(f"bits are set behind the prefix; write {right}")


def broker(text: str) -> str:
    """``host:port``."""
    match = _BROKER.fullmatch(text)
    if match is None or not 0 < int(match[2]) < 65536:
        raise InvalidValueError("allowed: host:port, without a scheme")
    return text


def url(text: str) -> str:
    """An absolute http or https URL without user and password."""
    try:
        parts = urlsplit(text)
        valid = parts.scheme in ("http", "https") and parts.hostname and not parts.fragment and parts.port != 0
    except ValueError:
        valid = False
    if not valid or not re.fullmatch(r"[!-~]{1,2048}", text):
        raise InvalidValueError("allowed: an absolute URL with https (or http)")
    if parts.username is not None:
        raise InvalidValueError("allowed: a URL without user and password")
    return text


def source(text: str) -> str:
    """Where a record's user is found."""
    if not _SOURCE.fullmatch(text):
        raise InvalidValueError("allowed: value.<field> (value.a.b for a path), key, or header.<name>")
    return text


TOPIC_NAME: Kind[str] = Parsed("a Kafka topic name: 1 to 249 of A-Z a-z 0-9 . _ -", topic)
ORIGIN: Kind[str] = Parsed('an origin as https://app.example.com, or "*"', origin)
NETWORK: Kind[Network] = Parsed("an IP address or a network, as 10.0.0.0/8", network)
BROKER: Kind[str] = Parsed("host:port", broker)
URL: Kind[str] = Parsed("an absolute URL", url)
SOURCE: Kind[str] = Parsed("value.<field>, key, or header.<name>", source)
TEXT = Text()
API_KEY = Text("a key of 16 to 256 visible characters", r"[!-~]{16,256}")
FILE = Text("the name of a file")
HOST = Text("a host name or an IP address", r"[A-Za-z0-9._:%-]{1,255}")
PORT = Whole(0, 65535)
RATE = Whole(1, 1_000_000)
TIMEOUT = Duration(0.05, HOUR)
WINDOW_BYTES = Size(KiB, 64 * GiB)
WINDOW_AGE = Duration(0.1, 7 * DAY)
LAG = Duration(0.1, DAY)
NAMES = Many(Text("a name, perhaps with * and {sub}", r"[^\s,]{1,1024}"))
