"""Checks JSON Web Tokens (RFC 7519, RFC 8725) with PyJWT.

PyJWT verifies the signature, with the algorithms that the key is for; :mod:`gateway.auth.claims` reads what was signed.
Nothing of a token is ever in an error, whose texts are constants.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NoReturn

from jwt.api_jws import PyJWS
from jwt.exceptions import InvalidAlgorithmError, InvalidSignatureError
from twisted.internet import defer
from twisted.internet.defer import Deferred

from gateway.auth.claims import Claims, ClaimsReader
from gateway.auth.keys import ALGORITHMS, FixedKeys, Key, KeySource
from gateway.config import Auth
from gateway.errors import AuthError, GatewayError
from gateway.model import Principal
from gateway.ports import Clock

MAX_TOKEN_LENGTH = 8 * 1024
"""Characters. A longer one is refused before anything of it is decoded."""

REASONS = (
    "missing",
    "too_large",
    "malformed",
    "algorithm",
    "signature",
    "key_unknown",
    "issuer",
    "audience",
    "user",
    "claims",
    "not_yet_valid",
    "lifetime",
    "expired",
)
"""Every ``reason`` of an AuthError that is raised here: the labels of a metric."""


class JwtAuthenticator:
    """The ports' Authenticator for ``auth.mode: jwt``."""

    def __init__(self, settings: Auth, clock: Clock, keys: KeySource | None = None) -> None:
        """``keys``: where they do not come from the configuration. Raises ConfigError for keys that cannot be used."""
        self._clock = clock
        self._keys = keys or FixedKeys.of(settings)
        self._claims = ClaimsReader(settings)
        self._jws = PyJWS(algorithms=ALGORITHMS)

    def authenticate(self, token: str) -> Deferred[Principal]:
        """Who the token speaks for. Has its result at once, unless keys must be fetched."""
        try:
            if not token:
                raise AuthError("a token is needed", "missing")
            if len(token) > MAX_TOKEN_LENGTH:
                raise AuthError(f"the token is longer than {MAX_TOKEN_LENGTH} characters", "too_large")
            keys = self._keys.find(token)
            if isinstance(keys, Deferred):
                return keys.addCallback(lambda found: self._principal(token, found))
            return defer.succeed(self._principal(token, keys))
        except GatewayError as error:
            return defer.fail(error)

    def _principal(self, token: str, keys: Sequence[Key]) -> Principal:
        payload = self._verified(token, keys)
        return self._claims.principal(_decode(payload), self._clock.wall())

    def _verified(self, token: str, keys: Sequence[Key]) -> bytes:
        """The payload, where one of the keys has signed it."""
        refusal = AuthError("the token is signed with another algorithm than the key's", "algorithm")
        for key in keys:
            try:
                signed = self._jws.decode_complete(token, key.material, key.algorithms)
            except InvalidAlgorithmError:
                continue
            except InvalidSignatureError:
                refusal = AuthError("the token's signature does not hold", "signature")
                continue
            except Exception:  # whatever a vendor library makes of garbage: it must not reach the client, nor the log
                raise _malformed() from None
            if not signed["header"].keys().isdisjoint(("crit", "b64")):  # RFC 7515 4.1.11: no extension is known here
                raise _malformed()
            payload: bytes = signed["payload"]
            return payload
        raise refusal


def _decode(payload: bytes) -> Claims:
    """Strict JSON: UTF-8, no NaN (Python's json takes more)."""
    try:
        claims = _JSON.decode(payload.decode())
    except (ValueError, RecursionError):
        raise _malformed() from None
    if not isinstance(claims, dict):
        raise _malformed()
    return claims


def _malformed() -> AuthError:
    return AuthError("the token is not a JSON Web Token", "malformed")


def _no_constant(_text: str) -> NoReturn:
    raise ValueError


_JSON = json.JSONDecoder(parse_constant=_no_constant)
