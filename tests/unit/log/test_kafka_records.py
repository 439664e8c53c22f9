"""The decoder of fetch answers, on batches made by kafka-python's own builder. Real ones: tests/contract."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.errors import CorruptRecordError
from kafka.protocol.consumer import IsolationLevel
from kafka.record import MemoryRecords
from kafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from kafka.record.legacy_records import LegacyRecordBatchBuilder
from kafka.record.util import calc_crc32c, encode_varint
from kafka.structs import TopicPartition

from gateway.log.kafka_records import Decoder, decode, varint
from gateway.model import Record

TP = TopicPartition("t", 3)
NOW = 1_700_000_000_000
Row = tuple[bytes | None, bytes | None, list[tuple[str, bytes | None]]]


def batch(rows: list[Row], base: int = 0, codec: int = 0, timestamp: int = NOW) -> bytes:
    builder = DefaultRecordBatchBuilder(2, codec, False, -1, -1, -1, 1 << 24)
    for at, (key, value, headers) in enumerate(rows):
        builder.append(at, timestamp + at if timestamp >= 0 else timestamp, key, value, headers)
    data = builder.build()
    data[0:8] = base.to_bytes(8, "big")
    return bytes(data)


def read(data: bytes, first: int = 0, most: int = 10_000) -> tuple[list[Record], Decoder, dict[Any, Any]]:
    unreadable: dict[Any, Any] = {}
    decoder = Decoder(unreadable, first, TP, MemoryRecords(data), isolation_level=IsolationLevel.READ_COMMITTED)
    return decoder.take(most), decoder, unreadable


ROWS: list[Row] = [(b"k", b"v", []), (None, b"", [("h", b"1"), ("h", None)]), (b"", None, []), (None, None, [])]
texts = st.text(max_size=20)
rows = st.tuples(
    st.none() | st.binary(max_size=300),
    st.none() | st.binary(max_size=300),
    st.lists(st.tuples(texts, st.none() | st.binary(max_size=20)), max_size=3),
)


@pytest.mark.parametrize("codec", [0, 1, 2, 3, 4])
def test_what_a_record_holds(codec: int) -> None:
    """None is not empty; a header without a value is an empty one; headers may repeat."""
    found, decoder, unreadable = read(batch(ROWS, base=7, codec=codec))
    assert found == [
        Record("t", 3, 7, NOW, b"k", b"v"),
        Record("t", 3, 8, NOW + 1, None, b"", (("h", b"1"), ("h", b""))),
        Record("t", 3, 9, NOW + 2, b"", None),
        Record("t", 3, 10, NOW + 3, None, None),
    ]
    assert decoder.next_fetch_offset == 11
    assert not unreadable


@given(st.lists(rows, max_size=20))
def test_decodes_as_kafka_python_does(some: list[Row]) -> None:
    """The library's decoder, slower, is the reference."""
    data = batch(some)
    expected = [
        (r.offset, r.timestamp, r.key, r.value, tuple((name, text or b"") for name, text in r.headers))
        for r in DefaultRecordBatch(memoryview(data))
    ]
    found = decode(TP, DefaultRecordBatch(memoryview(data)))
    assert [(r.offset, r.timestamp, r.key, r.value, r.headers) for r in found] == expected


def test_a_record_without_a_timestamp() -> None:
    """Null for clients, and not 1969."""
    (record,), _, _ = read(batch([(None, b"v", [])], timestamp=-1))
    assert record.timestamp is None


def test_starts_in_the_middle_of_a_batch() -> None:
    """Kafka gives whole batches, from before what was asked for."""
    found, _, _ = read(batch(ROWS, base=10), first=12)
    assert [record.offset for record in found] == [12, 13]


def test_takes_as_many_as_are_wanted() -> None:
    """The position is behind what was taken, and no further."""
    taken, decoder, _ = read(batch(ROWS, base=10), most=3)
    assert [record.offset for record in taken] == [10, 11, 12]
    assert decoder.next_fetch_offset == 13
    assert [record.offset for record in decoder.take(10)] == [13]


@pytest.mark.parametrize("at", [61, 70, -1])
def test_a_damaged_batch_is_left_out_whole(at: int) -> None:
    """Its offsets are told, and what stands behind it comes: never an endless retry."""
    damaged = bytearray(batch(ROWS, base=4))
    damaged[at] ^= 0xFF
    found, decoder, unreadable = read(batch(ROWS) + bytes(damaged) + batch(ROWS, base=8))
    assert [record.offset for record in found] == [0, 1, 2, 3, 8, 9, 10, 11]
    assert unreadable == {TP: [(4, 8)]}
    assert decoder.next_fetch_offset == 12


def test_a_codec_that_nobody_knows() -> None:
    """As damaged."""
    data = bytearray(batch(ROWS))
    data[22] |= 0x07  # attributes
    data[17:21] = calc_crc32c(memoryview(data)[21:]).to_bytes(4, "big")
    _, _, unreadable = read(bytes(data) + batch(ROWS, base=4))
    assert unreadable == {TP: [(0, 4)]}


def test_compaction_at_the_end_of_a_batch() -> None:
    """The batch says where the next one begins, although its last records are gone."""
    data = bytearray(batch([(b"k", b"v", [])], base=5))
    data[23:27] = (9).to_bytes(4, "big")  # last offset delta: nine more were there
    data[17:21] = calc_crc32c(memoryview(data)[21:]).to_bytes(4, "big")
    found, decoder, unreadable = read(bytes(data))
    assert [record.offset for record in found] == [5]
    assert decoder.next_fetch_offset == 15
    assert not unreadable


def test_records_of_old_formats() -> None:
    """Brokers below 4.0 may still hold them."""
    builder = LegacyRecordBatchBuilder(1, 0, 1 << 20)
    builder.append(0, NOW, b"k", b"v")
    builder.append(1, NOW, None, b"w")
    found, decoder, _ = read(bytes(builder.build()))
    assert found == [Record("t", 3, 0, NOW, b"k", b"v"), Record("t", 3, 1, NOW, None, b"w")]
    assert decoder.next_fetch_offset == 2


@pytest.mark.parametrize("value", [0, -1, 1, 63, -64, 64, 300, -300, 2**31, -(2**31), 2**62, -(2**62)])
def test_varint(value: int) -> None:
    """Zigzag, of any length up to ten bytes."""
    data = bytearray(b"x")
    encode_varint(value, data.append)
    assert varint(bytes(data), 1) == (value, len(data))


def test_a_varint_without_an_end() -> None:
    """A damaged one is an error, and not a number of any size."""
    with pytest.raises(CorruptRecordError):
        varint(b"\xff" * 11, 0)
