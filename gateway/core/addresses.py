"""Whose address counts: the peer's, or the one that a trusted proxy tells in X-Forwarded-For."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

LOCAL = "unix"  # what comes over a UNIX socket; whoever may open it is a proxy of ours


def client_address(peer: str, forwarded: str | None, trusted: Sequence[Network]) -> str:
    """The right-most hop that is no proxy of ours. Each proxy appends whom it saw: what stands left of that hop
    is hearsay. With nothing but trusted hops, or a hop that is no address, the last one that could be believed."""
    found = _address(peer)
    if found is None:
        if peer != LOCAL:
            return peer
    elif not _trusts(trusted, found):
        return str(found)
    for hop in reversed((forwarded or "").split(",")):
        address = _address(hop.strip())
        if address is None:
            break
        found = address
        if not _trusts(trusted, address):
            break
    return LOCAL if found is None else str(found)


def limit_key(address: str) -> str:
    """What connections are counted by: an address, and of IPv6 the /64 that one host has for itself (RFC 4291)."""
    if ":" not in address:
        return address
    return str(ipaddress.ip_network(f"{address.partition('%')[0]}/64", strict=False))


def is_private(address: str) -> bool:
    """Loopback or a private network: where proxies stand."""
    found = _address(address)
    return found is None or found.is_private


def _trusts(trusted: Sequence[Network], address: Address) -> bool:
    return any(address in network for network in trusted)


def _address(text: str) -> Address | None:
    """Also in brackets or with a port, as some proxies write it; IPv4 inside IPv6 is IPv4."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped or address
