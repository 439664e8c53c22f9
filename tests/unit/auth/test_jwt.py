"""Section B of the hostile inputs, over ``authenticate()``; the ids are the rows'. And the keys."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.auth.jwt import MAX_TOKEN_LENGTH, JwtAuthenticator
from gateway.auth.keys import from_secret
from gateway.config import Auth
from gateway.errors import ConfigError, GatewayError, Kind
from tests.support.jwks_server import Signer
from tests.support.tokens import GOOD, NOW, SECRET, Clock, accepted, authenticator, b64, claims, raw, refused, token

OTHER_SECRET = b"another-secret-of-some-32-bytes!"
RSA = Signer("RS256")

HEADER, PAYLOAD, SIGNATURE = token().split(".")
KIDS_THAT_ARE_NONE: tuple[object, ...] = ([], ["a"], 1, None, {})
HEADERS_WITH_EXTENSIONS: dict[str, dict[str, object]] = {
    "unknown": {"crit": ["exp"], "exp": 1},
    "empty": {"crit": []},
    "no-list": {"crit": "exp"},
    "b64-false": {"b64": False, "crit": ["b64"]},
    "b64-false-uncritical": {"b64": False},
    "b64-true": {"b64": True, "crit": ["b64"]},
}
NUMBERS_THAT_ARE_NONE = {
    "null": "null",
    "string": f'"{int(NOW) + 3600}"',
    "list": f"[{int(NOW) + 3600}]",
    "object": "{}",
    "true": "true",
    "false": "false",
    "negative": "-1",
    "1e400": "1e400",
    "400-digits": "9" * 400,
    "year-10000": "253402300800",
}
NOT_JSON = {"NaN": "NaN", "Infinity": "Infinity", "minus-Infinity": "-Infinity", "5000-digits": "9" * 5000}


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        pytest.param("missing", "", id="B1-empty"),
        *(
            pytest.param("malformed", text, id=f"B1-{name}")
            for name, text in {
                "garbage": "garbage",
                "blanks": "  ",
                "2-segments": f"{HEADER}.{PAYLOAD}",
                "5-segments": f"{HEADER}.{PAYLOAD}.{SIGNATURE}.{SIGNATURE}.{SIGNATURE}",
                "dots-2": "..",
                "dots": "." * MAX_TOKEN_LENGTH,
                "not-base64": f"{HEADER}.{PAYLOAD}!.{SIGNATURE}",
                "standard-base64": f"{HEADER}.{PAYLOAD}.+/{SIGNATURE[2:]}",
                "not-ascii": f"{HEADER}.{PAYLOAD}.ü",
                "surrogate": f"{HEADER}.{PAYLOAD}.\ud800",
                "blank-before": f" {token()}",
                "line-end": f"{token()}\n",
                "bearer": f"Bearer {token()}",
            }.items()
        ),
        pytest.param("too_large", "." * 10_000, id="B1-10000-dots"),
        pytest.param("signature", f"{HEADER}.{PAYLOAD}.", id="B2-removed"),
        pytest.param("signature", f"{HEADER}.{PAYLOAD}.{b64(bytes(32))}", id="B2-zero"),
        pytest.param("signature", f"{HEADER}.{PAYLOAD}.{SIGNATURE[:40]}", id="B2-cut"),
        pytest.param("signature", f"{HEADER}.{b64(claims(sub='root'))}.{SIGNATURE}", id="B2-payload-swapped"),
        pytest.param("signature", token(key=OTHER_SECRET), id="B2-wrong-secret"),
        pytest.param("signature", token(key=b""), id="B2-empty-secret"),
        *(
            pytest.param("algorithm", token(header={"alg": alg}), id=f"B3-{alg!r}")
            for alg in ("none", "None", "NONE", "nOnE", "", "hs256", "HS256 ", None, 256, True, ["HS256"], {"HS256": 1})
        ),
        *(
            pytest.param("algorithm", f"{b64({'alg': alg})}.{PAYLOAD}.", id=f"B3-{alg}-bare")
            for alg in ("none", "nOnE")
        ),
        pytest.param("algorithm", token(header={"typ": "JWT"}), id="B3-missing"),
        pytest.param("algorithm", token(header={"alg": "HS384"}, digest="sha384"), id="B4-HS384"),
        pytest.param("algorithm", token(header={"alg": "HS512"}, digest="sha512"), id="B4-HS512"),
        *(
            pytest.param("algorithm", token(header={"alg": alg}), id=f"B4-{alg}")
            for alg in ("RS256", "PS256", "ES256", "ES512", "EdDSA", "ES256K")
        ),
        pytest.param("expired", token(claims(exp=int(NOW) - 31)), id="B6-expired"),
        pytest.param("expired", token(claims(exp=0)), id="B6-expired-1970"),
        pytest.param("not_yet_valid", token(claims(nbf=int(NOW) + 32)), id="B6-nbf"),
        pytest.param("not_yet_valid", token(claims(iat=int(NOW) + 32)), id="B6-iat"),
        pytest.param("claims", token(claims(exp=...)), id="B6-no-exp"),
        pytest.param("lifetime", token(claims(exp=int(NOW) + 100 * 365 * 86400)), id="B6-100-years"),
        *(
            pytest.param("claims", token(raw(**{name: value})), id=f"B7-{name}-{kind}")
            for name in ("exp", "nbf", "iat")
            for kind, value in NUMBERS_THAT_ARE_NONE.items()
        ),
        *(
            pytest.param("malformed", token(raw(**{name: value})), id=f"B7-{name}-{kind}")
            for name in ("exp", "nbf")
            for kind, value in NOT_JSON.items()
        ),
        pytest.param("user", token(claims(sub=...)), id="B9-missing"),
        *(
            pytest.param("user", token(claims(sub=sub)), id=f"B9-{name}")
            for name, sub in {
                "empty": "",
                "null": None,
                "float": 1.5,
                "bool": True,
                "list": ["alice"],
                "object": {"id": "alice"},
                "256-bytes": "x" * 256,
                "256-bytes-utf8": "ü" * 128,
                "300-digits": 10**300,
                "CR-LF": "alice\r\nSET x 1",
                "NUL": "alice\0",
                "ESC": "\x1b[31malice",
                "DEL": "alice\x7f",
                "NEL": "alice\x85",
                "line-separator": "alice\u2028bob",
                "surrogate": "alice\ud800",
            }.items()
        ),
        pytest.param("too_large", token(claims(sub="x" * 100_000)), id="B9-100kB"),
        *(
            pytest.param("malformed", token(header={"alg": "HS256", "kid": kid}), id=f"B10-{kid}")
            for kid in KIDS_THAT_ARE_NONE
        ),
        pytest.param("too_large", token(header={"alg": "HS256", "kid": "k" * 100_000}), id="B10-100kB"),
        *(
            pytest.param("malformed", token(header={"alg": "HS256", **header}), id=f"B14-{name}")
            for name, header in HEADERS_WITH_EXTENSIONS.items()
        ),
        *(
            pytest.param("malformed", token(payload), id=f"B15-payload-{name}")
            for name, payload in {
                "array": [GOOD],
                "null": "null",
                "string": '"alice"',
                "text": "hello",
                "empty": "",
                "two": raw() + raw(),
                "bom": "\ufeff" + raw(),
                "not-utf8": b'{"sub":"\xff"}',
                "utf16": raw().encode("utf-16"),
                "deep": "[" * 5000,
                "deep-object": '{"a":' * 1100,
            }.items()
        ),
        *(
            pytest.param("malformed", token(header=header), id=f"B15-header-{name}")
            for name, header in {
                "array": ["HS256"],
                "null": "null",
                "not-utf8": b'{"alg":"HS256","x":"\xff"}',
                "deep": "[" * 5000,
                "digits": '{"alg":' + "9" * 4500 + "}",
            }.items()
        ),
        pytest.param("too_large", token('{"a":' * 50_000), id="B15-50000-deep"),
        pytest.param("too_large", token(claims(x="x" * 2**16)), id="B16-64KiB"),
        pytest.param("too_large", token(claims(x="x" * 2**20)), id="B16-1MiB"),
    ],
)
def test_refused(reason: str, text: str) -> None:
    """Each of these is somebody who is let in, or an exception that ends up where it should not."""
    assert refused(text, authenticator()).reason == reason


@pytest.mark.parametrize("index", range(0, len(token()), 7))
def test_b2_one_character_flipped(index: int) -> None:
    """A signature that is checked over less than the whole token."""
    good = token()
    if good[index] == ".":
        index += 1
    refused(good[:index] + ("A" if good[index] != "A" else "B") + good[index + 1 :], authenticator())


@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "ES256", "ES384", "ES512", "EdDSA"])
def test_b4_b5_a_public_key_is_no_secret(algorithm: str) -> None:
    """The public key is known to everybody: used as a secret it would let everybody in (CVE-2022-29217)."""
    signer = RSA if algorithm[:2] in ("RS", "PS") else Signer(algorithm)
    gate = authenticator(secrets=(), public_keys=(signer.pem,))
    ssh_and_jwk = [json.dumps(signer.jwk).encode(), json.dumps(signer.jwk, separators=(",", ":")).encode()]
    for secret in [signer.pem, signer.pem.strip(), *ssh_and_jwk, b""]:
        for name, digest in (("HS256", "sha256"), ("HS512", "sha512"), (algorithm, "sha256")):
            forged = token(header={"alg": name}, key=secret, digest=digest)
            assert refused(forged, gate).reason in ("algorithm", "signature")
    others = {"RS256", "ES256", "ES384", "EdDSA", "none"} - {algorithm}
    for other in others:
        assert refused(token(header={"alg": other}), gate).reason in ("algorithm", "signature")


@pytest.mark.parametrize("algorithm", ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"])
def test_rsa_keys(algorithm: str) -> None:
    """RS and PS are both for RSA keys."""
    text = jwt.encode(dict(GOOD), RSA.private, algorithm=algorithm)
    assert accepted(text, secrets=(), public_keys=(RSA.pem,)).user == "alice"


@pytest.mark.parametrize("algorithm", ["ES256", "ES384", "ES512", "EdDSA"])
def test_curve_keys(algorithm: str) -> None:
    """The curve fixes the algorithm."""
    signer = Signer(algorithm)
    assert accepted(signer.token(GOOD), secrets=(), public_keys=(signer.pem,)).user == "alice"
    refused(Signer(algorithm).token(GOOD), authenticator(secrets=(), public_keys=(signer.pem,)))


def test_keys_while_they_rotate() -> None:
    """Old and new key for a while (B23): nobody's token stops to work, whatever ``kid`` it has (B10)."""
    gate = {"secrets": (SECRET, OTHER_SECRET)}
    assert accepted(token(), **gate).user == "alice"
    assert accepted(token(key=OTHER_SECRET), **gate).user == "alice"
    for kid in ("../../dev/null", "' OR 1=1", "https://evil.example/key", "unknown"):
        assert accepted(token(header={"alg": "HS256", "kid": kid}), **gate).user == "alice"
    refused(token(key=b"x" * 32), authenticator(**gate))
    new = Signer("ES256")
    both = {"secrets": (), "public_keys": (RSA.pem, new.pem)}
    assert accepted(RSA.token(GOOD), **both).user == "alice"
    assert accepted(new.token(GOOD), **both).user == "alice"


