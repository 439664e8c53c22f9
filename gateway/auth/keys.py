"""Keys that tokens are checked with, and what each may be used for.

The algorithm is fixed by the key and never by the token (RFC 8725 section 3.1): a secret is for HS256, an RSA key for
RS and PS, an elliptic curve for its one ES, an Edwards curve for EdDSA. A key in JWK form with ``alg`` (RFC 7517) is
for that one only, which is also how a secret for HS384 or HS512 is written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import attrs
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt.algorithms import Algorithm, get_default_algorithms
from twisted.internet.defer import Deferred

from gateway.config import Auth
from gateway.errors import ConfigError

HMAC = ("HS256", "HS384", "HS512")
RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
ALGORITHMS = (*HMAC, *RSA, *CURVES.values(), "EdDSA")

MAX_RSA_BITS = 8192  # a larger one takes milliseconds a token
MAX_KID = 255  # characters

_IMPLEMENTATIONS: Mapping[str, Algorithm] = get_default_algorithms()
_BY_TYPE = {"RSA": "RS256", "EC": "ES256", "OKP": "EdDSA"}  # kty -> an algorithm of PyJWT that reads it
_PUBLIC_MEMBERS = ("kty", "crv", "n", "e", "x", "y")


@attrs.frozen
class Key:
    """One key, as PyJWT wants it, with the algorithms it may be used with."""

    material: Any = attrs.field(repr=False)
    algorithms: tuple[str, ...]
    kid: str | None = None


class KeySource(Protocol):
    """Where the keys are looked up for a token."""

    def find(self, token: str) -> Sequence[Key] | Deferred[Sequence[Key]]:
        """The few keys that can have signed it: at once where they are at hand. Raises, or errbacks with, AuthError or
        a GatewayError ``UNAVAILABLE``. The token is not verified yet: nothing in it but ``kid`` is looked at."""


@attrs.frozen
class FixedKeys:
    """The keys of the configuration: one, or several while they rotate."""

    keys: tuple[Key, ...]

    @classmethod
    def of(cls, settings: Auth) -> FixedKeys:
        """From ``auth.secret`` and its like. Raises ConfigError, which never quotes the key."""
        keys: list[Key] = []
        problems: list[str] = []
        for name, texts, read in (
            ("auth.secret", settings.secrets, from_secret),
            ("auth.publicKeyFile", settings.public_keys, from_pem),
        ):
            for number, text in enumerate(texts, start=1):
                try:
                    keys.append(read(text))
                except ValueError as error:
                    problems.append(f"{name}: key {number} {error}")
        if problems:
            raise ConfigError(problems)
        return cls(tuple(keys))

    def find(self, token: str) -> Sequence[Key]:
        """All of them, whatever the token's ``kid`` says."""
        return self.keys


def from_secret(secret: bytes) -> Key:
    """A shared secret: its bytes, for HS256; or a JWK of ``kty`` oct, for the one algorithm in its ``alg``. Raises
    ValueError."""
    algorithm = "HS256"
    try:
        jwk = _json_object(secret)
        if jwk is not None:
            algorithm, secret = jwk["alg"], _IMPLEMENTATIONS["HS256"].from_jwk(jwk)
        if algorithm not in HMAC:
            raise ValueError
        material = _IMPLEMENTATIONS[algorithm].prepare_key(secret)
    except Exception:
        raise ValueError(
            "is neither a plain secret nor a JWK with kty oct and alg HS256, HS384 or HS512 (a public key belongs into "
            "auth.publicKeyFile)"
        ) from None
    if _IMPLEMENTATIONS[algorithm].check_key_length(material):
        raise ValueError(f"is too short: {algorithm} needs {int(algorithm[2:]) // 8} bytes or more (RFC 7518 3.2)")
    return Key(material, (algorithm,))


def from_pem(pem: bytes) -> Key:
    """A public key. Raises ValueError."""
    try:
        material = load_pem_public_key(pem)
    except Exception:
        raise ValueError("is not a public key in PEM form (-----BEGIN PUBLIC KEY-----)") from None
    return Key(material, _algorithms(material))


def from_jwk(jwk: object) -> Key | None:
    """A public key of a JWK set; None for what is of no use here: a symmetric or broken key, one for encryption or for
    other algorithms."""
    if not isinstance(jwk, dict) or jwk.get("use", "sig") != "sig":
        return None
    kid, operations, alg = jwk.get("kid"), jwk.get("key_ops", ["verify"]), jwk.get("alg")
    if not isinstance(operations, list) or "verify" not in operations:
        return None
    if kid is not None and not (isinstance(kid, str) and len(kid) <= MAX_KID):
        return None
    try:
        reader = _IMPLEMENTATIONS[_BY_TYPE[jwk["kty"]]]
        material = reader.from_jwk({member: jwk[member] for member in _PUBLIC_MEMBERS if member in jwk})
        algorithms = _algorithms(material)
    except Exception:  # whatever a vendor library makes of garbage
        return None
    if alg is not None:
        algorithms = (alg,) if alg in algorithms else ()
    return Key(material, algorithms, kid) if algorithms else None


def _json_object(text: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _algorithms(material: object) -> tuple[str, ...]:
    """What a public key is for. Raises ValueError for one that is for nothing here."""
    if isinstance(material, RSAPublicKey):
        if not 2048 <= material.key_size <= MAX_RSA_BITS:
            raise ValueError(f"is an RSA key of {material.key_size} bits: 2048 to {MAX_RSA_BITS} can be used")
        return RSA
    if isinstance(material, EllipticCurvePublicKey) and material.curve.name in CURVES:
        return (CURVES[material.curve.name],)
    if isinstance(material, Ed25519PublicKey | Ed448PublicKey):
        return ("EdDSA",)
    raise ValueError("is of a kind that is not used here: RSA, P-256, P-384, P-521, Ed25519 and Ed448 are")
