"""Writes one record straight to Kafka (kafka-python), with the settings that the gateway reads it with."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from kafka import KafkaProducer
from kafka.errors import KafkaError

from gateway.cli.errors import CliError
from gateway.config import Kafka
from gateway.log.kafka_client import options


def send(
    settings: Kafka,
    topic: str,
    key: bytes | None,
    value: bytes,
    headers: Sequence[tuple[str, bytes]],
    timeout: float,
) -> tuple[int, int]:
    """Partition and offset, once all in-sync replicas have the record; within ``timeout`` seconds. Raises CliError."""
    logging.getLogger("kafka").setLevel(logging.CRITICAL)  # what it would say, the error below says in one line
    limits = {
        "acks": "all",
        "linger_ms": 0,
        "max_block_ms": int(timeout * 500),  # for metadata; the rest of the time is for the record
        "request_timeout_ms": int(timeout * 400),
        "delivery_timeout_ms": int(timeout * 500),
    }
    try:
        producer = KafkaProducer(**{**options(settings), **limits})
    except (KafkaError, OSError) as error:
        raise CliError(f"Kafka at {', '.join(settings.bootstrap_servers)} cannot be reached: {error}") from None
    try:
        sent = producer.send(topic, value, key, list(headers)).get(timeout)
    except (KafkaError, OSError) as error:
        raise CliError(f"Kafka does not take the record for {topic}: {error}") from None
    finally:
        producer.close(timeout=0)
    return sent.partition, sent.offset
