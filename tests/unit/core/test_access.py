"""Who may have a name: grants with ``*`` and ``{sub}``, defaults, and what is hostile among them."""

from __future__ import annotations

import fnmatch
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core import access, names
from gateway.errors import AuthError, Kind
from gateway.model import Grants, Name, Principal


def may(entry: str, name: str, *, keyed: bool = True, user: str = "alice", defaulted: bool = False) -> bool:
    return access.may(access.grants([entry], user, defaulted=defaulted), names.parse(name), keyed)


@pytest.mark.parametrize(
    ("entry", "name"),
    [
        ("news", "news"),
        ("rooms", "rooms"),
        ("rooms", "rooms/42"),
        ("rooms/42", "rooms/42"),
        ("rooms/*", "rooms/42"),
        ("rooms/*", "rooms/"),
        ("rooms/team-7-*", "rooms/team-7-a"),
        ("*", "news"),
        ("*", "rooms/42"),
        ("n*s", "news"),
        ("n*s", "ns"),
        ("*/42", "rooms/42"),
        ("r*/4*", "rooms/42"),
        ("*e*s*", "news"),
        ("rooms/*a*b*", "rooms/xaxbx"),
        ("rooms/a%2F*", "rooms/a%2Fb"),
        ("{sub}", "alice"),
        ("rooms/{sub}", "rooms/alice"),
        ("rooms/{sub}-*", "rooms/alice-1"),
        ("{sub}/{sub}", "alice/alice"),
    ],
)
def test_granted(entry: str, name: str) -> None:
    """A client is refused what its token allows."""
    assert may(entry, name)


@pytest.mark.parametrize(
    ("entry", "name"),
    [
        ("news", "newsletter"),
        ("newsletter", "news"),
        ("News", "news"),
        ("rooms/42", "rooms"),
        ("rooms/*", "rooms"),
        ("*/*", "news"),
        ("rooms/42", "rooms/421"),
        ("rooms/42", "rooms/4"),
        ("rooms/team-7-*", "rooms/team-71"),
        ("rooms/team-7-*", "rooms"),
        ("ro*", "news/ro"),
        ("r*2", "rooms/42"),  # a * never stands for the /
        ("rooms*", "room"),
        ("ab*ba", "aba"),  # the ends must not overlap
        ("a*b*c", "ac"),
        ("", "news"),
        ("news ", "news"),
        ("ne?s", "news"),
        ("[n]ews", "news"),
        ("rooms/%34*", "rooms/42"),  # another spelling than the one grants nothing
        ("rooms/a/b", "rooms/a"),
        ("{SUB}", "alice"),
        ("rooms/{sub}", "rooms/bob"),
        ("rooms/{sub}", "rooms"),
    ],
)
def test_not_granted(entry: str, name: str) -> None:
    """A client gets records that its token does not allow."""
    assert not may(entry, name)


@pytest.mark.parametrize("user", ["*", "a*", "**", "{sub}", "a/b", "../x", "%2A", "rooms", "ü", "a b", "~"])
def test_a_user_is_never_read_as_a_pattern(user: str) -> None:
    """Whoever may choose a name such as ``*`` would read everybody's records."""
    own = names.spell(Name("rooms", user))
    assert may("rooms/{sub}", own, user=user)
    for other in ("rooms/alice", "rooms/abc", "rooms", "rooms/%7Bsub%7D", "rooms/a"):
        if other != own:
            assert not may("rooms/{sub}", other, user=user)
    assert not may("{sub}/x", "rooms/y", user=user)
    assert may("{sub}", "news", user=user) is (user == "news")


@given(st.text("ab*", max_size=12), st.text("ab", max_size=12))
def test_a_star_is_any_characters(pattern: str, text: str) -> None:
    """Compared with the standard library's matcher, which is too slow for hostile patterns."""
    found = may(f"rooms/{pattern}", f"rooms/{text}")
    assert found is fnmatch.fnmatchcase(text, pattern)


def test_hostile_patterns_cost_little() -> None:
    """``a*a*a*...b`` takes a backtracking matcher for ever; and may() is asked for a thousand names at once."""
    stars = [f"a*{'a*' * 70}b{number}" for number in range(access.MAX_WILD)]
    grants = access.grants([f"rooms/{entry}" for entry in stars], "alice")
    name = Name("rooms", "a" * 255)
    started = time.process_time()
    for _ in range(20):
        assert not access.may(grants, name, keyed=True)
    assert time.process_time() - started < 0.2
    many = access.grants([f"t{number}" for number in range(2500)], "alice")
    started = time.process_time()
    for number in range(1000):
        assert not access.may(many, Name(f"u{number}"), keyed=False)
    assert time.process_time() - started < 0.2


