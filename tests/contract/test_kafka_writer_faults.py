"""What publishers are told when Kafka fails: always something, always in time, and never a wrong "not written"."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
from kafka import KafkaConsumer, TopicPartition

from gateway.config_sections import Publish
from gateway.errors import Kind, PublishError
from tests.support.kafka import Broker, Cluster, free_port, until
from tests.support.log_bench import LogBench, kafka_settings, on_kafka, secure_kafka_settings
from tests.support.proxy import Proxy
from tests.support.reactor import ThreadedReactor


@pytest.fixture(scope="module")
def mortal() -> Iterator[Broker]:
    """A broker that these tests may kill; each leaves it running."""
    with Broker() as broker:
        yield broker.start()


def kind_of(log: LogBench, topic: str, value: bytes = b"v") -> Kind:
    with pytest.raises(PublishError) as refused:
        log.publish(topic, value)
    return refused.value.kind


def test_down_from_the_start(threaded_reactor: ThreadedReactor) -> None:
    """Surely not written, and said within publish.timeout."""
    settings = kafka_settings(f"127.0.0.1:{free_port()}", ["t"])
    with on_kafka(threaded_reactor, settings, Publish(timeout=1.0)) as log:
        began = time.monotonic()
        assert kind_of(log, "t") is Kind.UNAVAILABLE
        assert 0.4 < time.monotonic() - began < 1.5
        assert dict(log.metrics.publish_errors) == {"unavailable": 1}


def test_killed_while_it_serves(mortal: Broker, threaded_reactor: ThreadedReactor) -> None:
    """Not written while it is away; written again once it is back, by the same writer."""
    topic = mortal.fresh()
    with on_kafka(threaded_reactor, kafka_settings(mortal.bootstrap, [topic]), Publish(timeout=3.0)) as log:
        assert log.publish(topic, b"before").offset == 0
        mortal.kill()
        until(lambda: not connected(mortal), "still there")
        assert kind_of(log, topic, b"lost") is Kind.UNAVAILABLE
        mortal.start()
        until(lambda: succeeds(log, topic), "never written again", 30)
    values = read_all(mortal, topic)
    assert values[0] == b"before"
    assert b"lost" not in values


def test_a_short_outage_is_waited_out(mortal: Broker, threaded_reactor: ThreadedReactor) -> None:
    """What was published while the broker restarted is written when it is back, within the time it has, and once."""
    topic = mortal.fresh()
    with on_kafka(threaded_reactor, kafka_settings(mortal.bootstrap, [topic]), Publish(timeout=60.0)) as log:
        log.publish(topic, b"before")
        mortal.kill()
        pending = [log.send(topic, b"%d" % n) for n in range(100)]
        mortal.start()
        offsets = [future.result(60).offset for future in pending]
        assert len(set(offsets)) == 100
    values = read_all(mortal, topic)
    assert sorted(values) == sorted([b"before", *(b"%d" % n for n in range(100))])


def test_stopped_after_it_was_sent(mortal: Broker, threaded_reactor: ThreadedReactor) -> None:
    """The record is under way and no answer comes: it may have been written, and so it is told."""
    topic = mortal.fresh()
    with on_kafka(threaded_reactor, kafka_settings(mortal.bootstrap, [topic]), Publish(timeout=2.0)) as log:
        log.publish(topic, b"before")
        mortal.pause()
        try:
            began = time.monotonic()
            assert kind_of(log, topic) is Kind.UNKNOWN_OUTCOME
            assert time.monotonic() - began < 2.5
            # This one stands behind the first, in the producer: it was never sent.
            assert kind_of(log, topic, b"never") is Kind.UNAVAILABLE
        finally:
            mortal.resume()
        until(lambda: succeeds(log, topic), "never written again", 30)
    assert b"never" not in read_all(mortal, topic)


def test_stalled_network(threaded_reactor: ThreadedReactor) -> None:
    """As above, with the network between at fault; and the connection that is cut while a record is under way."""
    with Broker() as broker, Proxy(broker.port) as proxy:
        broker.start(advertised=proxy.port)
        topic = broker.fresh()
        with on_kafka(threaded_reactor, kafka_settings(proxy.address, [topic]), Publish(timeout=2.0)) as log:
            log.publish(topic, b"before")
            proxy.stalled = True
            assert kind_of(log, topic) is Kind.UNKNOWN_OUTCOME
            proxy.stalled = False
            proxy.cut()
            until(lambda: succeeds(log, topic), "never written again", 30)


@pytest.mark.parametrize(
    ("limits", "count", "size"),
    [(Publish(timeout=2.0, max_pending=10), 10, 1), (Publish(timeout=2.0, max_pending_bytes=100_000), 3, 30_000)],
)
def test_busy(threaded_reactor: ThreadedReactor, limits: Publish, count: int, size: int) -> None:
    """The bound is by number and by bytes; past it the answer comes at once; what is answered gives room again."""
    settings = kafka_settings(f"127.0.0.1:{free_port()}", ["t"])
    with on_kafka(threaded_reactor, settings, limits) as log:
        pending = [log.send("t", bytes(size)) for _ in range(count)]
        began = time.monotonic()
        assert kind_of(log, "t", bytes(size)) is Kind.BUSY
        assert time.monotonic() - began < 0.5
        for future in pending:
            with pytest.raises(PublishError):
                future.result(5)
        assert kind_of(log, "t", bytes(size)) is Kind.UNAVAILABLE


def test_the_reactor_is_never_blocked(threaded_reactor: ThreadedReactor) -> None:
    """With Kafka away and records pending, a turn of the reactor stays short."""
    settings = kafka_settings(f"127.0.0.1:{free_port()}", ["t"])
    with on_kafka(threaded_reactor, settings, Publish(timeout=2.0)) as log:
        pending = [log.send("t", b"v") for _ in range(1000)]
        late = []
        while not all(future.done() for future in pending):
            began = time.monotonic()
            threaded_reactor.run(lambda: None)
            late.append(time.monotonic() - began)
        assert max(late) < 1.0


def test_kafkas_own_limit_decides(kafka: Cluster, threaded_reactor: ThreadedReactor) -> None:
    """Too large for the topic, whatever publish.maxBytes says; others of the same batch are written."""
    topic = kafka.fresh(max_message_bytes=10_000)
    with on_kafka(threaded_reactor, kafka_settings(kafka.bootstrap, [topic]), Publish(timeout=5.0)) as log:
        small, large, other = (log.send(topic, bytes(size)) for size in (1, 20_000, 2))
        with pytest.raises(PublishError) as refused:
            large.result(10)
        assert refused.value.kind is Kind.TOO_LARGE
        assert {small.result(10).offset, other.result(10).offset} == {0, 1}


def test_a_batch_that_is_too_large_is_written_in_parts(kafka: Cluster, threaded_reactor: ThreadedReactor) -> None:
    """Kafka's limit is a batch's: records that came together must not be refused together."""
    topic = kafka.fresh(max_message_bytes=5_000)
    with on_kafka(threaded_reactor, kafka_settings(kafka.bootstrap, [topic]), Publish(timeout=5.0)) as log:
        pending = [log.send(topic, bytes(1_000)) for _ in range(100)]
        assert sorted(future.result(10).offset for future in pending) == list(range(100))


def test_stop_answers_what_is_pending(mortal: Broker, threaded_reactor: ThreadedReactor) -> None:
    """Written first, where Kafka is there; told as failed where it is not; in bounded time, and no thread stays."""
    topic = mortal.fresh()
    with on_kafka(threaded_reactor, kafka_settings(mortal.bootstrap, [topic])) as log:
        log.publish(topic, b"before")
        pending = [log.send(topic, b"%d" % n) for n in range(1000)]
        threaded_reactor.run(log.writer.stop)
        assert len({future.result(0.1) for future in pending}) == 1000
        assert kind_of(log, topic) is Kind.UNAVAILABLE
    with on_kafka(threaded_reactor, kafka_settings(mortal.bootstrap, [topic])) as log:
        log.publish(topic, b"before")
        mortal.pause()
        try:
            late = log.send(topic, b"late")
            began = time.monotonic()
            threaded_reactor.run(log.writer.stop)
            assert time.monotonic() - began < 10
            with pytest.raises(PublishError):
                late.result(0.1)
        finally:
            mortal.resume()
    until(lambda: not any("kafka-writer" in thread.name for thread in threading.enumerate()), "the thread stays")


def test_writing_is_not_allowed(secure_broker: Broker, threaded_reactor: ThreadedReactor) -> None:
    """Kafka's no is passed on at once, by name, and is nobody else's: other topics are written meanwhile."""
    denied, allowed = secure_broker.fresh(), secure_broker.fresh()
    secure_broker.allow("gateway", [denied], ["DESCRIBE"])
    secure_broker.allow("gateway", [allowed], ["DESCRIBE", "WRITE"])
    settings = secure_kafka_settings(secure_broker, [denied, allowed])
    with on_kafka(threaded_reactor, settings, Publish(timeout=10.0)) as log:
        pending = [(log.send(denied, b"v"), log.send(allowed, b"v")) for _ in range(20)]
        assert [written.result(10).offset for _, written in pending] == list(range(20))
        for refused, _ in pending:
            with pytest.raises(PublishError, match="TopicAuthorizationFailed") as error:
                refused.result(10)
            assert error.value.kind is Kind.UNAVAILABLE


def test_writing_is_not_allowed_at_all(secure_broker: Broker, threaded_reactor: ThreadedReactor) -> None:
    """Without a single WRITE Kafka gives no producer id: told by name, when the time is over."""
    topic = secure_broker.fresh()
    secure_broker.allow("other", [topic], ["DESCRIBE"])
    settings = secure_kafka_settings(secure_broker, [topic], user="other")
    with on_kafka(threaded_reactor, settings, Publish(timeout=5.0)) as log:
        with pytest.raises(PublishError, match="ClusterAuthorizationFailed") as error:
            log.publish(topic, b"v")
        assert error.value.kind is Kind.UNAVAILABLE


def test_a_lone_record_waits_for_no_other(kafka: Cluster, threaded_reactor: ThreadedReactor) -> None:
    """No linger: the median of single records is far below a tick."""
    topic = kafka.fresh()
    with on_kafka(threaded_reactor, kafka_settings(kafka.bootstrap, [topic])) as log:
        log.publish(topic, b"first")
        took = []
        for _ in range(21):
            began = time.monotonic()
            log.publish(topic, b"v")
            took.append(time.monotonic() - began)
        assert sorted(took)[10] < 0.1


def connected(broker: Broker) -> bool:
    try:
        socket.create_connection(("127.0.0.1", broker.port), 1).close()
    except OSError:
        return False
    return True


def succeeds(log: LogBench, topic: str) -> bool:
    try:
        log.publish(topic, b"again")
    except PublishError:
        return False
    return True


def read_all(broker: Broker, topic: str) -> list[bytes]:
    """The topic's values, by a consumer of kafka-python's own."""
    (end,) = broker.ends(topic).values()
    with closing(KafkaConsumer(bootstrap_servers=broker.bootstrap, auto_offset_reset="earliest")) as consumer:
        partition = TopicPartition(topic, 0)
        consumer.assign([partition])
        values: list[bytes] = []
        while (consumer.position(partition) or 0) < end:
            for records in consumer.poll(500).values():
                values += [record.value for record in records]
        return values
