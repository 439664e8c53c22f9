"""A real Apache Kafka for the tests, the bench and scripts: installed from Maven Central, one KRaft node, free ports.

As a program (``python -m tests.support.kafka``) it starts a broker, prints its bootstrap address, and runs until its
standard input is closed or it is told to end. ``WS_GATEWAY_TEST_KAFKA`` names a cluster that runs already.
"""

from __future__ import annotations

import atexit
import base64
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient

from tests.support import certificates
from tests.support.kafka_install import install

EXTERNAL = "WS_GATEWAY_TEST_KAFKA"
PASSWORD = "a password of the tests"
USERS = ("gateway", "other")
START_UP = 60.0  # seconds


class Cluster:
    """What tests do to topics of a cluster that runs."""

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap

    @property
    def trusted(self) -> str:
        """The address where everything may be done without a password."""
        return self.bootstrap

    @contextmanager
    def admin(self) -> Iterator[Any]:
        """An admin client for a few calls."""
        with closing(KafkaAdminClient(bootstrap_servers=self.trusted, bootstrap_timeout_ms=20_000)) as admin:
            yield admin

    def create(self, topic: str, partitions: int = 1, **configs: str | int) -> str:
        """Make a topic and wait for its leaders. ``configs``: Kafka's own names, ``_`` for the dots."""
        settings = {name.replace("_", "."): str(value) for name, value in configs.items()}
        with self.admin() as admin:
            admin.create_topics(
                {topic: {"num_partitions": partitions, "replication_factor": 1, "configs": settings}},
                wait_for_metadata=True,
            )
        return topic

    def fresh(self, partitions: int = 1, **configs: str | int) -> str:
        """A topic that no other test has."""
        return self.create(f"t-{uuid.uuid4().hex[:12]}", partitions, **configs)

    def delete(self, topic: str) -> None:
        """Delete a topic and wait until the cluster no longer names it."""
        with self.admin() as admin:
            admin.delete_topics([topic])
            until(lambda: topic not in admin.list_topics(), f"{topic} is still there")

    def add_partitions(self, topic: str, total: int) -> None:
        """Let the topic have ``total`` partitions."""
        with self.admin() as admin:
            admin.create_partitions({topic: total})
            admin.wait_for_topics([topic])

    def delete_records(self, topic: str, before: Mapping[int, int]) -> None:
        """Make each partition begin at the given offset, as retention does."""
        with self.admin() as admin:
            admin.delete_records({TopicPartition(topic, partition): first for partition, first in before.items()})

    @contextmanager
    def producer(self, **configs: Any) -> Iterator[Any]:
        """A producer for a few records."""
        with closing(KafkaProducer(bootstrap_servers=self.trusted, linger_ms=5, **configs)) as producer:
            yield producer

    def write(
        self,
        topic: str,
        values: Iterable[bytes | None],
        *,
        key: bytes | None = None,
        partition: int | None = None,
        headers: Sequence[tuple[str, bytes | None]] = (),
        timestamp: int | None = None,
        **configs: Any,
    ) -> list[tuple[int, int]]:
        """Write values and wait; returns (partition, offset) of each. ``configs``: of KafkaProducer."""
        with self.producer(**configs) as producer:
            futures = [
                producer.send(topic, value, key, headers=list(headers), partition=partition, timestamp_ms=timestamp)
                for value in values
            ]
            producer.flush(30)
            answers = [future.get(30) for future in futures]
            return [(answer.partition, answer.offset) for answer in answers]

    def transact(self, topic: str, values: Iterable[bytes], *, commit: bool, partition: int = 0) -> None:
        """Write values in one transaction, which is committed or aborted."""
        with self.producer(transactional_id=uuid.uuid4().hex) as producer:
            producer.init_transactions()
            producer.begin_transaction()
            for value in values:
                producer.send(topic, value, partition=partition)
            producer.flush(30)
            (producer.commit_transaction if commit else producer.abort_transaction)()

    def ends(self, topic: str) -> dict[int, int]:
        """The offset behind the last record of each partition."""
        with closing(KafkaConsumer(bootstrap_servers=self.trusted)) as consumer:
            partitions = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()]
            return {tp.partition: offset for tp, offset in consumer.end_offsets(partitions).items()}


