"""The window against a naive model of it: a list of all that ever came, and what was let go of."""

from __future__ import annotations

import math

import attrs
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.core.content import Form, examine
from gateway.core.window import OVERHEAD, Entry, Window
from gateway.core.wire import Envelope, Raw
from gateway.model import Gap, GapReason, Record, Start
from tests.support.harness import frames

FOREVER = math.inf
ADDRESSES = ("a", "b", "c")


def window(max_bytes: int = 1 << 30, max_age: float = FOREVER, partitions: int = 1, first: int = 0) -> Window:
    made = Window("t", max_bytes, max_age)
    made.open("e1", {number: Start(first, first) for number in range(partitions)})
    return made


def put(
    into: Window,
    offset: int,
    partition: int = 0,
    addresses: tuple[str, ...] | None = None,
    value: bytes | None = b"{}",
    arrived: float = 0.0,
) -> Entry:
    """One record, read as a batch of its own."""
    form = examine(value)[0]
    entry = into.append(Record("t", partition, offset, 0, None, value), addresses, form, arrived)
    into.advance(partition, offset + 1, offset + 1)
    return entry


def test_an_empty_window() -> None:
    made = Window("t", 1, 1.0)
    assert len(made) == 0 and made.position(0) == {} and made.seek({}) == 0 and made.missing({}) == []
    assert made.epoch is None and made.oldest() == FOREVER and made.entries(0, 0) == []
    made.trim(5.0)
    made.drop_oldest(5)


def test_offsets_without_a_record_are_covered() -> None:
    """Control records, aborted transactions, compaction: at either edge and inside, no gap."""
    made = window(first=3)
    put(made, 5)
    made.advance(0, 9, 12)
    assert made.position(made.base) == {0: 5} and made.position(made.end) == {0: 9}
    assert made.missing({0: 3}) == [] and made.missing({0: 0}) == [Gap(0, 0, 3, GapReason.WINDOW)]
    assert made.ends == {0: 12}
    made.drop_oldest(1)
    assert made.starts == {0: 6} and made.missing({0: 6}) == [] and made.missing({0: 7}) == []


def test_position_moves_and_the_version_with_it() -> None:
    made = window()
    before = made.version
    made.advance(0, 0, 7)
    assert made.version == before, "only the log's end moved"
    made.advance(0, 1, 7)
    assert made.version > before


def test_another_epoch_empties_the_window_and_seq_goes_on() -> None:
    made = window(partitions=2)
    put(made, 0, addresses=("a",))
    put(made, 1)
    end = made.end
    made.open("e2", {0: Start(0, 0)})
    assert (made.base, made.end, made.bytes) == (end, end, 0)
    assert made.position(0) == {0: 0} and made.ends == {0: 0}
    assert list(made.addressed(0, made.end, ("a",), 10)) == []
    put(made, 0, addresses=("a",))
    assert [entry.offset for entry in made.addressed(end, made.end, ("a",), 10)] == [0]
    assert made.position(end) == {0: 0}


def test_the_same_epoch_only_adds_partitions() -> None:
    made = window()
    put(made, 0)
    made.open("e1", {0: Start(0, 0), 1: Start(4, 9)})
    assert len(made) == 1 and made.nexts == {0: 1, 1: 4} and made.ends == {0: 1, 1: 9}


def test_trim_by_bytes_keeps_the_newest() -> None:
    made = window(max_bytes=3 * (OVERHEAD + 2))
    for offset in range(5):
        put(made, offset)
    assert len(made) == 5, "append lets nothing go: what is new has to be pushed first"
    made.trim(0.0)
    assert [entry.offset for entry in made.entries(made.base, made.end)] == [2, 3, 4]
    assert made.bytes == 3 * (OVERHEAD + 2) and made.starts == {0: 2}


def test_trim_by_age() -> None:
    made = window(max_age=10.0)
    put(made, 0, arrived=0.0)
    put(made, 1, arrived=5.0)
    made.trim(10.0)
    assert len(made) == 2
    made.trim(10.1)
    assert made.oldest() == 5.0
    made.trim(100.0)
    assert len(made) == 0 and made.bytes == 0 and made.position(made.end) == {0: 2} and made.starts == {0: 2}


def test_a_record_larger_than_the_window_leaves_with_the_next_trim() -> None:
    made = window(max_bytes=100)
    put(made, 0, value=b'"' + b"x" * 500 + b'"')
    made.trim(0.0)
    assert len(made) == 0 and made.bytes == 0


def test_views_are_made_once_an_encoding_and_counted() -> None:
    made = window()
    entry = put(made, 7, value=b'{"a":1}')
    before = made.bytes
    envelope, raw = Envelope(), Raw()
    assert made.view(entry, envelope) is made.view(entry, envelope)
    assert made.view(entry, raw) == b'\x81\x07{"a":1}' and made.view(entry, raw) is made.view(entry, raw)
    assert made.bytes == before + len(made.view(entry, envelope)) + 9
    made.drop_oldest(1)
    assert made.bytes == 0


