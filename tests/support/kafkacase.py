"""What system tests on Kafka share: a gateway on a broker, clients that keep a cursor, a producer that never gives up.

A client keeps its cursor as rule 5 of ``docs/protocol.md`` says. ``quiet`` proves that nothing more is under way by a
PING, and ``Cluster.write`` of one more record by that record: neither waits for a time to pass.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from confluent_kafka import Producer
from kafka import KafkaConsumer, TopicPartition
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.support.daemon import Config, Daemon, merged, until
from tests.support.harness import CursorKeeper
from tests.support.kafka import PASSWORD, Broker, Cluster, free_port
from tests.support.proxy import Proxy

AWAITED = 30.0  # s: the longest that anything here may take on a busy machine, an outage's end included

Message = dict[str, Any]
Place = tuple[int, int]  # partition, offset
Records = Callable[[int], Iterable[tuple[str, bytes | None, bytes]]]


def gateway(
    folder: Path,
    bootstrap: str,
    *topics: str | Mapping[str, Any],
    environ: Mapping[str, str] | None = None,
    **sections: Config,
) -> Daemon:
    """A daemon (not started) that reads these topics; one given by its name alone is for everyone."""
    folder.mkdir(exist_ok=True)
    named = [{"name": topic, "audience": "everyone"} if isinstance(topic, str) else dict(topic) for topic in topics]
    base = {"kafka": {"bootstrapServers": bootstrap, "topics": named}, "logger": {"level": "info"}}
    return Daemon(merged(base, sections), folder, environ=environ)


def secured(broker: Broker) -> Config:
    """The section ``kafka.security`` for a broker that demands SCRAM-SHA-512 over TLS with a client certificate."""
    files = broker.certificates
    assert files is not None
    return {
        "protocol": "SASL_SSL",
        "saslMechanism": "SCRAM-SHA-512",
        "username": "gateway",
        "password": PASSWORD,
        "caFile": str(files.ca),
        "certFile": str(files.client_cert),
        "keyFile": str(files.client_key),
    }


class TwoWays(Broker):
    """A broker with a second listener, whose clients are led through ``proxy``: for two gateways on one Kafka of which
    one is slow. Runs within ``with``."""

    def __init__(self) -> None:
        self._behind = free_port()
        self.proxy = Proxy(self._behind)
        super().__init__()

    @property
    def slow(self) -> str:
        """The bootstrap address that leads through the proxy."""
        return self.proxy.address

    def __enter__(self) -> Self:
        self.proxy.__enter__()
        self.start()
        return self

    def __exit__(self, *of: object) -> None:
        self.close()
        self.proxy.__exit__(*of)

    def _configure(self) -> None:
        super()._configure()
        main, controller = f"PLAINTEXT://127.0.0.1:{self.port}", f"CONTROLLER://127.0.0.1:{self._controller}"
        with self._config.open("a") as config:  # of two lines with one name the last counts
            config.write(
                f"listeners={main},SLOW://127.0.0.1:{self._behind},{controller}\n"
                f"advertised.listeners=PLAINTEXT://127.0.0.1:{self.advertised},SLOW://{self.slow}\n"
                "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SLOW:PLAINTEXT,CONTROLLER:PLAINTEXT\n"
            )


class Client:
    """A WebSocket client of another library. Its CONNECTED is taken when it is made."""

    def __init__(
        self, daemon: Daemon, *names: str, user: str = "reader", keeper: CursorKeeper | None = None, **query: str
    ) -> None:
        token = daemon.token(user, topics=["*", "*/*"])
        url = daemon.url(token=token, topics=",".join(names), **query)
        self.keeper = keeper or CursorKeeper()
        with ExitStack() as stack:
            self._socket = stack.enter_context(connect(url, max_size=8 << 20, open_timeout=AWAITED, close_timeout=1))
            self.hello = self.frame("CONNECTED")
            self._stack = stack.pop_all()

    def frame(self, *types: str, seconds: float = AWAITED) -> Message:
        """The next frame, which has to be of one of ``types`` where some are given."""
        text = self._socket.recv(seconds)
        assert isinstance(text, str), text
        frame: Message = json.loads(text)
        assert not types or frame["type"] in types, f"{frame} where {types} was to come"
        self.keeper.saw(frame)
        return frame

    def messages(self, count: int, seconds: float = AWAITED) -> list[Message]:
        """So many records; nothing else may come in between."""
        return [self.frame("MESSAGE", seconds=seconds) for _ in range(count)]

    def data(self, count: int, seconds: float = AWAITED) -> list[Any]:
        """What these hold."""
        return [message["data"] for message in self.messages(count, seconds)]

    def places(self, count: int) -> list[Place]:
        """Where these stand."""
        return [(message["partition"], message["offset"]) for message in self.messages(count)]

    def read_to(self, type: str, seconds: float = AWAITED) -> tuple[list[Message], Message]:
        """Records up to the first frame of another type, which has to be of this one."""
        found = []
        while (frame := self.frame("MESSAGE", type, seconds=seconds))["type"] != type:
            found.append(frame)
        return found, frame

    def send(self, type: str, **fields: Any) -> None:
        """One command."""
        self._socket.send(json.dumps({"type": type, **fields}))

    def quiet(self) -> None:
        """Nothing stands before the answer to a PING."""
        self.send("PING", id="quiet?")
        assert self.frame("PONG")["id"] == "quiet?"

    def silent(self, seconds: float) -> None:
        """Nothing comes for so long."""
        with suppress(TimeoutError):
            raise AssertionError(f"{self._socket.recv(seconds)!r} came")

    def since(self, *names: str) -> str:
        """The cursor for a new connection."""
        cursor = self.keeper.since(names)
        assert cursor is not None
        return cursor

    def close(self) -> None:
        """In good order."""
        self._stack.close()

    def cut(self) -> None:
        """Without a word, as a lost network does; what was sent and not looked at is lost."""
        self._socket.close_socket()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def position(told: Message) -> dict[int, int]:
    """``position`` of a frame, or of the one topic of a CONNECTED."""
    (at,) = [sub["position"] for sub in told["subscriptions"]] if told["type"] == "CONNECTED" else [told["position"]]
    return {int(partition): offset for partition, offset in at.items()}


def epoch(told: Message) -> str:
    """``epoch`` of a frame, or of the one topic of a CONNECTED."""
    (found,) = [sub["epoch"] for sub in told["subscriptions"]] if told["type"] == "CONNECTED" else [told["epoch"]]
    assert isinstance(found, str)
    return found


def gaps(told: Message) -> list[tuple[int, int, int, str]]:
    """``gaps`` of a frame: partition, from, to, reason."""
    return [(gap["partition"], gap["from"], gap["to"], gap["reason"]) for gap in told["gaps"]]


def refused(daemon: Daemon, **query: str) -> tuple[int, str, int | None]:
    """How a client is refused at the door: status, code, Retry-After."""
    try:
        with connect(daemon.url(user="reader", **query)):
            pass
    except InvalidStatus as refusal:
        response = refusal.response
        after = response.headers.get("Retry-After")
        return response.status_code, json.loads(response.body or b"{}")["code"], int(after) if after else None
    raise AssertionError("let in")


def ready(daemon: Daemon) -> tuple[int, dict[str, str]]:
    """Status of /readyz, and how each check is."""
    status, body = daemon.http("GET", "/readyz")
    checks = json.loads(body)["checks"]
    return status, {name: check if isinstance(check, str) else check["status"] for name, check in checks.items()}


def topic_info(daemon: Daemon, topic: str) -> Message:
    """What /api/topics says of it."""
    status, answer = daemon.api("GET", "/topics")
    assert status == 200
    (found,) = [info for info in answer["topics"] if info["name"] == topic]
    assert isinstance(found, dict)
    return found


def read_whole(cluster: Cluster, daemon: Daemon, topic: str) -> dict[int, int]:
    """Wait until the gateway has read the topic to its ends, and return these."""
    ends = cluster.ends(topic)

    def read() -> bool:
        partitions = topic_info(daemon, topic)["partitions"]
        return {int(number): at["next"] for number, at in partitions.items()} == ends

    until(read, f"{topic} is read up to {ends}", AWAITED)
    return ends


def cpu(daemon: Daemon) -> float:
    """Seconds of CPU that it has taken so far."""
    return daemon.metrics()["process_cpu_seconds_total"]


def in_kafka(cluster: Cluster, topic: str) -> dict[int, list[tuple[int, Any]]]:
    """The truth: by partition the offset and the value of each committed record, as a plain consumer reads them."""
    found: dict[int, list[tuple[int, Any]]] = {}
    options = {"isolation_level": "read_committed", "auto_offset_reset": "earliest", "group_id": None}
    with closing(KafkaConsumer(bootstrap_servers=cluster.trusted, **options)) as consumer:
        partitions = [TopicPartition(topic, number) for number in sorted(cluster.ends(topic))]
        consumer.assign(partitions)
        ends = consumer.end_offsets(partitions)

        def whole() -> bool:
            for tp, records in consumer.poll(200).items():
                found.setdefault(tp.partition, []).extend((r.offset, json.loads(r.value)) for r in records)
            return all(consumer.position(tp) >= ends[tp] for tp in partitions)

        until(whole, f"{topic} can be read")
    return found


def shown(messages: Iterable[Message]) -> dict[int, list[tuple[int, Any]]]:
    """The same of what a client was shown, in the order in which it came."""
    found: dict[int, list[tuple[int, Any]]] = {}
    for message in messages:
        found.setdefault(message["partition"], []).append((message["offset"], message["data"]))
    return found


class Steady:
    """Writes to a topic 0, 1, 2 and so on, or what ``records`` gives for these (topic, key and value of each), about
    ``rate`` a second, whatever befalls the broker, until ``stop``. By librdkafka: kafka-python's producer leaves
    sockets behind in an outage."""

    def __init__(self, cluster: Cluster, topic: str = "", rate: float = 100.0, records: Records | None = None) -> None:
        self.count = 0
        self._records = records or (lambda number: [(topic, None, b"%d" % number)])
        self._pause = 1 / rate
        self._producer = Producer(
            {
                "bootstrap.servers": cluster.trusted,
                "enable.idempotence": True,
                "socket.timeout.ms": 5_000,
                "reconnect.backoff.max.ms": 500,
                "log_level": 0,
            }
        )
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def goes_on(self, count: int) -> None:
        """Wait until so many more were handed to the producer."""
        goal = self.count + count
        until(lambda: self.count >= goal, f"{count} more values", AWAITED)

    def stop(self) -> None:
        """Write no more; everything that was written is in Kafka."""
        self._stopping.set()
        self._thread.join(AWAITED)
        assert self._producer.flush(AWAITED) == 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join(AWAITED)

    def _run(self) -> None:
        while not self._stopping.wait(self._pause):
            for topic, key, value in self._records(self.count):
                self._producer.produce(topic, value, key)
            self._producer.poll(0)
            self.count += 1


@contextmanager
def down(broker: Broker) -> Iterator[None]:
    """The broker is killed, and back afterwards."""
    broker.kill()
    try:
        yield
    finally:
        broker.start()


@contextmanager
def still(broker: Broker) -> Iterator[None]:
    """The broker stands still, and goes on afterwards."""
    broker.pause()
    try:
        yield
    finally:
        broker.resume()


def published(daemon: Daemon, topic: str, data: Any) -> tuple[int, str | None, float]:
    """POST /api/publish: status, the error's code, and the seconds that it took."""
    began = time.monotonic()
    status, answer = daemon.api("POST", "/publish", {"topic": topic, "data": data})
    return status, answer.get("code"), time.monotonic() - began


def at_once(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """The results of these, each called in a thread of its own."""
    results: list[Any] = [None] * len(calls)

    def call(number: int) -> None:
        with suppress(OSError):
            results[number] = calls[number]()

    threads = [threading.Thread(target=call, args=(number,)) for number in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(AWAITED)
    return results
