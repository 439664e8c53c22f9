"""The embedded log: partitions, offsets, limits and batches. What it shares with Kafka stands in tests/contract."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.partitioner.default import murmur2 as kafkas_murmur2
from twisted.internet.task import Clock

from gateway.config_kafka import TopicSettings
from gateway.errors import Kind, PublishError
from gateway.log.memory import BATCH, MAX_RECORD, MemoryLog, murmur2
from gateway.model import Fetched, LogEvent, Lost, Opened, Start, Written
from tests.support.logs import values

KiB = 1024


class WallClock(Clock):
    """A clock that also tells the time of day."""

    def wall(self) -> float:
        """Some day in 2023."""
        return 1_700_000_000.0 + self.seconds()


@attrs.define
class Bench:
    """A log with one listener; nothing happens before ``turn``."""

    log: MemoryLog
    clock: WallClock
    calls: list[list[LogEvent]] = attrs.field(factory=list)

    def start(self) -> None:
        """Begin to read."""
        self.log.start(lambda events, arrived: self.calls.append(list(events)))

    def publish(self, value: bytes | None, key: bytes | None = None, topic: str = "t") -> Written:
        """Append, without handing over."""
        return values(self.log.publish(topic, key, value))

    def turn(self) -> list[LogEvent]:
        """One turn of the reactor: what was handed over in it."""
        del self.calls[:]
        self.clock.advance(0)
        return [event for call in self.calls for event in call]


def bench(partitions: int = 1, retention: float = 3600.0, window: int = 64 * KiB) -> Bench:
    clock = WallClock()
    settings = TopicSettings(name="t", partitions=partitions, retention=retention, window_max_bytes=window)
    return Bench(MemoryLog([settings], clock), clock)


def test_opens_every_topic_first() -> None:
    """Without Opened the dispatcher has no epoch and no window."""
    it = bench(partitions=2)
    it.start()
    ((opened,),) = it.calls
    assert isinstance(opened, Opened)
    assert opened.partitions == {0: Start(0, 0), 1: Start(0, 0)}
    assert it.log.positioned()


def test_epoch_is_new_at_each_start() -> None:
    """Else a cursor of the process before would be taken for one of this log."""
    epochs = set()
    for _ in range(3):
        it = bench()
        it.start()
        epochs |= {event.epoch for event in it.calls[0] if isinstance(event, Opened)}
    assert len(epochs) == 3


def test_what_came_meanwhile_is_one_batch() -> None:
    """One call of the listener a turn: joining is the largest lever there is."""
    it = bench()
    it.start()
    assert [it.publish(b"%d" % n) for n in range(3)] == [Written(0, 0), Written(0, 1), Written(0, 2)]
    (fetched,) = it.turn()
    assert isinstance(fetched, Fetched)
    assert [record.value for record in fetched.records] == [b"0", b"1", b"2"]
    assert (fetched.next, fetched.end) == (3, 3)
    assert it.turn() == []


def test_a_batch_has_a_bound_and_the_rest_follows() -> None:
    """A burst must not hold the reactor for long."""
    it = bench(window=1024 * KiB)
    it.start()
    for _ in range(BATCH + 1):
        it.publish(b"")
    sizes = [len(event.records) for event in it.turn() + it.turn() if isinstance(event, Fetched)]
    assert sizes == [BATCH, 1]


def test_published_before_the_start_is_warm_up() -> None:
    """Records below ``live`` are for those who ask only."""
    it = bench()
    it.publish(b"early")
    it.start()
    ((opened,),) = it.calls
    assert isinstance(opened, Opened)
    assert opened.partitions == {0: Start(0, 1)}
    assert [event.next for event in it.turn() if isinstance(event, Fetched)] == [1]


def test_retention_by_size_over_all_partitions() -> None:
    """The bound is the topic's, and the oldest go first whatever their partition."""
    it = bench(partitions=2)
    for _ in range(20):
        it.publish(bytes(10 * KiB))
    it.start()
    ((opened,),) = it.calls
    assert isinstance(opened, Opened)
    kept = [start.live - start.first for start in opened.partitions.values()]
    assert kept == [3, 3]  # 64 KiB hold six of them


def test_retention_by_age() -> None:
    """Old records are gone although there is room."""
    it = bench(retention=60)
    it.publish(b"old")
    it.clock.advance(61)
    it.publish(b"new")
    it.start()
    ((opened,),) = it.calls
    assert isinstance(opened, Opened)
    assert opened.partitions == {0: Start(1, 2)}


def test_retention_that_overtakes_the_listener_is_told() -> None:
    """Else records would be missing without a GAP."""
    it = bench()
    it.start()
    for _ in range(20):
        it.publish(bytes(10 * KiB))
    lost, fetched = it.turn()
    assert isinstance(fetched, Fetched)
    assert lost == Lost("t", 0, 0, 14)
    assert [record.offset for record in fetched.records] == list(range(14, 20))


def test_the_same_key_goes_to_the_same_partition_and_none_to_each_in_turn() -> None:
    """Order a key is what partitions are for."""
    it = bench(partitions=3)
    assert len({it.publish(b"v", key=b"k").partition for _ in range(9)}) == 1
    assert sorted(it.publish(b"v").partition for _ in range(6)) == [0, 0, 1, 1, 2, 2]


@given(st.binary(max_size=40))
def test_murmur2_is_kafkas(key: bytes) -> None:
    """What moves from the embedded log to Kafka finds its keys in the same partitions."""
    assert murmur2(key) == kafkas_murmur2(key) & 0xFFFFFFFF


@pytest.mark.parametrize(
    ("topic", "size", "kind"),
    [("t", MAX_RECORD + 1, Kind.TOO_LARGE), ("t", 64 * KiB, Kind.TOO_LARGE), ("other", 1, Kind.UNAVAILABLE)],
)
def test_refuses_what_it_cannot_hold(topic: str, size: int, kind: Kind) -> None:
    """A record that retention would take at once, and topics that nobody configured."""
    with pytest.raises(PublishError) as refused:
        bench().publish(bytes(size), topic=topic)
    assert refused.value.kind is kind


def test_after_stop_nobody_is_called() -> None:
    """A session that is gone must not be pushed to."""
    it = bench()
    it.start()
    it.publish(b"v")
    values(it.log.stop())
    assert it.turn() == []
    assert not it.log.positioned()
