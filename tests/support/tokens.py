"""Tokens for tests, good and forged, and what an authenticator makes of them."""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Mapping
from typing import Any

from twisted.internet.task import Clock as TaskClock

from gateway.auth.jwt import REASONS, JwtAuthenticator
from gateway.config import Auth
from gateway.errors import AuthError, Kind
from gateway.model import Principal

SECRET = b"0123456789abcdef0123456789abcdef"
NOW = 1_700_000_000.25
GOOD: Mapping[str, Any] = {"sub": "alice", "exp": int(NOW) + 3600}


class Clock(TaskClock):
    """The wall clock stands where the test puts it; the machine's own is years away."""

    def wall(self) -> float:
        return NOW + self.seconds()


def b64(data: bytes | str | object) -> str:
    """Base64url without padding (RFC 7515 section 2) of bytes, a text, or the JSON of anything else."""
    if not isinstance(data, bytes):
        data = (data if isinstance(data, str) else json.dumps(data)).encode("utf-8", "surrogatepass")
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def token(claims: object = GOOD, header: object = None, key: bytes = SECRET, digest: str = "sha256") -> str:
    """A token with a signature that holds, whatever stands in it: json.dumps of an object, or the text itself."""
    signed = b64({"alg": "HS256", "typ": "JWT"} if header is None else header) + "." + b64(claims)
    return f"{signed}.{b64(hmac.digest(key, signed.encode(), digest))}"


def claims(**changes: Any) -> dict[str, Any]:
    """The good ones with these changes; ``...`` takes one out."""
    return {name: value for name, value in {**GOOD, **changes}.items() if value is not ...}


def authenticator(**settings: Any) -> JwtAuthenticator:
    """With these settings of the section ``auth``; its key is SECRET unless they say otherwise."""
    return JwtAuthenticator(Auth(**{"secrets": (SECRET,), **settings}), Clock())


def accepted(text: str, **settings: Any) -> Principal:
    """Whom the token lets in, at once."""
    found: list[Principal] = []
    authenticator(**settings).authenticate(text).addCallback(found.append)
    return found[0]


def refused(text: str, authenticator: JwtAuthenticator) -> AuthError:
    """The error, which holds nothing of the token in any form that may be logged."""
    errors: list[BaseException] = []
    tracebacks: list[str] = []

    def note(failure: Any) -> None:
        errors.append(failure.value)
        tracebacks.append(failure.getTraceback())

    authenticator.authenticate(text).addErrback(note)
    (error,) = errors
    assert isinstance(error, AuthError)
    assert error.reason in REASONS
    assert error.kind is (Kind.EXPIRED if error.reason == "expired" else Kind.UNAUTHORIZED)
    for segment in text.split("."):  # B21
        if len(segment) > 8:
            assert segment not in error.message + repr(error) + tracebacks[0]
            assert segment[:200] not in error.message + repr(error) + tracebacks[0]
    assert len(error.message) < 120
    return error


def raw(**changes: str) -> str:
    """Claims as JSON text, so that they can hold what json.dumps does not write; an empty text takes one out."""
    members = {"sub": '"alice"', "exp": str(int(NOW) + 3600), **changes}
    return "{" + ",".join(f'"{name}":{value}' for name, value in members.items() if value) + "}"
