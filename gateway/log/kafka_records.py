"""What a fetch brought, as ``Record``: the decoder that the reader gives to kafka-python's fetcher.

kafka-python's own makes two objects a record, takes no header name that is not UTF-8, and stops at what it cannot
decode: the poll after that never returns. This one goes on behind it and remembers which offsets it left out. Layout:
https://kafka.apache.org/documentation/#messageformat (record batch, magic 2); older formats are left to the library.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from kafka.consumer.fetcher import Fetcher
from kafka.errors import CorruptRecordError
from kafka.structs import TopicPartition

from gateway.model import Record

NO_TIMESTAMP = -1

_log = logging.getLogger("gateway.log.kafka")


class Decoder(Fetcher.PartitionRecords):
    """The records of one partition in one fetch answer. Transactions and control batches are the base class's."""

    def __init__(self, unreadable: dict[TopicPartition, list[tuple[int, int]]], *args: Any, **kwargs: Any) -> None:
        self._unreadable = unreadable
        super().__init__(*args, **kwargs)

    def _unpack_records(self, tp: TopicPartition, batches: Any, *_: object) -> Iterator[Record]:
        last = None
        while (batch := batches.next_batch()) is not None:
            last = batch
            try:
                if not batch.validate_crc():
                    raise CorruptRecordError("the checksum is wrong")
                if batch.magic == 2 and self._left_out(batch):
                    self.next_fetch_offset = batch.next_offset
                    continue
                for record in decode(tp, batch) if batch.magic == 2 else decode_old(tp, batch):
                    self.next_fetch_offset = record.offset + 1
                    yield record
            except Exception as error:  # whatever a codec raises
                self._skip(tp, batch, error)
            self.bytes_read += batch.size_in_bytes
        # Compaction may have removed a batch's last records: the batch says where the next one begins.
        if last is not None and last.magic == 2:
            self.next_fetch_offset = max(self.next_fetch_offset, last.next_offset)
        self.drain()

    def _left_out(self, batch: Any) -> bool:
        """True for control batches and, with read_committed, for aborted transactions."""
        self.leader_epoch = batch.leader_epoch
        if self.isolation_level and batch.has_producer_id():
            self._consume_aborted_transactions_up_to(batch.last_offset)
            if self._contains_abort_marker(batch):
                self.aborted_producer_ids.discard(batch.producer_id)
            elif self._is_batch_aborted(batch):
                return True
        return bool(batch.is_control_batch)

    def _skip(self, tp: TopicPartition, batch: Any, error: Exception) -> None:
        first = max(self.next_fetch_offset, self.fetch_offset)
        after = batch.next_offset if batch.magic == 2 else first + 1
        _log.error(
            "records that cannot be decoded are left out: topic %s, partition %d, offsets %d to %d: %s",
            *(tp.topic, tp.partition, first, after - 1, type(error).__name__),
        )
        self._unreadable.setdefault(tp, []).append((first, after))
        self.next_fetch_offset = after


def decode(tp: TopicPartition, batch: Any) -> Iterator[Record]:
    """The records of a batch of magic 2. One pass over bytes: this is the reader's hot path."""
    batch._maybe_uncompress()
    data, at = bytes(batch._buffer), batch._pos
    topic, partition = tp
    base, first, appended = batch.base_offset, batch.first_timestamp, batch.max_timestamp
    by_broker = batch.timestamp_type == batch.LOG_APPEND_TIME
    for _ in range(batch.records_count):
        length, at = varint(data, at)
        end = at + length
        if length < 0 or end > len(data):
            raise CorruptRecordError("a record is longer than its batch")
        delta, at = varint(data, at + 1)  # behind the attributes, of which none is used
        timestamp = appended if by_broker else first + delta
        delta, at = varint(data, at)
        size, at = varint(data, at)
        key = None if size < 0 else data[at : (at := at + size)]
        size, at = varint(data, at)
        value = None if size < 0 else data[at : (at := at + size)]
        headers: tuple[tuple[str, bytes], ...] = ()
        if data[at]:
            headers, at = _headers(data, at)
        else:
            at += 1
        if at != end:
            raise CorruptRecordError("a record's length is wrong")
        yield Record(
            topic, partition, base + delta, None if timestamp == NO_TIMESTAMP else timestamp, key, value, headers
        )


def _headers(data: bytes, at: int) -> tuple[tuple[tuple[str, bytes], ...], int]:
    count, at = varint(data, at)
    headers = []
    for _ in range(count):
        size, at = varint(data, at)
        name = data[at : (at := at + size)].decode("utf-8", "replace")
        size, at = varint(data, at)
        headers.append((name, b"" if size < 0 else data[at : (at := at + size)]))
    return tuple(headers), at


def decode_old(tp: TopicPartition, batch: Any) -> Iterator[Record]:
    """The records of a message set of magic 0 or 1, which brokers below 4.0 may still hold."""
    for record in batch:
        timestamp = None if record.timestamp in (None, NO_TIMESTAMP) else record.timestamp
        yield Record(tp.topic, tp.partition, record.offset, timestamp, record.key, record.value)


def varint(data: bytes, at: int) -> tuple[int, int]:
    """A zigzag varint of any length, and where it ends."""
    byte = data[at]
    at += 1
    if byte < 0x80:
        return (byte >> 1) ^ -(byte & 1), at
    value, shift = byte & 0x7F, 7
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (value >> 1) ^ -(value & 1), at
        shift += 7
        if shift > 63:
            raise CorruptRecordError("a varint of more than ten bytes")
