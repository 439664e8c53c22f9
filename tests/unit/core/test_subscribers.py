"""The index from address to sessions, against a plain set of pairs."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.roster import Roster
from gateway.core.subscribers import Subscribers

PAIRS = st.tuples(st.sampled_from("ABC"), st.lists(st.sampled_from("xyz"), max_size=3))


@given(st.lists(st.tuples(st.booleans(), PAIRS), max_size=30))
@settings(max_examples=200, derandomize=True, deadline=None, database=None)
def test_any_order_of_add_and_remove(steps: list[tuple[bool, tuple[str, list[str]]]]) -> None:
    index: Subscribers[str] = Subscribers(2)
    model: set[tuple[str, str]] = set()
    for add, (session, addresses) in steps:
        pairs = {(session, address) for address in addresses}
        if add:
            index.add(session, addresses)
            model |= pairs
        else:
            index.remove(session, addresses)
            model -= pairs
        for address in "xyz":
            found = list(index.at(address))
            assert len(found) == len(set(found)) and set(found) == {s for s, a in model if a == address}
        assert len(index) == len({address for _, address in model}), "nothing is left of an address nobody has"


def test_everyone_has_a_group_an_encoding() -> None:
    index: Subscribers[str] = Subscribers(2)
    index.everyone[0]["A"] = None
    index.everyone[1]["B"] = None
    assert len(index) == 2 and list(index.at("A")) == []


def test_one_session_costs_no_dict() -> None:
    """18,000 users with a session each: this is what keeps them small."""
    index: Subscribers[str] = Subscribers(1)
    index.add("A", ["x"])
    index.add("A", ["x"])
    assert index.at("x") == ("A",)
    index.add("B", ["x"])
    index.remove("A", ["x"])
    assert index.at("x") == ("B",)


def test_the_roster_forgets_who_left() -> None:
    """Which it is told is its answer: closed() is idempotent by it. Sessions themselves: tests/unit/services."""
    roster = Roster()
    assert len(roster) == 0 and list(roster.of_user("ann")) == []
