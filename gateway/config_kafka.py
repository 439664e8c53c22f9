# ruff: noqa: RUF009 - key() and section() make attrs fields
"""The keys of ``kafka``: where records come from, and what each topic is. Declared as in ``config_sections.py``."""

from __future__ import annotations

from typing import Literal

import attrs

from gateway.config_formats import (
    BROKER,
    DAY,
    FILE,
    HOUR,
    LAG,
    SOURCE,
    TEXT,
    TOPIC_NAME,
    WINDOW_AGE,
    WINDOW_BYTES,
    KiB,
    MiB,
)
from gateway.config_keys import Items, key, section
from gateway.config_values import Choice, Duration, Many, Maybe, Size, Whole
from gateway.model import Audience

Isolation = Literal["read_committed", "read_uncommitted"]
Protocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]


@attrs.frozen(kw_only=True)
class Security:
    """How the gateway proves itself to Kafka, and Kafka to it."""

    protocol: Protocol = key(
        Choice[Protocol](("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")),
        "PLAINTEXT",
        "as Kafka's security.protocol",
    )
    sasl_mechanism: Mechanism | None = key(
        Maybe(Choice[Mechanism](("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"))), None, "with the SASL protocols"
    )
    username: str | None = key(Maybe(TEXT), None, "user for SASL")
    password: str | None = key(Maybe(TEXT), None, "password for SASL; better from passwordFile", secret=True)
    password_file: str | None = key(Maybe(FILE), None, "file with the password for SASL")
    ca_file: str | None = key(
        Maybe(FILE), None, "PEM certificates that the brokers' must descend from; without: those of the system"
    )
    cert_file: str | None = key(Maybe(FILE), None, "PEM client certificate, with its chain")
    key_file: str | None = key(Maybe(FILE), None, "PEM private key of the client certificate")


@attrs.frozen(kw_only=True)
class TopicSettings:
    """One topic that clients may subscribe to."""

    name: str = key(TOPIC_NAME, "", "the Kafka topic")
    audience: Audience = key(
        Choice[Audience](tuple(Audience)),
        Audience.USER,
        "who gets a record: its user, the subscribers of its key, or everyone",
    )
    user_from: tuple[str, ...] = key(
        Many(SOURCE, least=1, most=16),
        ("value.user_id",),
        "with audience user, where a record's user is: value.<path>, key, header.<name>; of a list the first there is",
    )
    max_frame_bytes: int = key(
        Size(KiB, 64 * MiB), 960 * KiB, "a record whose frame is larger is left out, and told as a gap"
    )
    max_lag: float = key(
        LAG, 60.0, "as slowClient.maxLag, for this topic alone", path="slowClient.maxLag", like="slowClient.maxLag"
    )
    window_max_bytes: int = key(
        WINDOW_BYTES,
        32 * MiB,
        "as window.maxBytes, for this topic alone",
        path="window.maxBytes",
        like="window.maxBytes",
    )
    window_max_age: float = key(
        WINDOW_AGE, 300.0, "as window.maxAge, for this topic alone", path="window.maxAge", like="window.maxAge"
    )
    partitions: int = key(Whole(1, 1000), 1, "partitions in the embedded log; Kafka knows its own")
    retention: float = key(
        Duration(0.1, 7 * DAY),
        HOUR,
        "how long the embedded log keeps a record (and no more than window.maxBytes a topic)",
    )


@attrs.frozen(kw_only=True)
class Kafka:
    """Where the records come from."""

    bootstrap_servers: tuple[str, ...] = key(
        Many(BROKER, least=1), (), "brokers to ask first; without: the embedded log, in the memory of this process"
    )
    group_id: str = key(
        TEXT, "ws-gateway", "named in the client's id; every process reads all partitions, without a group"
    )
    client_id: str = key(TEXT, "ws-gateway", "how the gateway calls itself in the brokers' logs and quotas")
    topics: tuple[TopicSettings, ...] = key(
        Items(TopicSettings, "a list of topics, each a name or an object"),
        (),
        "the topics that clients may subscribe to, as names or as objects",
    )
    warm_up: float = key(Duration(0, DAY), 60.0, "how far back a start reads, so that clients can resume")
    warm_up_records: int = key(
        Whole(0, 10_000_000), 10_000, "how many records a topic a start reads back; the further of the two counts"
    )
    max_pause: float = key(
        Duration(0.001, 1, "none"), 0.003, "the reader's polls begin so far apart, and it pauses no longer between them"
    )
    isolation: Isolation = key(
        Choice[Isolation](("read_committed", "read_uncommitted")), "read_committed", "as Kafka's isolation.level"
    )
    security: Security = section(Security)
