"""What LogReader and LogWriter promise, held by the embedded log and by Kafka alike (gateway/ports.py)."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from kafka.partitioner.default import murmur2

from gateway.config_kafka import TopicSettings
from gateway.config_sections import Publish
from gateway.errors import Kind, PublishError
from gateway.model import Fetched, Health, Start
from tests.support.kafka import until
from tests.support.log_bench import LogBench, in_memory, kafka_settings, on_kafka
from tests.support.reactor import ThreadedReactor

Make = Callable[[int], tuple[LogBench, str]]


@pytest.fixture(params=["memory", "kafka"])
def make(request: pytest.FixtureRequest, threaded_reactor: ThreadedReactor) -> Iterator[Make]:
    """Makes a log with one topic of so many partitions."""
    with ExitStack() as stack:

        def memory(partitions: int) -> tuple[LogBench, str]:
            topic = f"t-{uuid.uuid4().hex[:12]}"
            settings = TopicSettings(name=topic, partitions=partitions)
            return stack.enter_context(in_memory(threaded_reactor, [settings])), topic

        def kafka(partitions: int) -> tuple[LogBench, str]:
            cluster = request.getfixturevalue("kafka")
            topic = cluster.fresh(partitions)
            settings = kafka_settings(cluster.bootstrap, [topic])
            return stack.enter_context(on_kafka(threaded_reactor, settings, Publish(timeout=3.0))), topic

        yield {"memory": memory, "kafka": kafka}[request.param]


def test_a_topic_is_opened_before_anything_else(make: Make) -> None:
    """Sessions need an epoch and a position from the first frame on."""
    log, topic = make(3)
    log.read()
    (opened,) = log.listener.opened(topic)
    assert opened.partitions == {0: Start(0, 0), 1: Start(0, 0), 2: Start(0, 0)}
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,64}", opened.epoch)
    assert log.listener.events[0] is opened
    assert {how for how, _ in log.reader.health().values()} == {Health.OK}


def test_a_record_arrives_as_it_was_published(make: Make) -> None:
    """Key, value, headers, place and time."""
    log, topic = make(1)
    log.read()
    written = log.publish(topic, b'{"a":1}', b"key", [("h", b"1"), ("h", b"2"), ("empty", b"")])
    (record,) = log.listener.wait(topic, 1)
    assert (record.topic, record.partition, record.offset) == (topic, *written)
    assert (record.key, record.value) == (b"key", b'{"a":1}')
    assert record.headers == (("h", b"1"), ("h", b"2"), ("empty", b""))
    assert record.timestamp is not None
    assert abs(record.timestamp / 1000 - log.reactor.wall()) < 60


@pytest.mark.parametrize("key", [None, b"", b"k", b"\xff"])
@pytest.mark.parametrize("value", [None, b"", b"\xff\xfe", bytes(900_000)])
def test_keys_and_values_of_any_kind(make: Make, key: bytes | None, value: bytes | None) -> None:
    """None is not empty, and bytes are bytes: a record without both is legal in Kafka too."""
    log, topic = make(1)
    log.read()
    log.publish(topic, value, key)
    (record,) = log.listener.wait(topic, 1)
    assert (record.key, record.value) == (key, value)


def test_records_from_before_the_start_are_warm_up(make: Make) -> None:
    """A client's cursor of just now is found in the window after a restart."""
    log, topic = make(1)
    for n in range(3):
        log.publish(topic, b"%d" % n)
    log.read()
    log.publish(topic, b"live")
    log.listener.wait(topic, 4)
    (opened,) = log.listener.opened(topic)
    assert opened.partitions == {0: Start(0, 3)}
    assert log.listener.values(topic) == [b"0", b"1", b"2", b"live"]


def test_every_record_once_in_order_of_its_partition(make: Make) -> None:
    """The listener checks contiguity with each event; here: all of them, where the writer said."""
    log, topic = make(3)
    log.read()
    pending = [log.send(topic, b"%d" % n, b"%d" % n) for n in range(1000)]
    written = {b"%d" % n: future.result(30) for n, future in enumerate(pending)}
    records = log.listener.wait(topic, 1000)
    assert {record.value: (record.partition, record.offset) for record in records} == written
    last = {event.partition: event for event in log.listener.events if isinstance(event, Fetched)}
    assert sum(event.next for event in last.values()) == 1000
    assert all(event.end >= event.next for event in last.values())


def test_the_same_key_finds_the_same_partition_as_with_kafkas_own_producer(make: Make) -> None:
    """Order a key holds whoever writes it."""
    log, topic = make(5)
    for key in (b"a", b"user-17", b"", b"\xff" * 21):
        assert log.publish(topic, b"v", key).partition == (murmur2(key) & 0x7FFFFFFF) % 5


def test_what_comes_together_is_handed_over_together(make: Make) -> None:
    """Joining records is the largest lever there is: far fewer calls than records."""
    log, topic = make(1)
    log.read()
    for future in [log.send(topic, b"v") for _ in range(500)]:
        future.result(30)
    log.listener.wait(topic, 500)
    assert len(log.listener.calls) < 250


def test_an_idle_log_gives_a_record_at_once(make: Make) -> None:
    """No fixed delay: the wait for records ends with the record, and not with its time."""
    log, topic = make(1)
    log.read()
    late = []
    for count in range(1, 6):
        began = log.reactor.seconds()
        log.publish(topic, b"v")
        until(lambda count=count: len(log.listener.records(topic)) >= count, "no record")
        late.append(log.reactor.seconds() - began)
    assert min(late) < 0.2


def test_how_long_ago_the_log_was_heard(make: Make) -> None:
    """By this a cursor above the log's end is judged (rule 7); an idle partition is heard, too, and one that is not
    there is known not to be."""
    log, topic = make(1)
    assert log.reactor.run(log.reader.heard, topic, 0) <= log.reactor.seconds()
    log.read()
    now = log.reactor.seconds()
    until(lambda: log.reader.heard(topic, 0) > now, "an idle partition is never heard")
    until(lambda: log.reader.heard(topic, 1) > 0, "nothing is known of a partition that is not there")


def test_too_large(make: Make) -> None:
    """Told as such, by the log's own limit; the next record is not held up."""
    log, topic = make(1)
    with pytest.raises(PublishError) as refused:
        log.publish(topic, bytes(2_000_000))
    assert refused.value.kind is Kind.TOO_LARGE
    assert log.publish(topic, b"v").offset == 0


def test_a_topic_that_is_not_there(make: Make) -> None:
    """Answered within publish.timeout, nothing written, and others are not held up."""
    log, topic = make(1)
    missing = log.send("missing-" + topic, b"v")
    assert log.publish(topic, b"v").offset == 0
    with pytest.raises(PublishError) as refused:
        missing.result(10)
    assert refused.value.kind is Kind.UNAVAILABLE


def test_after_stop_nobody_is_called(make: Make) -> None:
    """A listener that is gone must not be pushed to."""
    log, topic = make(1)
    log.read()
    log.reactor.run(log.reader.stop)
    calls = len(log.listener.calls)
    log.publish(topic, b"v")
    log.reactor.run(lambda: None)
    assert len(log.listener.calls) == calls


def test_stop_is_quick_and_can_be_asked_for_twice(make: Make) -> None:
    """A drain must not wait for a log, whether it was started or not."""
    log, _ = make(1)
    began = log.reactor.seconds()
    log.stop()
    log.stop()
    assert log.reactor.seconds() - began < 5
