"""A browser's origin is compared as a whole: every trick that makes a foreign one look like ours stays foreign."""

from __future__ import annotations

import pytest

from gateway.core.origins import Origin, is_loopback, judge

APP = ("https://app.example", "http://dev.example:3000")


@pytest.mark.parametrize("origin", ["https://app.example", "https://app.example:443", "HTTPS://App.Example", APP[1]])
def test_origins_that_are_listed(origin: str) -> None:
    assert judge(origin, "gateway.example", APP) is Origin.ALLOWED


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "",
        "https://app.example.evil.example",
        "https://evil-app.example",
        "https://app.example@evil.example",
        "https://evil.example#https://app.example",
        "https://app.example:8443",
        "https://app.example:443443",
        "http://app.example",
        "http://dev.example",
        "https://app.example/",
        "https://app.example%00.evil.example",
        "https://app.example, https://app.example",
        "https://app.example https://evil.example",
        "https://*.example",
        "app.example",
        "https://",
    ],
)
def test_origins_that_are_foreign(origin: str) -> None:
    assert judge(origin, "app.example", APP) is Origin.FOREIGN


@pytest.mark.parametrize(
    ("origin", "host", "verdict"),
    [
        ("https://gateway.example", "gateway.example", Origin.ALLOWED),  # behind a proxy that ends TLS
        ("https://gateway.example", "GATEWAY.example:443", Origin.ALLOWED),
        ("http://gateway.example:8080", "gateway.example:8080", Origin.ALLOWED),
        ("http://[::1]:8080", "[::1]:8080", Origin.ALLOWED),
        ("http://gateway.example:8080", "gateway.example", Origin.FOREIGN),
        ("https://other.example", "gateway.example", Origin.FOREIGN),
        ("null", "null", Origin.FOREIGN),
        ("https://gateway.example", "", Origin.FOREIGN),
    ],
)
def test_without_a_list_the_page_must_be_of_the_same_host(origin: str, host: str, verdict: Origin) -> None:
    assert judge(origin, host, ()) is verdict


def test_any_origin() -> None:
    assert judge("https://anywhere.example", "gateway.example", ["*"]) is Origin.ALLOWED
    assert judge("null", "gateway.example", ["*"]) is Origin.ALLOWED
    assert judge("no origin", "gateway.example", ["*"]) is Origin.FOREIGN


def test_what_is_no_browser_sends_none() -> None:
    assert judge(None, "gateway.example", APP) is Origin.ABSENT


@pytest.mark.parametrize(
    ("host", "answer"),
    [
        ("localhost", True),
        ("LOCALHOST:8080", True),
        ("127.0.0.1:8080", True),
        ("127.1.2.3", True),
        ("[::1]:8080", True),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("evil.example", False),
        ("", False),
    ],
)
def test_names_of_this_machine(host: str, answer: bool) -> None:
    """With auth.mode none a name that was re-bound to 127.0.0.1 must not do (DNS rebinding)."""
    assert is_loopback(host) is answer