@pytest.mark.parametrize("alg", ["HS256", "HS384", "HS512"])
def test_a_secret_as_jwk_is_for_its_algorithm(alg: str) -> None:
    """A plain secret is for HS256 only; others have to be said."""
    secret = hashlib.sha512(b"x").digest()
    jwk = json.dumps({"kty": "oct", "alg": alg, "k": b64(secret)}).encode()
    for other in ("HS256", "HS384", "HS512"):
        text = token(header={"alg": other}, key=secret, digest=f"sha{other[2:]}")
        if other == alg:
            assert accepted(text, secrets=(jwk,)).user == "alice"
        else:
            assert refused(text, authenticator(secrets=(jwk,))).reason == "algorithm"


@pytest.mark.parametrize(
    "settings",
    [
        {"secrets": (b"tiny",)},
        {"secrets": (b"x" * 31,)},
        {"secrets": (RSA.pem,)},
        {"secrets": (json.dumps(RSA.jwk).encode(),)},
        {"secrets": (b'{"kty":"oct","k":"AAAA"}',)},
        {"secrets": (b'{"kty":"oct","alg":"HS512","k":"' + b64(bytes(40)).encode() + b'"}',)},
        {"secrets": (b'{"kty":"oct","alg":"none","k":"' + b64(bytes(40)).encode() + b'"}',)},
        {"secrets": (), "public_keys": (b"-----BEGIN PUBLIC KEY-----\nx\n-----END PUBLIC KEY-----",)},
        {"secrets": (), "public_keys": (SECRET,)},
        {"secrets": (), "public_keys": (Signer("ES256K").pem,)},
    ],
)
def test_keys_that_cannot_be_used_stop_the_start(settings: dict[str, Any]) -> None:
    """Found out with the first token, nobody would get in. The key itself is not shown."""
    with pytest.raises(ConfigError) as caught:
        authenticator(**settings)
    (problem,) = caught.value.problems
    assert problem.startswith(("auth.secret: key 1 ", "auth.publicKeyFile: key 1 "))
    for key in (*settings["secrets"], *settings.get("public_keys", ())):
        assert key.decode() not in problem
        assert key.decode() not in str(caught.getrepr(style="short"))


