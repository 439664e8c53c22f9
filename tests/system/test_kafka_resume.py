"""Clients that come back with a cursor: to the same process, to one that was restarted, to another one on the same
Kafka that is faster or slower; and cursors that cannot be served, which is told."""

from __future__ import annotations

import signal
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon import Daemon
from tests.support.kafkacase import (
    Client,
    TwoWays,
    epoch,
    gaps,
    gateway,
    position,
    read_whole,
    refused,
    topic_info,
)

TOPIC, SMALL, KEYED = (f"{kind}-{uuid.uuid4().hex[:12]}" for kind in ("resumed", "small", "keyed"))


def numbers(first: int, last: int) -> list[bytes]:
    return [b"%d" % number for number in range(first, last)]


@pytest.fixture(scope="module")
def daemon(two_ways: TwoWays, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A gateway on a topic of two partitions, one with a small window, and one with keys."""
    two_ways.create(TOPIC, 2)
    two_ways.create(SMALL)
    two_ways.create(KEYED, 2)
    small = {"name": SMALL, "audience": "everyone", "window": {"maxBytes": "64KiB"}}
    topics = (TOPIC, small, {"name": KEYED, "audience": "key"})
    with gateway(tmp_path_factory.mktemp("resume"), two_ways.bootstrap, *topics) as started:
        yield started


def test_a_cursor_on_the_url(two_ways: TwoWays, daemon: Daemon) -> None:
    """What was written while the client was away comes once, in order a partition, before what is new."""
    with Client(daemon, TOPIC) as client:
        for partition in (0, 1):
            two_ways.write(TOPIC, numbers(0, 3), partition=partition)
        client.data(6)
        cursor = client.since(TOPIC)
        client.cut()
    for partition in (0, 1):
        two_ways.write(TOPIC, numbers(3, 6), partition=partition)
    ends = read_whole(two_ways, daemon, TOPIC)
    with Client(daemon, TOPIC, since=cursor) as client:
        assert position(client.hello) == {partition: end - 3 for partition, end in ends.items()}
        messages = client.messages(6)
        for partition in (0, 1):
            assert [m["data"] for m in messages if m["partition"] == partition] == [3, 4, 5]
        recovered = client.frame("RECOVERED")
        assert (recovered["names"], recovered["count"], recovered["gaps"]) == ([TOPIC], 6, [])
        assert position(recovered) == ends
        two_ways.write(TOPIC, numbers(6, 7))
        assert client.data(1) == [6]
        client.quiet()


def test_a_cursor_in_subscribe(two_ways: TwoWays, daemon: Daemon) -> None:
    """Single keys, each with a place of its own; the answer and RECOVERED bear the id of the question."""
    one, other = f"{KEYED}/1", f"{KEYED}/2"
    with Client(daemon, one) as client:
        two_ways.write(KEYED, numbers(0, 3), key=b"1")
        assert client.data(3) == [0, 1, 2]
        cursor = client.since(one)
    two_ways.write(KEYED, numbers(3, 5), key=b"2")
    two_ways.write(KEYED, numbers(5, 7), key=b"1")
    ends = read_whole(two_ways, daemon, KEYED)
    with Client(daemon, other) as client:
        client.keeper.recovering(one, None, {})
        client.send("SUBSCRIBE", topics=[one], since=cursor, id="again")
        subscribed = client.frame("SUBSCRIBED")
        assert (subscribed["names"], subscribed["id"]) == ([one], "again")
        assert client.data(2) == [5, 6]
        recovered = client.frame("RECOVERED")
        assert (recovered["names"], recovered["count"], recovered["gaps"]) == ([one], 2, [])
        assert recovered["id"] == "again"
        assert position(recovered) == ends
        two_ways.write(KEYED, numbers(7, 8), key=b"1")
        two_ways.write(KEYED, numbers(7, 8), key=b"2")
        assert client.data(2) == [7, 7]
        client.quiet()


def test_what_the_window_no_longer_has(two_ways: TwoWays, daemon: Daemon) -> None:
    """Told as a gap ``window`` that says what is missing, to the offset; to raw clients at the door."""
    with Client(daemon, SMALL) as client:
        cursor, (first,) = client.since(SMALL), position(client.hello).values()
        two_ways.write(SMALL, [b'"%s"' % (b"x" * 1000)] * 200)
        client.messages(200)
    start = topic_info(daemon, SMALL)["partitions"]["0"]["first"]
    assert first < start < first + 200
    with Client(daemon, SMALL, since=cursor) as client:
        messages, recovered = client.read_to("RECOVERED")
        assert [m["offset"] for m in messages] == list(range(start, first + 200))
        assert gaps(recovered) == [(0, first, start, "window")]
        assert (recovered["count"], position(recovered)) == (len(messages), {0: first + 200})
        client.quiet()
    assert refused(daemon, topics=SMALL, since=cursor, format="raw")[:2] == (400, "bad_since")


def test_a_restarted_process(two_ways: TwoWays, tmp_path: Path) -> None:
    """Killed without a word: the next one has read so far back that positions are found; who asks for nothing of the
    past gets nothing of it."""
    topic = two_ways.fresh(2)
    with gateway(tmp_path, two_ways.bootstrap, topic) as daemon:
        with Client(daemon, topic) as client:
            for partition in (0, 1):
                two_ways.write(topic, numbers(0, 5), partition=partition)
            client.data(10)
            cursor = client.since(topic)
            daemon.kill()
        for partition in (0, 1):
            two_ways.write(topic, numbers(5, 10), partition=partition)
        daemon.start()
        with Client(daemon, topic) as newcomer, Client(daemon, topic, since=cursor) as early:  # it may still be reading
            frames = [early.frame("MESSAGE", "RECOVERED") for _ in range(11)]
            read_whole(two_ways, daemon, topic)
            with Client(daemon, topic, since=cursor) as late:
                messages = late.messages(10)
                assert position(newcomer.hello) == {0: 10, 1: 10}
                for partition in (0, 1):
                    for had in (messages, frames):
                        there = [frame["data"] for frame in had if frame.get("partition") == partition]
                        assert there == [5, 6, 7, 8, 9]
                recovered = late.frame("RECOVERED")
                assert (recovered["count"], position(recovered)) == (10, {0: 10, 1: 10})
                assert gaps(recovered) == [gap for frame in frames for gap in frame.get("gaps", ())] == []
                two_ways.write(topic, numbers(10, 11))
                for client in (early, late, newcomer):
                    assert client.data(1) == [10]
                    client.quiet()


def test_a_restarted_process_that_did_not_read_back_far_enough(two_ways: TwoWays, tmp_path: Path) -> None:
    """The rest is told as a gap ``window``."""
    topic = two_ways.fresh()
    two_ways.write(topic, numbers(0, 20))
    with gateway(tmp_path, two_ways.bootstrap, topic, kafka={"warmUp": "0s", "warmUpRecords": 5}) as daemon:
        read_whole(two_ways, daemon, topic)
        with Client(daemon, topic, since=f"{topic}@0:7") as client:
            assert client.data(5) == [15, 16, 17, 18, 19]
            recovered = client.frame("RECOVERED")
            assert (recovered["count"], gaps(recovered)) == (5, [(0, 7, 15, "window")])


def test_another_process_that_is_slower_or_faster(two_ways: TwoWays, tmp_path: Path) -> None:
    """Rule 7: a cursor ahead of what a process has read is normal, however long its Kafka stands still: nothing comes
    twice, and nothing is taken for lost. The other way round it is a client like any other that comes back."""
    topic = two_ways.fresh()
    with (
        gateway(tmp_path / "fast", two_ways.bootstrap, topic) as fast,
        gateway(tmp_path / "slow", two_ways.slow, topic) as slow,
        Client(fast, topic) as leading,
        Client(slow, topic) as lagging,
    ):
        two_ways.write(topic, numbers(0, 5))
        assert leading.data(5) == lagging.data(5) == [0, 1, 2, 3, 4]
        assert epoch(leading.hello) == epoch(lagging.hello)
        two_ways.proxy.stalled = True
        try:
            two_ways.write(topic, numbers(5, 10))
            assert leading.data(5) == [5, 6, 7, 8, 9]
            lagging.quiet()
            with Client(fast, topic, since=lagging.since(topic)) as moved:
                assert moved.data(5) == [5, 6, 7, 8, 9]
                assert moved.frame("RECOVERED")["gaps"] == []
            with Client(slow, topic, since=leading.since(topic)) as moved:
                assert position(moved.hello) == {0: 10}
                recovered = moved.frame("RECOVERED")
                assert (recovered["count"], recovered["gaps"], position(recovered)) == (0, [], {0: 10})
                moved.silent(7.0)
                two_ways.write(topic, numbers(10, 13))
                two_ways.proxy.stalled = False
                assert moved.data(3) == [10, 11, 12]
                assert lagging.data(8) == list(range(5, 13))
                two_ways.write(topic, numbers(13, 14))
                assert moved.data(1) == lagging.data(1) == [13]
                moved.quiet()
        finally:
            two_ways.proxy.stalled = False


def test_a_process_that_stands_still(two_ways: TwoWays, tmp_path: Path) -> None:
    """The client comes while the process sleeps, and is ahead of it or not, as it happens: nothing twice either way."""
    topic = two_ways.fresh()
    with (
        gateway(tmp_path / "fast", two_ways.bootstrap, topic) as fast,
        gateway(tmp_path / "slow", two_ways.bootstrap, topic) as slow,
        Client(fast, topic) as client,
    ):
        slow.signal(signal.SIGSTOP)
        two_ways.write(topic, [b'"%s"' % (b"x" * 10_000)] * 300)
        client.messages(300)
        slow.signal(signal.SIGCONT)
        with Client(slow, topic, since=client.since(topic)) as moved:
            assert moved.frame("RECOVERED")["gaps"] == []
            two_ways.write(topic, numbers(300, 301))
            assert moved.places(1) == client.places(1) == [(0, 300)]
            moved.quiet()


def test_a_cursor_above_the_end_of_kafka(two_ways: TwoWays, daemon: Daemon) -> None:
    """Rule 7: the log lost records, or is another one. After 5 s that is told, and the client goes on at the end."""
    ends = read_whole(two_ways, daemon, TOPIC)
    ahead = {partition: end + 100 for partition, end in ends.items()}
    now = topic_info(daemon, TOPIC)["epoch"]
    cursor = f"{TOPIC}~{now}@" + ",".join(f"{partition}:{offset}" for partition, offset in ahead.items())
    began = time.monotonic()
    with Client(daemon, TOPIC, since=cursor) as client:
        assert position(client.hello) == ahead
        recovered = client.frame("RECOVERED")
        assert (recovered["count"], recovered["gaps"]) == (0, [])
        two_ways.write(TOPIC, numbers(0, 1), partition=0)  # the end moves, and stays below
        ends[0] += 1
        told: set[tuple[int, int, int, str]] = set()
        while len(told) < 2:
            told |= set(gaps(gap := client.frame("GAP")))
        assert time.monotonic() - began > 4.5
        assert told == {(partition, ahead[partition], end, "recreated") for partition, end in ends.items()}
        assert position(gap) == ends
        two_ways.write(TOPIC, numbers(1, 2), partition=0)
        assert client.places(1) == [(0, ends[0])]
        client.quiet()
