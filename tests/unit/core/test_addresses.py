"""X-Forwarded-For is believed hop by hop from the right, and only as far as proxies of ours have written it."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from gateway.core.addresses import LOCAL, client_address, is_private, limit_key

PROXIES = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("192.0.2.1", None, "192.0.2.1"),
        ("192.0.2.1", "203.0.113.9", "192.0.2.1"),  # nobody of ours says so
        ("10.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", "198.51.100.7, 203.0.113.9", "203.0.113.9"),  # what the client itself sent stands on the left
        ("10.0.0.1", "198.51.100.7, 203.0.113.9, 10.0.0.2", "203.0.113.9"),
        ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ("10.0.0.1", "203.0.113.9, unknown", "10.0.0.1"),
        ("10.0.0.1", "203.0.113.9:51234", "203.0.113.9"),
        ("fd00::1", "[2001:db8::9]:443", "2001:db8::9"),
        ("::ffff:10.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "\x1b[31mred", "10.0.0.1"),
        (LOCAL, None, LOCAL),
        (LOCAL, "203.0.113.9", "203.0.113.9"),
        (LOCAL, "203.0.113.9, 10.0.0.2", "203.0.113.9"),
    ],
)
def test_whose_address_counts(peer: str, forwarded: str | None, address: str) -> None:
    assert client_address(peer, forwarded, PROXIES) == address


def test_a_host_has_a_whole_64_of_ipv6() -> None:
    """Else one host has 2^64 times limits.connectionsPerAddress."""
    assert limit_key("2001:db8:1:2:3::9") == limit_key("2001:db8:1:2:ffff::1") != limit_key("2001:db8:1:3::9")
    assert limit_key("192.0.2.1") == "192.0.2.1"
    assert limit_key("fe80::1%eth0") == "fe80::/64"


@pytest.mark.parametrize(
    ("address", "private"), [("127.0.0.1", True), ("10.1.2.3", True), (LOCAL, True), ("8.8.8.8", False)]
)
def test_where_proxies_stand(address: str, private: bool) -> None:
    assert is_private(address) is private
