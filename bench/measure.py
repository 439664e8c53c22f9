"""How a case is run once, and what figures come of it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bench.cases import Case, Procedure
from bench.machine import Sample, Use, rss
from bench.programs import Program, Setting, gateway, limit, load, sink

Figures = dict[str, float]

SETTLE = 1.0  # seconds between the last handshake and the first record
SPARE = 30.0  # seconds after the last record was due within which all must have been delivered
# Seconds after which every client has had its first PING and POSITION (server.positionInterval), for which the daemon
# and its parser keep something a connection: growth that is over by then, and no leak.
STEADY = 40
WAKE = 0.004  # seconds between two batches of addressed records in the C loop


def run(case: Case, bootstrap: str, topic: str, seconds: int) -> Figures:
    """One run of a case on a fresh topic. Raises BenchError where a program fails."""
    return PROCEDURES[case.procedure](case, bootstrap, topic, seconds)


def traffic(case: Case, bootstrap: str, topic: str, seconds: int) -> Figures:
    """Records through Kafka and the gateway to every client; then the C loop with as many bytes to as many clients."""
    records = case.rate * seconds
    with gateway(case, bootstrap, topic) as setting:
        end, use = deliver(setting, seconds, records)
    figures = {**delivered(end, records), **used(use, end, records)}
    joined = end["records"] / max(1, end["reads"]) if case.audience == "everyone" else case.rate * WAKE
    size = round(end["record_bytes"] / max(1, end["records"]))
    loop, seen = limit(case, max(1, round(joined)), size, min(4, seconds))
    return {
        **figures,
        "joined": end["records"] / max(1, end["reads"]),
        "frame_bytes": size,
        "c_us": loop["cpu_us"],
        "c_core": loop["cpu"] / loop["seconds"],
        "c_p50": seen["p50"],
        "c_p99": seen["p99"],
        "ratio": figures["cpu_us"] / loop["cpu_us"],
    }


def soak(case: Case, bootstrap: str, topic: str, seconds: int) -> Figures:
    """The same for long, with clients who come and go, and a timer in the daemon that tells how late it is."""
    records = case.rate * seconds
    with gateway(case, bootstrap, topic, watcher="bench.timed_daemon") as setting:
        began = time.monotonic()
        steady = min(STEADY, seconds / 2)
        with sink(setting, steady + seconds + SPARE, records) as clients:
            up = clients.wait_for("up", 130)
            connected = time.monotonic()
            time.sleep(steady)
            before = rss(setting.pid)
            end, use = carry(setting, clients, seconds, records)
            after = rss(setting.pid)
        late = lateness(setting.watched, connected + 1)
        joining = lateness(setting.watched, began, connected + 1)
    return {
        **delivered(end, records),
        **used(use, end, records),
        **late,
        **{f"joining_{name}": figure for name, figure in joining.items()},
        "connect_seconds": up["seconds"],
        "lives": end["lives"],
        "rss_before_mib": before / 2**20,
        "rss_after_mib": after / 2**20,
        "rss_growth": after / before - 1,
    }


def idle(case: Case, bootstrap: str, topic: str, seconds: int) -> Figures:
    """Clients who are only there: what each weighs, and what keep-alive costs."""
    with gateway(case, bootstrap, topic) as setting:
        before = rss(setting.pid)
        with sink(setting, seconds + 2 * SETTLE) as clients:
            up = clients.wait_for("up", 130)
            time.sleep(SETTLE)
            first = Sample.of(setting.pid)
            time.sleep(seconds)
            use = Use.between(first, Sample.of(setting.pid))
            after = rss(setting.pid)
            end = clients.wait_for("end", SPARE)
    return {
        "core": use.cpu / use.seconds,
        "noise": use.noise,
        "rss_each_kib": (after - before) / case.clients / 1024,
        "rss_mib": after / 2**20,
        "connect_seconds": up["seconds"],
        "pings_each": end["pings"] / case.clients,
        "lost": end["lost"],
    }


def handshake(case: Case, bootstrap: str, topic: str, _: int) -> Figures:
    """Clients who come, with a token each: CPU of the daemon until each has its first frame."""
    with gateway(case, bootstrap, topic) as setting:
        first = Sample.of(setting.pid)
        with sink(setting, 2 * SETTLE) as clients:
            up = clients.wait_for("up", 130)
            use = Use.between(first, Sample.of(setting.pid))
            end = clients.wait_for("end", SPARE)
    return {
        "handshake_us": 1e6 * use.cpu / case.clients,
        "noise": use.noise,
        "handshakes_a_second": case.clients / up["seconds"],
        "handshake_mean_ms": end["handshake_mean_ms"],
        "handshake_max_ms": end["handshake_max_ms"],
        "refused": up["refused"],
    }


PROCEDURES: Mapping[Procedure, Callable[[Case, str, str, int], Figures]] = {
    Procedure.TRAFFIC: traffic,
    Procedure.SOAK: soak,
    Procedure.IDLE: idle,
    Procedure.HANDSHAKE: handshake,
}


def deliver(setting: Setting, seconds: int, records: int) -> tuple[dict[str, Any], Use]:
    """Connects the clients and sends the records; returns what the sink saw, and what the daemon used meanwhile."""
    with sink(setting, seconds + SPARE, records) as clients:
        clients.wait_for("up", 130)
        time.sleep(SETTLE)
        return carry(setting, clients, seconds, records)


def carry(setting: Setting, clients: Program, seconds: int, records: int) -> tuple[dict[str, Any], Use]:
    with load(setting, records) as records_:
        records_.wait_for("start", 30)
        first = Sample.of(setting.pid)
        end = clients.wait_for("end", seconds + 2 * SPARE)
        use = Use.between(first, Sample.of(setting.pid))
        records_.wait_for("end", SPARE)
    return end, use


def delivered(end: Mapping[str, Any], records: int) -> Figures:
    return {
        "records": records,
        "deliveries": end["records"],
        "undelivered": end["missing"] + end["repeated"] + end["lost"],
        **{name: end[name] for name in ("p50", "p90", "p99", "p999", "max")},
    }


def used(use: Use, end: Mapping[str, Any], records: int) -> Figures:
    return {
        "core": use.cpu / use.seconds,
        "cpu_us": 1e6 * use.cpu / max(1, end["records"]),
        "cpu_record_us": 1e6 * use.cpu / records,
        "noise": use.noise,
        "sink_core": end["cpu"] / use.seconds,
    }


def lateness(file: Path, after: float, until: float = float("inf")) -> Figures:
    """The worst of what bench/timed_daemon.py wrote for the seconds between two moments (time.monotonic)."""
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    rows = [row for row in lines if after <= row["at"] < until]
    return {name: max((row[name] for row in rows), default=0.0) for name in ("late_ms", "late_own_ms", "gc_ms")}
