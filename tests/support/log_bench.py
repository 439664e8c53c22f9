"""A reader and a writer of one log with a listener, on a reactor that runs: what contract tests drive."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager

import attrs
from prometheus_client import CollectorRegistry

from gateway.config_kafka import Kafka, Security, TopicSettings
from gateway.config_sections import Publish
from gateway.log.kafka_reader import KafkaReader
from gateway.log.kafka_writer import KafkaWriter
from gateway.log.memory import MemoryLog
from gateway.metrics import Metrics
from gateway.model import Written
from gateway.ports import LogReader, LogWriter
from tests.support.kafka import PASSWORD, Broker, until
from tests.support.logs import Listener
from tests.support.reactor import ThreadedReactor


@attrs.define
class LogBench:
    """Its methods block until the reactor has done what they ask for."""

    reader: LogReader
    writer: LogWriter
    reactor: ThreadedReactor
    metrics: Metrics
    listener: Listener = attrs.Factory(Listener)

    def read(self, seconds: float = 20.0) -> None:
        """Start the reader and wait until it has a position."""
        self.begin()
        until(self.reader.positioned, f"no position: {dict(self.reader.health())}", seconds)

    def begin(self) -> None:
        """Start the reader."""
        self.reactor.run(self.reader.start, self.listener)

    def publish(
        self, topic: str, value: bytes | None, key: bytes | None = None, headers: Sequence[tuple[str, bytes]] = ()
    ) -> Written:
        """Write a record and wait for the answer."""
        written: Written = self.send(topic, value, key, headers).result(60)
        return written

    def send(
        self, topic: str, value: bytes | None, key: bytes | None = None, headers: Sequence[tuple[str, bytes]] = ()
    ) -> Future[Written]:
        """Write a record."""
        return self.reactor.begin(self.writer.publish, topic, key, value, headers)

    def stop(self) -> None:
        """End both."""
        self.reactor.run(self.reader.stop)
        self.reactor.run(self.writer.stop)


def kafka_settings(bootstrap: str, topics: Sequence[str], **settings: object) -> Kafka:
    """Settings of a reader of these topics; ``settings``: fields of Kafka."""
    named = tuple(TopicSettings(name=topic) for topic in topics)
    return Kafka(bootstrap_servers=(bootstrap,), topics=named, **settings)  # type: ignore[arg-type]


def secure_kafka_settings(broker: Broker, topics: Sequence[str], user: str = "gateway") -> Kafka:
    """Settings of a user of a broker that demands TLS and SCRAM."""
    files = broker.certificates
    assert files is not None
    security = Security(
        protocol="SASL_SSL",
        sasl_mechanism="SCRAM-SHA-512",
        username=user,
        password=PASSWORD,
        ca_file=str(files.ca),
        cert_file=str(files.client_cert),
        key_file=str(files.client_key),
    )
    return kafka_settings(broker.bootstrap, topics, security=security)


@contextmanager
def on_kafka(reactor: ThreadedReactor, kafka: Kafka, publish: Publish | None = None) -> Iterator[LogBench]:
    """Reader (not started) and writer on Kafka."""
    metrics = Metrics(CollectorRegistry(), "test")
    reader = KafkaReader(kafka, reactor, reactor.call_from_thread, metrics)
    writer = KafkaWriter(kafka, publish or Publish(), reactor, reactor.call_from_thread, metrics)
    bench = LogBench(reader, writer, reactor, metrics)
    reactor.run(writer.start)
    try:
        yield bench
    finally:
        bench.stop()


@contextmanager
def in_memory(reactor: ThreadedReactor, topics: Sequence[TopicSettings]) -> Iterator[LogBench]:
    """The embedded log, which is both."""
    log = MemoryLog(topics, reactor)
    bench = LogBench(log, log, reactor, Metrics(CollectorRegistry(), "test"))
    try:
        yield bench
    finally:
        bench.stop()
