"""Where the daemon's time goes under a case of the bench: ``python -m bench.profile CASE [--seconds N]``."""

from __future__ import annotations

import argparse
import json
import os
import signal
import time
import uuid
from pathlib import Path
from typing import Any

from bench import machine, measure
from bench.__main__ import cluster, warm
from bench.cases import CASES, Case, named
from bench.programs import BenchError, build, gateway, sink

TOP = 25  # rows of each table


def profiled(case: Case, bootstrap: str, topic: str, seconds: int) -> dict[str, Any]:
    """The samples of one run, taken while its records flow (or, without records, while clients connect and stay)."""
    with gateway(case, bootstrap, topic, watcher="bench.sampled_daemon") as setting:
        if not case.rate:
            os.kill(setting.pid, signal.SIGUSR1)
        records = case.rate * seconds
        with sink(setting, seconds + measure.SPARE, records) as clients:
            clients.wait_for("up", 130)
            time.sleep(measure.SETTLE)
            if case.rate:
                os.kill(setting.pid, signal.SIGUSR1)
                measure.carry(setting, clients, seconds, records)
            else:
                time.sleep(seconds)
            os.kill(setting.pid, signal.SIGUSR2)
            return written(setting.watched)


def written(file: Path, seconds: float = 10) -> dict[str, Any]:
    deadline = time.monotonic() + seconds
    while not file.exists():
        if time.monotonic() > deadline:
            raise BenchError("the daemon wrote no samples")
        time.sleep(0.05)
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def shown(found: dict[str, Any]) -> str:
    """The tables, as shares of the process's CPU."""
    whole = found["process"]
    lines = [f"CPU {whole:.2f} s"]
    for title, name in (
        ("by thread", "threads"),
        ("in the function itself", "own"),
        ("by line", "lines"),
        ("in the function and what it calls", "within"),
    ):
        lines += ["", title]
        rows = sorted(found[name].items(), key=lambda row: -row[1])[:TOP]
        lines += [f"  {seconds / whole:6.1%}  {where}" for where, seconds in rows]
    return "\n".join(lines)


def main() -> None:
    options = argparse.ArgumentParser(prog="bench.profile", description=__doc__)
    options.add_argument("case", choices=[case.name for case in CASES])
    options.add_argument("--seconds", type=int, default=8)
    chosen = options.parse_args()
    os.sched_setaffinity(0, {machine.LOAD_CORE})
    build()
    with cluster() as kafka:
        warm(kafka)
        topic = kafka.create(f"bench-{uuid.uuid4().hex[:6]}")
        print(shown(profiled(named(chosen.case), kafka.bootstrap, topic, chosen.seconds)))


if __name__ == "__main__":
    main()