class Broker(Cluster):
    """A broker in a process of its own, whose data stays while this object lives.

    ``secure``: clients need TLS with a certificate, SCRAM-SHA-512, and rights (StandardAuthorizer); sessions last 15 s.
    """

    def __init__(self, *, secure: bool = False, properties: Mapping[str, str] | None = None) -> None:
        self._jars = install()
        self.folder = Path(tempfile.mkdtemp(prefix="ws-gateway-kafka-"))
        self.secure = secure
        self.port = self.advertised = free_port()
        self._controller, self._trusted = free_port(), free_port()
        self._properties = dict(properties or {})
        self.certificates = certificates.make(self.folder) if secure else None
        self._process: subprocess.Popen[bytes] | None = None
        super().__init__(f"127.0.0.1:{self.port}")
        atexit.register(self.close)
        self._configure()
        cluster = base64.urlsafe_b64encode(b"ws" + uuid.uuid4().bytes[2:]).decode().rstrip("=")  # never begins with "-"
        users = [f"SCRAM-SHA-512=[name={user},password={PASSWORD}]" for user in USERS] if secure else []
        options = [word for user in users for word in ("--add-scram", user)]
        format_ = self._java("kafka.tools.StorageTool", "format", "-t", cluster, *options, "-c", str(self._config))
        done = subprocess.run(format_, capture_output=True, text=True, timeout=START_UP)
        if done.returncode:
            raise RuntimeError(f"kafka: the data folder cannot be formatted: {done.stdout}{done.stderr}")

    @property
    def trusted(self) -> str:
        """See Cluster: of a secure broker a listener of its own."""
        return f"127.0.0.1:{self._trusted}" if self.secure else self.bootstrap

    @property
    def pid(self) -> int:
        """Process id of the broker that runs."""
        assert self._process is not None
        return self._process.pid

    def start(self, port: int | None = None, advertised: int | None = None) -> Broker:
        """Start on the data there is, and wait until it serves. ``advertised`` is the port that clients are told (that
        of a proxy, say); without it the broker's own."""
        self.port = port or self.port
        self.advertised = advertised or self.port
        self.bootstrap = f"127.0.0.1:{self.port}"
        self._configure()
        command = self._java("kafka.Kafka", str(self._config))
        # The kernel ends the broker with the tests, however these end (that is: with the thread that starts it).
        if shutil.which("setpriv") and threading.current_thread() is threading.main_thread():
            command = ["setpriv", "--pdeathsig", "KILL", *command]
        with (self.folder / "output").open("ab") as output:
            self._process = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
        until(self._serves, "kafka does not serve", START_UP)
        return self

    def kill(self) -> None:
        """End it by SIGKILL, at once."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it by SIGTERM, in good order."""
        self._end(signal.SIGTERM)

    def pause(self) -> None:
        """Let it stand still (SIGSTOP): connections stay, nothing is answered."""
        os.kill(self.pid, signal.SIGSTOP)
        tasks = Path(f"/proc/{self.pid}/task")
        until(lambda: all(_state(task) == "T" for task in tasks.iterdir()), "it does not stop")

    def resume(self) -> None:
        """Let it go on (SIGCONT)."""
        os.kill(self.pid, signal.SIGCONT)

    def close(self) -> None:
        """End it and drop its data. Twice is once."""
        atexit.unregister(self.close)
        if self._process is not None:
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Broker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def allow(self, user: str, topics: Iterable[str], operations: Iterable[str] = ("READ", "DESCRIBE")) -> None:
        """Give a user rights to topics (of a secure broker)."""
        from kafka.admin import ACL, ACLOperation, ACLPermissionType, ResourcePattern, ResourceType

        with self.admin() as admin:
            admin.create_acls(
                [
                    ACL(
                        f"User:{user}",
                        "*",
                        ACLOperation[operation],
                        ACLPermissionType.ALLOW,
                        ResourcePattern(ResourceType.TOPIC, topic),
                    )
                    for topic in topics
                    for operation in operations
                ]
            )

    @property
    def _config(self) -> Path:
        return self.folder / "server.properties"

    def _configure(self) -> None:
        main = "SASL_SSL" if self.secure else "PLAINTEXT"
        listeners = f"{main}://127.0.0.1:{self.port}"
        advertised = f"{main}://127.0.0.1:{self.advertised}"
        if self.secure:
            listeners += f",TRUSTED://127.0.0.1:{self._trusted}"
            advertised += f",TRUSTED://127.0.0.1:{self._trusted}"
        properties = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@127.0.0.1:{self._controller}",
            "listeners": f"{listeners},CONTROLLER://127.0.0.1:{self._controller}",
            "advertised.listeners": advertised,
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": f"{main}:{main},TRUSTED:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name": "TRUSTED" if self.secure else main,
            "log.dirs": str(self.folder / "data"),
            "auto.create.topics.enable": "false",
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "1",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "transaction.state.log.num.partitions": "1",
            "log.retention.check.interval.ms": "1000",
            "broker.heartbeat.interval.ms": "500",  # after SIGKILL the controller first lets the old session run out
            "broker.session.timeout.ms": "2000",
        }
        if self.secure:
            properties |= self._security()
        properties |= self._properties
        self._config.write_text("".join(f"{name}={value}\n" for name, value in properties.items()))

    def _security(self) -> dict[str, str]:
        assert self.certificates is not None
        return {
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(self.certificates.server_pair),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.certificates.ca),
            "ssl.client.auth": "required",
            "sasl.enabled.mechanisms": "SCRAM-SHA-512",
            "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": (
                "org.apache.kafka.common.security.scram.ScramLoginModule required;"
            ),
            "connections.max.reauth.ms": "15000",
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
        }

    def _java(self, main: str, *arguments: str) -> list[str]:
        return ["java", "-Xmx512m", "-cp", f"{self._jars}/*", main, *arguments]

    def _serves(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError(f"kafka ended at start: {(self.folder / 'output').read_text()}")
        try:  # by librdkafka: kafka-python leaves a thread and sockets behind with each attempt in vain
            return bool(AdminClient({"bootstrap.servers": self.trusted, "log_level": 0}).list_topics(timeout=1).brokers)
        except KafkaException:
            return False

    def _end(self, how: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(how)
        self._process.wait(30)


def _state(task: Path) -> str:
    return (task / "stat").read_text().rpartition(")")[2].split()[0]


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens at."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port: int = server.getsockname()[1]
        return port


def until(true: Any, otherwise: str, seconds: float = 20.0) -> None:
    """Wait for a condition; fails with ``otherwise``."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{otherwise} after {seconds} s")
        time.sleep(0.05)


def main() -> None:
    """Run a broker until standard input is closed, or SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with Broker() as broker:
        broker.start()
        print(broker.bootstrap, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
