"""The window of one topic: a bounded ring of its newest records, and a frame of each, made once.

The log is the queue: no client has one of its own. A client that is not pushed to is a place in this ring, counted in
``seq``, which numbers the entries of one window in the order in which they came and never goes back. Positions
(partition -> next offset), which are what clients see, are worked out from a ``seq`` when they are asked for.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterator, Mapping, Sequence
from heapq import merge
from itertools import islice
from typing import TypeVar

from gateway.core import events
from gateway.core.content import Form
from gateway.core.wire import Codec
from gateway.model import Gap, GapReason, Record, Start

K = TypeVar("K")
OVERHEAD = 400  # bytes that an entry takes beside its key, its value and its frames (measured with tracemalloc)


class Entry:
    """One record in the window, or a gap that stands in its place. Slots and no attrs: made once a record."""

    __slots__ = (
        "addresses",
        "arrived",
        "form",
        "gap",
        "key",
        "offset",
        "partition",
        "seq",
        "size",
        "timestamp",
        "value",
        "views",
    )

    def __init__(self, seq: int, record: Record, addresses: Sequence[str] | None, form: Form, arrived: float):
        self.seq = seq
        self.partition = record.partition
        self.offset = record.offset
        self.timestamp = record.timestamp
        self.key = record.key
        self.value = record.value
        self.addresses = addresses  # whose it is, beside those who get the whole topic; None: everybody's who listens
        self.form = form
        self.arrived = arrived
        self.gap: Gap | None = None
        self.views: list[bytes | None] = [None, None]
        self.size = OVERHEAD + len(record.key or b"") + len(record.value or b"")


class Window:
    """Records of one topic by ``seq``, from ``base`` (inclusive) to ``end`` (exclusive).

    For each partition the offsets ``starts[p] <= offset < nexts[p]`` are covered: what bears no entry in between is a
    control record, an aborted transaction or a compacted offset, and no gap. ``ends[p]`` is the log's end as last
    heard.
    """

    def __init__(self, topic: str, max_bytes: int, max_age: float) -> None:
        self.topic = topic
        self.max_bytes = max_bytes
        self.max_age = max_age
        self.epoch: str | None = None
        self.bytes = 0
        self.base = 0
        self.end = 0
        self.version = 0  # grows whenever a position moves
        self.starts: dict[int, int] = {}
        self.nexts: dict[int, int] = {}
        self.ends: dict[int, int] = {}
        self._entries: list[Entry | None] = []  # of seq from _first on; those below base are None
        self._first = 0
        # seqs in order, by partition and by address; None: entries for everybody who listens, whatever their address
        self._by_partition: dict[int, list[int]] = {}
        self._by_address: dict[str | None, list[int]] = {}

    def __len__(self) -> int:
        return self.end - self.base

    # --- what comes from the log ---

    def open(self, epoch: str, partitions: Mapping[int, Start]) -> None:
        """Read from here on. Another epoch than before empties the window; ``seq`` goes on."""
        if epoch != self.epoch:
            self.epoch = epoch
            self.starts, self.nexts, self.ends = {}, {}, {}
            self._drop_until(self.end)
            self._by_partition.clear()
        for partition, start in partitions.items():
            if partition not in self.nexts:
                self.starts[partition] = self.nexts[partition] = start.first
                self.ends[partition] = start.live
        self.version += 1

    def append(self, record: Record, addresses: Sequence[str] | None, form: Form, arrived: float) -> Entry:
        """Take a record in. Nothing leaves: ``trim`` does that, once what is new has been pushed."""
        entry = Entry(self.end, record, addresses, form, arrived)
        self._entries.append(entry)
        self.end += 1
        self.bytes += entry.size
        self._note(self._by_partition, entry.partition, entry.seq)
        if addresses:
            for address in addresses:
                self._note(self._by_address, address, entry.seq)
        return entry

    def lose(self, gap: Gap, arrived: float) -> Entry:
        """Records that nobody can have any more; told in their place to everybody who reads past it."""
        record = Record(self.topic, gap.partition, gap.first, None, None, None)
        entry = self.append(record, None, Form.NONE, arrived)
        entry.gap = gap
        self._note(self._by_address, None, entry.seq)
        self.advance(gap.partition, gap.next, self.ends.get(gap.partition, gap.next))
        return entry

    def replace(self, entry: Entry, gap: Gap) -> None:
        """Show ``gap`` instead of the newest entry, and keep nothing of its record."""
        self.bytes -= entry.size - OVERHEAD
        entry.size, entry.gap, entry.key, entry.value, entry.views = OVERHEAD, gap, None, None, [None, None]

    def advance(self, partition: int, next: int, end: int) -> None:
        """All offsets below ``next`` have been read; the log ends at ``end``."""
        if self.nexts.get(partition) != next:
            self.nexts[partition] = next
            self.version += 1
        self.ends[partition] = end

    def trim(self, now: float) -> None:
        """Let go of what is above ``max_bytes`` or older than ``max_age``."""
        oldest = now - self.max_age
        until = self.base
        too_much = self.bytes - self.max_bytes
        while until < self.end:
            entry = self._at(until)
            if too_much <= 0 and entry.arrived >= oldest:
                break
            too_much -= entry.size
            until += 1
        self._drop_until(until)

    def drop_oldest(self, bytes: int) -> None:
        """Let go of the oldest entries until at least ``bytes`` are free, or the window is empty."""
        until = self.base
        while bytes > 0 and until < self.end:
            bytes -= self._at(until).size
            until += 1
        self._drop_until(until)

    def oldest(self) -> float:
        """When the oldest entry came; infinity for an empty window."""
        return self._at(self.base).arrived if self.base < self.end else float("inf")

    # --- what goes to clients ---

    def view(self, entry: Entry, codec: Codec) -> bytes:
        """The entry's frame in an encoding, made when it is first wanted."""
        made = entry.views[codec.slot]
        if made is None:
            if entry.gap is None:
                made = codec.record(self.topic, entry)
            else:
                made = codec.event(events.gap(self.topic, [entry.gap], self.epoch, self.position(entry.seq + 1)))
            entry.views[codec.slot] = made
            entry.size += len(made)
            self.bytes += len(made)
        return made

    def entries(self, seq: int, stop: int) -> list[Entry]:
        """Entries from ``seq`` (at least ``base``) up to ``stop`` (exclusive)."""
        return self._entries[seq - self._first : stop - self._first]  # type: ignore[return-value]  # None is below base

    def addressed(self, seq: int, stop: int, addresses: Collection[str], limit: int) -> Iterator[Entry]:
        """In order, at most ``limit`` entries from ``seq`` up to ``stop`` for one of ``addresses``, or for all.

        Costs a search an address, whatever the window holds.
        """
        trails = []
        for address in (None, *addresses):
            trail = self._by_address.get(address)
            if trail is not None and trail[-1] >= seq:
                first = bisect_left(trail, seq)
                trails.append(trail[first : min(bisect_left(trail, stop, lo=first), first + limit)])
        found = trails[0] if len(trails) == 1 else merge(*trails)
        return map(self._at, islice(dict.fromkeys(found), limit))  # one that is for several of them comes once

    def position(self, seq: int) -> dict[int, int]:
        """Of each partition the first offset of an entry from ``seq`` on; where none is left the next to be read."""
        if seq >= self.end:
            return dict(self.nexts)
        found = {}
        for partition, next in self.nexts.items():
            trail = self._by_partition.get(partition)
            if trail is not None and trail[-1] >= seq:
                found[partition] = self._at(trail[bisect_left(trail, max(seq, self.base))]).offset
            else:
                found[partition] = next
        return found

    def seek(self, floors: Mapping[int, int]) -> int:
        """The lowest seq that bears an offset at or above its partition's floor; partitions not named count from 0."""
        lowest = self.end
        for partition, trail in self._by_partition.items():
            floor = floors.get(partition, 0)
            first = bisect_left(trail, self.base)
            at = bisect_left(trail, floor, lo=first, key=lambda seq: self._at(seq).offset)
            if at < len(trail):
                lowest = min(lowest, trail[at])
        return lowest

    def missing(self, position: Mapping[int, int], reason: GapReason = GapReason.WINDOW) -> list[Gap]:
        """What a reader who wants ``position`` will not find: a gap for each partition whose start is above it."""
        return [
            Gap(partition, position.get(partition, 0), start, reason)
            for partition, start in sorted(self.starts.items())
            if position.get(partition, 0) < start
        ]

    # --- inside ---

    def _at(self, seq: int) -> Entry:
        entry = self._entries[seq - self._first]
        assert entry is not None
        return entry

    def _note(self, trails: dict[K, list[int]], key: K, seq: int) -> None:
        trail = trails.get(key)
        if trail is None:
            trails[key] = [seq]
            return
        trail.append(seq)
        if trail[len(trail) >> 1] < self.base:  # half of it has left the window: a cut that pays for itself
            del trail[: bisect_left(trail, self.base)]

    def _drop_until(self, seq: int) -> None:
        for gone in range(self.base, seq):
            entry = self._at(gone)
            self._entries[gone - self._first] = None
            self.bytes -= entry.size
            if entry.partition in self.starts:
                self.starts[entry.partition] = entry.gap.next if entry.gap else entry.offset + 1
            self._forget(self._by_partition, entry.partition, gone)
            for address in (None,) if entry.addresses is None else entry.addresses:
                self._forget(self._by_address, address, gone)
        self.base = seq
        spare = self.base - self._first
        if spare > 64 and spare > len(self._entries) >> 1:
            del self._entries[:spare]
            self._first = self.base

    def _forget(self, trails: dict[K, list[int]], key: K, seq: int) -> None:
        trail = trails.get(key)
        if trail is not None and trail[-1] == seq:
            del trails[key]
