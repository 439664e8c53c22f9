"""``auth.mode: none``: everybody is who they say they are. For development, on loopback."""

from __future__ import annotations

from collections.abc import Callable
from secrets import token_hex

from gateway.auth.claims import Defaults, user_id
from gateway.config import Auth
from gateway.model import Principal


class NoneAuthenticator:
    """Takes the query value ``user_id`` at its word; the claims are the configuration's defaults."""

    def __init__(self, settings: Auth, random: Callable[[int], str] = token_hex) -> None:
        self._topics = Defaults(settings.default_topics)
        self._publish = Defaults(settings.default_publish)
        self._random = random

    def principal(self, user: str | None) -> Principal:
        """Who ``user`` is; an id is made up where it is None. Raises AuthError (reason ``user``) for what is no id."""
        user = f"anonymous-{self._random(8)}" if user is None else user_id(user)
        return Principal(user, self._topics.grants(user), self._publish.grants(user), None, None)
