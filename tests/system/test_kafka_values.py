"""Whatever stands in Kafka reaches clients as ``docs/protocol.md`` (MESSAGE) says, or is told as a gap: never less."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from confluent_kafka import Producer
from websockets.sync.client import connect

from tests.support.daemon import Daemon
from tests.support.kafka import Cluster
from tests.support.kafkacase import AWAITED, Client, gaps, gateway, position, read_whole

MiB = 1024 * 1024
PLAIN, LARGE, OWN, ROOMS = (f"{kind}-{uuid.uuid4().hex[:12]}" for kind in ("plain", "large", "own", "rooms"))
DEEP = b"[" * 50_000 + b"]" * 50_000

Write = Callable[..., int]


@pytest.fixture(scope="module")
def daemon(kafka: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One gateway for all values."""
    for topic in (PLAIN, LARGE, OWN, ROOMS):
        kafka.create(topic, max_message_bytes=4 * MiB)
    topics: list[Any] = [
        PLAIN,
        {"name": LARGE, "audience": "everyone", "maxFrameBytes": "3MiB"},
        {"name": OWN, "userFrom": ["header.user", "value.user_id"]},
        {"name": ROOMS, "audience": "key"},
    ]
    with gateway(tmp_path_factory.mktemp("values"), kafka.bootstrap, *topics) as started:
        yield started


@pytest.fixture(scope="module")
def write(kafka: Cluster) -> Write:
    """Writes one record, and tells its offset. By librdkafka, which lets a record have neither key nor value."""
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "message.max.bytes": 4 * MiB, "linger.ms": 0})

    def write(topic: str, value: bytes | None, key: bytes | None = None, headers: Any = ()) -> int:
        written: list[int] = []

        def told(error: object, message: Any) -> None:
            assert error is None, error
            written.append(message.offset())

        producer.produce(topic, value, key, headers=list(headers), on_delivery=told)
        producer.flush(AWAITED)
        (offset,) = written
        return offset

    return write


def text(value: bytes) -> dict[str, str]:
    return {"data": value.decode(), "encoding": "text"}


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        pytest.param(None, {"data": None, "tombstone": True}, id="null"),
        pytest.param(b"", text(b""), id="empty"),
        pytest.param(b"null", {"data": None}, id="json-null"),
        pytest.param(b"\xff\x00\x80", {"data": "/wCA", "encoding": "base64"}, id="not-utf-8"),
        pytest.param(b"hi, all", text(b"hi, all"), id="not-json"),
        pytest.param(b"{'a':1}", text(b"{'a':1}"), id="almost-json"),
        pytest.param(b"NaN", text(b"NaN"), id="nan"),
        pytest.param(b'{"a":[-Infinity]}', text(b'{"a":[-Infinity]}'), id="infinity-inside"),
        pytest.param(b"\xef\xbb\xbf{}", text(b"\xef\xbb\xbf{}"), id="byte-order-mark"),
        pytest.param("{}".encode("utf-16"), {"data": "//57AH0A", "encoding": "base64"}, id="utf-16"),
        pytest.param("{}".encode("utf-16-le"), text(b"{\0}\0"), id="utf-16-without-mark"),
        pytest.param(b'"\xed\xa0\x80"', {"data": "Iu2ggCI=", "encoding": "base64"}, id="raw-surrogate"),
        pytest.param(b'"\\ud800"', {"data": "\ud800"}, id="escaped-surrogate"),
        pytest.param(b'{"a":1,"a":2}', {"data": {"a": 2}}, id="field-twice"),
        pytest.param(b"[" * 64 + b"]" * 64, {"data": json.loads("[" * 64 + "]" * 64)}, id="64-deep"),
        pytest.param(b"[" * 65 + b"]" * 65, text(b"[" * 65 + b"]" * 65), id="65-deep"),
        pytest.param(DEEP, text(DEEP), id="50000-deep"),
        pytest.param(b'\x00\x1f"\\</script>\xe2\x80\xa8', text(b'\x00\x1f"\\</script>\xe2\x80\xa8'), id="controls"),
    ],
)
def test_values(daemon: Daemon, write: Write, value: bytes | None, shown: dict[str, Any]) -> None:
    """A value that breaks the frame, or the reader, would break every client of the topic."""
    with Client(daemon, PLAIN) as client:
        offset = write(PLAIN, value)
        message = client.frame("MESSAGE")
        assert (message["topic"], message["partition"], message["offset"]) == (PLAIN, 0, offset)
        assert {name: message[name] for name in ("data", "encoding", "tombstone") if name in message} == shown


