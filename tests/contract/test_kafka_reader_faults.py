"""What happens to the Kafka reader when Kafka changes, fails and returns: with a real broker, and the reader alone.

The listener holds every event to the contract: what is told is contiguous, so nothing is lost and nothing comes twice.
"""

from __future__ import annotations

import gc
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import attrs
import pytest

from gateway.log import kafka_client
from gateway.log.kafka_consumer import Consumer
from gateway.model import Health, Lost, Start
from tests.support.kafka import Broker, Cluster, free_port, until
from tests.support.log_bench import LogBench, kafka_settings, on_kafka, secure_kafka_settings
from tests.support.proxy import Proxy
from tests.support.reactor import ThreadedReactor


@pytest.fixture(scope="module")
def mortal() -> Iterator[Broker]:
    """A broker that these tests may kill; each leaves it running."""
    with Broker() as broker:
        yield broker.start()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at the metadata every second, so that a test need not wait for ten."""
    monkeypatch.setattr(kafka_client, "METADATA_AGE", 1.0)


def health(log: LogBench, check: str = "kafka") -> Health:
    return log.reader.health()[check][0]


# --- outages ---


def test_down_at_start(threaded_reactor: ThreadedReactor) -> None:
    """The process starts, says that it is not ready, and needs no restart once Kafka is there."""
    with Broker() as broker, on_kafka(threaded_reactor, kafka_settings(broker.bootstrap, ["t"])) as log:
        log.begin()
        until(lambda: "ECONNREFUSED" in log.reader.health()["kafka"][1], "no failed attempt")
        assert health(log) is Health.FAILED
        assert not log.reader.positioned()
        broker.start()
        broker.create("t")
        broker.write("t", [b"v"])
        until(lambda: log.listener.values("t") == [b"v"], "no record")
        assert health(log) is Health.OK
        assert log.reader.positioned()


def test_killed_and_back(mortal: Broker, threaded_reactor: ThreadedReactor) -> None:
    """A crash of the broker is a pause."""
    topic = mortal.fresh(3)
    with on_kafka(threaded_reactor, kafka_settings(mortal.bootstrap, [topic])) as log:
        log.read()
        mortal.write(topic, [b"%d" % n for n in range(1000)])
        log.listener.wait(topic, 1000)
        mortal.kill()
        until(lambda: health(log) is Health.DEGRADED, "the outage is not named")
        assert log.reader.positioned()
        mortal.start()
        mortal.write(topic, [b"%d" % n for n in range(1000, 2000)])
        records = log.listener.wait(topic, 2000)
        assert {record.value for record in records} == {b"%d" % n for n in range(2000)}
        until(lambda: health(log) is Health.OK, "still degraded")


def test_stopped_and_back(mortal: Broker, threaded_reactor: ThreadedReactor) -> None:
    """A broker that accepts connections and answers nothing: the worst kind of outage."""
    topic = mortal.fresh()
    with on_kafka(threaded_reactor, kafka_settings(mortal.bootstrap, [topic])) as log:
        log.read()
        mortal.write(topic, [b"before"])
        log.listener.wait(topic, 1)
        mortal.pause()
        until(lambda: health(log) is Health.DEGRADED, "the outage is not named", 30)
        mortal.resume()
        mortal.write(topic, [b"after"])
        records = log.listener.wait(topic, 2)
        assert [record.value for record in records] == [b"before", b"after"]


def test_stop_while_the_broker_answers_nothing(mortal: Broker, threaded_reactor: ThreadedReactor) -> None:
    """A drain must not hang on Kafka."""
    topic = mortal.fresh()
    with on_kafka(threaded_reactor, kafka_settings(mortal.bootstrap, [topic])) as log:
        log.read()
        mortal.pause()
        try:
            began = time.monotonic()
            threaded_reactor.run(log.reader.stop)
            assert time.monotonic() - began < 5
        finally:
            mortal.resume()
        until(lambda: not any(thread.name == "kafka-reader" for thread in threading.enumerate()), "the thread stays")


def test_back_at_another_port(threaded_reactor: ThreadedReactor) -> None:
    """What an orchestrator does: the bootstrap address stays, the brokers' own do not."""
    with Broker() as broker, Proxy(broker.start().port) as bootstrap:
        topic = broker.fresh()
        with on_kafka(threaded_reactor, kafka_settings(bootstrap.address, [topic])) as log:
            log.read()
            log.publish(topic, b"before")
            log.listener.wait(topic, 1)
            broker.stop()
            broker.start(port=free_port())
            bootstrap.point_at(broker.port)
            broker.write(topic, [b"after"])
            log.listener.wait(topic, 2)
            assert log.publish(topic, b"written").offset == 2


