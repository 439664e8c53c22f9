"""A place in a window: where a cursor begins, what is read from there, what is told as missing."""

from __future__ import annotations

from typing import Any

from gateway.core.content import examine
from gateway.core.feed import CHUNK, ENTRIES, Feed, Recovery, distinct, merged
from gateway.core.window import Window
from gateway.core.wire import Codec, Envelope, Raw
from gateway.model import Cursor, Gap, GapReason, Record, Start


def window(count: int = 0, partitions: int = 1, **more: Any) -> Window:
    made = Window("t", 1 << 30, 1e9)
    made.open("e1", {partition: Start(0, 0) for partition in range(partitions)})
    for offset in range(count):
        for partition in range(partitions):
            put(made, offset, partition, **more)
    return made


def put(
    into: Window, offset: int, partition: int = 0, addresses: tuple[str, ...] | None = None, value: bytes = b"{}"
) -> None:
    into.append(Record("t", partition, offset, 0, None, value), addresses, examine(value)[0], 0.0)
    into.advance(partition, offset + 1, offset + 1)


def feed(
    of: Window,
    cursors: dict[str | None, Cursor] | None = None,
    addresses: frozenset[str] | None = None,
    codec: Codec | None = None,
) -> Feed:
    """With cursors: one that recovers; without: one that is slow, at the window's start."""
    keys = {key for key in cursors or () if key is not None}
    recovery = None if cursors is None else Recovery(cursors, None)
    whole = None in cursors if cursors is not None else addresses is None
    made = Feed(of, codec or Envelope(), addresses, whole, keys, of.base, of.position(of.base), 0.0, recovery)
    if recovery is not None:
        made.begin()
    return made


def at(position: dict[int, int], epoch: str | None = "e1") -> dict[str | None, Cursor]:
    return {None: Cursor(epoch, position)}


def read(of: Feed) -> int:
    """How many frames it has in all."""
    count = 0
    while of.seq < of.window.end and not of.cut:
        before = of.seq
        count += len(of.read(of.window.end))
        assert of.seq > before or of.cut, "it goes on"
    return count


def test_merged_is_one_gap_a_partition_and_reason() -> None:
    window_, expired = GapReason.WINDOW, GapReason.EXPIRED
    gaps = [Gap(1, 5, 9, window_), Gap(0, 3, 4, expired), Gap(1, 2, 3, window_), Gap(0, 1, 2, window_)]
    assert merged(gaps) == [Gap(0, 3, 4, expired), Gap(0, 1, 2, window_), Gap(1, 2, 9, window_)]
    assert merged([]) == []


def test_a_cursor_begins_at_its_lowest_offset_and_skips_what_is_below_the_others() -> None:
    made = feed(window(10, partitions=2), at({0: 7, 1: 3}))
    assert made.place() == {0: 7, 1: 3} and made.recovery_gaps() == []
    assert read(made) == 3 + 7


def test_a_chunk_has_a_bounded_size() -> None:
    of = window(20, value=b'"' + b"x" * 10_000 + b'"')
    made = feed(of)
    sizes = []
    while made.seq < of.end:
        sizes.append(sum(map(len, made.read(of.end))))
    assert max(sizes) <= CHUNK and len(sizes) == 4


def test_one_frame_above_a_chunk_is_read_alone() -> None:
    of = window(2, value=b'"' + b"x" * 100_000 + b'"')
    made = feed(of)
    assert [len(made.read(of.end)), len(made.read(of.end))] == [1, 1] and made.seq == of.end


def test_a_feed_that_skips_most_takes_bounded_steps() -> None:
    of = window(3 * ENTRIES)
    made = feed(of, at({0: 3 * ENTRIES - 1}, None))
    made.seq = 0  # as where another name of it begins there
    steps = []
    while made.seq < of.end:
        steps.append(len(made.read(of.end)))
    assert steps == [0, 0, 1]


def test_an_address_is_read_without_a_look_at_the_others() -> None:
    of = window()
    for offset in range(1000):
        put(of, offset, addresses=("ab"[offset == 700],))
    made = feed(of, addresses=frozenset("b"))
    assert len(made.read(of.end)) == 1 and made.seq == of.end


def test_stop_is_kept() -> None:
    of = window(10)
    made = feed(of)
    assert len(made.read(4)) == 4 and made.seq == 4 and made.place() == {0: 4}


def test_others_are_left_out() -> None:
    of = window()
    for offset, key in enumerate("1212"):
        put(of, offset, addresses=(key,))
    made = feed(of)
    assert len(made.read(of.end, {"1"})) == 2 and made.seq == of.end


def test_another_epoch() -> None:
    of = window(3, partitions=2)
    of.drop_oldest(1)
    made = feed(of, at({0: 50}, "old"))
    assert made.recovery_gaps() == [Gap(0, 50, 1, GapReason.RECREATED)]
    assert read(made) == 5 and made.floors == {None: {}}


