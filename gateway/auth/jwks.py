"""The keys of an identity provider: its JWK set (RFC 7517 section 5), kept fresh.

They are fetched at start and every ``auth.jwksRefresh``. A token whose ``kid`` is not among them makes one fetch more,
so that a rotated key is there when its first token is; then none for ``MIN_INTERVAL``, however many tokens come, and
those that come meanwhile share it: no token costs a fetch, and nothing is kept about an unknown ``kid``. While the
provider is away the old keys stay, for ``MAX_STALE``.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jwt
from twisted.internet import defer
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from gateway.auth.keys import Key, from_jwk
from gateway.errors import AuthError, GatewayError, Kind
from gateway.model import Health
from gateway.ports import Clock

MIN_INTERVAL = 5.0
"""Seconds between two fetches that tokens ask for."""

MAX_STALE = 24 * 3600.0
"""Seconds that keys are trusted for after they were fetched: no longer, should the provider have withdrawn one."""

MAX_KEYS = 100
"""Of a set; a larger one is an error."""

MAX_TRIED = 4
"""Keys that are tried for one token, each at the cost of a signature."""

_FIRST_RETRY = 1.0  # seconds, doubled with each failure, up to the refresh interval

_log = Logger()


class JwksKeys:
    """The KeySource for ``auth.jwksUrl``."""

    def __init__(
        self,
        clock: Clock,
        fetch: Callable[[], Deferred[bytes]],
        refresh: float,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """``fetch``: gets the text of the set, bounded in size and time, and can be cancelled; ``refresh``: seconds;
        ``jitter``: a number from 0 to 1, so that many processes do not come at once."""
        self._clock = clock
        self._fetch = fetch
        self._refresh = refresh
        self._jitter = jitter
        self._keys: tuple[Key, ...] = ()
        self._by_kid: Mapping[str, tuple[Key, ...]] = {}
        self._fetched_at: float | None = None
        self._asked_at: float | None = None
        self._failures = 0  # since the last success
        self._problem = "not fetched yet"
        self._fetching: Deferred[None] | None = None
        self._waiting: list[Deferred[None]] = []
        self._timer: Any = None
        self._running = False

    def start(self) -> None:
        """Fetch now, and from now on."""
        self._running = True
        self._begin()

    def stop(self) -> None:
        """No more fetches; who waits for one is refused."""
        self._running = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._fetching is not None:
            self._fetching.cancel()

    def find(self, token: str) -> Sequence[Key] | Deferred[Sequence[Key]]:
        """The keys that the token's ``kid`` names; without one those that its algorithm fits, if they are few. Raises,
        or errbacks with, AuthError (``malformed``, ``key_unknown``), or ``UNAVAILABLE`` where the set cannot be had."""
        kid, algorithm = _header(token)
        found = self._look_up(kid, algorithm)
        if found is not None:
            return found
        if self._fetching is None and not self._may_ask():
            raise self._refusal()

        def again(_result: None) -> Sequence[Key]:
            found = self._look_up(kid, algorithm)
            if found is None:
                raise self._refusal()
            return found

        fetched: Deferred[None] = Deferred()
        self._waiting.append(fetched)
        if self._fetching is None:
            self._asked_at = self._clock.seconds()
            self._begin()
        return fetched.addCallback(again)

    def health(self) -> Mapping[str, tuple[Health, str]]:
        """As LogReader's."""
        if not self._usable():
            return {"jwks": (Health.FAILED, f"no keys: {self._problem}")}
        if self._failures:
            return {"jwks": (Health.DEGRADED, f"old keys are in use: {self._problem}")}
        return {"jwks": (Health.OK, f"{len(self._keys)} keys")}

    def _usable(self) -> bool:
        return self._fetched_at is not None and self._clock.seconds() - self._fetched_at <= MAX_STALE

    def _may_ask(self) -> bool:
        interval = min(MIN_INTERVAL, self._refresh)
        return self._running and (self._asked_at is None or self._clock.seconds() - self._asked_at >= interval)

    def _look_up(self, kid: str | None, algorithm: object) -> Sequence[Key] | None:
        """None: a fetch may help."""
        if not self._usable():
            return None
        if kid is not None:
            return self._by_kid.get(kid)
        fitting = [key for key in self._keys if algorithm in key.algorithms]
        if len(fitting) > MAX_TRIED:
            raise AuthError("the token does not say which key has signed it (kid)", "key_unknown")
        return fitting

    def _refusal(self) -> GatewayError:
        if self._usable() and not self._failures:
            return AuthError("the token is signed with a key that is not known", "key_unknown")
        return GatewayError("the keys of the token's issuer cannot be had just now", Kind.UNAVAILABLE, MIN_INTERVAL)

    def _begin(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        fetching = defer.maybeDeferred(self._fetch).addCallback(self._take)
        self._fetching = fetching
        fetching.addErrback(self._failed)
        fetching.addCallback(self._settled)

    def _take(self, text: bytes) -> None:
        keys = parse(text)
        by_kid: dict[str, tuple[Key, ...]] = {}
        for key in keys:
            if key.kid is not None:
                by_kid[key.kid] = (*by_kid.get(key.kid, ()), key)[:MAX_TRIED]
        self._keys, self._by_kid = keys, by_kid
        self._fetched_at = self._clock.seconds()
        if self._failures:
            _log.info("the JWK set can be had again")
        self._failures = 0

    def _failed(self, failure: Failure) -> None:
        if not self._running:
            return
        self._failures += 1
        self._problem = str(failure.value) if failure.check(ValueError) else type(failure.value).__name__
        _log.warn("the JWK set (auth.jwksUrl) cannot be had: {problem}", problem=self._problem)

    def _settled(self, _result: None) -> None:
        self._fetching = None
        if self._running:
            self._timer = self._clock.callLater(self._pause(), self._due)
        self._wake()

    def _due(self) -> None:
        self._timer = None
        self._begin()

    def _pause(self) -> float:
        if not self._failures:
            return self._refresh * (1 - 0.1 * self._jitter())
        retry = _FIRST_RETRY * 2.0 ** min(self._failures - 1, 16)
        return min(self._refresh, retry) * (1 - 0.5 * self._jitter())

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for fetched in waiting:
            fetched.callback(None)


def parse(text: bytes) -> tuple[Key, ...]:
    """The usable keys of a JWK set. Raises ValueError where it is none, or has none: an empty set is rather a fault of
    the provider than its will."""
    members = _members(text)
    if members is None:
        raise ValueError("the answer is no JWK set")
    if len(members) > MAX_KEYS:
        raise ValueError(f"the set has more than {MAX_KEYS} keys")
    keys = tuple(key for key in map(from_jwk, members) if key is not None)
    if not keys:
        raise ValueError("the set has no key that can check a signature")
    return keys


def _members(text: bytes) -> list[object] | None:
    try:
        found = json.loads(text.decode())
    except (ValueError, RecursionError):
        return None
    members = found.get("keys") if isinstance(found, dict) else None
    return members if isinstance(members, list) else None


def _header(token: str) -> tuple[str | None, object]:
    """``kid`` and ``alg`` of a token that is not verified yet."""
    try:
        header = jwt.get_unverified_header(token)
    except Exception:  # whatever a vendor library makes of garbage
        raise AuthError("the token is not a JSON Web Token", "malformed") from None
    return header.get("kid"), header.get("alg")
