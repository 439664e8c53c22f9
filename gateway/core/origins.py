"""Whether a browser may come from where it says it comes from (RFC 6454), compared exactly and by nothing else.

A browser sends ``Origin`` with every WebSocket handshake, whoever wrote the page, and cookies or a VPN with it; so a
foreign page must be told apart from our own. Prefixes, suffixes and patterns are how that goes wrong.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence

_ORIGIN = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?")
_DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}
_LOOPBACK = re.compile(r"localhost|127(?:\.[0-9]{1,3}){3}|\[::1\]")


class Origin(enum.Enum):
    """What the ``Origin`` of a handshake amounts to."""

    ABSENT = "absent"  # no browser sent this
    ALLOWED = "allowed"
    FOREIGN = "foreign"


def judge(origin: str | None, host: str, allowed: Sequence[str]) -> Origin:
    """``allowed`` as ``server.origins``: empty stands for the host that was asked for (``host`` is the Host header,
    without a port at the default one of the origin's scheme), ``*`` for any. A malformed origin is foreign."""
    if origin is None:
        return Origin.ABSENT
    match = _ORIGIN.fullmatch(origin)
    if "*" in allowed:
        return Origin.ALLOWED if match or origin == "null" else Origin.FOREIGN
    if match is None:
        return Origin.FOREIGN
    scheme = match[1].lower()
    place = _place(match[2], match[3], scheme)
    if allowed:
        granted = any(_split(entry) == (scheme, place) for entry in allowed)
    else:
        asked = _HOST.fullmatch(host)
        granted = asked is not None and _place(asked[1], asked[2], scheme) == place
    return Origin.ALLOWED if granted else Origin.FOREIGN


def is_loopback(host: str) -> bool:
    """Whether a Host header names this machine itself: a page elsewhere that re-binds its own name here does not."""
    match = _HOST.fullmatch(host)
    return match is not None and _LOOPBACK.fullmatch(match[1].lower()) is not None


def _split(entry: str) -> tuple[str, tuple[str, int | None]] | None:
    match = _ORIGIN.fullmatch(entry)
    return match and (match[1].lower(), _place(match[2], match[3], match[1].lower()))


def _place(host: str, port: str | None, scheme: str) -> tuple[str, int | None]:
    return host.lower(), int(port) if port else _DEFAULT_PORTS.get(scheme)
