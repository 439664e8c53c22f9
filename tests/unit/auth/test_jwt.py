"""Section B of the hostile inputs, over ``authenticate()``; the ids are the rows'. And what a good token says."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock as TaskClock

from gateway.auth.claims import MAX_LIFETIME
from gateway.auth.jwt import MAX_TOKEN_LENGTH, REASONS, JwtAuthenticator
from gateway.auth.keys import from_secret
from gateway.config import Auth
from gateway.core import access, names
from gateway.errors import AuthError, ConfigError, GatewayError, Kind
from gateway.model import Grants, Principal
from tests.support.jwks_server import Signer

SECRET = b"0123456789abcdef0123456789abcdef"
OTHER_SECRET = b"another-secret-of-some-32-bytes!"
NOW = 1_700_000_000.25
GOOD: Mapping[str, Any] = {"sub": "alice", "exp": int(NOW) + 3600}
RSA = Signer("RS256")


class Clock(TaskClock):
    """The wall clock stands where the test puts it; the machine's own is years away."""

    def wall(self) -> float:
        return NOW + self.seconds()


def b64(data: bytes | str | object) -> str:
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
    return JwtAuthenticator(Auth(**{"secrets": (SECRET,), **settings}), Clock())


def accepted(text: str, **settings: Any) -> Principal:
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


def test_b12_nothing_in_the_header_is_followed() -> None:
    """A key that the token brings along, or points at, would let everybody in."""
    own = Signer("ES256")
    headers = {"jku": "http://127.0.0.1:1/", "x5u": "http://127.0.0.1:1/", "jwk": own.jwk, "x5c": ["AAAA"]}
    assert refused(own.token(GOOD, **headers), authenticator()).reason == "algorithm"
    gate = authenticator(secrets=(), public_keys=(Signer("ES256").pem,))
    assert refused(own.token(claims(iss="http://127.0.0.1:1/"), **headers), gate).reason == "signature"


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


def test_it_is_answered_at_once() -> None:
    """A turn of the reactor for each handshake would be time for nothing."""
    assert authenticator().authenticate(token()).called


@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda data: data.decode("latin-1")))
def test_any_text_is_refused_in_order(text: str) -> None:
    """Whatever comes: an AuthError, never another exception."""
    refused(text, authenticator())


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


def test_unavailable_keys_are_no_fault_of_the_token() -> None:
    """A client told 4401 never comes back."""

    class Away:
        def find(self, token: str) -> Any:
            raise GatewayError("away", Kind.UNAVAILABLE)

    errors: list[Any] = []
    gate = JwtAuthenticator(Auth(), Clock(), Away())
    gate.authenticate(token()).addErrback(lambda failure: errors.append(failure.value))
    assert errors[0].kind is Kind.UNAVAILABLE
