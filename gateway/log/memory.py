"""The embedded log: topics in the memory of this process, with the partitions, offsets and limits that Kafka has.

What is here ends with the process; every start is a new epoch. It is the reader and the writer in one.
"""

from __future__ import annotations

import logging
import secrets
from collections import deque
from collections.abc import Mapping, Sequence

from twisted.internet.defer import Deferred, fail, succeed

from gateway.config_kafka import TopicSettings
from gateway.errors import Kind, PublishError
from gateway.model import Fetched, Health, LogEvent, Lost, Opened, Record, Start, Written
from gateway.ports import Clock, LogListener

MAX_RECORD = 1_048_576  # bytes of key, value and headers: about what Kafka takes unless told otherwise
OVERHEAD = 200  # bytes that a record costs beside these
BATCH = 1_000  # records handed over at once; the rest follows in the reactor's next turn

_log = logging.getLogger(__name__)


class MemoryLog:
    """``LogReader`` and ``LogWriter`` in one. What is published before ``start`` is warm-up for the listener."""

    def __init__(self, topics: Sequence[TopicSettings], clock: Clock) -> None:
        self._clock = clock
        self._topics = {settings.name: _Topic(settings) for settings in topics}
        self._listener: LogListener | None = None
        self._scheduled = False

    def start(self, listener: LogListener | None = None) -> None:
        """As both ports: the reader begins with its listener, the writer has nothing to begin."""
        if listener is None:
            return
        _log.warning("the embedded log serves: records live in this process, nobody else sees them, they end with it")
        self._listener = listener
        now = self._clock.seconds()
        listener([topic.open(now) for topic in self._topics.values()], now)
        self._schedule()

    def stop(self) -> Deferred[None]:
        """Nobody is called any more; nothing else has to end."""
        self._listener = None
        return succeed(None)

    def heard(self, topic: str, partition: int) -> float:
        """See LogReader: it is never away."""
        return self._clock.seconds()

    def positioned(self) -> bool:
        """From the start on: there is nobody to ask."""
        return self._listener is not None

    def health(self) -> Mapping[str, tuple[Health, str]]:
        """Always well."""
        return {"log": (Health.OK, "embedded: records live in this process and end with it")}

    def publish(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes]] = ()
    ) -> Deferred[Written]:
        """Append; the listener hears of it in the reactor's next turn, with all else that came meanwhile."""
        log = self._topics.get(topic)
        if log is None:
            return fail(PublishError(f"topic {topic!r} is not configured: nothing is written", Kind.UNAVAILABLE))
        size = len(key or b"") + len(value or b"") + sum(len(name) + len(text) for name, text in headers)
        if size > log.max_record:
            told = f"the record has {size} bytes; topic {topic!r} takes at most {log.max_record}"
            return fail(PublishError(told, Kind.TOO_LARGE))
        written = log.append(key, value, tuple(headers), size, self._clock)
        self._schedule()
        return succeed(written)

    def _schedule(self) -> None:
        if self._listener is not None and not self._scheduled:
            self._scheduled = True
            self._clock.callLater(0, self._deliver)

    def _deliver(self) -> None:
        self._scheduled = False
        if self._listener is None:
            return
        events: list[LogEvent] = []
        room = BATCH
        for topic in self._topics.values():
            for partition in topic.partitions:
                room = partition.take(room, events)
        if not room:
            self._schedule()
        if events:
            self._listener(events, self._clock.seconds())


class _Partition:
    """Records in order, from ``first`` to ``next``; those from ``told`` on were not handed over yet."""

    def __init__(self, topic: str, number: int) -> None:
        self._topic, self.number = topic, number
        self.first = self.next = self._told = 0
        self._kept: deque[tuple[Record, int, float]] = deque()  # with its size, and when it came
        self._fresh: deque[Record] = deque()

    def open(self) -> Start:
        """Hand over again from the first record on."""
        self._told = self.first
        self._fresh = deque(record for record, _, _ in self._kept)
        return Start(self.first, self.next)

    def append(self, record: Record, size: int, now: float) -> None:
        self._kept.append((record, size, now))
        self._fresh.append(record)
        self.next += 1

    def oldest(self) -> float:
        """When the oldest record came."""
        return self._kept[0][2]

    def drop_oldest(self) -> int:
        """Forget a record, told or not; how many bytes that gives back."""
        record, size, _ = self._kept.popleft()
        self.first = record.offset + 1
        if self._fresh and self._fresh[0] is record:
            self._fresh.popleft()
        return size

    def take(self, room: int, events: list[LogEvent]) -> int:
        """Add to ``events`` what was not told, at most ``room`` records; returns the room that is left."""
        if self._told < self.first:
            events.append(Lost(self._topic, self.number, self._told, self.first))
            self._told = self.first
        records = tuple(self._fresh.popleft() for _ in range(min(room, len(self._fresh))))
        if records:
            self._told = records[-1].offset + 1
            events.append(Fetched(self._topic, self.number, records, self._told, self.next))
        return room - len(records)


class _Topic:
    """Partitions, and one bound over them all."""

    def __init__(self, settings: TopicSettings) -> None:
        self._settings = settings
        self._epoch = secrets.token_hex(4)
        self.partitions = [_Partition(settings.name, number) for number in range(settings.partitions)]
        self.max_record = min(MAX_RECORD, settings.window_max_bytes - OVERHEAD)
        self._in_order: deque[_Partition] = deque()  # one entry a record, oldest first
        self._bytes = 0
        self._turn = 0

    def open(self, now: float) -> Opened:
        self._trim(now)
        return Opened(self._settings.name, self._epoch, {p.number: p.open() for p in self.partitions})

    def append(
        self, key: bytes | None, value: bytes | None, headers: tuple[tuple[str, bytes], ...], size: int, clock: Clock
    ) -> Written:
        partition = self.partitions[self._partition_of(key)]
        record = Record(
            self._settings.name, partition.number, partition.next, int(clock.wall() * 1000), key, value, headers
        )
        partition.append(record, size + OVERHEAD, clock.seconds())
        self._in_order.append(partition)
        self._bytes += size + OVERHEAD
        self._trim(clock.seconds())
        return Written(record.partition, record.offset)

    def _partition_of(self, key: bytes | None) -> int:
        if key is not None:
            return (murmur2(key) & 0x7FFFFFFF) % len(self.partitions)
        self._turn += 1
        return self._turn % len(self.partitions)

    def _trim(self, now: float) -> None:
        while self._in_order and (
            self._bytes > self._settings.window_max_bytes or now - self._in_order[0].oldest() > self._settings.retention
        ):
            self._bytes -= self._in_order.popleft().drop_oldest()


def murmur2(data: bytes) -> int:
    """The hash by which Kafka's producers choose a key's partition (``org.apache.kafka.common.utils.Utils``)."""
    m, mask = 0x5BD1E995, 0xFFFFFFFF
    whole = len(data) & ~3
    h = (0x9747B28C ^ len(data)) & mask
    for at in range(0, whole, 4):
        k = int.from_bytes(data[at : at + 4], "little") * m & mask
        k = (k ^ k >> 24) * m & mask
        h = (h * m & mask) ^ k
    if whole < len(data):
        h = (h ^ int.from_bytes(data[whole:], "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return h ^ h >> 15