@pytest.mark.parametrize(
    "claim",
    [
        ["a" * (access.MAX_CLAIM_LENGTH + 1)],
        "a " * access.MAX_CLAIM_LENGTH + "".join(f"a{number} " for number in range(5000)),
        [f"a{number}*" for number in range(access.MAX_WILD + 1)],
        ["{sub}" * 200],
    ],
)
def test_claims_have_bounds(claim: object) -> None:
    """A session keeps its grants: they must not be as large as an issuer likes."""
    with pytest.raises(AuthError) as caught:
        access.grants(claim, "u" * 255)
    assert caught.value.reason == "claims"


@pytest.mark.parametrize(
    "claim", [["news", "rooms/{sub}"], ("news", "rooms/{sub}"), "news rooms/{sub}", " news  rooms/{sub} "]
)
def test_a_list_or_one_string_with_blanks(claim: object) -> None:
    """Both forms are in use (RFC 8693 writes scopes with blanks)."""
    assert access.grants(claim, "alice").patterns == ("news", "rooms/alice")


@pytest.mark.parametrize("claim", [[], "", "  ", ()])
def test_nothing_grants_nothing(claim: object) -> None:
    """The defaults must not stand in for a claim that is there."""
    grants = access.grants(claim, "alice")
    assert not access.may(grants, Name("news"), keyed=False)
    assert access.default_names(principal(grants), {"news": False, "rooms": True}) == ()


@pytest.mark.parametrize(
    "claim", [None, True, 1, 1.5, {}, {"news": True}, [1], [None], ["news", ["rooms"]], [["news"]], [{}], ["news", 1]]
)
def test_other_types_are_refused(claim: object) -> None:
    """Read leniently, a broken token would let somebody in."""
    with pytest.raises(AuthError) as caught:
        access.grants(claim, "alice")
    assert (caught.value.reason, caught.value.kind) == ("claims", Kind.UNAUTHORIZED)


@pytest.mark.parametrize(
    ("entry", "name", "keyed", "granted"),
    [
        ("*", "news", False, True),
        ("*", "rooms", True, False),
        ("*", "rooms/42", True, False),
        ("ro*", "rooms/42", True, False),
        ("*/42", "rooms/42", True, False),
        ("r*/*", "rooms/42", True, False),
        ("rooms", "rooms", True, True),
        ("rooms", "rooms/42", True, True),
        ("rooms/lobby", "rooms/lobby", True, True),
        ("rooms/{sub}", "rooms/alice", True, True),
        ("rooms/public-*", "rooms/public-1", True, True),
        ("rooms/public-*", "rooms/private", True, False),
    ],
)
def test_a_star_of_the_defaults_never_reaches_a_keyed_topic(entry: str, name: str, keyed: bool, granted: bool) -> None:
    """``["*"]`` would open everybody's rooms as soon as a topic gets keys: a keyed topic has to be named."""
    assert may(entry, name, keyed=keyed, defaulted=True) is granted


def principal(grants: Grants) -> Principal:
    return Principal("alice", grants, Grants(()), None, None)


KEYED = {"news": False, "rooms": True, "balance-updates": False, "prices": True}


@pytest.mark.parametrize(
    ("claim", "expected"),
    [
        (["*"], ["news", "balance-updates"]),
        (["news"], ["news"]),
        (["rooms"], []),
        (["rooms/*"], []),
        (["rooms/42", "rooms/a%20b"], ["rooms/42", "rooms/a%20b"]),
        (["*", "rooms/{sub}", "prices/AAPL"], ["news", "balance-updates", "prices/AAPL", "rooms/alice"]),
        (["news/1", "unknown", "unknown/1", "rooms/%34", "rooms/a/b", "__consumer_offsets"], []),
        (["balance-*"], ["balance-updates"]),
    ],
)
def test_topics_left_out(claim: list[str], expected: list[str]) -> None:
    """All topics that the token allows, but no whole keyed topic: of these the keys that it names without ``*``."""
    for defaulted in (False, True):
        found = access.default_names(principal(access.grants(claim, "alice", defaulted=defaulted)), KEYED)
        assert [names.spell(name) for name in found] == expected