def test_replace_keeps_nothing_of_the_record() -> None:
    made = window()
    put(made, 0, addresses=("a",))
    entry = put(made, 1, addresses=("a", "b"), value=b"x" * 9999)
    made.view(entry, Envelope())
    made.replace(entry, Gap(0, 1, 2, GapReason.TOO_LARGE))
    assert made.bytes == 2 * OVERHEAD + 2 and entry.value is None
    ((opcode, payload),), rest = frames(made.view(entry, Envelope()))
    assert opcode == 1 and b'"reason":"too_large"' in payload and rest == b""
    assert made.view(entry, Raw()) == b""
    assert [e.seq for e in made.addressed(0, made.end, ("b",), 9)] == [entry.seq], "told to those it was for"


def test_a_gap_frame_tells_the_position_behind_it() -> None:
    made = window(partitions=2)
    put(made, 0, 1)
    entry = made.lose(Gap(0, 0, 40, GapReason.EXPIRED), 0.0)
    put(made, 40, 0)
    put(made, 1, 1)
    ((_, payload),), _ = frames(made.view(entry, Envelope()))
    assert b'"position":{"0":40,"1":1}' in payload and b'"epoch":"e1"' in payload
    assert b'{"partition":0,"from":0,"to":40,"reason":"expired"}' in payload


def test_what_retention_deleted_is_for_every_address() -> None:
    made = window()
    put(made, 0, addresses=("a",))
    made.lose(Gap(0, 1, 5, GapReason.EXPIRED), 0.0)
    put(made, 5, addresses=("b",))
    assert [entry.offset for entry in made.addressed(0, made.end, ("a",), 9)] == [0, 1]
    assert [entry.offset for entry in made.addressed(0, made.end, ("b", "c"), 9)] == [1, 5]
    made.drop_oldest(1)
    made.drop_oldest(1)
    assert made.starts == {0: 5}


def test_addressed_is_bounded_and_goes_on_from_there() -> None:
    made = window()
    for offset in range(10):
        put(made, offset, addresses=("ab"[offset % 2],))
    found = list(made.addressed(0, made.end, ("a", "b"), 4))
    assert [entry.offset for entry in found] == [0, 1, 2, 3]
    assert [entry.offset for entry in made.addressed(found[-1].seq + 1, made.end, ("a", "b"), 4)] == [4, 5, 6, 7]


def test_memory_of_trails_and_slots_is_given_back() -> None:
    """A window that turns over a million times holds no more than what is in it."""
    made = window(max_bytes=50 * (OVERHEAD + 2))
    for offset in range(5000):
        put(made, offset, addresses=("ab"[offset % 2], str(offset)))
        made.trim(0.0)
    assert len(made._entries) <= 200
    assert len(made._by_partition[0]) <= 200
    assert len(made._by_address) <= 60
    assert all(len(trail) <= 200 for trail in made._by_address.values())


# --- against the model ---


@attrs.define
class Known:
    """What the model knows of an entry."""

    partition: int
    first: int
    next: int
    addresses: tuple[str, ...] | None
    arrived: float
    entry: Entry
    lost: bool = False


