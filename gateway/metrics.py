"""Every number that ``/metrics`` shows (``docs/metrics.md`` has a row for each).

The hot path counts in plain attributes: ``metrics.bytes_sent += n`` costs a twentieth of prometheus-client's
``labels(...).inc()``. A collector turns them into metric families at each scrape. What can be looked up then is a
callable, set once by ``app.py``; none of these may look at every session.

Labels are of bounded sets: configured topics, codes of our own, and :class:`Bounded` for what producers choose.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate

import attrs
from prometheus_client import CollectorRegistry, GCCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from gateway.errors import Close
from gateway.metrics_process import ProcessCollector

OTHER = "other"
LATENCIES = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # seconds
DURATIONS = (1.0, 10.0, 60.0, 600.0, 3600.0, 14400.0, 86400.0)  # seconds that a connection lasts

_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"))  # RFC 9110, 5789
_COMMANDS = frozenset(("SUBSCRIBE", "UNSUBSCRIBE", "SEND", "REFRESH", "PRESENCE", "PING", "DISCONNECT"))
_CLOSES = frozenset((*map(int, Close), 1003, 1005, 1006, 1008, 1010))  # ours, and RFC 6455 section 7.4.1
_ABNORMAL = 1006


class Histogram:
    """Counts of observations by upper bound (inclusive, in the unit observed), and their sum."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)  # the last one: above every bound
        self.sum = 0.0

    def observe(self, value: float, count: int = 1) -> None:
        """Count ``value`` as often as ``count`` says: once a batch, however many records it had."""
        self.counts[bisect_left(self.bounds, value)] += count
        self.sum += value * count


class Bounded:
    """Counts by a label that others choose. The first ``limit`` values count for themselves, the rest as ``other``."""

    __slots__ = ("counts", "limit")

    def __init__(self, limit: int) -> None:
        self.counts: dict[str, int] = {}
        self.limit = limit

    def add(self, label: object, count: int = 1) -> None:
        """Count for ``label``; what is no short string of visible characters is ``other`` too."""
        known = label if isinstance(label, str) and 0 < len(label) <= 64 and label.isprintable() else OTHER
        if known not in self.counts and len(self.counts) >= self.limit:
            known = OTHER
        self.counts[known] = self.counts.get(known, 0) + count


@attrs.define
class TopicMetrics:
    """What is counted for each configured topic."""

    processed: int = 0  # records read and handed to the window
    without_user: int = 0  # records of ``audience: user`` that name no user: given to nobody
    deserialize_errors: int = 0  # records whose value is not JSON where the user has to be found in it
    gaps: int = 0  # gaps told to clients, one a partition and client
    window_records: int = 0
    window_bytes: int = 0
    lag: dict[int, int] = attrs.Factory(dict)  # partition -> the log's end less the next offset to be read


def _none() -> int:
    return 0


def _counts() -> defaultdict[str, int]:
    return defaultdict(int)


def _latency() -> Histogram:
    return Histogram(LATENCIES)


