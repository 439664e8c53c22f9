"""What a look at Kafka's metadata changes in what is read: cases that a broker does not show on demand."""

from __future__ import annotations

import uuid
from collections.abc import Mapping

import attrs

from gateway.config_kafka import TopicSettings
from gateway.log.kafka_topics import NO_ID, From, Seen, Topic, short, snapshot
from gateway.model import Deleted, LogEvent, Opened, Start


def seen(id_: str = "a", partitions: int = 1, led: int | None = None) -> Seen:
    return Seen(id_, frozenset(range(partitions)), frozenset(range(partitions if led is None else led)))


def look(topic: Topic, now: Seen | None, *, start: bool = False, at: int = 0) -> list[LogEvent]:
    """One look: every partition that is wanted is opened at ``at``."""
    events = topic.look(now)
    wanted = topic.wanted(now, start=start)
    if now is not None and not now.hidden:
        events += topic.open(now, {partition: Start(at, at) for partition in wanted})
    return events


def topic() -> Topic:
    return Topic(TopicSettings(name="t"))


def opened(epoch: str, partitions: Mapping[int, Start]) -> Opened:
    return Opened("t", epoch, dict(partitions))


def test_a_topic_that_is_there_at_the_start_is_warmed_up() -> None:
    """And only at the start of the process."""
    t = topic()
    t.look(seen(partitions=2))
    assert t.wanted(seen(partitions=2), start=True) == {0: From.WARM, 1: From.WARM}


def test_a_topic_that_is_made_later_is_read_from_its_first_record() -> None:
    """Its makers write at once; the gateway sees it some time later."""
    t = topic()
    assert look(t, None, start=True) == []
    t.look(seen())
    assert t.wanted(seen(), start=False) == {0: From.FIRST}


def test_a_topic_that_could_not_be_seen_is_read_from_its_end() -> None:
    """It existed: its past is not new."""
    t = topic()
    assert look(t, Seen(NO_ID, hidden=True), start=True) == []
    assert t.hidden
    t.look(seen())
    assert t.wanted(seen(), start=False) == {0: From.END}


def test_a_partition_without_a_leader_is_opened_at_its_end_once_it_has_one() -> None:
    """It was there before; one that is added is not."""
    t = topic()
    look(t, seen(partitions=2, led=1), start=True)
    now = Seen("a", frozenset({0, 1, 2}), frozenset({0, 1, 2}))
    t.look(now)
    assert t.wanted(now, start=False) == {1: From.END, 2: From.FIRST}


def test_another_id_is_another_epoch_read_from_its_first_record() -> None:
    """With fewer partitions, too: the old ones are forgotten."""
    t = topic()
    assert look(t, seen("a", 2), at=7) == [opened("a", {0: Start(7, 7), 1: Start(7, 7)})]
    t.look(seen("b"))
    assert t.wanted(seen("b"), start=False) == {0: From.FIRST}
    assert look(t, seen("b")) == [opened("b", {0: Start(0, 0)})]
    assert t.next == {0: 0}


def test_deleted_is_told_once() -> None:
    """However often the metadata are looked at."""
    t = topic()
    look(t, seen())
    assert look(t, None) == [Deleted("t")]
    assert look(t, None) == []
    assert look(t, seen("b")) == [opened("b", {0: Start(0, 0)})]


def test_out_of_sight_and_back_with_the_same_id() -> None:
    """It goes on where it was, in its epoch; a partition that is new by now is opened with it."""
    t = topic()
    look(t, seen(), at=5)
    t.next[0] = 9
    assert look(t, None) == [Deleted("t")]
    assert look(t, seen(partitions=2)) == [opened("a", {0: Start(9, 9), 1: Start(0, 0)})]
    assert not t.gone


def test_nothing_new_is_nothing_told() -> None:
    """A look every ten seconds must not open a window again."""
    t = topic()
    look(t, seen())
    assert look(t, seen()) == []


def test_a_log_that_lost_its_end_is_another_epoch() -> None:
    """Offsets that were read will mean other records: cursors of before must not be taken for good."""
    t = topic()
    look(t, seen(partitions=2), at=10)
    assert t.cut({1: 4}) == opened("a.1", {0: Start(10, 10), 1: Start(4, 4)})
    assert t.next == {0: 10, 1: 4}
    assert t.is_same(seen(partitions=2))
    assert look(t, seen(partitions=2)) == []
    assert not t.is_same(seen("b"))
    assert not t.is_same(None)


def test_an_epoch_is_short_and_fits_into_a_cursor() -> None:
    """Names and cursors know letters, digits, dot, underscore and hyphen."""
    one, other = uuid.uuid4(), uuid.uuid4()
    assert short(one) == short(one) != short(other)
    assert len(short(one)) == 11
    assert short(None) == NO_ID


@attrs.frozen
class Cluster:
    """As kafka-python's ClusterMetadata, for one topic that may be read and one that may not."""

    unauthorized_topics = frozenset({"hidden"})

    def partitions_for_topic(self, name: str) -> set[int] | None:
        return {0, 1} if name == "there" else None

    def available_partitions_for_topic(self, name: str) -> set[int] | None:
        return {0} if name == "there" else None

    def topic_id(self, name: str) -> uuid.UUID | None:
        return None


def test_snapshot() -> None:
    """Three kinds of topics: there, hidden, missing."""
    found = snapshot(Cluster(), ["there", "hidden", "missing"])
    assert found == {
        "there": Seen(NO_ID, frozenset({0, 1}), frozenset({0})),
        "hidden": Seen(NO_ID, hidden=True),
    }
