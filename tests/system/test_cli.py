"""The commands of the quick start against what they are for: a daemon with the embedded log, and a real Kafka."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from websockets.sync.client import ClientConnection, connect

from tests.support.daemon import DEADLINE, Daemon
from tests.support.kafka import PASSWORD, USERS, Broker, Cluster

COMMAND = Path(sys.executable).parent / "ws-gateway"


def ws_gateway(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([COMMAND, *arguments], input=stdin, capture_output=True, timeout=60)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    with Daemon({}, tmp_path) as started:
        yield started


def receive(client: ClientConnection) -> dict[str, Any]:
    frame: dict[str, Any] = json.loads(client.recv(DEADLINE))
    return frame


def written(done: subprocess.CompletedProcess[bytes], topic: str) -> tuple[int, int]:
    assert (done.returncode, done.stderr) == (0, b""), done
    words = done.stdout.decode().split()
    assert [words[0], words[1], words[3]] == [f"{topic}:", "partition", "offset"]
    return int(words[2].rstrip(",")), int(words[4])


def test_token_and_publish_reach_a_client(daemon: Daemon) -> None:
    """The three lines of the README's quick start, with a client of the tests."""
    file = str(daemon.config_file)
    token = ws_gateway("token", "--sub", "alice", "--topics", "notifications", "-c", file).stdout.decode().strip()
    with connect(daemon.url(token=token)) as alice:
        assert receive(alice)["userId"] == "alice"
        done = ws_gateway("publish", "notifications", '{"user_id":"alice","text":"hi"}', "-c", file)
        message = receive(alice)
        assert message["data"] == {"user_id": "alice", "text": "hi"}
        assert (message["partition"], message["offset"]) == written(done, "notifications")


def test_publish_for_a_user_with_a_key_from_standard_input(daemon: Daemon) -> None:
    with connect(daemon.url(user="alice", topics="notifications")) as alice:
        receive(alice)
        file = str(daemon.config_file)
        done = ws_gateway(
            "publish",
            "notifications",
            "-",
            "--user",
            "alice",
            "--key",
            "k",
            "-c",
            file,
            stdin='{"text":"grüß"}'.encode(),
        )
        written(done, "notifications")
        message = receive(alice)
        assert (message["key"], message["data"]) == ("k", {"text": "grüß", "user_id": "alice"})


def test_a_refusal_of_the_api_is_told(daemon: Daemon) -> None:
    done = ws_gateway("publish", "news", "{}", "--user", "alice", "-c", str(daemon.config_file))
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.startswith(b"ws-gateway publish: http://127.0.0.1:")
    assert b"refuses: 400 " in done.stderr


def configuration(folder: Path, kafka: dict[str, Any]) -> str:
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump({"kafka": kafka, "auth": {"secret": "0" * 64}}))
    return str(file)


def records(cluster: Cluster, topic: str) -> list[Any]:
    """Everything in a topic of one partition."""
    from kafka import KafkaConsumer, TopicPartition

    consumer = KafkaConsumer(
        bootstrap_servers=cluster.trusted, auto_offset_reset="earliest", consumer_timeout_ms=20_000
    )
    try:
        consumer.assign([TopicPartition(topic, 0)])
        wanted = cluster.ends(topic)[0]
        return [next(consumer) for _ in range(wanted)]
    finally:
        consumer.close()


def test_straight_to_kafka(kafka: Cluster, tmp_path: Path) -> None:
    """No daemon runs: where the configuration names a Kafka, none is needed."""
    topic = kafka.fresh()
    file = configuration(
        tmp_path, {"bootstrapServers": kafka.bootstrap, "topics": [{"name": topic, "userFrom": "header.user"}]}
    )
    first = ws_gateway("publish", topic, '{"n": 1.0}', "--key", "k", "--header", "h=1", "-c", file)
    assert written(first, topic) == (0, 0)
    assert written(ws_gateway("publish", topic, '{"n":2}', "--user", "bob", "-c", file), topic) == (0, 1)
    assert written(ws_gateway("publish", topic, "-", "--raw", "-c", file, stdin=b"\xff\x00"), topic) == (0, 2)
    one, two, three = records(kafka, topic)
    assert (one.key, one.value, list(one.headers)) == (b"k", b'{"n": 1.0}', [("h", b"1")])
    assert (two.key, list(two.headers)) == (None, [("user", b"bob")])
    assert three.value == b"\xff\x00"


def test_to_a_kafka_that_demands_tls_and_scram(secure_broker: Broker, tmp_path: Path) -> None:
    topic = secure_broker.fresh()
    secure_broker.allow(USERS[0], [topic], ("WRITE", "DESCRIBE"))
    password = tmp_path / "password"
    password.write_text(PASSWORD + "\n")
    files = secure_broker.certificates
    assert files is not None
    file = configuration(
        tmp_path,
        {
            "bootstrapServers": secure_broker.bootstrap,
            "topics": [topic],
            "security": {
                "protocol": "SASL_SSL",
                "saslMechanism": "SCRAM-SHA-512",
                "username": USERS[0],
                "passwordFile": str(password),
                "caFile": str(files.ca),
                "certFile": str(files.client_cert),
                "keyFile": str(files.client_key),
            },
        },
    )
    assert written(ws_gateway("publish", topic, "{}", "-c", file), topic) == (0, 0)
