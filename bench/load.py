"""Writes records to Kafka at a steady rate: ``python -m bench.load --bootstrap HOST:PORT --topic T ...``.

Record ``n`` is for address ``n % addresses``: user ``u<i>`` in the value, or key ``k<i>``. The value is JSON of exactly
``--size`` bytes and begins with ``{"n":<number>,"ns":<time of sending>``, by which bench/sink.c checks and times it.
Two lines of JSON on stdout: ``start`` and ``end``.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition

TURN = 0.0005  # seconds between two looks at what is due


def value(number: int, size: int, user: str | None) -> bytes:
    """One record's value, padded to ``size`` bytes (at least what its fields need)."""
    head = f'{{"n":{number},"ns":{time.time_ns()},'
    if user is not None:
        head += f'"user_id":"{user}",'
    head += '"payload":"'
    return (head + "x" * (size - len(head) - 2) + '"}').encode()


def send(
    bootstrap: str,
    topic: str,
    rate: float,
    records: int,
    size: int,
    audience: str = "everyone",
    addresses: int = 1,
    started: Callable[[], None] = lambda: None,
) -> float:
    """Sends them all; returns the seconds it took. Raises RuntimeError where Kafka did not take every one.

    ``started`` is called once Kafka knows the topic, before the first record.
    """
    failures: list[str] = []

    def delivered(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            failures.append(str(error))

    producer = Producer(
        {"bootstrap.servers": bootstrap, "linger.ms": 0, "acks": 1, "queue.buffering.max.messages": 1_000_000}
    )
    producer.list_topics(topic, timeout=20)
    started()
    number, began = 0, time.monotonic()
    while number < records:
        due = min(records, int((time.monotonic() - began) * rate) + 1)
        for n in range(number, due):
            address = n % addresses
            user = f"u{address}" if audience == "user" else None
            key = f"k{address}" if audience == "key" else None
            producer.produce(topic, value(n, size, user), key, on_delivery=delivered)
        number = due
        producer.poll(0)
        time.sleep(TURN)
    seconds = time.monotonic() - began
    if producer.flush(30) or failures:
        raise RuntimeError(f"Kafka did not take every record of {topic}: {failures[:1] or 'no answer within 30 s'}")
    return seconds


def read(bootstrap: str, topic: str, records: int, seconds: float = 20) -> None:
    """Reads so many records back. Raises RuntimeError where they do not come in time."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "bench", "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, 0, 0)])
    deadline = time.monotonic() + seconds
    while records > 0 and time.monotonic() < deadline:
        records -= len(consumer.consume(1000, timeout=0.5))
    consumer.close()
    if records > 0:
        raise RuntimeError(f"Kafka did not give {records} records of {topic} back within {seconds} s")


def tell(event: str, **fields: float) -> None:
    print(json.dumps({"event": event, **fields}), flush=True)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--bootstrap", required=True)
    options.add_argument("--topic", required=True)
    options.add_argument("--rate", type=float, required=True, help="records a second")
    options.add_argument("--records", type=int, required=True)
    options.add_argument("--size", type=int, default=200, help="bytes of a value")
    options.add_argument("--audience", choices=("everyone", "user", "key"), default="everyone")
    options.add_argument("--addresses", type=int, default=1, help="users or keys, in turn")
    seconds = send(**vars(options.parse_args()), started=lambda: tell("start"))
    tell("end", seconds=round(seconds, 3))


if __name__ == "__main__":
    main()
