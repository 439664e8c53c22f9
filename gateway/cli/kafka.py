"""Writes one record straight to Kafka (kafka-python), the way the gateway would read it."""

from __future__ import annotations

import json
import logging
from typing import Any

import attrs
from kafka import KafkaProducer
from kafka.errors import KafkaError

from gateway.cli.errors import CliError
from gateway.config import Kafka, Security, TopicSettings
from gateway.model import Audience


@attrs.define
class Draft:
    """A record that is being made."""

    topic: str
    key: bytes | None
    value: bytes
    headers: list[tuple[str, bytes]]


def address(draft: Draft, topic: TopicSettings, user: str) -> None:
    """Put the user where the topic's first ``userFrom`` looks. Raises CliError where there is something else."""
    if topic.audience is not Audience.USER:
        raise CliError(f"--user: {topic.name} has audience {topic.audience.value}, and no user")
    source = topic.user_from[0]
    if source == "key":
        if draft.key not in (None, user.encode()):
            raise CliError(f"--user and --key: the key of {topic.name} is its user; leave one out")
        draft.key = user.encode()
    elif source.startswith("header."):
        name = source.removeprefix("header.")
        if any(header == name and value != user.encode() for header, value in draft.headers):
            raise CliError(f"--user and --header {name}: that header is the user; leave one out")
        draft.headers = [header for header in draft.headers if header[0] != name] + [(name, user.encode())]
    else:
        draft.value = _set(draft.value, source.split(".")[1:], user)


def _set(value: bytes, path: list[str], user: str) -> bytes:
    """A JSON value with the user at a path of fields."""
    shown = ".".join(path)
    try:
        root = json.loads(value)
    except ValueError:
        raise CliError(f"--user: it goes into the field {shown} of the value, which is not JSON") from None
    place: Any = root
    for step in path[:-1]:
        place = place.setdefault(step, {}) if isinstance(place, dict) else None
    if not isinstance(place, dict):
        raise CliError(f"--user: it goes into the field {shown}, and the value has no place for that")
    if place.setdefault(path[-1], user) not in (user, _number(user)):
        raise CliError(f"--user: the value has another user in {shown}; leave one out")
    return json.dumps(root, ensure_ascii=False).encode()


def _number(user: str) -> object:
    return int(user) if user.isdecimal() else user


def send(settings: Kafka, draft: Draft, timeout: float) -> tuple[int, int]:
    """Partition and offset, once all in-sync replicas have the record; within ``timeout`` seconds. Raises CliError."""
    logging.getLogger("kafka").setLevel(logging.CRITICAL)  # the error below says it in one line
    millis = int(timeout * 1000)
    servers = ", ".join(settings.bootstrap_servers)
    try:
        producer = KafkaProducer(
            bootstrap_servers=list(settings.bootstrap_servers),
            client_id=settings.client_id,
            acks="all",
            max_block_ms=millis,
            request_timeout_ms=millis // 2,
            delivery_timeout_ms=millis,
            linger_ms=0,
            **_security(settings.security),
        )
    except (KafkaError, OSError, ValueError) as error:
        raise CliError(f"Kafka at {servers}: {error}") from None
    try:
        sent = producer.send(draft.topic, draft.value, draft.key, draft.headers).get(timeout)
    except (KafkaError, OSError) as error:
        raise CliError(f"Kafka at {servers}, topic {draft.topic}: {error}") from None
    finally:
        producer.close(timeout=0)
    return sent.partition, sent.offset


def _security(security: Security) -> dict[str, Any]:
    """The settings as kafka-python calls them."""
    return {
        "security_protocol": security.protocol,
        "sasl_mechanism": security.sasl_mechanism,
        "sasl_plain_username": security.username,
        "sasl_plain_password": security.password,
        "ssl_cafile": security.ca_file,
        "ssl_certfile": security.cert_file,
        "ssl_keyfile": security.key_file,
    }