def test_connections_cut_and_stalled(mortal: Broker, threaded_reactor: ThreadedReactor) -> None:
    """The network between: each cut is a new connection, a stall is waited out."""
    with Broker() as broker, Proxy(broker.port) as proxy:
        broker.start(advertised=proxy.port)
        topic = broker.fresh(2)
        with on_kafka(threaded_reactor, kafka_settings(proxy.address, [topic])) as log:
            log.read()
            count = 0
            for what in ("cut", "delay", "stall", "cut"):
                if what == "cut":
                    proxy.cut()
                proxy.delay = 0.2 if what == "delay" else 0.0
                proxy.stalled = what == "stall"
                if what == "stall":
                    until(lambda: health(log) is Health.DEGRADED, "the stall is not named")
                    proxy.stalled = False
                count += len(broker.write(topic, [b"%d" % n for n in range(500)]))
                log.listener.wait(topic, count)


def test_an_outage_leaks_nothing(threaded_reactor: ThreadedReactor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nights of it: each attempt gives back its sockets and threads, without the garbage collector's help."""
    monkeypatch.setattr(kafka_client, "BOOTSTRAP", 0.3)

    def attempts() -> int:
        return sum(log.metrics.kafka_errors.values())

    with on_kafka(threaded_reactor, kafka_settings(f"127.0.0.1:{free_port()}", ["t"])) as log:
        log.begin()
        until(lambda: attempts() > 2, "no attempts")
        gc.disable()
        try:
            before = len(os.listdir("/proc/self/fd")), threading.active_count()
            until(lambda: attempts() > 9, "no more attempts", 40)
            after = len(os.listdir("/proc/self/fd")), threading.active_count()
        finally:
            gc.enable()
        assert after[0] <= before[0] + 4  # one attempt of each may be under way
        assert after[1] == before[1]


# --- topics ---


def test_partition_added(mortal: Broker, threaded_reactor: ThreadedReactor) -> None:
    """It is found within the age of the metadata (10 s) and read from its first record."""
    topic = mortal.fresh()
    with on_kafka(threaded_reactor, kafka_settings(mortal.bootstrap, [topic])) as log:
        log.read()
        mortal.add_partitions(topic, 2)
        mortal.write(topic, [b"first", b"second"], partition=1)
        records = log.listener.wait(topic, 2, 15)
        assert [(record.partition, record.offset) for record in records] == [(1, 0), (1, 1)]
        assert [opened.partitions for opened in log.listener.opened(topic)] == [{0: Start(0, 0)}, {1: Start(0, 0)}]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("count", [2, 20])
def test_deleted_and_made_anew(mortal: Broker, threaded_reactor: ThreadedReactor, count: int) -> None:
    """With fewer records than before, and with more: kafka-python alone would read on as if nothing had happened."""
    topic = mortal.fresh(2)
    with on_kafka(threaded_reactor, kafka_settings(mortal.bootstrap, [topic])) as log:
        log.read()
        mortal.write(topic, [b"old-%d" % n for n in range(10)], partition=0)
        log.listener.wait(topic, 10)
        mortal.delete(topic)
        until(lambda: log.listener.deleted(topic), "not told as deleted")
        assert health(log, f"topic:{topic}") is Health.DEGRADED
        mortal.create(topic, 1)
        mortal.write(topic, [b"new-%d" % n for n in range(count)])
        log.listener.wait(topic, 10 + count)
        assert log.listener.values(topic)[10:] == [b"new-%d" % n for n in range(count)]
        before, after = log.listener.opened(topic)
        assert before.epoch != after.epoch
        assert after.partitions == {0: Start(0, 0)}
        until(lambda: health(log, f"topic:{topic}") is Health.OK, "still degraded")


@pytest.mark.usefixtures("quick")
def test_made_anew_between_two_looks(mortal: Broker, threaded_reactor: ThreadedReactor) -> None:
    """Nobody sees the topic missing; only its id tells. All new records come, from the first on."""
    topic = mortal.fresh()
    with on_kafka(threaded_reactor, kafka_settings(mortal.bootstrap, [topic])) as log:
        log.read()
        mortal.write(topic, [b"old"] * 5)
        log.listener.wait(topic, 5)
        with mortal.admin() as admin:
            admin.delete_topics([topic])
            mortal.create(topic)
        mortal.write(topic, [b"new-%d" % n for n in range(30)])
        wanted = [b"new-%d" % n for n in range(30)]
        until(lambda: log.listener.values(topic)[-30:] == wanted, "the new records are not all there")
        assert len(log.listener.opened(topic)) == 2
        assert not log.listener.problems


def test_missing_at_start(mortal: Broker, threaded_reactor: ThreadedReactor) -> None:
    """The others are read, the process is ready, and the topic's first record is not missed when it is made."""
    topic, missing = mortal.fresh(), f"late-{time.monotonic_ns()}"
    with on_kafka(threaded_reactor, kafka_settings(mortal.bootstrap, [topic, missing])) as log:
        log.read()
        assert log.reader.health()[f"topic:{missing}"] == (Health.DEGRADED, "does not exist in Kafka")
        assert not log.listener.opened(missing)
        mortal.create(missing)
        mortal.write(missing, [b"first"])
        mortal.write(topic, [b"v"])
        log.listener.wait(missing, 1)
        log.listener.wait(topic, 1)


def test_asking_for_a_topic_does_not_make_it(threaded_reactor: ThreadedReactor) -> None:
    """Brokers make topics for clients that ask, unless these say not to; kafka-python forgets to pass that on."""
    with Broker(properties={"auto.create.topics.enable": "true"}) as broker:
        broker.start()
        broker.create("there")
        with on_kafka(threaded_reactor, kafka_settings(broker.bootstrap, ["there", "not-there"])) as log:
            log.read()
            log.publish("there", b"v")
            log.send("not-there", b"v")
            log.listener.wait("there", 1)
            with broker.admin() as admin:
                assert "not-there" not in admin.list_topics()


def test_retention_overtakes_a_stalled_reader(mortal: Broker, threaded_reactor: ThreadedReactor) -> None:
    """The reactor is busy, the log moves on: what is gone is told, the rest comes."""
    topic = mortal.fresh()
    busy = threading.Event()
    with on_kafka(threaded_reactor, kafka_settings(mortal.bootstrap, [topic])) as log:
        log.read()
        log.listener.during = lambda: busy.wait(30)
        value = bytes(200_000)
        mortal.write(topic, [value] * 200)  # several fetches more than can be under way
        mortal.delete_records(topic, {0: 190})
        busy.set()
        mortal.write(topic, [b"last"])
        until(lambda: log.listener.values(topic)[-1:] == [b"last"], "not read on")
        (lost,) = log.listener.lost(topic)
        assert lost.next == 190
        assert lost.first < 190
        assert not log.listener.problems


def test_a_log_that_lost_what_was_read(threaded_reactor: ThreadedReactor) -> None:
    """A disk that is empty after a crash: same topic, same id, other records at the old offsets. The epoch changes,
    what is new comes, and the reader neither waits for ever nor asks in circles."""
    with Broker() as broker:
        broker.start()
        topic = broker.fresh()
        with on_kafka(threaded_reactor, kafka_settings(broker.bootstrap, [topic])) as log:
            log.read()
            broker.write(topic, [b"old"] * 10)
            log.listener.wait(topic, 10)
            broker.stop()
            for file in (broker.folder / "data" / f"{topic}-0").glob("0*"):
                file.unlink()
            (broker.folder / "data" / f"{topic}-0" / "leader-epoch-checkpoint").unlink()
            broker.start()
            until(lambda: len(log.listener.opened(topic)) > 1, "not noticed")
            before, after = log.listener.opened(topic)
            assert after.epoch == f"{before.epoch}.1"
            assert after.partitions == {0: Start(0, 0)}
            broker.write(topic, [b"new"])
            log.listener.wait(topic, 11)


def test_brokers_without_topic_ids(
    mortal: Broker,
    threaded_reactor: ThreadedReactor,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A constant epoch, and a line in the log that says what it means."""
    options = kafka_client.options
    monkeypatch.setattr("gateway.log.kafka_consumer.options", lambda kafka: options(kafka) | {"api_version": (2, 7)})
    topic = mortal.fresh()
    caplog.set_level(logging.WARNING, "gateway.log.kafka")
    with on_kafka(threaded_reactor, kafka_settings(mortal.bootstrap, [topic])) as log:
        log.read()
        mortal.write(topic, [b"v"])
        log.listener.wait(topic, 1)
        assert log.listener.epochs == {topic: "0"}
    assert "no topic ids" in caplog.text


# --- where reading begins ---


def test_warm_up_reaches_back_by_number_and_by_time(kafka: Cluster, threaded_reactor: ThreadedReactor) -> None:
    """Whichever is further; and a partition without records is where it is."""
    topic = kafka.fresh(2)
    now = int(threaded_reactor.wall() * 1000)
    kafka.write(topic, [b"old"] * 50, partition=0, timestamp=now - 3_600_000)
    kafka.write(topic, [b"new"] * 5, partition=0, timestamp=now)
    for records, seconds, first in ((0, 0, 55), (20, 0, 35), (4, 60, 50), (0, 60, 50), (1000, 60, 0)):
        settings = kafka_settings(kafka.bootstrap, [topic], warm_up=float(seconds), warm_up_records=records)
        with on_kafka(threaded_reactor, settings) as log:
            log.read()
            (opened,) = log.listener.opened(topic)
            assert opened.partitions == {0: Start(first, 55), 1: Start(0, 0)}
            log.listener.wait(topic, 55 - first)


def test_warm_up_stays_within_the_window(kafka: Cluster, threaded_reactor: ThreadedReactor) -> None:
    """Large records: reading what the window cannot hold would only delay the start."""
    topic = kafka.fresh()
    kafka.write(topic, [bytes(900_000)] * 80)
    with on_kafka(threaded_reactor, kafka_settings(kafka.bootstrap, [topic])) as log:
        log.read()
        (opened,) = log.listener.opened(topic)
        assert 30 <= opened.partitions[0].live - opened.partitions[0].first <= 40  # 32 MiB


# --- records ---


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_compression(kafka: Cluster, threaded_reactor: ThreadedReactor, codec: str) -> None:
    """Every codec that producers use."""
    topic = kafka.fresh()
    with on_kafka(threaded_reactor, kafka_settings(kafka.bootstrap, [topic])) as log:
        log.read()
        values = [b"%d" % n * 100 for n in range(1000)]
        kafka.write(topic, values, compression_type=codec)
        log.listener.wait(topic, 1000)
        assert log.listener.values(topic) == values


def test_transactions(kafka: Cluster, threaded_reactor: ThreadedReactor) -> None:
    """Aborted records are not seen; their offsets, and the markers', are read past without a gap."""
    topic = kafka.fresh()
    with on_kafka(threaded_reactor, kafka_settings(kafka.bootstrap, [topic])) as log:
        log.read()
        kafka.transact(topic, [b"a", b"b"], commit=True)
        kafka.transact(topic, [b"no", b"no"], commit=False)
        kafka.transact(topic, [b"c"], commit=True)
        kafka.transact(topic, [b"no"], commit=False)
        log.listener.wait(topic, 3)
        assert log.listener.values(topic) == [b"a", b"b", b"c"]
        (end,) = kafka.ends(topic).values()
        until(lambda: log.listener.next[topic, 0] == end, "the last markers are not read past")
        assert not log.listener.lost(topic)


def test_read_uncommitted(kafka: Cluster, threaded_reactor: ThreadedReactor) -> None:
    """The setting is passed on."""
    topic = kafka.fresh()
    with on_kafka(threaded_reactor, kafka_settings(kafka.bootstrap, [topic], isolation="read_uncommitted")) as log:
        log.read()
        kafka.transact(topic, [b"aborted"], commit=False)
        log.listener.wait(topic, 1)


class Odd(str):
    """A header name that is not UTF-8, as librdkafka lets one write it."""

    __slots__ = ()

    def encode(self, *_: object) -> bytes:
        """Bytes that no text has."""
        return b"\xff\xfe"


def test_odd_headers(kafka: Cluster, threaded_reactor: ThreadedReactor) -> None:
    """kafka-python's own decoder stops the partition for good at such a name."""
    topic = kafka.fresh()
    with on_kafka(threaded_reactor, kafka_settings(kafka.bootstrap, [topic])) as log:
        log.read()
        kafka.write(topic, [b"odd"], headers=[(Odd("x"), b"1"), ("", b""), ("h", b"\xff"), ("h", b"2")])
        kafka.write(topic, [b"next"])
        odd, following = log.listener.wait(topic, 2)
        assert odd.headers == (("\ufffd\ufffd", b"1"), ("", b""), ("h", b"\xff"), ("h", b"2"))
        assert following.value == b"next"


def test_a_record_of_10_mb(kafka: Cluster, threaded_reactor: ThreadedReactor) -> None:
    """More than a fetch asks for: Kafka gives the first batch all the same, and the reader goes on."""
    topic = kafka.fresh(max_message_bytes=20_000_000)
    with on_kafka(threaded_reactor, kafka_settings(kafka.bootstrap, [topic])) as log:
        log.read()
        kafka.write(topic, [bytes(10_000_000), b"small"], max_request_size=20_000_000)
        large, small = log.listener.wait(topic, 2)
        assert [len(large.value or b""), len(small.value or b"")] == [10_000_000, 5]


def test_a_batch_that_is_damaged_on_disk(threaded_reactor: ThreadedReactor) -> None:
    """Told as lost, in its place, and read past: never an endless retry."""
    with Broker() as broker:
        broker.start()
        topic = broker.fresh()
        for value in (b"good", b"DAMAGED", b"good too"):
            broker.write(topic, [value])
        broker.stop()
        (segment,) = (broker.folder / "data" / f"{topic}-0").glob("*.log")
        segment.write_bytes(segment.read_bytes().replace(b"DAMAGED", b"DaMAGED"))
        broker.start()
        with on_kafka(threaded_reactor, kafka_settings(broker.bootstrap, [topic])) as log:
            log.read()
            log.listener.wait(topic, 2)
            assert log.listener.values(topic) == [b"good", b"good too"]
            assert log.listener.lost(topic) == [Lost(topic, 0, 1, 2)]


# --- rights ---


def test_sasl_sessions_that_the_broker_ends(secure_broker: Broker, threaded_reactor: ThreadedReactor) -> None:
    """TLS with a client certificate, SCRAM-SHA-512, a new proof every 15 s: records flow on through two of them."""
    topic = secure_broker.fresh()
    secure_broker.allow("gateway", [topic], ("READ", "WRITE", "DESCRIBE"))
    with on_kafka(threaded_reactor, secure_kafka_settings(secure_broker, [topic])) as log:
        log.read()
        began, count = time.monotonic(), 0
        while time.monotonic() < began + 30:
            count += 1
            log.publish(topic, b"%d" % count)
            log.listener.wait(topic, count, 5)
        assert log.listener.values(topic) == [b"%d" % n for n in range(1, count + 1)]


def test_a_wrong_password(secure_broker: Broker, threaded_reactor: ThreadedReactor) -> None:
    """Named, without the password, and tried again slowly: the cause may be mended on the other side."""
    settings = secure_kafka_settings(secure_broker, ["t"])
    wrong = attrs.evolve(settings, security=attrs.evolve(settings.security, password="not the password"))
    with on_kafka(threaded_reactor, wrong) as log:
        log.begin()
        until(lambda: "SaslAuthenticationFailed" in log.reader.health()["kafka"][1], "not named")
        assert "not the password" not in str(log.reader.health())
        assert health(log) is Health.FAILED


def test_a_hidden_topic_keeps_no_metadata_from_the_reader(secure_broker: Broker) -> None:
    """kafka-python tells its listeners in no certain order, and one of its own raises where a topic is hidden; a reader
    that is not told takes Kafka for dead every 15 s. As the order changes from one consumer to the next: several."""
    topics = [secure_broker.fresh(), secure_broker.fresh()]
    settings = secure_kafka_settings(secure_broker, topics)
    for _ in range(8):
        looks: list[object] = []
        with closing(Consumer(settings, kafka_client.Connecting(), topics, looks.append)) as consumer:
            before = len(looks)
            consumer.refresh()
            assert len(looks) > before


def test_one_of_three_topics_may_not_be_read(secure_broker: Broker, threaded_reactor: ThreadedReactor) -> None:
    """The others flow, the processor idles, health names it; with the right granted, what came meanwhile is read."""
    open_, denied, hidden = (secure_broker.fresh() for _ in range(3))
    secure_broker.allow("gateway", [open_])
    secure_broker.allow("gateway", [denied], ["DESCRIBE"])
    with on_kafka(threaded_reactor, secure_kafka_settings(secure_broker, [open_, denied, hidden])) as log:
        log.read()
        secure_broker.write(denied, [b"meanwhile"])
        secure_broker.write(open_, [b"%d" % n for n in range(100)])
        log.listener.wait(open_, 100)
        for topic in (denied, hidden):
            until(lambda topic=topic: health(log, f"topic:{topic}") is Health.DEGRADED, "not named")
        before, began = time.process_time(), time.monotonic()
        until(lambda: time.monotonic() > began + 5, "", 10)
        assert time.process_time() - before < 1.0  # of 5 s
        assert health(log) is Health.OK
        secure_broker.allow("gateway", [denied, hidden])
        secure_broker.write(hidden, [b"now"])
        log.listener.wait(denied, 1)
        until(lambda: bool(log.listener.opened(hidden)), "never opened", 40)
        for topic in (denied, hidden):
            until(lambda topic=topic: health(log, f"topic:{topic}") is Health.OK, "still denied", 40)