class WindowMachine(RuleBasedStateMachine):
    """``came`` is every entry by seq; those below ``base`` are gone."""

    def __init__(self) -> None:
        super().__init__()
        self.window = Window("t", 20 * OVERHEAD, 50.0)
        self.window.open("e1", {0: Start(2, 2), 1: Start(0, 5)})
        self.first = {0: 2, 1: 0}
        self.nexts = dict(self.first)
        self.came: list[Known] = []
        self.old = 0  # entries of former epochs
        self.now = 0.0
        self.epochs = 1
        self.codecs = Envelope(), Raw()

    @property
    def base(self) -> int:
        return self.window.base

    def alive(self) -> list[Known]:
        return self.came[max(self.base, self.old) :]

    @rule(
        partition=st.integers(0, 2),
        skip=st.integers(0, 2),
        addresses=st.none() | st.lists(st.sampled_from(ADDRESSES), max_size=2, unique=True).map(tuple),
        size=st.integers(0, 3000),
    )
    def append(self, partition: int, skip: int, addresses: tuple[str, ...] | None, size: int) -> None:
        if partition not in self.nexts:
            return
        offset = self.nexts[partition] + skip
        record = Record("t", partition, offset, 0, None, b"x" * size)
        entry = self.window.append(record, addresses, Form.TEXT, self.now)
        self.came.append(Known(partition, offset, offset + 1, addresses, self.now, entry))
        self.nexts[partition] = offset + 1
        self.window.advance(partition, offset + 1, offset + 1)

    @rule(partition=st.integers(0, 2), skip=st.integers(1, 3))
    def nothing(self, partition: int, skip: int) -> None:
        if partition in self.nexts:
            self.nexts[partition] += skip
            self.window.advance(partition, self.nexts[partition], self.nexts[partition])

    @rule(partition=st.integers(0, 2), size=st.integers(1, 5))
    def lose(self, partition: int, size: int) -> None:
        if partition in self.nexts:
            first = self.nexts[partition]
            entry = self.window.lose(Gap(partition, first, first + size, GapReason.EXPIRED), self.now)
            self.came.append(Known(partition, first, first + size, None, self.now, entry, lost=True))
            self.nexts[partition] = first + size

    @precondition(lambda self: len(self.came) > self.base)
    @rule(at=st.integers(0, 1000), codec=st.integers(0, 1))
    def view(self, at: int, codec: int) -> None:
        known = self.alive()
        self.window.view(known[at % len(known)].entry, self.codecs[codec])

    @rule(age=st.sampled_from((0.0, 10.0, 60.0)))
    def trim(self, age: float) -> None:
        before = self.alive()
        self.now += age
        self.window.trim(self.now)
        held = self.alive()
        gone = before[: len(before) - len(held)]
        assert sum(known.entry.size for known in held) <= self.window.max_bytes
        assert all(self.now - known.arrived <= self.window.max_age for known in held)
        if gone:  # the last one that went had to go
            last = gone[-1]
            too_much = last.entry.size + sum(known.entry.size for known in held) > self.window.max_bytes
            assert too_much or self.now - last.arrived > self.window.max_age

    @rule(bytes=st.integers(1, 5000))
    def drop(self, bytes: int) -> None:
        before = self.window.bytes
        self.window.drop_oldest(bytes)
        assert before - self.window.bytes >= bytes or not len(self.window)

    @rule()
    def anew(self) -> None:
        self.epochs += 1
        self.first = {0: 0, 1: 3}
        self.nexts = dict(self.first)
        self.old = len(self.came)
        self.window.open(f"e{self.epochs}", {p: Start(first, first) for p, first in self.first.items()})

    @precondition(lambda self: 2 not in self.nexts)
    @rule(first=st.integers(0, 3))
    def partition(self, first: int) -> None:
        self.first[2] = self.nexts[2] = first
        self.window.open(f"e{self.epochs}", {2: Start(first, first)})

    @invariant()
    def bounds(self) -> None:
        made, held = self.window, self.alive()
        assert made.end == len(self.came) and len(made) == len(held)
        assert made.bytes == sum(known.entry.size for known in held)
        assert made.nexts == self.nexts
        assert made.entries(made.base, made.end) == [known.entry for known in held]
        assert made.oldest() == (held[0].arrived if held else FOREVER)
        gone = self.came[self.old : max(self.base, self.old)]
        for partition, first in self.first.items():
            ends = [known.next for known in gone if known.partition == partition]
            assert made.starts[partition] == (ends[-1] if ends else first)

    @invariant()
    def positions(self) -> None:
        for seq in range(self.base, len(self.came) + 1, max(1, len(self.alive()) // 4)):
            expected = {
                partition: next(
                    (known.first for known in self.came[max(seq, self.old) :] if known.partition == partition),
                    following,
                )
                for partition, following in self.nexts.items()
            }
            assert self.window.position(seq) == expected

    @rule(floors=st.dictionaries(st.integers(0, 3), st.integers(0, 30)))
    def seek(self, floors: dict[int, int]) -> None:
        """No entry below the place found is wanted."""
        wanted = [known.entry.seq for known in self.alive() if known.first >= floors.get(known.partition, 0)]
        assert self.window.seek(floors) == (wanted[0] if wanted else self.window.end)

    @rule(floors=st.dictionaries(st.integers(0, 3), st.integers(0, 30)))
    def missing(self, floors: dict[int, int]) -> None:
        """Gaps and entries together are all there ever was from the floors on."""
        gaps = {gap.partition: gap for gap in self.window.missing(floors)}
        assert all(gap.first < gap.next and gap.reason is GapReason.WINDOW for gap in gaps.values())
        gone = self.came[self.old : max(self.base, self.old)]
        for known in gone:
            if known.first >= floors.get(known.partition, 0):
                gap = gaps[known.partition]
                assert gap.first <= known.first and known.next <= gap.next
        for known in self.alive():
            assert known.partition not in gaps or known.first >= gaps[known.partition].next

    @rule(
        addresses=st.sets(st.sampled_from(ADDRESSES), max_size=3),
        start=st.integers(0, 30),
        length=st.integers(0, 30),
        limit=st.integers(1, 5),
    )
    def addressed(self, addresses: set[str], start: int, length: int, limit: int) -> None:
        seq = min(self.base + start, self.window.end)
        stop = min(seq + length, self.window.end)
        expected = [
            known.entry
            for known in self.came[seq:stop]
            if known.lost or (known.addresses is not None and addresses.intersection(known.addresses))
        ]
        found = list(self.window.addressed(seq, stop, addresses, limit))
        assert found == expected[:limit]


TestWindow = WindowMachine.TestCase
TestWindow.settings = settings(
    max_examples=60,
    stateful_step_count=60,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.parametrize("partitions", [1, 3])
def test_a_position_sought_is_found_again(partitions: int) -> None:
    """What a client is told as position leads back to where it was."""
    made = window(partitions=partitions)
    for offset in range(20):
        for partition in range(partitions):
            put(made, 2 * offset, partition)
    for seq in range(made.end):
        assert made.seek(made.position(seq)) == seq
