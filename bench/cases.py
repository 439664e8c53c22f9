"""What is measured, and what it must reach: one :class:`Case` a row of the table in docs/performance.md."""

from __future__ import annotations

import enum

import attrs


class Procedure(enum.Enum):
    """How a case is run (bench/measure.py)."""

    TRAFFIC = "traffic"  # records from Kafka to clients, and the C loop beside it
    SOAK = "soak"  # the same for long, with clients who come and go, and a timer in the daemon
    IDLE = "idle"  # clients who are only there
    HANDSHAKE = "handshake"  # clients who come


@attrs.frozen
class Must:
    """A bound on one figure of a case's result."""

    figure: str
    at_most: float
    words: str  # with {} for the figure


DELIVERED = Must("undelivered", 0, "every record once, in order (undelivered or repeated: {:.0f})")


def p50(ms: float) -> Must:
    return Must("p50", ms, "p50 {:.1f} ms")


def p99(ms: float) -> Must:
    return Must("p99", ms, "p99 {:.1f} ms")


@attrs.frozen
class Case:
    """Client i is due record n where (n - i) mod ``addresses`` < ``take``: see bench/sink.c."""

    name: str
    work: str
    clients: int
    must: tuple[Must, ...]
    procedure: Procedure = Procedure.TRAFFIC
    audience: str = "everyone"
    addresses: int = 1  # users or keys that records are for, in turn
    take: int = 1  # how many of them a client has
    rate: int = 0  # records a second
    seconds: int = 10
    quick: int = 4  # seconds with --quick
    churn: int = 0  # clients a second who leave and come back
    churners: int = 0  # how many of the clients do so in turn
    against: str | None = None  # the case whose CPU a record this one is compared with
    window: str | None = None  # window.maxBytes, where filling it would blur what is measured


EVERYONE = "everyone, 500 clients, {:,} records/s"

CASES = (
    Case(
        "everyone-200",
        EVERYONE.format(200),
        500,
        (
            DELIVERED,
            Must("ratio", 1.8, "{:.2f} times the C loop's CPU a delivery"),
            p50(3),
            p99(30),
        ),
        rate=200,
    ),
    Case("everyone-1200", EVERYONE.format(1200), 500, (DELIVERED, p99(80)), rate=1200),
    Case("everyone-4800", EVERYONE.format(4800), 500, (DELIVERED, p99(80)), rate=4800),
    Case(
        "user-1000",
        "one user a record, 1,000 clients, 1,000 records/s",
        1000,
        (DELIVERED, Must("core", 0.3, "{:.2f} of a core")),
        audience="user",
        addresses=1000,
        rate=1000,
    ),
    Case(
        "user-20000",
        "one user a record, 1,000 clients, 20,000 records/s",
        1000,
        (DELIVERED, p99(40)),
        audience="user",
        addresses=1000,
        rate=20000,
    ),
    Case(
        "key-100",
        "one key a record, 100 clients on 100 keys of one topic, 5,000 records/s",
        100,
        (DELIVERED,),
        audience="key",
        addresses=100,
        rate=5000,
    ),
    Case(
        "key-10000",
        "one key a record, 10,000 clients on 10,000 keys of one topic, 5,000 records/s",
        10000,
        (DELIVERED, p99(40), Must("against", 1.2, "{:.2f} times the CPU a record with 100 clients on 100 keys")),
        audience="key",
        addresses=10000,
        rate=5000,
        against="key-100",
    ),
    Case(
        "keys-100-of-1000",
        "1,000 clients with 100 of 1,000 keys each, 500 records/s (50,000 deliveries/s)",
        1000,
        (DELIVERED, p99(80)),
        audience="key",
        addresses=1000,
        take=100,
        rate=500,
    ),
    Case(
        "idle-10000",
        "10,000 idle clients, keep-alive on",
        10000,
        (Must("rss_each_kib", 14, "{:.1f} KiB of RSS each"), Must("core", 0.03, "{:.3f} of a core")),
        procedure=Procedure.IDLE,
        seconds=60,
        quick=10,
    ),
    Case(
        "soak-18000",
        "18,000 clients, 100 records/s for one user each, 50 clients coming and going a second",
        18000,
        (
            DELIVERED,
            Must("late_own_ms", 25, "a 5 ms timer is at most {:.1f} ms late by the daemon's own doing"),
            Must("rss_growth", 0.03, "RSS after against before {:+.1%}"),
        ),
        procedure=Procedure.SOAK,
        audience="user",
        addresses=18000,
        rate=100,
        seconds=600,
        quick=15,
        churn=50,
        churners=500,
        window="1MiB",
    ),
    Case(
        "handshake",
        "handshake with HS256 token, 5,000 clients",
        5000,
        (Must("handshake_us", 450, "{:.0f} us of CPU a handshake"),),
        procedure=Procedure.HANDSHAKE,
    ),
)


def named(name: str) -> Case:
    """Raises KeyError for a name that no case has."""
    return {case.name: case for case in CASES}[name]
