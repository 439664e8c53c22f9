"""What a token says, its signature being good: section B of the hostile inputs, B8, B9 and B20; claims and defaults."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.auth.claims import MAX_LIFETIME
from gateway.auth.jwt import JwtAuthenticator
from gateway.config import Auth
from gateway.core import access, names
from gateway.errors import AuthError, Kind
from gateway.model import Grants, Principal
from tests.support.tokens import GOOD, NOW, SECRET, Clock, accepted, authenticator, claims, refused, token


@pytest.mark.parametrize(
    ("aud", "passes"),
    [
        ("app", True),
        ("app2", True),
        (["other", "app"], True),
        (["app", 5, None], True),
        ("other", False),
        ("ap", False),
        ("app/", False),
        ("APP", False),
        ("app app2", False),
        (["other"], False),
        ([], False),
        ([["app"]], False),
        (5, False),
        (None, False),
        ({"app": 1}, False),
        (..., False),
    ],
)
def test_b8_audience(aud: object, passes: bool) -> None:
    """A token for another application of the same provider."""
    gate = authenticator(audience=("app", "app2"))
    text = token(claims(aud=aud))
    if passes:
        assert accepted(text, audience=("app", "app2")).user == "alice"
    else:
        assert refused(text, gate).reason == "audience"


def test_b8_audience_that_is_not_asked_for() -> None:
    """PyJWT refuses a token with ``aud`` where none is configured; here it passes, as the configuration says."""
    assert accepted(token(claims(aud="any"))).user == "alice"
    assert accepted(token(claims(aud=["any"], iss="any"))).user == "alice"


@pytest.mark.parametrize(
    ("iss", "passes"),
    [
        ("https://a.example", True),
        ("https://b.example", True),
        ("https://a.example/", False),
        ("https://a.exampl", False),
        ("https://evil.example", False),
        (["https://a.example"], False),
        (None, False),
        (5, False),
        (..., False),
    ],
)
def test_b8_issuer(iss: object, passes: bool) -> None:
    """A token of another issuer, who happens to have the key."""
    issuer = ("https://a.example", "https://b.example")
    text = token(claims(iss=iss))
    if passes:
        assert accepted(text, issuer=issuer).user == "alice"
    else:
        assert refused(text, authenticator(issuer=issuer)).reason == "issuer"


@pytest.mark.parametrize("sub", ["../", "../../etc/passwd", "*", "a/b", "auth0|123", "ü", "a b", "x" * 255, "💚"])
def test_b9_an_odd_user_is_a_user(sub: str) -> None:
    """Providers' ids have all kinds of characters; that they do no harm is up to who uses them (see access)."""
    assert accepted(token(claims(sub=sub))).user == sub


@pytest.mark.parametrize(("sub", "user"), [(42, "42"), (0, "0"), (-7, "-7"), (2**63, "9223372036854775808")])
def test_an_integer_user_is_its_decimal_text(sub: int, user: str) -> None:
    """Records address users the same way."""
    assert accepted(token(claims(sub=sub))).user == user


@pytest.mark.parametrize("leeway", [0.0, 30.0, 60.0])
def test_b20_leeway(leeway: float) -> None:
    """Clocks differ by some seconds: neither may a client be refused at once, nor live on for an hour."""
    clock = Clock()
    gate = JwtAuthenticator(Auth(secrets=(SECRET,), leeway=leeway), clock)
    text = token(claims(exp=int(NOW) + 10, nbf=int(NOW) - 100))
    clock.advance(10 + leeway - 0.5)
    found: list[Principal] = []
    gate.authenticate(text).addCallback(found.append)
    assert found[0].expires_at == int(NOW) + 10
    assert found[0].ends_at == int(NOW) + 10 + leeway
    clock.advance(0.5)
    error = refused(text, gate)
    assert (error.reason, error.kind) == ("expired", Kind.EXPIRED)


@pytest.mark.parametrize("skew", [-3600, 3600])
def test_b20_an_hour_is_too_much(skew: int) -> None:
    """An issuer whose clock is an hour off."""
    issued = int(NOW) + skew
    refused(token(claims(iat=issued, nbf=issued, exp=issued + 600)), authenticator(leeway=60.0))


def test_only_the_clock_that_was_passed_in_counts() -> None:
    """The machine's own clock is years ahead of the test's: PyJWT's checks would refuse this token."""
    assert time.time() > NOW + 86400  # noqa: TID251 - this is the point
    assert accepted(token()).user == "alice"


def test_expiry_is_told_last() -> None:
    """4500 makes a client fetch a new token and come again: in vain, where the audience is wrong."""
    expired = claims(exp=int(NOW) - 100, aud="other")
    assert refused(token(expired), authenticator(audience=("app",))).reason == "audience"
    assert refused(token(claims(exp=int(NOW) - 100, topics=1)), authenticator()).reason == "claims"


@pytest.mark.parametrize(
    ("iat", "exp", "passes"),
    [
        (0, 3600, True),
        (0, 3601, False),
        (-3000, 600, True),
        (-3000, 601, False),
        (None, 3629, True),
        (None, 3632, False),
    ],
)
def test_max_lifetime(iat: int | None, exp: int, passes: bool) -> None:
    """From ``iat``; from now on where it is missing, with the leeway."""
    base = int(NOW)
    text = token(claims(iat=... if iat is None else base + iat, exp=base + exp))
    if passes:
        assert accepted(text, max_lifetime=3600.0).user == "alice"
    else:
        assert refused(text, authenticator(max_lifetime=3600.0)).reason == "lifetime"


