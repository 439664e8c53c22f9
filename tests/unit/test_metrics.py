"""Numbers: what is counted is what is shown, labels are bounded, and every name has its row in docs/metrics.md."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from prometheus_client import (
    REGISTRY,  # noqa: TID251 - to see that nothing of ours is on it
    CollectorRegistry,
    generate_latest,
)
from prometheus_client import ProcessCollector as TheirProcessCollector
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from gateway.metrics import OTHER, Bounded, Histogram, Metrics
from gateway.metrics_process import ProcessCollector

DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"


class Shown:
    """A Metrics object, and what a scrape shows of it."""

    def __init__(self, per_user: bool = True) -> None:
        self.registry = CollectorRegistry()
        self.metrics = Metrics(self.registry, "ns", per_user=per_user, version="1.2.3")

    @property
    def text(self) -> str:
        return generate_latest(self.registry).decode()

    @property
    def families(self) -> dict[str, Metric]:
        return {family.name: family for family in text_string_to_metric_families(self.text)}

    def value(self, name: str, **labels: str) -> float | None:
        """The sample of that name and labels; None where there is none."""
        for family in self.families.values():
            for sample in family.samples:
                if sample.name == f"ns_{name}" and sample.labels == labels:
                    return sample.value
        return None


def used() -> Shown:
    """Every number counted at least once."""
    shown = Shown()
    m = shown.metrics
    m.opened()
    m.closed(1006, 3.0)
    m.auth_errors["expired"] += 1
    m.messages_sent["MESSAGE"] += 2
    m.received("PING", 10)
    m.types.add("a")
    assert m.users is not None
    m.users.add("alice")
    m.kafka_errors["NotLeaderForPartitionError"] += 1
    m.publish_errors["busy"] += 1
    m.answered("GET", "/health", 200, 0.001)
    for histogram in (m.message_latency, m.end_to_end_latency, m.publish_seconds, m.reactor_lateness):
        histogram.observe(0.003, 5)
    m.topic("news").lag[0] = 4
    return shown


def test_plain_attributes_are_what_is_shown() -> None:
    shown = used()
    m = shown.metrics
    m.bytes_sent += 1000
    m.overflows += 1
    topic = m.topic("news")
    topic.processed += 7
    topic.without_user += 1
    topic.deserialize_errors += 2
    topic.gaps += 3
    topic.window_records, topic.window_bytes = 5, 500
    for name, labels, value in (
        ("websocket_connections_total", {}, 1),
        ("websocket_unexpected_close_total", {}, 1),
        ("websocket_closes_total", {"code": "1006"}, 1),
        ("websocket_auth_errors_total", {"reason": "expired"}, 1),
        ("websocket_messages_sent_total", {"type": "MESSAGE"}, 2),
        ("websocket_messages_received_total", {"type": "PING"}, 1),
        ("websocket_bytes_received_total", {}, 10),
        ("websocket_bytes_sent_total", {}, 1000),
        ("websocket_message_buffer_overflow_total", {}, 1),
        ("business_messages_by_type_total", {"type": "a"}, 1),
        ("business_messages_by_user_total", {"user": "alice"}, 1),
        ("kafka_messages_processed_total", {"topic": "news"}, 7),
        ("kafka_records_without_user_total", {"topic": "news"}, 1),
        ("kafka_deserialize_errors_total", {"topic": "news"}, 2),
        ("replay_gaps_total", {"topic": "news"}, 3),
        ("window_records", {"topic": "news"}, 5),
        ("window_bytes", {"topic": "news"}, 500),
        ("kafka_consumer_lag", {"topic": "news", "partition": "0"}, 4),
        ("kafka_errors_total", {"code": "NotLeaderForPartitionError"}, 1),
        ("kafka_publish_errors_total", {"code": "busy"}, 1),
        ("http_requests_total", {"method": "GET", "path": "/health"}, 1),
        ("http_response_status_code_total", {"code": "200"}, 1),
        ("http_request_duration_seconds_sum", {"path": "/health"}, 0.001),
        ("websocket_connection_duration_seconds_sum", {}, 3.0),
        ("build_info", {"version": "1.2.3"}, 1),
    ):
        assert shown.value(name, **labels) == value, name


def test_gauges_are_asked_at_each_scrape() -> None:
    shown = Shown()
    m = shown.metrics
    there = [1, 2, 3]
    m.active_connections, m.sessions_behind, m.bytes_waiting = there.__len__, lambda: 2, lambda: 77
    assert shown.value("websocket_active_connections") == 3
    there.append(4)
    assert shown.value("websocket_active_connections") == 4
    assert (shown.value("websocket_sessions_behind"), shown.value("websocket_message_buffer_size")) == (2, 77)


def test_a_topics_numbers_are_one_object() -> None:
    """The hot path keeps it: a second object would count where nobody looks."""
    m = Shown().metrics
    assert m.topic("a") is m.topic("a")
    assert m.topic("a") is not m.topic("b")


def test_histograms_are_cumulated_and_bounds_are_inclusive() -> None:
    histogram = Histogram((0.1, 1.0))
    histogram.observe(0.1)
    histogram.observe(0.5, 10)
    histogram.observe(7.0)
    assert (histogram.counts, histogram.sum) == ([1, 10, 1], 12.1)
    shown = Shown()
    shown.metrics.message_latency.observe(0.002, 10)
    shown.metrics.message_latency.observe(99.0)
    buckets = [
        sample.value
        for sample in shown.families["ns_websocket_message_latency_seconds"].samples
        if sample.name.endswith("_bucket")
    ]
    assert (buckets[0], buckets[2], buckets[-2], buckets[-1]) == (0, 10, 10, 11)
    assert shown.value("websocket_message_latency_seconds_count") == 11


@pytest.mark.parametrize(
    ("code", "label"), [(1000, "1000"), (4501, "4501"), (1005, "1005"), (4999, OTHER), (3000, OTHER)]
)
def test_clients_cannot_make_series_of_close_codes(code: int, label: str) -> None:
    m = Shown().metrics
    m.closed(code, 1.0)
    assert m.closes == {label: 1}


def test_clients_cannot_make_series_of_types_and_methods() -> None:
    m = Shown().metrics
    for kind in ("PING", "ping", "X" * 9999, "__class__"):
        m.received(kind, 1)
    assert m.messages_received == {"PING": 1, OTHER: 3}
    m.answered("BREW", "/health", 405, 0.0)
    assert m.http_requests == {(OTHER, "/health"): 1}


@pytest.mark.parametrize("label", [None, 1, ["a"], {}, "", "x" * 65, "a\nb", "\ud800", "\u202e"])
def test_labels_of_producers_are_short_and_visible(label: object) -> None:
    """A line feed in a label, or half a surrogate pair, would break the whole scrape."""
    counts = Bounded(10)
    counts.add(label)
    assert counts.counts == {OTHER: 1}


def test_labels_of_producers_are_few() -> None:
    counts = Bounded(10)
    for n in range(1000):
        counts.add(f"type-{n}", 2)
    counts.add("type-3")
    assert counts.counts["type-3"] == 3
    assert len(counts.counts) == 11
    assert sum(counts.counts.values()) == 2001


def test_users_are_counted_only_where_asked_for() -> None:
    shown = Shown(per_user=False)
    assert shown.metrics.users is None
    assert "by_user" not in shown.text


def test_two_gateways_in_one_process_do_not_share_numbers() -> None:
    """Nothing is on prometheus-client's global registry, which tests and embedding programs share."""
    before = len(list(REGISTRY.collect()))
    one, two = Shown(), Shown()
    one.metrics.opened()
    assert two.value("websocket_connections_total") == 0
    assert len(list(REGISTRY.collect())) == before


