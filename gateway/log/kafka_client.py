"""What the reader and the writer have in common: how to reach Kafka, and clients that leave nothing behind."""

from __future__ import annotations

import logging
import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from typing import Any

from kafka.errors import KafkaError, KafkaTimeoutError, SaslAuthenticationFailedError
from kafka.net.compat import KafkaNetClient
from kafka.net.inet import KafkaNetSocket
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector

from gateway.config_kafka import Kafka

METADATA_AGE = 10.0  # s between two looks at topics, partitions and leaders
REQUEST_TIMEOUT = 10.0  # s until a request that is not answered ends its connection
RETRY = 500  # ms between questions for metadata while a topic is missing or a broker is away
BOOTSTRAP = 5.0  # s for a first connection, with TLS and SASL

log = logging.getLogger("gateway.log.kafka")


def options(kafka: Kafka) -> dict[str, Any]:
    """Settings of every client of this configuration. Reads certificates; raises OSError where one cannot be read."""
    name = kafka.client_id if kafka.group_id == kafka.client_id else f"{kafka.client_id}.{kafka.group_id}"
    security = kafka.security
    found: dict[str, Any] = {
        "bootstrap_servers": list(kafka.bootstrap_servers),
        "client_id": name,
        "security_protocol": security.protocol,
        "request_timeout_ms": int(REQUEST_TIMEOUT * 1000),
        "metadata_max_age_ms": int(METADATA_AGE * 1000),
        "proxy_url": "closing://",
        "reconnect_backoff_ms": 50,
        "reconnect_backoff_max_ms": 1000,  # the default of 30 s would be felt after every outage
    }
    if security.protocol.endswith("SSL"):
        context = ssl.create_default_context(cafile=security.ca_file)
        if security.cert_file is not None:
            context.load_cert_chain(security.cert_file, security.key_file)
        found["ssl_context"] = context
    if security.protocol.startswith("SASL"):
        found["sasl_mechanism"] = security.sasl_mechanism
        found["sasl_plain_username"] = security.username
        found["sasl_plain_password"] = security.password
    return found


class ClosingSocket(KafkaNetSocket):
    """kafka-python leaves a socket that cannot be connected to the garbage collector, which may not come for long in a
    process that only waits for the end of an outage. Its way to plug in other sockets is the scheme of a proxy."""

    SCHEMES = ("closing",)

    async def sock_connect(self, net: Any, sock: socket.socket, sockaddr: Any, timeout_at: float | None = None) -> Any:
        """As the base class; a failure closes the socket."""
        try:
            return await super().sock_connect(net, sock, sockaddr, timeout_at=timeout_at)
        except BaseException:
            sock.close()
            raise


class Loop(NetworkSelector):
    """kafka-python's event loop, run by whoever waits for something, and not by a thread of its own."""

    def start(self) -> None:
        """Where the base class starts that thread."""


class Connections(KafkaConnectionManager):
    """kafka-python only logs why it did not get through; this one remembers. A bootstrap that is not let in is over."""

    last_error: Exception | None = None

    def get_connection(self, node_id: Any, **options: Any) -> Any:
        """As the base class."""
        if isinstance(self.last_error, SaslAuthenticationFailedError) and self.cluster.is_bootstrap(node_id):
            raise self.last_error
        connection = super().get_connection(node_id, **options)
        connection.init_future.add_errback(self._failed)
        return connection

    def _failed(self, error: Exception) -> None:
        self.last_error = error


class Connecting:
    """One attempt to make a client. kafka-python's constructors block until they have reached a broker, and leave a
    thread and sockets behind where they fail; this one cleans up, and can be told from another thread to give up."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._given_up = False
        self._client: KafkaNetClient | None = None  # while it looks for a broker

    def make(self, kind: Callable[..., Any], prepare: Callable[[Any], None], **settings: Any) -> Any:
        """``kind(**settings)``; raises what that raises. ``prepare`` gets its ClusterMetadata before any request."""
        return kind(kafka_client=lambda **all_settings: self._connect(prepare, all_settings), **settings)

    def give_up(self) -> None:
        """Let an attempt that is going on fail soon. Thread-safe."""
        with self._lock:
            self._given_up = True
            if self._client is not None:
                self._client._manager.call_soon(self._client._manager.close)

    def _connect(self, prepare: Callable[[Any], None], settings: Mapping[str, Any]) -> KafkaNetClient:
        net = Loop(**settings)
        manager = Connections(net, **settings)
        client = KafkaNetClient(net=net, manager=manager)
        # The manager passes neither on. Without the first, asking for a topic may make it.
        client.cluster.config.update(allow_auto_create_topics=False, retry_backoff_ms=RETRY)
        prepare(client.cluster)
        try:
            with self._lock:
                self._client = client
            try:
                manager.bootstrap(BOOTSTRAP * 1000)
            except KafkaTimeoutError as error:
                raise manager.last_error or error from error
            with self._lock:
                self._client = None
                if self._given_up:
                    raise KafkaError("given up")
        except BaseException:
            with self._lock:
                self._client = None
            client.close()
            raise
        return client


def name_of(error: BaseException) -> str:
    """Kafka's name of an error, for logs and the metric ``kafka_errors_total``."""
    return type(error).__name__.removesuffix("Error") or "Error"
