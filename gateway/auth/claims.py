"""What the claims of a token, its signature verified, say: who, until when, which names (RFC 7519 section 4).

PyJWT's own checks read the system's clock, convert types ("12" is a number to them) and know no paths; these are
strict, and take the time as an argument.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

import attrs

from gateway.config import Auth
from gateway.core import access
from gateway.errors import AuthError, Kind
from gateway.model import Grants, Principal

Claims = Mapping[str, Any]

MAX_USER_BYTES = 255
"""Of a user's id, in UTF-8: it is a key of indexes, a field of the log, a label."""

MAX_LIFETIME = 10 * 366 * 86400.0
"""Seconds that a token may be valid for where ``auth.maxLifetime`` says nothing: what lasts longer has no expiry."""

_LAST_SECOND = 253402300799  # of the year 9999: later ones have no RFC 3339 form
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_ABSENT = object()


def user_id(value: object) -> str:
    """A user's id: a string, or an integer as its decimal text. Raises AuthError (reason ``user``)."""
    user = str(value) if type(value) is int else value
    if not isinstance(user, str) or not user:
        raise AuthError("the token names no user", "user")
    if _CONTROL.search(user) or len(user.encode()) > MAX_USER_BYTES:
        raise AuthError(f"the user's id is longer than {MAX_USER_BYTES} bytes, or has control characters", "user")
    return user


@attrs.frozen
class Defaults:
    """``auth.defaultTopics`` or ``auth.defaultPublish``. One value for all users where no entry has ``{sub}``."""

    entries: tuple[str, ...]
    shared: Grants | None = attrs.field(init=False)

    @shared.default
    def _shared(self) -> Grants | None:
        return None if "{sub}" in "".join(self.entries) else access.grants(self.entries, "", defaulted=True)

    def grants(self, user: str) -> Grants:
        """What they grant to ``user``."""
        return self.shared or access.grants(self.entries, user, defaulted=True)


class ClaimsReader:
    """Makes a Principal of claims, as the section ``auth`` of the configuration says."""

    def __init__(self, settings: Auth) -> None:
        self._audience: Collection[str] = frozenset(settings.audience)
        self._issuer: Collection[str] = frozenset(settings.issuer)
        self._leeway = settings.leeway
        self._lifetime = settings.max_lifetime or MAX_LIFETIME
        self._user = _steps(settings.user_claim)
        self._topics = _steps(settings.topics_claim), Defaults(settings.default_topics)
        self._publish = _steps(settings.publish_claim), Defaults(settings.default_publish)

    def principal(self, claims: Claims, now: float) -> Principal:
        """``now``: seconds since 1970. Raises AuthError. Expiry comes last: a client whose token has expired is told to
        fetch a new one, which would not help with any of the other reasons."""
        self._check_origin(claims)
        user = user_id(_claim(claims, self._user))
        topics = _grants(claims, *self._topics, user)
        publish = _grants(claims, *self._publish, user)
        expires_at = self._check_times(claims, now)
        return Principal(user, topics, publish, expires_at, expires_at + self._leeway)

    def _check_origin(self, claims: Claims) -> None:
        if self._issuer:
            issuer = claims.get("iss")
            if not isinstance(issuer, str) or issuer not in self._issuer:
                raise AuthError("the token is from another issuer", "issuer")
        if self._audience:
            audience = claims.get("aud")
            found = audience if isinstance(audience, list) else [audience]
            if not any(isinstance(entry, str) and entry in self._audience for entry in found):
                raise AuthError("the token is for another audience", "audience")

    def _check_times(self, claims: Claims, now: float) -> float:
        """``exp``, where the token is valid now."""
        expires_at, not_before, issued_at = (_time(claims, name) for name in ("exp", "nbf", "iat"))
        if expires_at is None:
            raise AuthError("the token has no exp", "claims")
        if max(not_before or 0.0, issued_at or 0.0) > now + self._leeway:
            raise AuthError("the token is not valid yet", "not_yet_valid")
        since = now + self._leeway if issued_at is None else issued_at
        if expires_at - since > self._lifetime:
            raise AuthError("the token is valid for too long", "lifetime")
        if now >= expires_at + self._leeway:
            raise AuthError("the token has expired", "expired", Kind.EXPIRED)
        return expires_at


def _steps(path: str) -> tuple[str, ...]:
    """A claim's path. Dots separate its steps, but not in a claim that is named by a URI (RFC 7519 section 4.2)."""
    return (path,) if "/" in path else tuple(path.split("."))


def _claim(claims: Claims, steps: tuple[str, ...]) -> object:
    """The claim at the end of a path, or _ABSENT. Raises AuthError where the path leads through what is no object, or
    is not there: only the last step may be missing."""
    *through, last = steps
    for step in through:
        claims = claims.get(step)  # type: ignore[assignment]
        if not isinstance(claims, dict):
            raise AuthError("the path of a claim leads through what is no object", "claims")
    return claims.get(last, _ABSENT)


def _grants(claims: Claims, steps: tuple[str, ...], defaults: Defaults, user: str) -> Grants:
    claim = _claim(claims, steps)
    return defaults.grants(user) if claim is _ABSENT else access.grants(claim, user)


def _time(claims: Claims, name: str) -> float | None:
    """A NumericDate (RFC 7519 section 2), or None where it is absent. Booleans, NaN, the year 10000 are none."""
    value = claims.get(name, _ABSENT)
    if value is _ABSENT:
        return None
    if type(value) not in (int, float) or not 0 <= value <= _LAST_SECOND:
        raise AuthError("a time of the token is no number of seconds since 1970", "claims")
    return float(value)