@attrs.define(init=False)
class Metrics:
    """The numbers themselves. One object a process, given to whoever counts."""

    # Asked at each scrape.
    active_connections: Callable[[], int]
    sessions_behind: Callable[[], int]
    bytes_waiting: Callable[[], int]  # in the transports of those who are behind

    connections: int
    connection_seconds: Histogram
    unexpected_closes: int  # gone without a close frame
    closes: defaultdict[str, int]  # by close code
    auth_errors: defaultdict[str, int]  # by AuthError.reason
    messages_sent: defaultdict[str, int]  # by ``type`` of protocol.md; ``raw`` frames are ``MESSAGE``
    messages_received: defaultdict[str, int]  # by ``type``
    bytes_sent: int  # handed to transports
    bytes_received: int  # payloads of clients' messages
    message_latency: Histogram  # handed over by the log reader -> written
    end_to_end_latency: Histogram  # timestamp of the record -> written
    overflows: int  # sessions that turned behind
    types: Bounded  # records by the field ``type`` of their value
    users: Bounded | None  # records by user, with ``metrics.perUser`` only
    kafka_errors: defaultdict[str, int]  # by Kafka's name of the error
    publish_seconds: Histogram
    publish_errors: defaultdict[str, int]  # by code of protocol.md
    http_requests: defaultdict[tuple[str, str], int]  # by method and route
    http_responses: defaultdict[str, int]  # by status
    http_seconds: defaultdict[str, Histogram]  # by route
    reactor_lateness: Histogram
    topics: dict[str, TopicMetrics]

    def __init__(
        self, registry: CollectorRegistry, namespace: str, *, per_user: bool = False, version: str = "unknown"
    ) -> None:
        self.active_connections = self.sessions_behind = self.bytes_waiting = _none
        self.connections = self.unexpected_closes = self.bytes_sent = self.bytes_received = self.overflows = 0
        self.connection_seconds = Histogram(DURATIONS)
        self.closes, self.auth_errors = _counts(), _counts()
        self.messages_sent, self.messages_received = _counts(), _counts()
        self.message_latency, self.end_to_end_latency = _latency(), _latency()
        self.types = Bounded(100)
        self.users = Bounded(10_000) if per_user else None
        self.kafka_errors, self.publish_errors, self.publish_seconds = _counts(), _counts(), _latency()
        self.http_requests, self.http_responses = defaultdict(int), _counts()
        self.http_seconds = defaultdict(_latency)
        self.reactor_lateness = _latency()
        self.topics = {}
        registry.register(_Collector(self, namespace, version))
        registry.register(ProcessCollector())
        GCCollector(registry=registry)

    def topic(self, name: str) -> TopicMetrics:
        """The numbers of a configured topic (never of a name that a client sent): keep the object, look it up once."""
        return self.topics.setdefault(name, TopicMetrics())

    def opened(self) -> None:
        """A WebSocket connection is open."""
        self.connections += 1

    def closed(self, code: int, seconds: float) -> None:
        """A WebSocket connection is gone, after so many seconds; 1006: without a close frame."""
        self.closes[str(int(code)) if code in _CLOSES else OTHER] += 1
        self.connection_seconds.observe(seconds)
        if code == _ABNORMAL:
            self.unexpected_closes += 1

    def received(self, kind: str, size: int) -> None:
        """A client's message of ``size`` bytes came in."""
        self.messages_received[kind if kind in _COMMANDS else OTHER] += 1
        self.bytes_received += size

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """An HTTP request to ``route`` (a pattern of ours, never the path that was asked for) has its answer."""
        self.http_requests[method if method in _METHODS else OTHER, route] += 1
        self.http_responses[str(status)] += 1
        self.http_seconds[route].observe(seconds)


