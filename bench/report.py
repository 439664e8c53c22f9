"""What came of the cases: a file of JSON for each in bench/results, a summary of all, and docs/performance.md."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from bench.cases import CASES, Case, Must
from bench.measure import Figures

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parent.parent / "docs" / "performance.md"
BEGIN, END = "<!-- begin: written by make bench -->", "<!-- end -->"


@attrs.frozen
class Verdict:
    """One figure against its bound: by the median of the runs, or, on a noisy machine, by the best of them."""

    must: Must
    median: float
    least: float

    @property
    def passed(self) -> bool:
        return self.median <= self.must.at_most

    @property
    def words(self) -> str:
        """``reached``, ``reached at best``, ``missed``."""
        if self.passed:
            return "reached"
        return "reached at best" if self.least <= self.must.at_most and self.must.figure != "undelivered" else "missed"


def verdicts(case: Case, runs: Sequence[Figures]) -> list[Verdict]:
    """A verdict on each figure that the runs have; one record lost in one run is lost."""
    found = []
    for must in case.must:
        values = [run[must.figure] for run in runs if must.figure in run]
        if values:
            middle = max(values) if must.figure == "undelivered" else statistics.median(values)
            found.append(Verdict(must, middle, min(values)))
    return found


def save(case: Case, runs: Sequence[Figures], machine: Mapping[str, Any], seconds: int, when: str) -> None:
    """Writes bench/results/<case>.json."""
    RESULTS.mkdir(exist_ok=True)
    figures = sorted({name for run in runs for name in run})
    columns = {name: [run[name] for run in runs if name in run] for name in figures}
    result = {
        "case": attrs.asdict(case, filter=lambda field, _: field.name not in {"must", "procedure"}),
        "when": when,
        "machine": dict(machine),
        "seconds": seconds,
        "runs": [{name: round(value, 4) for name, value in run.items()} for run in runs],
        "median": {name: round(statistics.median(values), 4) for name, values in columns.items()},
        "min": {name: round(min(values), 4) for name, values in columns.items()},
        "verdicts": [
            {"figure": v.must.figure, "at_most": v.must.at_most, "median": v.median, "min": v.least, "result": v.words}
            for v in verdicts(case, runs)
        ],
    }
    (RESULTS / f"{case.name}.json").write_text(json.dumps(result, indent=1) + "\n")


def load(name: str) -> dict[str, Any] | None:
    """The last result of a case, if there is one."""
    file = RESULTS / f"{name}.json"
    return json.loads(file.read_text()) if file.exists() else None


def summarize() -> None:
    """Writes the summary, and the table into docs/performance.md, of the last result of each case."""
    results = {case.name: result for case in CASES if (result := load(case.name)) is not None}
    summary = {name: {key: r[key] for key in ("when", "seconds", "verdicts")} for name, r in results.items()}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    page = PAGE.read_text()
    before, _, rest = page.partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(f"{before}{BEGIN}\n{table(results)}\n{END}{after}")


def table(results: Mapping[str, dict[str, Any]]) -> str:
    """The last results as Markdown, with the machine named."""
    machines = sorted({described(result["machine"]) for result in results.values()})
    lines = [f"Machine: {machine}." for machine in machines]
    lines += ["", "| work | runs | must reach | median (best) | |", "|---|---|---|---|---|"]
    for case in CASES:
        if (result := results.get(case.name)) is None:
            lines.append(f"| {case.work} | none | | | |")
            continue
        bounds = {must.figure: must for must in case.must}
        for row, verdict in enumerate(result["verdicts"]):
            must = bounds[verdict["figure"]]
            work, runs = (case.work, f"{len(result['runs'])} of {result['seconds']} s") if not row else ("", "")
            best = f" ({number(must, verdict['min'])})" if must.figure != "undelivered" else ""
            bound = "" if must.figure == "undelivered" else f"at most {number(must, must.at_most)}"
            lines.append(
                f"| {work} | {runs} | {bound} | {must.words.format(verdict['median'])}{best} | {verdict['result']} |"
            )
    lines += ["", *beside(results)]
    return "\n".join(lines)


def beside(results: Mapping[str, dict[str, Any]]) -> list[str]:
    """The gateway next to the C loop, for the cases that have both."""
    lines = [
        "| case | deliveries/s | CPU a delivery: gateway | C loop | p50 / p99: gateway | C loop | core used | noise |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for case in CASES:
        result = results.get(case.name)
        if result is None or "c_us" not in result["median"]:
            continue
        m = result["median"]
        rate = case.rate * case.clients * case.take // case.addresses
        lines.append(
            f"| {case.name} | {rate:,} | {m['cpu_us']:.2f} us | {m['c_us']:.2f} us "
            f"| {m['p50']:.1f} / {m['p99']:.1f} ms "
            f"| {m['c_p50']:.1f} / {m['c_p99']:.1f} ms | {m['core']:.0%} | {m['noise']:.0%} |"
        )
    return lines


def number(must: Must, value: float) -> str:
    """A figure as the words of its bound show it, without the words."""
    start = must.words.index("{")
    return must.words[start : must.words.index("}") + 1].format(value)


def described(machine: Mapping[str, Any]) -> str:
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, Linux {machine['kernel']}, "
        f"Python {machine['python']}"
    )


def lines(case: Case, runs: Sequence[Figures]) -> list[str]:
    """What `make bench` prints of a case."""
    last = runs[-1]
    shown = [f"{name}={last[name]:.4g}" for name in last]
    said = [f"  {v.words:>15}: {v.must.words.format(v.median)}" for v in verdicts(case, runs)]
    return [f"  {' '.join(shown)}", *said]
