"""permessage-deflate (RFC 7692), for what clients send: nothing that goes out is compressed.

Every message is inflated on its own (``client_no_context_takeover``), so an idle connection keeps no window of 32 KiB,
and a connection that is between two messages keeps nothing at all.
"""

from __future__ import annotations

import re

from autobahn.websocket.compress_deflate import PerMessageDeflate

_WINDOW_BITS = re.compile(r'("?)(8|9|1[0-5])\1')


def negotiate(offers: str) -> str | None:
    """The answer to a ``Sec-WebSocket-Extensions`` header: the first offer that can be taken, or None."""
    for offer in offers.split(","):
        name, *parameters = (part.strip() for part in offer.split(";"))
        if name.lower() == "permessage-deflate" and (answer := _answer(parameters)):
            return answer
    return None


def inflater() -> PerMessageDeflate:
    """For one message. The window is the largest, which serves whatever the client compresses with."""
    return PerMessageDeflate(
        is_server=True,
        server_no_context_takeover=False,
        client_no_context_takeover=True,
        server_max_window_bits=0,
        client_max_window_bits=0,
        mem_level=None,
    )


def _answer(parameters: list[str]) -> str | None:
    """RFC 7692 section 7.1: an unknown parameter, a second one or a bad value declines the offer. What the client asks
    of the server's window is granted as asked: a server that does not compress keeps every such promise."""
    answer = ["permessage-deflate", "client_no_context_takeover"]
    seen: set[str] = set()
    for parameter in parameters:
        name, has_value, value = (part.strip() for part in parameter.partition("="))
        bits = _WINDOW_BITS.fullmatch(value)
        if name in seen:
            return None
        seen.add(name)
        if name == "server_no_context_takeover" and not has_value:
            answer.append(name)
        elif name == "server_max_window_bits" and bits:
            answer.append(f"{name}={bits[2]}")
        elif not (name == "client_no_context_takeover" and not has_value) and not (
            name == "client_max_window_bits" and (bits or not has_value)
        ):
            return None
    return "; ".join(answer)
