"""The bench's own arithmetic: a figure that is judged or attributed wrongly is worse than none."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import attrs
import jwt
import pytest

from bench import report
from bench.cases import CASES, DELIVERED, Case, named, p99
from bench.load import value
from bench.measure import lateness
from bench.programs import SECRET, configuration, target
from gateway.config import load

CASE = Case("c", "some work", 10, (DELIVERED, p99(40)), rate=100)


def test_a_median_within_its_bound_is_reached() -> None:
    (verdict,) = report.verdicts(CASE, [{"p99": 90.0}, {"p99": 30.0}, {"p99": 40.0}])
    assert (verdict.median, verdict.least, verdict.words) == (40.0, 30.0, "reached")


def test_a_bound_that_only_the_best_run_keeps_is_told_as_such() -> None:
    (verdict,) = report.verdicts(CASE, [{"p99": 90.0}, {"p99": 30.0}, {"p99": 41.0}])
    assert verdict.words == "reached at best"


def test_one_lost_record_in_one_run_is_a_miss() -> None:
    verdict = report.verdicts(CASE, [{"undelivered": 0, "p99": 1.0}, {"undelivered": 1, "p99": 1.0}] * 3)[0]
    assert (verdict.median, verdict.words) == (1, "missed")


def test_every_row_is_named_once_and_is_compared_with_one_that_runs_before_it() -> None:
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)
    assert all(names.index(case.against) < names.index(case.name) for case in CASES if case.against)


@pytest.mark.parametrize("user", [None, "u17"])
def test_a_record_is_of_the_size_asked_for_and_begins_with_what_the_sink_looks_for(user: str | None) -> None:
    made = value(123, 200, user)
    assert len(made) == 200
    assert made.startswith(b'{"n":123,"ns":')
    assert json.loads(made).get("user_id") == user


def test_a_client_subscribes_to_the_keys_that_the_sink_expects_of_it() -> None:
    """Client i is due record n, whose key is n % 1000, where (n - i) mod 1000 < 100."""
    case = named("keys-100-of-1000")
    query = parse_qs(urlsplit(target(case, "t", 950)).query)
    due = {f"t/k{n}" for n in range(1000) if (n - 950) % 1000 < 100}
    assert set(query["topics"][0].split(",")) == due
    assert jwt.decode(query["token"][0], SECRET, ["HS256"])["sub"] == "u950"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_gateway_takes_the_configuration_that_the_bench_makes(case: Case, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(json.dumps(configuration(case, "127.0.0.1:9092", "t", 8080)))
    settings = load(str(file), {})
    assert settings.limits.connections >= case.clients
    assert settings.kafka.topics[0].audience.value == case.audience


def test_lateness_is_the_worst_within_the_time_asked_for(tmp_path: Path) -> None:
    rows = [{"at": at, "late_ms": late, "late_own_ms": late / 2, "gc_ms": 0} for at, late in ((1, 90), (2, 6), (3, 8))]
    file = tmp_path / "watched"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert lateness(file, 1.5) == {"late_ms": 8, "late_own_ms": 4, "gc_ms": 0}


def test_the_page_keeps_its_text_and_has_the_last_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(report, "PAGE", tmp_path / "page.md")
    monkeypatch.setattr(report, "CASES", (CASE, attrs.evolve(CASE, name="d", work="other work")))
    machine = {"cpu": "a CPU", "cores": 2, "memory_gib": 24, "kernel": "6", "python": "3.11"}
    (tmp_path / "page.md").write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    report.save(CASE, [{"undelivered": 0, "p99": 41.2}, {"undelivered": 0, "p99": 38.0}], machine, 10, "today")
    report.summarize()
    page = (tmp_path / "page.md").read_text()
    assert page.startswith("before\n") and page.endswith("\nafter\n") and "old" not in page
    assert "a CPU, 2 cores" in page
    assert "| at most 40.0 | p99 39.6 ms (38.0) | reached |" in page
    assert "| other work | none |" in page
