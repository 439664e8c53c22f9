"""``python -m bench``: the cases of bench/cases.py on this machine.

Results go to bench/results, and as a table into docs/performance.md.

The gateway has core 0 to itself; the broker, the load, the clients and this program share core 1.
"""

from __future__ import annotations

import argparse
import os
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from bench import load, machine, measure, report
from bench.cases import CASES, Case, named
from bench.programs import BenchError, build
from bench.selfcheck import selfcheck
from tests.support.kafka import EXTERNAL, Broker, Cluster

WARM_UP = 20_000  # records


@contextmanager
def cluster() -> Iterator[Cluster]:
    """A real broker for as long as the bench runs, or the one that the environment names."""
    if bootstrap := os.environ.get(EXTERNAL):
        yield Cluster(bootstrap)
        return
    with Broker() as broker:
        yield broker.start()


def warm(kafka: Cluster) -> None:
    """Lets a broker that has just started compile its hot paths, which would be seen in the first case's latency."""
    topic = kafka.create(f"bench-{uuid.uuid4().hex[:6]}")
    load.send(kafka.bootstrap, topic, rate=5000, records=WARM_UP, size=200)
    load.read(kafka.bootstrap, topic, records=WARM_UP)
    kafka.delete(topic)


def measured(case: Case, kafka: Cluster, seconds: int) -> measure.Figures:
    """One run on a topic of its own; with the figure ``against`` where the case has another to be held against."""
    topic = kafka.create(f"bench-{uuid.uuid4().hex[:6]}")
    try:
        figures = measure.run(case, kafka.bootstrap, topic, seconds)
    finally:
        kafka.delete(topic)
    if case.against and (other := report.load(case.against)):
        figures["against"] = figures["cpu_record_us"] / other["median"]["cpu_record_us"]
    return figures


def main() -> int:
    options = argparse.ArgumentParser(prog="bench", description=__doc__)
    options.add_argument(
        "--case", action="append", choices=[case.name for case in CASES], help="only this one (again: more)"
    )
    options.add_argument("--quick", action="store_true", help="a few seconds each: does it work at all")
    options.add_argument("--repeat", type=int, default=1, help="runs of each case; median and least are told")
    options.add_argument("--seconds", type=int, help="of each run, instead of the case's own")
    options.add_argument("--list", action="store_true", help="name the cases and end")
    chosen = options.parse_args()
    if chosen.list:
        print("\n".join(f"{case.name:<20}{case.work}" for case in CASES))
        return 0
    os.sched_setaffinity(0, {machine.LOAD_CORE})
    build()
    selfcheck()
    passed = True
    with cluster() as kafka:
        warm(kafka)
        for case in map(named, chosen.case or [case.name for case in CASES]):
            seconds = chosen.seconds or (case.quick if chosen.quick else case.seconds)
            print(f"{case.name}: {case.work} ({seconds} s)", flush=True)
            try:
                runs = [measured(case, kafka, seconds) for _ in range(chosen.repeat)]
            except BenchError as error:
                print(f"  failed: {error}", flush=True)
                passed = False
                continue
            print("\n".join(report.lines(case, runs)), flush=True)
            report.save(case, runs, machine.description(), seconds, datetime.now(UTC).isoformat(timespec="seconds"))
            passed &= all(verdict.words != "missed" for verdict in report.verdicts(case, runs))
    report.summarize()
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
