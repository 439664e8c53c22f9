"""What a topic takes in."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry

from gateway.core.topic import Topic
from gateway.core.wire import Envelope, Raw
from gateway.metrics import Metrics
from gateway.model import Audience, Fetched, GapReason, Record, Start
from tests.support.harness import topic


def made(audience: Audience = Audience.EVERYONE, **settings: object) -> Topic[str]:
    metrics = Metrics(CollectorRegistry(), "test")
    found: Topic[str] = Topic(
        topic("t", audience, **settings), (Envelope(), Raw()), metrics.topic("t"), metrics.types, metrics.users
    )
    found.window.open("e", {0: Start(0, 0)})
    return found


def fetched(*records: Record, next: int | None = None, end: int | None = None) -> Fetched:
    last = records[-1].offset + 1 if next is None else next
    return Fetched("t", records[0].partition if records else 0, records, last, last if end is None else end)


def record(offset: int = 0, key: bytes | None = None, value: bytes | None = b"{}", partition: int = 0) -> Record:
    return Record("t", partition, offset, 0, key, value)


@pytest.mark.parametrize(
    ("audience", "key", "value", "addresses"),
    [
        (Audience.EVERYONE, b"k", b'{"user_id":"ann"}', None),
        (Audience.USER, b"k", b'{"user_id":["ann",5]}', ("ann", "5")),
        (Audience.KEY, b"k", b'{"user_id":"ann"}', ("k",)),
        (Audience.KEY, None, b"{}", ()),
        (Audience.KEY, b"", b"{}", ("",)),
        (Audience.KEY, b"x" * 255, b"{}", ("x" * 255,)),
        (Audience.KEY, b"x" * 256, b"{}", ()),
        (Audience.KEY, b"\xff", b"{}", ()),
    ],
)
def test_whose_a_record_is(audience: Audience, key: bytes | None, value: bytes, addresses: tuple[str, ...]) -> None:
    found = made(audience)
    assert found.take(fetched(record(0, key, value)), 0.0) == 0
    (entry,) = found.window.entries(0, 1)
    assert entry.addresses == addresses


def test_nobodys_records_are_counted_and_take_no_place() -> None:
    found = made(Audience.USER)
    assert found.take(fetched(record(0, value=b"{}"), record(1, value=b"x"), record(2, value=None)), 0.0) == 3
    assert len(found.window) == 0 and found.window.nexts == {0: 3}
    assert (found.metrics.without_user, found.metrics.deserialize_errors, found.metrics.processed) == (3, 2, 3)


def test_what_was_read_already_is_left_out() -> None:
    found = made()
    found.take(fetched(record(0), record(1)), 0.0)
    found.take(fetched(record(0), record(1), record(2)), 0.0)
    assert [entry.offset for entry in found.window.entries(0, found.window.end)] == [0, 1, 2]


def test_too_large_keeps_its_place_and_its_addresses() -> None:
    found = made(Audience.KEY, max_frame_bytes=1024)
    found.take(fetched(record(0, b"a"), record(1, b"a", b"x" * 3000), record(2, b"a")), 0.0)
    before, entry, after = found.window.entries(0, 3)
    assert (before.gap, after.gap, entry.addresses) == (None, None, ("a",))
    assert entry.gap is not None and entry.gap.reason is GapReason.TOO_LARGE
    assert (entry.gap.first, entry.gap.next) == (1, 2)


def test_what_a_session_listens_to() -> None:
    assert made(Audience.USER).addresses("ann", True, set()) == frozenset(["ann"])
    assert made(Audience.KEY).addresses("ann", False, {"a", "b"}) == frozenset("ab")
    assert made(Audience.KEY).addresses("ann", True, {"a"}) is None
    assert made().addresses("ann", True, set()) is None


def test_warm_up_ends_by_partition() -> None:
    found = made()
    found.warm_until = {0: 2, 1: 1}
    found.take(fetched(record(0)), 0.0)
    assert found.warm_until == {0: 2, 1: 1}
    found.take(fetched(next=2), 0.0)
    assert found.warm_until == {1: 1}
    found.take(fetched(record(0, partition=1)), 0.0)
    assert found.warm_until == {}


def test_lag_is_what_the_log_has_more_than_was_read() -> None:
    found = made()
    found.take(fetched(record(0), end=9), 0.0)
    assert found.metrics.lag == {0: 8}
    found.take(fetched(next=9, end=5), 0.0)
    assert found.metrics.lag == {0: 0}