class _Collector:
    """Shows a Metrics object to prometheus-client. Its cost grows with topics and partitions, not with sessions."""

    def __init__(self, metrics: Metrics, namespace: str, version: str) -> None:
        self._metrics = metrics
        self._prefix = f"{namespace}_"
        self._version = version

    def collect(self) -> Iterator[Metric]:
        """Called once a scrape."""
        yield from self._websocket(self._metrics)
        yield from self._topics(self._metrics.topics)
        yield from self._log(self._metrics)
        yield from self._http(self._metrics)

    def _websocket(self, m: Metrics) -> Iterator[Metric]:
        yield self._gauge(
            "websocket_active_connections", "WebSocket connections that are open.", m.active_connections()
        )
        yield self._counter("websocket_connections_total", "WebSocket connections that were opened.", m.connections)
        yield self._histogram(
            "websocket_connection_duration_seconds", "How long connections lasted.", m.connection_seconds
        )
        yield self._counter(
            "websocket_unexpected_close_total", "Connections gone without a close frame.", m.unexpected_closes
        )
        yield self._counts("websocket_closes_total", "Connections that ended, by close code.", m.closes, "code")
        yield self._counts("websocket_auth_errors_total", "Tokens refused, by reason.", m.auth_errors, "reason")
        yield self._counts("websocket_messages_sent_total", "Messages to clients, by type.", m.messages_sent, "type")
        yield self._counts(
            "websocket_messages_received_total", "Messages from clients, by type.", m.messages_received, "type"
        )
        yield self._counter("websocket_bytes_sent_total", "Bytes of frames to clients.", m.bytes_sent)
        yield self._counter("websocket_bytes_received_total", "Bytes of messages from clients.", m.bytes_received)
        written, made = "From the log reader to the socket.", "From the record's timestamp to the socket."
        yield self._histogram("websocket_message_latency_seconds", written, m.message_latency)
        yield self._histogram("websocket_end_to_end_latency_seconds", made, m.end_to_end_latency)
        yield self._gauge("websocket_message_buffer_size", "Bytes that wait in transports.", m.bytes_waiting())
        yield self._counter(
            "websocket_message_buffer_overflow_total", "Times that a session turned behind.", m.overflows
        )
        yield self._gauge("websocket_sessions_behind", "Sessions that are behind.", m.sessions_behind())
        yield self._counts(
            "business_messages_by_type_total", "Records, by the field type of their value.", m.types.counts, "type"
        )
        if m.users is not None:
            yield self._counts("business_messages_by_user_total", "Records, by user.", m.users.counts, "user")

    def _topics(self, topics: Mapping[str, TopicMetrics]) -> Iterator[Metric]:
        def each(number: Callable[[TopicMetrics], int]) -> dict[str, int]:
            return {name: number(topic) for name, topic in topics.items()}

        yield self._gauges("window_records", "Records in the window.", each(lambda t: t.window_records), "topic")
        yield self._gauges("window_bytes", "Bytes that the window holds.", each(lambda t: t.window_bytes), "topic")
        counted: tuple[tuple[str, str, Callable[[TopicMetrics], int]], ...] = (
            ("replay_gaps_total", "Gaps that clients were told.", lambda t: t.gaps),
            ("kafka_messages_processed_total", "Records read.", lambda t: t.processed),
            ("kafka_deserialize_errors_total", "Records whose user cannot be read.", lambda t: t.deserialize_errors),
            ("kafka_records_without_user_total", "Records given to nobody.", lambda t: t.without_user),
        )
        for name, text, number in counted:
            yield self._counts(name, text, each(number), "topic")
        lag = GaugeMetricFamily(
            f"{self._prefix}kafka_consumer_lag",
            "Offsets between what was read and the log's end, as the last fetch answer told it.",
            labels=("topic", "partition"),
        )
        for name, topic in topics.items():
            for partition, behind in topic.lag.items():
                lag.add_metric((name, str(partition)), behind)
        yield lag

    def _log(self, m: Metrics) -> Iterator[Metric]:
        yield self._counts("kafka_errors_total", "Errors of Kafka's, by their name.", m.kafka_errors, "code")
        yield self._histogram("kafka_publish_seconds", "From publish to acknowledgement.", m.publish_seconds)
        yield self._counts(
            "kafka_publish_errors_total", "Records not written, by error code.", m.publish_errors, "code"
        )

    def _http(self, m: Metrics) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            f"{self._prefix}http_requests_total", "HTTP requests, by method and route.", labels=("method", "path")
        )
        for (method, route), number in m.http_requests.items():
            requests.add_metric((method, route), number)
        yield requests
        yield self._counts("http_response_status_code_total", "HTTP answers, by status code.", m.http_responses, "code")
        durations = HistogramMetricFamily(
            f"{self._prefix}http_request_duration_seconds", "From a request to its answer, by route.", labels=("path",)
        )
        for route, histogram in m.http_seconds.items():
            durations.add_metric((route,), _buckets(histogram), histogram.sum)
        yield durations
        yield self._histogram("reactor_lateness_seconds", "How late a 100 ms timer fires.", m.reactor_lateness)
        yield self._gauges("build_info", "1, with the version.", {self._version: 1}, "version")

    def _counter(self, name: str, text: str, value: float) -> Metric:
        return CounterMetricFamily(self._prefix + name, text, value=value)

    def _gauge(self, name: str, text: str, value: float) -> Metric:
        return GaugeMetricFamily(self._prefix + name, text, value=value)

    def _histogram(self, name: str, text: str, histogram: Histogram) -> Metric:
        return HistogramMetricFamily(self._prefix + name, text, buckets=_buckets(histogram), sum_value=histogram.sum)

    def _counts(self, name: str, text: str, counts: Mapping[str, int], label: str) -> Metric:
        family = CounterMetricFamily(self._prefix + name, text, labels=(label,))
        for value, number in counts.items():
            family.add_metric((value,), number)
        return family

    def _gauges(self, name: str, text: str, values: Mapping[str, int], label: str) -> Metric:
        family = GaugeMetricFamily(self._prefix + name, text, labels=(label,))
        for value, number in values.items():
            family.add_metric((value,), number)
        return family


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """Cumulated, as the exposition format wants them."""
    names = (*(str(bound) for bound in histogram.bounds), "+Inf")
    return list(zip(names, map(float, accumulate(histogram.counts)), strict=True))
