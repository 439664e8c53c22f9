"""A place in a window from which a session reads, instead of being pushed to.

A session that cannot keep up and one that comes back with a cursor are the same thing: a :class:`Feed`. It reads a
chunk at a time up to where the topic has been pushed, and is then done with.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import attrs

from gateway.core.window import Entry, Window
from gateway.core.wire import Codec
from gateway.model import Cursor, Gap, GapReason

CHUNK = 64 * 1024  # bytes read at a time, or one frame
ENTRIES = 512  # looked at a time, so that a feed that skips most of them costs a bounded time


def merged(gaps: Iterable[Gap]) -> list[Gap]:
    """One gap for each partition and reason."""
    found: dict[tuple[int, GapReason], Gap] = {}
    for gap in gaps:
        known = found.get((gap.partition, gap.reason))
        if known is not None:
            gap = gap._replace(first=min(known.first, gap.first), next=max(known.next, gap.next))
        found[gap.partition, gap.reason] = gap
    return [found[key] for key in sorted(found, key=lambda key: (key[0], key[1].value))]


@attrs.define(eq=False)
class Recovery:
    """What a feed that began with a cursor has to tell when it is done: the fields of RECOVERED."""

    cursors: dict[str | None, Cursor]  # by key; None: the topic itself
    id: str | None
    gaps: list[Gap] = attrs.Factory(list)
    count: int = 0


@attrs.define(eq=False)
class Feed:
    """Names of one topic that one session reads from ``seq`` on."""

    window: Window
    codec: Codec
    addresses: frozenset[str] | None  # what is read; None: every entry
    whole: bool  # the topic itself is among the names
    keys: set[str]
    seq: int
    position: dict[int, int]  # the window's at ``seq``: what is missing where the window has moved on
    since: float  # when it fell behind, or came
    recovery: Recovery | None = None  # None: it is here because the client is slow
    # By key (None: the topic itself) and partition: offsets below are not given. Empty: everything is. Names with the
    # same cursor share one dict, so that a thousand of them cost no more than the client has sent.
    floors: dict[str | None, dict[int, int]] = attrs.Factory(dict)
    told: int = 0  # gaps among the frames that were read last
    cut: bool = False  # it came to a gap, and clients of this encoding cannot be told of one
    doubts: dict[int, float] = attrs.Factory(dict)  # since when the log's end has been below a partition's floor

    def begin(self) -> None:
        """Find the place that the recovery's cursors name. Again where the topic is opened later, or made anew."""
        recovery, window = self.recovery, self.window
        assert recovery is not None
        self.seq = window.end
        shared: dict[int, dict[int, int]] = {}
        for cursor in recovery.cursors.values():
            if id(cursor) not in shared:
                shared[id(cursor)] = self._floor(recovery, cursor)
        self.floors = {key: shared[id(cursor)] for key, cursor in recovery.cursors.items()}
        self.position = window.position(self.seq)

    def _floor(self, recovery: Recovery, cursor: Cursor) -> dict[int, int]:
        """Begin no later than this cursor wants, and note what of it is gone."""
        window, floor = self.window, dict(cursor.position)
        if window.epoch is None:
            return floor  # not readable yet: the cursor waits
        if cursor.epoch not in (None, window.epoch):
            recovery.gaps += [
                Gap(partition, offset, window.starts.get(partition, 0), GapReason.RECREATED)
                for partition, offset in cursor.position.items()
            ]
            floor = {}
        recovery.gaps += [gap for gap in window.missing(floor) if floor or gap.partition not in cursor.position]
        self.seq = min(self.seq, window.seek(floor))
        return floor

    def recovery_gaps(self) -> list[Gap]:
        """What is known to be missing since the cursors."""
        return merged(self.recovery.gaps) if self.recovery is not None else []

    def all_floors(self) -> dict[str | None, dict[int, int]]:
        """By name the offsets below which it gives nothing; names without a floor too."""
        nothing: dict[int, int] = {}
        names: Collection[str | None] = (None,) if self.whole else self.keys
        return dict.fromkeys(names, nothing) | self.floors

    def add(self, floors: Mapping[str | None, dict[int, int]], addresses: frozenset[str] | None) -> None:
        """Read for more names from here on; for each the offsets below which it gets nothing."""
        if self.floors or any(floors.values()):
            self.floors = self.all_floors() | dict(floors)
        self.addresses, self.whole = addresses, self.whole or None in floors
        self.keys = set() if self.whole else self.keys | {key for key in floors if key is not None}

    def skip(self, floors: Mapping[int, int]) -> None:
        """Give nothing below ``floors`` to names that have no floor of their own there."""
        self.floors = {key: {**floors, **floor} for key, floor in self.all_floors().items()}

    def forget(self, keys: set[str], addresses: frozenset[str] | None) -> None:
        """Read for these keys no more."""
        self.keys, self.addresses = self.keys - keys, addresses
        self.floors = {key: floors for key, floors in self.floors.items() if key is None or key not in keys}
        if self.recovery is not None:
            for key in keys:
                self.recovery.cursors.pop(key, None)

    def read(self, stop: int, others: Collection[str] = ()) -> list[bytes]:
        """The next frames, at most ``CHUNK`` bytes of them, of entries before ``stop``. Not of ``others``: keys of a
        whole topic that have a place of their own."""
        window, codec, recovery = self.window, self.codec, self.recovery
        if self.addresses is None:
            found = window.entries(self.seq, min(stop, self.seq + ENTRIES))
        else:
            found = list(window.addressed(self.seq, stop, self.addresses, ENTRIES))
        frames: list[bytes] = []
        size = self.told = 0
        for entry in found:
            frame = b""
            elsewhere = others and entry.addresses and entry.addresses[0] in others
            if elsewhere or (self.floors and not self._wants(entry)):
                pass
            elif entry.gap is not None and not codec.tells_gaps:
                self.cut = True
                break
            elif entry.gap is not None and recovery is not None:
                recovery.gaps.append(entry.gap)
            else:
                frame = window.view(entry, codec)
                if frames and size + len(frame) > CHUNK:
                    break
            if frame:
                frames.append(frame)
                size += len(frame)
                if entry.gap is not None:
                    self.told += 1
                if recovery is not None:
                    recovery.count += 1
            self.seq = entry.seq + 1
        else:
            if len(found) < ENTRIES:
                self.seq = stop
        self.position = window.position(self.seq)
        return frames

    def overtaken(self) -> list[Gap]:
        """Where the window has moved past this feed: what was lost. It goes on at the window's start."""
        if self.seq >= self.window.base:
            return []
        gaps = self.window.missing(self.place())
        self.seq = self.window.base
        self.position = self.window.position(self.seq)
        return gaps

    def place(self) -> dict[int, int]:
        """Of each partition the first offset that will be given, to any of the names."""
        if not self.floors:
            return dict(self.position)
        place = dict(self.position)
        every = distinct(self.floors)
        for partition in {partition for floors in every for partition in floors}:
            floor = min(floors.get(partition, 0) for floors in every)
            if floor > place.get(partition, 0):
                place[partition] = floor
        return place

    def together(self) -> bool:
        """Whether all its names are at one place: none has a floor that another one has not reached yet."""
        every = distinct(self.all_floors())
        return all(
            len({max(self.position.get(partition, 0), floors.get(partition, 0)) for floors in every}) == 1
            for partition in {partition for floors in every for partition in floors}
        )

    def ahead(self) -> dict[int, int]:
        """Of each partition whose cursor is past what this process has read, that cursor (the highest if several)."""
        found: dict[int, int] = {}
        for floors in distinct(self.floors):
            for partition, floor in floors.items():
                if floor > max(self.window.nexts.get(partition, 0), found.get(partition, 0)):
                    found[partition] = floor
        return found

    def cap(self, ends: Mapping[int, int]) -> None:
        """Lower the floors of these partitions to ``ends``."""
        for floors in distinct(self.floors):
            for partition, end in ends.items():
                if floors.get(partition, 0) > end:
                    floors[partition] = end

    def restart(self, gaps: Iterable[Gap]) -> None:
        """The topic was made anew: go on at its start, and tell so with RECOVERED where that is still to come."""
        self.floors = {}
        self.seq = self.window.base
        self.position = self.window.position(self.seq)
        if self.recovery is not None:
            self.recovery.gaps += gaps

    def _wants(self, entry: Entry) -> bool:
        last = entry.offset if entry.gap is None else entry.gap.next - 1
        for key in (None, *(entry.addresses or ())):
            floors = self.floors.get(key)
            if floors is not None and last >= floors.get(entry.partition, 0):
                return True
        if entry.addresses is None and None not in self.floors:  # a gap for everybody, also for those with keys alone
            return any(last >= floors.get(entry.partition, 0) for floors in distinct(self.floors))
        return False


def distinct(floors: Mapping[str | None, dict[int, int]]) -> Collection[dict[int, int]]:
    """What is shared once."""
    return {id(floor): floor for floor in floors.values()}.values()