def test_what_has_left_the_window_before_and_while_it_reads() -> None:
    of = window(6)
    of.drop_oldest(1)
    made = feed(of, at({0: 0}))
    assert made.recovery_gaps() == [Gap(0, 0, 1, GapReason.WINDOW)]
    assert made.overtaken() == []
    of.drop_oldest(1)
    assert made.overtaken() == [Gap(0, 1, 2, GapReason.WINDOW)]
    assert made.overtaken() == [] and read(made) == 4


def test_overtaken_where_nothing_was_wanted() -> None:
    of = window(6)
    made = feed(of, at({0: 4}))
    of.drop_oldest(10**9)
    assert made.overtaken() == [Gap(0, 4, 6, GapReason.WINDOW)]
    made = feed(window(6), at({0: 6}))
    made.window.drop_oldest(10**9)
    assert made.overtaken() == []


def test_ahead_and_capped() -> None:
    of = window(2)
    made = feed(of, {"a": Cursor(None, {0: 5, 3: 1}), "b": Cursor(None, {0: 9})}, frozenset("ab"))
    assert made.ahead() == {0: 9, 3: 1} and not made.together()
    assert made.place() == {0: 5}, "b has no floor in partition 3, and would begin at its first offset"
    made.cap({0: 2, 3: 0})
    assert made.ahead() == {} and made.together()


def test_a_topic_that_cannot_be_read_yet_keeps_the_cursors() -> None:
    of = Window("t", 1000, 1.0)
    made = feed(of, at({0: 3}))
    assert made.place() == {0: 3} and made.read(of.end) == []
    of.open("e1", {0: Start(0, 9)})
    made.begin()
    assert made.recovery_gaps() == [] and made.ahead() == {0: 3}


def test_a_thousand_names_with_one_cursor_share_what_it_says() -> None:
    """A message of 64 KiB may name 1,000 keys and 100 partitions: not 100,000 offsets for each client that sends it."""
    cursor = Cursor(None, dict.fromkeys(range(100), 5))
    made = feed(window(9), {str(key): cursor for key in range(1000)}, frozenset(map(str, range(1000))))
    assert len(distinct(made.floors)) == 1
    made.add(dict.fromkeys(map(str, range(1000, 2000)), made.place()), None)
    assert len(distinct(made.floors)) == 2
    made.cap({99: 3})
    assert made.ahead().get(99) is None or made.ahead()[99] == 3


def test_restart_tells_a_name_that_recovers_and_no_other() -> None:
    gap = Gap(0, 3, 0, GapReason.RECREATED)
    slow, back = feed(window(3)), feed(window(3), at({0: 9}))
    for made in (slow, back):
        made.window.open("e2", {0: Start(0, 0)})
        made.restart([gap])
        assert made.place() == {0: 0} and made.ahead() == {}
    assert slow.recovery_gaps() == [] and back.recovery_gaps() == [gap]


def test_names_that_are_added_begin_at_their_floor() -> None:
    of = window()
    for offset, key in enumerate("12121212"):
        put(of, offset, addresses=(key,))
    made = feed(of, addresses=frozenset("1"))
    made.keys = {"1"}
    made.add({"2": {0: 5}}, frozenset("12"))
    assert made.keys == {"1", "2"} and read(made) == 4 + 2


def test_names_that_are_added_without_a_floor() -> None:
    of = window(4, addresses=("1",))
    made = feed(of, addresses=frozenset())
    made.add({"1": {}}, frozenset("1"))
    assert made.floors == {} and read(made) == 4


def test_skip_leaves_floors_of_their_own() -> None:
    made = feed(window(4), at({0: 2}))
    made.skip({0: 4, 1: 3})
    assert made.floors == {None: {0: 2, 1: 3}}


def test_forgotten_keys() -> None:
    made = feed(window(), {"a": Cursor(None, {0: 5}), "b": Cursor(None, {0: 9})}, frozenset("ab"))
    made.forget({"a"}, frozenset("b"))
    assert made.keys == {"b"} and made.floors == {"b": {0: 9}} and made.place() == {0: 9}
    slow = feed(window(2), addresses=frozenset("ab"))
    slow.keys = {"a", "b"}
    slow.forget({"a"}, frozenset("b"))
    assert slow.keys == {"b"} and slow.addresses == frozenset("b")


def test_a_gap_for_all_reaches_a_name_with_a_floor_unless_it_ends_below() -> None:
    of = window()
    of.lose(Gap(0, 0, 5, GapReason.EXPIRED), 0.0)
    for floor, told in ((4, 1), (5, 0)):
        made = feed(of, {"a": Cursor(None, {0: floor})}, frozenset("a"))
        made.seq = 0
        read(made)
        assert len(made.recovery_gaps()) == told


def test_raw_stops_at_a_gap() -> None:
    of = window(2)
    of.lose(Gap(0, 2, 5, GapReason.EXPIRED), 0.0)
    put(of, 5)
    made = feed(of, codec=Raw())
    assert read(made) == 2 and made.cut and made.seq == 2
