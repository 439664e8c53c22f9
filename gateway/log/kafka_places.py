"""Where reading begins: at the first record, at the end, or so far before the end that clients can resume."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Mapping

from kafka.errors import KafkaError
from kafka.structs import TopicPartition

from gateway.config_kafka import Kafka
from gateway.log.kafka_consumer import Consumer
from gateway.log.kafka_topics import From
from gateway.model import Start

SAMPLE = 1.0  # s for the first records of a warm-up, by which its size is judged
OVERHEAD = 200  # bytes of a frame beside key and value


def places(
    consumer: Consumer, wanted: Mapping[TopicPartition, From], kafka: Kafka, wall: float
) -> dict[TopicPartition, Start]:
    """The first offset, and the first that is not warm-up, of each partition. ``wall``: seconds since 1970.

    Raises TopicAuthorizationFailedError with the topics in question, KafkaTimeoutError where no leader answers.
    """
    if not wanted:
        return {}
    firsts = consumer.firsts(wanted)
    ends = consumer.ends(tp for tp, where in wanted.items() if where is not From.FIRST)
    found = {tp: Start(ends.get(tp, first), ends.get(tp, first)) for tp, first in firsts.items()}
    warm = [tp for tp, where in wanted.items() if where is From.WARM and firsts[tp] < ends[tp]]
    for tp, back in _warm_up(consumer, warm, ends, kafka, wall).items():
        found[tp] = Start(max(firsts[tp], back), ends[tp])
    short = [tp for tp in warm if found[tp].first < found[tp].live]
    for tp, room in _room(consumer, short, found, kafka).items():
        found[tp] = Start(max(found[tp].first, ends[tp] - room), ends[tp])
    return found


def _warm_up(
    consumer: Consumer,
    partitions: Collection[TopicPartition],
    ends: Mapping[TopicPartition, int],
    kafka: Kafka,
    wall: float,
) -> dict[TopicPartition, int]:
    """By time and by number, whichever reaches further back."""
    since = int((wall - kafka.warm_up) * 1000)
    shares = Counter(tp.topic for tp in partitions)
    return {
        tp: min(ends[tp] if at is None else at, ends[tp] - kafka.warm_up_records // shares[tp.topic])
        for tp, at in consumer.since(partitions, since).items()
    }


def _room(
    consumer: Consumer, partitions: list[TopicPartition], found: Mapping[TopicPartition, Start], kafka: Kafka
) -> dict[TopicPartition, int]:
    """How many records of each partition the topic's window will hold, judged by the first ones."""
    if not partitions:
        return {}
    limits = {topic.name: topic.window_max_bytes for topic in kafka.topics}
    sizes: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    missing = set(partitions)
    consumer.assign(partitions)
    for tp in partitions:
        consumer.seek(tp, found[tp].first)
    deadline = time.monotonic() + SAMPLE
    while missing and (left := deadline - time.monotonic()) > 0:
        try:
            polled = consumer.poll(left, 100)
        except KafkaError:  # not to be read, say: the reader will find out, and tell
            break
        for tp, records in polled.items():
            missing.discard(tp)
            counts[tp.topic] += len(records)
            sizes[tp.topic] += sum(len(r.value or b"") + len(r.key or b"") + OVERHEAD for r in records)
    shares = Counter(tp.topic for tp in partitions)
    return {
        tp: max(1, limits[tp.topic] * counts[tp.topic] // (sizes[tp.topic] * shares[tp.topic]))
        for tp in partitions
        if counts[tp.topic]
    }