@pytest.mark.parametrize("value", [b"1e400", b' {"n":\n 9007199254740993, "x":1.50 } ', b'"\\u00e4"'])
def test_json_is_passed_on_byte_for_byte(daemon: Daemon, write: Write, value: bytes) -> None:
    """Numbers that Python's floats do not hold would be changed by any re-encoding."""
    with connect(daemon.url(token=daemon.token("u", topics=["*"]), topics=PLAIN)) as client:
        client.recv(AWAITED)
        write(PLAIN, value)
        frame = client.recv(AWAITED)
        assert isinstance(frame, str)
        assert frame.endswith(f'"data":{value.decode()}}}')


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        pytest.param(None, {"key": None}, id="null"),
        pytest.param(b"", {"key": ""}, id="empty"),
        pytest.param(b"\xff\xfe", {"key": "//4=", "keyEncoding": "base64"}, id="not-utf-8"),
        pytest.param(b'"\n\x00\xf0\x9f\x98\x80', {"key": '"\n\x00\U0001f600'}, id="awkward"),
        pytest.param(b"k" * 70_000, {"key": "k" * 70_000}, id="long"),
    ],
)
def test_keys(daemon: Daemon, write: Write, key: bytes | None, shown: dict[str, Any]) -> None:
    """As with values."""
    with Client(daemon, PLAIN) as client:
        write(PLAIN, b"1", key)
        message = client.frame("MESSAGE")
        assert {name: message[name] for name in ("key", "keyEncoding") if name in message} == shown


def test_raw_is_the_value_alone(daemon: Daemon, write: Write) -> None:
    """Text where it is UTF-8, else binary; tombstones are not sent."""
    with connect(daemon.url(token=daemon.token("u", topics=["*"]), topics=PLAIN, format="raw")) as client:
        for value in (b"NaN", None, b"\xff\x00", b"", b'{"a":1}'):
            write(PLAIN, value)
        assert [client.recv(AWAITED) for _ in range(4)] == ["NaN", b"\xff\x00", "", '{"a":1}']


def test_1_mib(daemon: Daemon, write: Write) -> None:
    """Passed on whole where the topic allows it."""
    with Client(daemon, LARGE) as client:
        for value in (b"x" * MiB, b'"' + b"y" * MiB + b'"'):
            write(LARGE, value)
            assert client.frame("MESSAGE")["data"] == value.decode().strip('"')


