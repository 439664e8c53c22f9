"""Topics that grow, go, come and come anew while clients hold them, and records that are gone before they were read.

The gateway looks at Kafka's metadata every 10 s; so all topics are changed at once, and each test looks at one of them.
"""

from __future__ import annotations

import signal
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import attrs
import pytest

from tests.support.daemon import Daemon, until
from tests.support.kafka import Cluster
from tests.support.kafkacase import (
    Client,
    epoch,
    gaps,
    gateway,
    position,
    published,
    read_whole,
    ready,
    topic_info,
)

KINDS = ("grown", "gone", "fewer", "more", "missing")
METADATA = 20.0  # s in which a change is noticed: every 10 s, on a busy machine


def numbers(first: int, last: int) -> list[bytes]:
    return [b"%d" % number for number in range(first, last)]


@attrs.define
class Changed:
    """A daemon, and a client for each of its topics that was there before anything changed. All had 10 records."""

    daemon: Daemon
    topics: dict[str, str]
    clients: dict[str, Client]


@pytest.fixture(scope="module")
def changed(kafka: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Changed]:
    """Everything that can happen to a topic has just happened."""
    topics = {kind: f"{kind}-{uuid.uuid4().hex[:12]}" for kind in KINDS}
    there = [topic for kind, topic in topics.items() if kind != "missing"]
    for topic in there:
        kafka.create(topic)
    daemon = gateway(tmp_path_factory.mktemp("topics"), kafka.bootstrap, *topics.values(), publish={"timeout": "2s"})
    with ExitStack() as stack:
        stack.enter_context(daemon)
        clients = {kind: stack.enter_context(Client(daemon, topic)) for kind, topic in topics.items()}
        for kind, topic in topics.items():
            if kind != "missing":
                kafka.write(topic, numbers(0, 10))
                assert clients[kind].data(10) == list(range(10))
        daemon.signal(signal.SIGSTOP)  # it is shown the outcome alone, as by every look but one
        stack.callback(daemon.signal, signal.SIGCONT)
        kafka.add_partitions(topics["grown"], 2)
        for kind in ("gone", "fewer", "more"):
            kafka.delete(topics[kind])
        for kind in ("fewer", "more", "missing"):
            kafka.create(topics[kind])
        kafka.write(topics["grown"], numbers(10, 12), partition=1)
        kafka.write(topics["missing"], numbers(10, 12))
        kafka.write(topics["fewer"], numbers(100, 103))
        kafka.write(topics["more"], numbers(100, 130))
        daemon.signal(signal.SIGCONT)
        yield Changed(daemon, topics, clients)


def test_a_partition_that_is_added_is_read_from_its_first_record(changed: Changed) -> None:
    """For everybody who is subscribed (rule 8), who comes, and who comes back."""
    client, topic = changed.clients["grown"], changed.topics["grown"]
    before = client.since(topic)
    first, second = client.messages(2, METADATA)
    assert [(m["partition"], m["offset"], m["data"]) for m in (first, second)] == [(1, 0, 10), (1, 1, 11)]
    client.quiet()
    with Client(changed.daemon, topic) as newcomer:
        assert position(newcomer.hello) == {0: 10, 1: 2}
    with Client(changed.daemon, topic, since=before) as resumed:
        assert resumed.places(2) == [(1, 0), (1, 1)]
        assert resumed.frame("RECOVERED")["gaps"] == []


def test_a_topic_missing_at_start_is_read_once_it_is_there(changed: Changed) -> None:
    """Rule 8: no epoch and no position at first, then a POSITION, and no record is missed."""
    client = changed.clients["missing"]
    (subscription,) = client.hello["subscriptions"]
    assert (subscription["epoch"], subscription["position"]) == (None, {})
    told = client.frame("POSITION", seconds=METADATA)
    assert epoch(told)
    assert position(told) == {0: 0}
    assert client.data(2) == [10, 11]
    client.quiet()


@pytest.mark.parametrize(("kind", "count"), [("fewer", 3), ("more", 30)])
def test_a_topic_made_anew_is_told_and_read_from_its_first_record(changed: Changed, kind: str, count: int) -> None:
    """kafka-python reads on by name, at the old offset. Only within the 10 s may records bear the old epoch."""
    client, topic, old = changed.clients[kind], changed.topics[kind], epoch(changed.clients[kind].hello)
    before = client.since(topic)
    early, gap = client.read_to("GAP", METADATA)
    assert [message["data"] for message in early] in ([], list(range(110, 130)))
    assert epoch(gap) != old
    assert position(gap) == {0: 0}
    assert gaps(gap) == [(0, 10 + len(early), 0, "recreated")]
    assert client.data(count) == list(range(100, 100 + count))
    client.quiet()
    with Client(changed.daemon, topic, since=before) as resumed:  # with a cursor of the old epoch
        assert epoch(resumed.hello) == epoch(gap)
        assert resumed.data(count) == list(range(100, 100 + count))
        recovered = resumed.frame("RECOVERED")
        assert gaps(recovered) == [(0, 10, 0, "recreated")]
        assert position(recovered) == {0: count}
    with Client(changed.daemon, topic, since=client.since(topic)) as resumed:  # and of the new one
        recovered = resumed.frame("RECOVERED")
        assert (recovered["count"], recovered["gaps"]) == (0, [])