def test_ten_years_are_no_expiry() -> None:
    """Where ``auth.maxLifetime`` says nothing a token may still last for years, but not for ever."""
    assert accepted(token(claims(exp=NOW + MAX_LIFETIME - 1))).user == "alice"
    assert refused(token(claims(exp=NOW + MAX_LIFETIME + 60)), authenticator()).reason == "lifetime"


@pytest.mark.parametrize(
    ("changes", "topics", "publish"),
    [
        ({}, Grants(("*",), True), Grants(("own/alice",), True)),
        ({"topics": ["news", "rooms/{sub}"]}, Grants(("news", "rooms/alice")), Grants(("own/alice",), True)),
        ({"topics": "news rooms/{sub}", "publish": []}, Grants(("news", "rooms/alice")), Grants(())),
        ({"topics": "", "publish": "*"}, Grants(()), Grants(("*",))),
    ],
)
def test_claims_and_defaults(changes: dict[str, Any], topics: Grants, publish: Grants) -> None:
    """Defaults stand in for claims that are absent, and never for ones that are there."""
    found = accepted(token(claims(**changes)), default_topics=("*",), default_publish=("own/{sub}",))
    assert (found.topics, found.publish) == (topics, publish)


@pytest.mark.parametrize("claim", ["topics", "publish"])
@pytest.mark.parametrize("value", [None, 1, True, {}, [1], [None], ["news", 5], [["news"]], ["a" * 20000]])
def test_claims_of_another_type(claim: str, value: object) -> None:
    """Read leniently, a broken token would have the defaults."""
    reason = refused(token(claims(**{claim: value})), authenticator()).reason
    assert reason in ("claims", "too_large")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"realm": {"ws": {"topics": ["news"]}}}, ("news",)),
        ({"realm": {"ws": {"topics": []}}}, ()),
        ({"realm": {"ws": {}}}, ("*",)),
        ({"realm": {"ws": {"topics": None}}}, None),
        ({"realm": {"ws": None}}, None),
        ({"realm": {"ws": "topics"}}, None),
        ({"realm": {"ws": ["topics"]}}, None),
        ({"realm": []}, None),
        ({"realm": {}}, None),
        ({}, None),
        ({"realm.ws.topics": ["news"]}, None),
        ({"topics": ["news"]}, None),
    ],
)
def test_claims_by_path(changes: dict[str, Any], expected: tuple[str, ...] | None) -> None:
    """Only the last step may be missing; a path through what is no object must not give the defaults."""
    text = token(claims(**changes))
    if expected is None:
        assert refused(text, authenticator(topics_claim="realm.ws.topics")).reason == "claims"
    else:
        assert accepted(text, topics_claim="realm.ws.topics").topics.patterns == expected


def test_a_claim_named_by_a_uri_is_no_path() -> None:
    """Providers put their own claims under a URI, which has dots."""
    name = "https://example.com/topics"
    assert accepted(token(claims(**{name: ["news"]})), topics_claim=name).topics.patterns == ("news",)
    assert accepted(token(), topics_claim=name).topics.patterns == ("*",)


def test_the_user_by_path() -> None:
    """``sub`` counts no longer where another claim is the user."""
    text = token(claims(ext={"id": 7}, topics=["rooms/{sub}"]))
    found = accepted(text, user_claim="ext.id")
    assert (found.user, found.topics.patterns) == ("7", ("rooms/7",))
    assert refused(token(), authenticator(user_claim="ext.id")).reason == "claims"
    assert refused(token(claims(ext={})), authenticator(user_claim="ext.id")).reason == "user"


def test_a_user_that_looks_like_a_pattern_gets_its_own_key_only() -> None:
    """See access: here over the whole way from the token."""
    found = accepted(token(claims(sub="*", topics=["rooms/{sub}"])))
    assert found.topics.wild == ()
    assert not any(access.may(found.topics, name, keyed=True) for name in names.parse_list("rooms,rooms/alice"))


def test_users_without_claims_share_their_defaults() -> None:
    """Ten thousand idle clients would hold ten thousand copies."""
    gate = authenticator()
    found: list[Principal] = []
    for user in ("alice", "bob"):
        gate.authenticate(token(claims(sub=user))).addCallback(found.append)
    assert found[0].topics is found[1].topics


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
        max_leaves=20,
    ),
    st.sampled_from(["sub", "exp", "nbf", "iat", "aud", "iss", "topics", "publish", "ext"]),
)
def test_any_claim_is_read_in_order(value: object, name: str) -> None:
    """A signed token with anything in it: a Principal or an AuthError."""
    gate = authenticator(audience=("app",), issuer=("iss",), publish_claim="ext.publish")
    found: list[Principal] = []
    errors: list[BaseException] = []
    text = token({**GOOD, "aud": "app", "iss": "iss", "ext": {}, name: value})
    gate.authenticate(text).addCallbacks(found.append, lambda failure: errors.append(failure.value))
    assert found or isinstance(errors[0], AuthError)