def test_the_process_is_told_as_prometheus_client_tells_it() -> None:
    """Dashboards for ``process_*`` exist; only the price is another."""
    ours = {metric.name: metric for metric in ProcessCollector().collect()}
    theirs = {metric.name: metric for metric in TheirProcessCollector(registry=None).collect()}
    assert set(ours) == set(theirs)
    for name, metric in theirs.items():
        (mine,), (sample,) = ours[name].samples, metric.samples
        assert (mine.name, ours[name].type) == (sample.name, metric.type)
        assert mine.value == pytest.approx(sample.value, rel=0.05, abs=1), name


def test_every_descriptor_is_counted() -> None:
    shown = Shown()
    before = shown.families["process_open_fds"].samples[0].value
    descriptors = [os.open(os.devnull, os.O_RDONLY) for _ in range(100)]
    try:
        assert shown.families["process_open_fds"].samples[0].value == before + 100
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def documented() -> dict[str, tuple[str, set[str]]]:
    """Name -> type and labels, as the tables of docs/metrics.md have them."""
    rows: dict[str, tuple[str, set[str]]] = {}
    for line in DOCS.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `"):
            for name in re.findall(r"`(\w+)`", cells[0]):
                rows[name] = (cells[1], set(re.findall(r"`(\w+)`", cells[2])))
    return rows


def test_docs_and_output_hold_the_same_names_types_and_labels() -> None:
    """A metric that is not documented is not found; one that is documented and missing breaks dashboards."""
    shown: dict[str, tuple[str, set[str]]] = {}
    for family in used().families.values():
        name = family.name.removeprefix("ns_") + ("_total" if family.type == "counter" else "")
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        shown[name] = (family.type, labels)
    assert shown == documented()


def test_promtool_finds_nothing_to_say() -> None:
    """``promtool check metrics`` is Prometheus' own linter of what is served."""
    promtool = shutil.which("promtool")
    if promtool is None:
        missing = "promtool is missing: apt-get install --no-install-recommends prometheus"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    text = used().text
    checked = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True, timeout=30)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")
