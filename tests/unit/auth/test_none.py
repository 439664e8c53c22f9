"""``auth.mode: none``: a user is who it says, with the configuration's defaults."""

from __future__ import annotations

import pytest

from gateway.auth.none import NoneAuthenticator
from gateway.config import Auth
from gateway.errors import AuthError
from gateway.model import Grants


def test_the_user_and_the_defaults() -> None:
    """The chat example would not work."""
    gate = NoneAuthenticator(Auth(mode="none", default_topics=("*", "rooms/{sub}"), default_publish=()))
    found = gate.principal("alice")
    assert found.user == "alice"
    assert found.topics == Grants(("*", "rooms/alice"), True)
    assert found.publish == Grants((), True)
    assert (found.expires_at, found.ends_at) == (None, None)


def test_an_id_is_made_up() -> None:
    """Two who do not say who they are must not be the same."""
    gate = NoneAuthenticator(Auth(mode="none"))
    users = {gate.principal(None).user for _ in range(100)}
    assert len(users) == 100
    assert (
        NoneAuthenticator(Auth(mode="none"), random=lambda size: "x" * size).principal(None).user
        == "anonymous-xxxxxxxx"
    )


@pytest.mark.parametrize("user", ["", "a\nb", "x" * 256, "\ud800"])
def test_what_is_no_user(user: str) -> None:
    """The same rules as for tokens: it is a key of indexes and a field of the log."""
    with pytest.raises(AuthError) as caught:
        NoneAuthenticator(Auth(mode="none")).principal(user)
    assert caught.value.reason == "user"