def test_a_topic_that_is_deleted_stays_subscribed_until_it_is_made_anew(kafka: Cluster, changed: Changed) -> None:
    """Rule 8: nothing comes, nobody is thrown out, /readyz names it, and nothing can be published to it."""
    client, topic, daemon = changed.clients["gone"], changed.topics["gone"], changed.daemon
    until(lambda: ready(daemon)[1][f"topic:{topic}"] == "degraded", "named by /readyz", METADATA)
    assert ready(daemon)[0] == 200
    client.quiet()
    with Client(daemon, topic) as newcomer:
        assert (epoch(newcomer.hello), position(newcomer.hello)) == (epoch(client.hello), {0: 10})
        status, code, seconds = published(daemon, topic, 1)
        assert (status, code) == (503, "unavailable")
        assert seconds < 2.5
        kafka.create(topic)
        kafka.write(topic, numbers(100, 102))
        for reader in (client, newcomer):
            gap = reader.frame("GAP", seconds=METADATA)
            assert gaps(gap) == [(0, 10, 0, "recreated")]
            assert position(gap) == {0: 0}
            assert reader.data(2) == [100, 101]
    until(lambda: set(ready(daemon)[1].values()) == {"ok"}, "all is well", METADATA)
    assert published(daemon, topic, 102)[0] == 200
    assert client.data(1) == [102]


def test_lag_and_positions_are_those_of_kafka(kafka: Cluster, changed: Changed) -> None:
    """What operators see has to be of the topic that is there now."""
    for kind in ("grown", "more", "fewer"):
        topic = changed.topics[kind]
        ends = read_whole(kafka, changed.daemon, topic)
        for number, at in topic_info(changed.daemon, topic)["partitions"].items():
            assert at == {"first": 0, "next": ends[int(number)], "end": ends[int(number)]}
            lag = f'ws_gateway_kafka_consumer_lag{{partition="{number}",topic="{topic}"}}'
            assert changed.daemon.metrics()[lag] == 0


def test_retention_overtakes_a_gateway_that_stands_still(kafka: Cluster, tmp_path: Path) -> None:
    """What is gone is told as a gap, to who is there and to who comes back; the rest comes."""
    topic = kafka.fresh(2)
    with gateway(tmp_path, kafka.bootstrap, topic) as daemon, Client(daemon, topic) as client:
        kafka.write(topic, numbers(0, 5), partition=0)
        assert client.data(5) == list(range(5))
        before = client.since(topic)
        daemon.signal(signal.SIGSTOP)
        try:
            value = b'"' + b"x" * 50_000 + b'"'
            kafka.write(topic, [value] * 500, partition=0)  # more than what is under way already
            kafka.delete_records(topic, {0: 495})
            kafka.write(topic, numbers(0, 1), partition=1)
        finally:
            daemon.signal(signal.SIGCONT)
        seen = []
        while (frame := client.frame("MESSAGE", "GAP"))["type"] == "MESSAGE":
            seen.append((frame["partition"], frame["offset"]))
        last = max((offset for partition, offset in seen if partition == 0), default=4)
        assert gaps(frame) == [(0, last + 1, 495, "expired")]
        assert position(frame)[0] == 495
        seen += client.places(11 - seen.count((1, 0)))
        assert [place for place in seen if place[0] == 0] == [
            (0, offset) for offset in (*range(5, last + 1), *range(495, 505))
        ]
        assert seen.count((1, 0)) == 1
        client.quiet()
        with Client(daemon, topic, since=before) as resumed:
            places = resumed.read_to("RECOVERED")
            recovered = places[1]
            assert gaps(recovered) == [(0, last + 1, 495, "expired")]
            assert recovered["count"] == len(places[0]) == len(seen)


def test_brokers_without_topic_ids(kafka: Cluster, tmp_path: Path) -> None:
    """A constant epoch, which cursors can name, and a line in the log that says what it means (rule 6). The library is
    held to the versions of a Kafka that had none, as its own setting of that name does."""
    (tmp_path / "sitecustomize.py").write_text(
        "from kafka import KafkaConsumer, KafkaProducer\n"
        "for kind in (KafkaConsumer, KafkaProducer):\n"
        "    kind.DEFAULT_CONFIG['api_version'] = (2, 7)\n"
    )
    topic = kafka.fresh()
    daemon = gateway(tmp_path, kafka.bootstrap, topic, environ={"PYTHONPATH": str(tmp_path)})
    with daemon, Client(daemon, topic) as client:
        assert epoch(client.hello) == "0"
        assert "a topic that is made anew will not be noticed" in daemon.log()
        before = client.since(topic)
        assert published(daemon, topic, 7)[0] == 200
        assert client.data(1) == [7]
        with Client(daemon, topic, since=before) as resumed:
            assert resumed.data(1) == [7]
            assert resumed.frame("RECOVERED")["gaps"] == []