@pytest.mark.parametrize("byte", [b"x", b"\x01", b"\xff"])
def test_above_max_frame_bytes(daemon: Daemon, write: Write, byte: bytes) -> None:
    """Clients close for good at a frame that is too large: it is left out and told, also to who comes back."""
    fits, large = byte * (960 * 1024 // 8), byte * (960 * 1024)
    with Client(daemon, PLAIN) as client:
        before = client.since(PLAIN)
        write(PLAIN, fits)
        client.frame("MESSAGE")
        offset = write(PLAIN, large)
        gap = client.frame("GAP")
        assert gaps(gap) == [(0, offset, offset + 1, "too_large")]
        assert position(gap) == {0: offset + 1}
        assert write(PLAIN, b"1") == offset + 1
        assert client.frame("MESSAGE")["offset"] == offset + 1
    with Client(daemon, PLAIN, since=before) as client:
        assert client.places(2) == [(0, offset - 1), (0, offset + 1)]
        recovered = client.frame("RECOVERED")
        assert (recovered["count"], gaps(recovered)) == (2, [(0, offset, offset + 1, "too_large")])


def test_of_a_header_that_stands_twice_the_last_counts(daemon: Daemon, write: Write) -> None:
    """As Kafka's own ``lastHeader``; the first must not get it too."""
    with Client(daemon, OWN, user="alice") as alice, Client(daemon, OWN, user="bob") as bob:
        write(OWN, b"1", headers=[("user", b"alice"), ("other", b"x"), ("user", b"bob")])
        write(OWN, b"2", headers=[("user", b"alice")])
        assert bob.frame("MESSAGE")["data"] == 1
        assert alice.frame("MESSAGE")["data"] == 2
        bob.quiet()


@pytest.mark.parametrize(
    ("value", "headers"),
    [
        (None, []),
        (b"", []),
        (b"[" * 50_000, []),
        (b'{"user_id":null}', []),
        (b'{"user_id":""}', []),
        (b'{"user_id":true}', []),
        (b'{"user_id":"alice"', []),
        (b'{"user_id":"alice"}', [("user", b"\xff")]),
        ('{"user_id":"alice"}'.encode("utf-16"), []),
    ],
)
def test_without_a_user_it_is_nobodys(daemon: Daemon, write: Write, value: bytes | None, headers: Any) -> None:
    """A record whose user cannot be read is counted, and never anybody's."""
    name = f'ws_gateway_kafka_records_without_user_total{{topic="{OWN}"}}'
    with Client(daemon, OWN, user="alice") as alice:
        before = daemon.metrics()[name]
        write(OWN, value, headers=headers)
        write(OWN, b'{"user_id":["bob",7,"alice","alice"]}')
        assert alice.frame("MESSAGE")["data"]["user_id"] == ["bob", 7, "alice", "alice"]
        alice.quiet()
        assert daemon.metrics()[name] == before + 1


@pytest.mark.parametrize("key", [None, b"\xff", b"k" * 256])
def test_a_key_that_has_no_name_is_for_the_whole_topic(daemon: Daemon, write: Write, key: bytes | None) -> None:
    """Who asked for single keys gets these alone."""
    with Client(daemon, ROOMS) as whole, Client(daemon, f"{ROOMS}/a%20b") as one:
        write(ROOMS, b"1", key)
        write(ROOMS, b"2", b"a b")
        assert whole.data(2) == [1, 2]
        assert one.data(1) == [2]
        one.quiet()


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_compressed_batches(kafka: Cluster, daemon: Daemon, codec: str) -> None:
    """Each codec that producers use has to be installed with the gateway."""
    with Client(daemon, PLAIN) as client:
        values = [b'{"n":%d,"pad":"%s"}' % (n, b"p" * 100) for n in range(200)]
        written = kafka.write(PLAIN, values, compression_type=codec)
        messages = client.messages(200)
        assert [message["data"]["n"] for message in messages] == list(range(200))
        assert [(message["partition"], message["offset"]) for message in messages] == written


def test_transactions(kafka: Cluster, daemon: Daemon) -> None:
    """What was aborted is not shown; its offsets and the markers are no gap, also for who comes back."""
    with Client(daemon, PLAIN) as client:
        (first,) = position(client.hello).values()
        before = client.since(PLAIN)
        kafka.transact(PLAIN, [b"1", b"2"], commit=True)
        kafka.transact(PLAIN, [b"9", b"9"], commit=False)
        kafka.transact(PLAIN, [b"3"], commit=True)
        kafka.transact(PLAIN, [b"9"], commit=False)
        messages = client.messages(3)
        assert [message["data"] for message in messages] == [1, 2, 3]
        assert [message["offset"] for message in messages] == [first, first + 1, first + 6]
        client.quiet()
        across = client.since(PLAIN)  # at the marker behind the 3
    ends = read_whole(kafka, daemon, PLAIN)
    with Client(daemon, PLAIN) as latest:
        assert position(latest.hello) == ends == {0: first + 10}
    with Client(daemon, PLAIN, since=before) as resumed:
        assert resumed.data(3) == [1, 2, 3]
        recovered = resumed.frame("RECOVERED")
        assert (recovered["count"], recovered["gaps"], position(recovered)) == (3, [], ends)
    with Client(daemon, PLAIN, since=across) as resumed:
        recovered = resumed.frame("RECOVERED")
        assert (recovered["count"], recovered["gaps"], position(recovered)) == (0, [], ends)
