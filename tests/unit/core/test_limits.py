"""Limits: what is allowed is exactly what the figures say, whatever the times are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.limits import EventWindow, Occupancy, TokenBucket


def test_a_burst_and_then_the_rate() -> None:
    """A client could send more, or less, than the limit says."""
    bucket = TokenBucket(rate=10, burst=3)
    assert [bucket.take(100.0) for _ in range(3)] == [0.0, 0.0, 0.0]
    assert bucket.take(100.0) == pytest.approx(0.1)
    assert bucket.take(100.0) == pytest.approx(0.1)  # a refusal takes nothing
    assert bucket.take(100.05) == pytest.approx(0.05)
    assert bucket.take(100.1) == 0.0
    assert bucket.take(100.1) > 0


def test_a_bucket_is_never_fuller_than_its_burst() -> None:
    """After an hour of silence a client could send an hour's worth at once."""
    bucket = TokenBucket(rate=10, burst=3)
    bucket.take(0.0)
    assert [bucket.take(3600.0) == 0.0 for _ in range(5)] == [True, True, True, False, False]


def test_an_amount_above_the_burst_waits_for_a_full_bucket_and_leaves_a_debt() -> None:
    """A message that is allowed by size would never be let through by rate."""
    bucket = TokenBucket(rate=100, burst=100)
    assert bucket.take(0.0, 250) == 0.0
    assert bucket.take(0.0, 1) == pytest.approx(1.51)
    assert bucket.take(1.0, 250) == pytest.approx(1.5)
    assert bucket.take(2.5, 250) == 0.0


def test_time_that_stands_still_or_goes_back_gives_nothing() -> None:
    """It must neither raise nor let more through."""
    bucket = TokenBucket(rate=10, burst=1)
    assert bucket.take(50.0) == 0.0
    assert bucket.take(40.0) > 0
    assert bucket.take(50.0) == pytest.approx(0.1)


def test_rate_zero_is_no_limit() -> None:
    """As ``0`` in the configuration says."""
    bucket = TokenBucket(rate=0, burst=0)
    assert [bucket.take(0.0, 10**9) for _ in range(3)] == [0.0] * 3


@given(
    st.floats(0.1, 1000),
    st.integers(1, 50),
    st.lists(st.tuples(st.floats(0, 5), st.integers(1, 5)), min_size=1, max_size=60),
)
def test_never_more_than_burst_plus_rate_times_time(rate: float, burst: int, steps: list[tuple[float, int]]) -> None:
    """Whatever the rhythm of the requests; and whoever waits as long as told is let through."""
    bucket = TokenBucket(rate, burst)
    now, taken = 0.0, 0.0
    for pause, amount in steps:
        now += pause
        wait = bucket.take(now, amount)
        if wait:
            now += wait * (1 + 1e-9)
            assert bucket.take(now, amount) == 0.0
        taken += amount
        assert taken <= burst + rate * now + max(0, amount - burst) + 1e-3


def test_the_limit_within_the_window() -> None:
    """Twenty mistakes in a minute end a connection; nineteen do not, nor twenty in an hour."""
    window = EventWindow(limit=3, seconds=60)
    assert [window.hit(now) for now in (0.0, 10.0, 20.0)] == [False, False, True]
    assert window.hit(61.0) is True  # 10, 20, 61
    assert window.hit(90.0) is False  # 61, 90
    assert window.hit(95.0) is True


def test_slow_events_never_reach_the_limit() -> None:
    """A client that errs now and then is no attacker."""
    window = EventWindow(limit=2, seconds=60)
    assert not any(window.hit(now * 60.0) for now in range(100))


def test_window_without_limit() -> None:
    """As ``0`` in the configuration says."""
    window = EventWindow(limit=0, seconds=60)
    assert not any(window.hit(0.0) for _ in range(100))


@given(st.integers(1, 5), st.lists(st.floats(0, 30), max_size=100))
def test_window_counts_as_if_it_kept_all(limit: int, pauses: list[float]) -> None:
    """It keeps no more than ``limit`` times, which must not change what it says."""
    window = EventWindow(limit, seconds=60)
    now, times = 0.0, []
    for pause in pauses:
        now += pause
        times.append(now)
        assert window.hit(now) is (len([time for time in times if time > now - 60]) >= limit)


def test_how_many_are_there() -> None:
    """A user or an address could have more connections than the limit, or be locked out when they are gone."""
    users = Occupancy(limit=2)
    assert [users.enter("alice"), users.enter("alice"), users.enter("alice")] == [True, True, False]
    assert users.enter("bob")
    users.leave("alice")
    assert users.count("alice") == 1
    assert users.enter("alice")
    assert not users.enter("alice")


def test_who_is_gone_is_forgotten() -> None:
    """Addresses that come once would fill the memory."""
    addresses = Occupancy(limit=2)
    for number in range(1000):
        addresses.enter(str(number))
        addresses.leave(str(number))
    assert len(addresses) == 0
    assert addresses.count("7") == 0
    with pytest.raises(KeyError):
        addresses.leave("7")


def test_counts_without_limit() -> None:
    """As ``0`` in the configuration says; it counts all the same."""
    users = Occupancy(limit=0)
    assert all(users.enter("alice") for _ in range(1000))
    assert users.count("alice") == 1000
