"""``LogReader`` on Kafka: one thread, one KafkaConsumer, every partition by ``assign``, no consumer group.

The thread polls and hands what came to the reactor's thread, one call a batch; a semaphore bounds the batches that are
under way, so reading pauses while the reactor is busy. While Kafka is away the consumer is made anew, with back-off,
and goes on at the offsets that were read: nothing is lost and nothing comes twice.
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing
from typing import Any

from kafka.errors import (
    KafkaError,
    KafkaTimeoutError,
    LogTruncationError,
    OffsetOutOfRangeError,
    TopicAuthorizationFailedError,
)
from kafka.structs import TopicPartition
from twisted.internet.defer import Deferred

from gateway.config_kafka import Kafka
from gateway.log.kafka_client import METADATA_AGE, Connecting, log, name_of
from gateway.log.kafka_consumer import Consumer
from gateway.log.kafka_places import places
from gateway.log.kafka_topics import NO_ID, Seen, Topic, snapshot
from gateway.metrics import Metrics
from gateway.model import Fetched, Health, LogEvent, Lost, Record
from gateway.ports import Clock, LogListener

IDLE = 0.25  # s that a poll waits for records: a bound for ``stop``, not for a record, which ends the wait
UNDER_WAY = 4  # batches that the reactor has not taken yet
UPKEEP = 0.25  # s between looks at what does not come with records
SILENCE = 5.0  # s without an answer to a question for metadata: make a new consumer
RETRY = 10.0  # s between attempts to read a topic that may not be read
BACK_OFF = (0.1, 2.0)  # s between attempts to reach Kafka, the first and the longest
STOP = 8.0  # s that stop() waits for the thread

CallFromThread = Callable[..., object]


class KafkaReader:
    """Reads the topics of ``kafka`` for one listener. Made on the reactor's thread, where all methods are called."""

    def __init__(self, kafka: Kafka, clock: Clock, call_from_thread: CallFromThread, metrics: Metrics) -> None:
        self._kafka, self._clock, self._call, self._metrics = kafka, clock, call_from_thread, metrics
        self._topics = {settings.name: Topic(settings) for settings in kafka.topics}
        self._thread = threading.Thread(target=self._run, name="kafka-reader", daemon=True)
        self._stopping = threading.Event()
        self._stopped: list[Deferred[None]] = []
        self._ended = False
        self._room = threading.BoundedSemaphore(UNDER_WAY)
        self._listener: LogListener | None = None
        self._positioned = False
        self._heard_at: dict[tuple[str, int], float] = {}
        self._looked: tuple[float, Mapping[str, Seen]] = -math.inf, {}  # when at the metadata, and what they showed
        self._health: Mapping[str, tuple[Health, str]] = {}
        self._connecting = Connecting()
        # The thread's own:
        self._seen: Mapping[str, Seen] = {}  # what Kafka's metadata said
        self._heard = 0.0  # when
        self._news = False  # and it was not looked at yet
        self._started = False  # the first look is over
        self._failures = 0  # attempts in vain since Kafka was last heard
        self._tell_health(Health.FAILED, "not connected yet")

    # --- LogReader, on the reactor's thread ---

    def start(self, listener: LogListener) -> None:
        """Begin to read; Kafka may be away."""
        self._listener = listener
        self._thread.start()

    def stop(self) -> Deferred[None]:
        """Fires when the thread is gone, or after ``STOP``."""
        done: Deferred[None] = Deferred()
        self._listener = None
        self._stopping.set()
        self._connecting.give_up()
        self._stopped.append(done)
        if self._thread.is_alive() and not self._ended:
            self._clock.callLater(STOP, self._gone)
        else:
            self._gone()
        return done

    def positioned(self) -> bool:
        """True once the listener knows a position of every partition that has a leader and may be read."""
        return self._positioned

    def heard(self, topic: str, partition: int) -> float:
        """By the answers to fetches; of partitions that are not there, by the metadata."""
        at, seen = self._looked
        if topic in seen and not seen[topic].hidden and partition not in seen[topic].partitions:
            return at
        return self._heard_at.get((topic, partition), -math.inf)

    def health(self) -> Mapping[str, tuple[Health, str]]:
        """``kafka``, and ``topic:<name>`` for each."""
        return self._health

    def _deliver(self, events: Sequence[LogEvent], arrived: float) -> None:
        try:
            if self._listener is not None:
                self._listener(events, arrived)
        except Exception:
            log.exception("the listener failed; %d events may be lost", len(events))
        finally:
            self._room.release()

    def _set_positioned(self) -> None:
        self._positioned = True

    def _set_looked(self, at: float, seen: Mapping[str, Seen]) -> None:
        self._looked = at, seen

    def _set_heard(self, at: float, partitions: Collection[TopicPartition]) -> None:
        self._heard_at.update(dict.fromkeys(partitions, at))

    def _gone(self) -> None:
        self._ended = True
        waiting, self._stopped = self._stopped, []
        for done in waiting:
            done.callback(None)

    # --- the thread ---

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._connecting, self._heard, self._news = Connecting(), time.monotonic(), False
                with closing(Consumer(self._kafka, self._connecting, self._topics, self._refreshed)) as consumer:
                    self._read(consumer)
            except Exception as error:
                self._away(error)
        self._call(self._gone)

    def _refreshed(self, cluster: Any) -> None:
        """In one of the consumer's methods: what the brokers have answered."""
        self._heard = time.monotonic()
        self._seen = snapshot(cluster, self._topics)
        self._news = True

    def _read(self, consumer: Consumer) -> None:
        upkeep, since = 0.0, self._clock.seconds()
        told: set[TopicPartition] = set()
        while not self._stopping.is_set():
            if self._news:
                self._news = False
                self._look(consumer)
            began = time.monotonic()
            polled = self._poll(consumer)
            if polled:
                self._hand_over(self._events(consumer, polled))
                told.update(polled)
            now = time.monotonic()
            if now - began < IDLE:
                time.sleep(pause(now - began, self._kafka.max_pause))
            if now > upkeep:
                upkeep = now + UPKEEP
                self._check_alive(consumer)
                self._try_denied(consumer, now)
                self._hand_over(self._events(consumer, self._moved(consumer)))
                consumer.validate()
                self._call(self._set_heard, since, told | consumer.confirmed())
                told, since = set(), self._clock.seconds()

    def _poll(self, consumer: Consumer) -> Mapping[TopicPartition, list[Record]]:
        try:
            return consumer.poll(IDLE)
        except TopicAuthorizationFailedError as error:
            self._deny(consumer, error)
        except OffsetOutOfRangeError as error:
            self._count(error)
            self._out_of_range(consumer, error.args[0])
        except LogTruncationError as error:
            self._count(error)
            ends = consumer.ends(error.divergent_offsets)
            self._cut(consumer, {tp: at.offset if at else ends[tp] for tp, at in error.divergent_offsets.items()})
        return {}

    # --- records ---

    def _events(self, consumer: Consumer, polled: Mapping[TopicPartition, list[Record]]) -> list[LogEvent]:
        events: list[LogEvent] = []
        for tp, records in polled.items():
            after, end = consumer.place(tp)
            topic, partition = tp
            if tp in consumer.unreadable:
                for first, lost in consumer.unreadable.pop(tp):
                    before = tuple(record for record in records if record.offset < first)
                    records = records[len(before) :]
                    events += [Fetched(topic, partition, before, first, end), Lost(topic, partition, first, lost)]
            events.append(Fetched(topic, partition, tuple(records), after, end))
            self._topics[topic].next[partition] = after
        return events

    def _moved(self, consumer: Consumer) -> Mapping[TopicPartition, list[Record]]:
        """Partitions that went on without a record: control records, aborted transactions, compaction."""
        return {
            tp: [] for tp in consumer.assigned() if consumer.place(tp)[0] != self._topics[tp.topic].next[tp.partition]
        }

    def _hand_over(self, events: Sequence[LogEvent]) -> None:
        if not events:
            return
        while not self._room.acquire(timeout=UPKEEP):
            if self._stopping.is_set():
                return
        self._call(self._deliver, events, self._clock.seconds())

    # --- topics ---

    def _look(self, consumer: Consumer) -> None:
        """Compare what the metadata show with what is read."""
        at, seen = self._clock.seconds(), self._seen
        self._hand_over([event for topic in self._topics.values() for event in topic.look(seen.get(topic.name))])
        wanted = {
            TopicPartition(topic.name, partition): where
            for topic in self._topics.values()
            if not topic.denied
            for partition, where in topic.wanted(seen.get(topic.name), start=not self._started).items()
        }
        try:
            starts = places(consumer, wanted, self._kafka, self._clock.wall())
        except TopicAuthorizationFailedError as error:
            self._deny(consumer, error)
            self._news = True  # again, without these
            return
        except KafkaTimeoutError as error:
            log.warning("partitions that cannot be opened yet: %s", error)
            consumer.ask()
            return
        events: list[LogEvent] = []
        for topic in self._topics.values():
            if topic.name in seen and not topic.denied:
                own = {tp.partition: start for tp, start in starts.items() if tp.topic == topic.name}
                events += topic.open(seen[topic.name], own)
        self._hand_over(events)
        self._call(self._set_looked, at, seen)
        self._assign(consumer, starts)
        self._failures = 0
        if not self._started:
            self._started = True
            if any(topic.epoch == NO_ID for topic in self._topics.values()):
                log.warning("these brokers have no topic ids: a topic that is made anew will not be noticed")
            self._call(self._set_positioned)
        self._tell_health(Health.OK, "connected")

    def _assign(self, consumer: Consumer, fresh: Mapping[TopicPartition, Any]) -> None:
        """Read what is open and there, each partition from its next offset; ``fresh`` ones have a new one."""
        before = consumer.assigned()
        partitions = [TopicPartition(t.name, p) for t in self._topics.values() if not t.gone for p in t.next]
        if before != set(partitions):
            consumer.assign(partitions)
        for tp in partitions:
            if tp in fresh or tp not in before:
                consumer.seek(tp, self._topics[tp.topic].next[tp.partition])

    def _out_of_range(self, consumer: Consumer, positions: Mapping[TopicPartition, int]) -> None:
        """Retention overtook the reader, or the log ends before what was read."""
        firsts, ends = consumer.firsts(positions), consumer.ends(positions)
        events: list[LogEvent] = []
        for tp, at in positions.items():
            if at < firsts[tp]:
                events.append(Lost(tp.topic, tp.partition, at, firsts[tp]))
                self._topics[tp.topic].next[tp.partition] = firsts[tp]
                consumer.seek(tp, firsts[tp])
        self._hand_over(events)
        self._cut(consumer, {tp: ends[tp] for tp, at in positions.items() if at > ends[tp]})

    def _cut(self, consumer: Consumer, ends: Mapping[TopicPartition, int]) -> None:
        """What was read is no longer in the log: another topic of that name, or a log that lost its end."""
        if not ends:
            return
        consumer.refresh()
        events: list[LogEvent] = []
        for name in {tp.topic for tp in ends}:
            topic = self._topics[name]
            if topic.is_same(self._seen.get(name)):
                log.error("topic %s lost records that had been read: its epoch changes", name)
                own = {tp.partition: at for tp, at in ends.items() if tp.topic == name}
                events.append(topic.cut(own))
                for partition, at in own.items():
                    consumer.seek(TopicPartition(name, partition), at)
        self._hand_over(events)

    # --- rights ---

    def _deny(self, consumer: Consumer, error: TopicAuthorizationFailedError) -> None:
        self._count(error)
        for name in error.args[0]:
            topic = self._topics[name]
            if not topic.denied:
                log.warning("topic %s may not be read (Kafka's ACLs); tried again every %d s", name, RETRY)
            topic.denied, topic.trying, topic.retry_at = True, False, time.monotonic() + RETRY
            consumer.pause(name)
        self._tell_health(Health.OK, "connected")

    def _try_denied(self, consumer: Consumer, now: float) -> None:
        for topic in self._topics.values():
            if topic.denied and now >= topic.retry_at:
                if topic.trying:  # nobody has objected
                    topic.denied = False
                    log.info("topic %s may be read again", topic.name)
                    self._tell_health(Health.OK, "connected")
                topic.trying, topic.retry_at = True, now + RETRY / 2
                consumer.resume(topic.name)
                self._news = True

    # --- outages ---

    def _check_alive(self, consumer: Consumer) -> None:
        """Raises KafkaError where no broker answers: only a new consumer asks the bootstrap addresses again."""
        silent = time.monotonic() - self._heard
        if silent > (SILENCE if consumer.must_refresh() else METADATA_AGE + SILENCE):
            raise KafkaError(f"no broker has answered for {silent:.0f} s")
        if self._stopping.is_set():
            raise KafkaError("stopping")

    def _away(self, error: Exception) -> None:
        if self._stopping.is_set():
            return
        self._count(error)
        self._failures += 1
        say = log.warning if self._failures == 1 else log.debug
        say("Kafka is away: %s: %s", name_of(error), error)
        if not isinstance(error, KafkaError | OSError):
            log.exception("reading failed")
        self._tell_health(Health.DEGRADED if self._started else Health.FAILED, f"{name_of(error)}: {error}")
        first, longest = BACK_OFF
        self._stopping.wait(min(longest, first * 2**self._failures) * random.uniform(0.5, 1.0))  # noqa: S311 - jitter

    def _count(self, error: BaseException) -> None:
        name = name_of(error)
        self._call(lambda: self._metrics.kafka_errors.__setitem__(name, self._metrics.kafka_errors[name] + 1))

    def _tell_health(self, how: Health, why: str) -> None:
        health = {"kafka": (how, why)}
        for topic in self._topics.values():
            health[f"topic:{topic.name}"] = self._health_of(topic)
        self._health = health

    def _health_of(self, topic: Topic) -> tuple[Health, str]:
        if topic.hidden or topic.denied:
            return Health.DEGRADED, "Kafka does not allow to read it"
        if topic.epoch is None or topic.gone:
            missing = topic.name not in self._seen
            return Health.DEGRADED, "does not exist in Kafka" if missing else "not read yet"
        return Health.OK, f"{len(topic.next)} partitions"


def pause(elapsed: float, longest: float) -> float:
    """Seconds to wait behind a poll that took ``elapsed`` and brought something; at most ``longest``.

    A fetch costs the same however few records it brings, so polls begin at least ``longest`` apart; as reading takes
    half of a core at most, the other half is the reactor's, which pushes meanwhile what this one has brought.
    """
    return max(longest - elapsed, min(elapsed, longest))