def test_a_key_is_not_in_its_repr() -> None:
    """A traceback with locals would print it."""
    assert SECRET.decode() not in repr(from_secret(SECRET))


def test_b12_nothing_in_the_header_is_followed() -> None:
    """A key that the token brings along, or points at, would let everybody in."""
    own = Signer("ES256")
    headers = {"jku": "http://127.0.0.1:1/", "x5u": "http://127.0.0.1:1/", "jwk": own.jwk, "x5c": ["AAAA"]}
    assert refused(own.token(GOOD, **headers), authenticator()).reason == "algorithm"
    gate = authenticator(secrets=(), public_keys=(Signer("ES256").pem,))
    assert refused(own.token(claims(iss="http://127.0.0.1:1/"), **headers), gate).reason == "signature"


def test_b22_signatures_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """With ``==`` the time tells how many bytes are right."""
    compared: list[int] = []
    original = hmac.compare_digest

    def compare(a: bytes, b: bytes) -> bool:
        compared.append(len(a))
        return original(a, b)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    accepted(token())
    refused(token(key=OTHER_SECRET), authenticator())
    assert compared == [32, 32]


def test_it_is_answered_at_once() -> None:
    """A turn of the reactor for each handshake would be time for nothing."""
    assert authenticator().authenticate(token()).called


@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda data: data.decode("latin-1")))
def test_any_text_is_refused_in_order(text: str) -> None:
    """Whatever comes: an AuthError, never another exception."""
    refused(text, authenticator())


def test_unavailable_keys_are_no_fault_of_the_token() -> None:
    """A client told 4401 never comes back."""

    class Away:
        def find(self, token: str) -> Any:
            raise GatewayError("away", Kind.UNAVAILABLE)

    errors: list[Any] = []
    gate = JwtAuthenticator(Auth(), Clock(), Away())
    gate.authenticate(token()).addErrback(lambda failure: errors.append(failure.value))
    assert errors[0].kind is Kind.UNAVAILABLE
