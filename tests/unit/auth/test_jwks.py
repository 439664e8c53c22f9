"""The key cache: rotation, floods of unknown keys, a provider that is away. Time and fetches are the test's own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock as TaskClock

from gateway.auth.jwks import MAX_KEYS, MAX_STALE, MAX_TRIED, MIN_INTERVAL, JwksKeys, parse
from gateway.auth.jwt import JwtAuthenticator
from gateway.auth.keys import Key
from gateway.config import Auth
from gateway.errors import AuthError, GatewayError, Kind
from gateway.model import Health, Principal
from tests.support.jwks_server import Signer

NOW = 1_700_000_000
CLAIMS = {"sub": "alice", "exp": NOW + 10 * 86400}
OLD, NEW, RSA = Signer("ES256", "old"), Signer("ES256", "new"), Signer("RS256", "rsa")
REFRESH = 300.0


class Clock(TaskClock):
    def wall(self) -> float:
        return NOW + self.seconds()


class Provider:
    """Answers fetches when the test says so."""

    def __init__(self) -> None:
        self.fetches: list[Deferred[bytes]] = []
        self.cancelled = 0

    def __call__(self) -> Deferred[bytes]:
        def cancel(_fetch: Deferred[bytes]) -> None:
            self.cancelled += 1

        self.fetches.append(Deferred(cancel))
        return self.fetches[-1]

    def answer(self, *signers: Signer) -> None:
        self.fetches[-1].callback(document(*signers))

    def fail(self) -> None:
        self.fetches[-1].errback(ConnectionRefusedError("127.0.0.1"))


def document(*signers: Signer) -> bytes:
    return json.dumps({"keys": [signer.jwk for signer in signers]}).encode()


class Gate:
    """An authenticator with a cache, started."""

    def __init__(self, *signers: Signer) -> None:
        self.clock = Clock()
        self.provider = Provider()
        self.keys = JwksKeys(self.clock, self.provider, REFRESH, jitter=lambda: 0.0)
        self.authenticator = JwtAuthenticator(Auth(jwks_url="https://id.example/jwks"), self.clock, self.keys)
        self.keys.start()
        if signers:
            self.provider.answer(*signers)

    def ask(self, token: str) -> list[Any]:
        """Its result, once it is there."""
        results: list[Any] = []
        self.authenticator.authenticate(token).addCallbacks(
            lambda principal: results.append(principal.user), lambda failure: results.append(failure.value)
        )
        return results

    def why(self, token: str) -> str | Kind:
        """Why it is refused, at once."""
        (error,) = self.ask(token)
        assert isinstance(error, GatewayError)
        return error.reason if isinstance(error, AuthError) else error.kind


def test_a_known_key_answers_at_once() -> None:
    """No fetch, no turn of the reactor, for ordinary tokens."""
    gate = Gate(OLD, RSA)
    assert gate.ask(OLD.token(CLAIMS)) == ["alice"]
    assert gate.ask(RSA.token(CLAIMS)) == ["alice"]
    assert len(gate.provider.fetches) == 1


def test_the_first_tokens_wait_for_the_first_fetch() -> None:
    """A process that has just started would refuse everybody."""
    gate = Gate()
    results = [gate.ask(OLD.token(CLAIMS)) for _ in range(10)]
    assert results == [[]] * 10
    gate.provider.answer(OLD)
    assert results == [["alice"]] * 10
    assert len(gate.provider.fetches) == 1


def test_rotation_by_an_unknown_kid() -> None:
    """The first token of a new key would be refused, and its client, told 4401, would never come back."""
    gate = Gate(OLD)
    waiting = [gate.ask(NEW.token(CLAIMS)) for _ in range(100)]
    assert waiting == [[]] * 100
    assert len(gate.provider.fetches) == 2
    gate.provider.answer(OLD, NEW)
    assert waiting == [["alice"]] * 100
    assert gate.ask(OLD.token(CLAIMS)) == ["alice"]


def test_a_withdrawn_key_is_gone_with_the_next_refresh() -> None:
    """Whoever stole it could come in for ever."""
    gate = Gate(OLD, NEW)
    gate.clock.advance(REFRESH)
    gate.provider.answer(NEW)
    assert gate.ask(NEW.token(CLAIMS)) == ["alice"]
    waiting = gate.ask(OLD.token(CLAIMS))
    gate.provider.answer(NEW)
    assert waiting[0].reason == "key_unknown"


def test_b11_a_flood_of_unknown_kids_is_one_fetch() -> None:
    """The provider would block the gateway, or fall over."""
    gate = Gate(OLD)
    waiting = [gate.ask(OLD.token(CLAIMS, kid=f"kid-{number}")) for number in range(500)]
    gate.provider.answer(OLD)
    assert {result[0].reason for result in waiting} == {"key_unknown"}
    for number in range(500):
        assert gate.why(OLD.token(CLAIMS, kid=f"other-{number}")) == "key_unknown"
    assert len(gate.provider.fetches) == 2
    assert gate.ask(OLD.token(CLAIMS)) == ["alice"]
    gate.clock.advance(MIN_INTERVAL)
    assert gate.ask(NEW.token(CLAIMS)) == []
    assert len(gate.provider.fetches) == 3


def test_it_is_refreshed() -> None:
    """A key would be withdrawn, or added, and nobody notice."""
    gate = Gate(OLD)
    for number in range(2, 6):
        gate.clock.advance(REFRESH - 0.5)
        assert len(gate.provider.fetches) == number - 1
        gate.clock.advance(0.5)
        assert len(gate.provider.fetches) == number
        gate.provider.answer(OLD)


def test_old_keys_serve_while_the_provider_is_away() -> None:
    """An outage of the provider would be one of the gateway."""
    gate = Gate(OLD)
    gate.clock.advance(REFRESH)
    gate.provider.fail()
    assert gate.ask(OLD.token(CLAIMS)) == ["alice"]
    assert gate.keys.health()["jwks"][0] is Health.DEGRADED
    gate.clock.advance(MAX_STALE - REFRESH)
    assert gate.ask(OLD.token(CLAIMS)) == ["alice"]
    gate.clock.advance(1)
    assert gate.keys.health()["jwks"][0] is Health.FAILED
    results = gate.ask(OLD.token(CLAIMS))
    gate.provider.fail()
    assert results[0].kind is Kind.UNAVAILABLE
    gate.clock.advance(REFRESH)
    gate.provider.answer(OLD)
    assert gate.ask(OLD.token(CLAIMS)) == ["alice"]
    assert gate.keys.health()["jwks"] == (Health.OK, "1 keys")


def test_an_unknown_kid_while_the_provider_is_away_may_be_good() -> None:
    """Told 4401 a client with a new key would never come back: 503 it is."""
    gate = Gate(OLD)
    waiting = gate.ask(NEW.token(CLAIMS))
    gate.provider.fail()
    assert waiting[0].kind is Kind.UNAVAILABLE
    assert waiting[0].retry_after > 0
    assert gate.why(NEW.token(CLAIMS)) is Kind.UNAVAILABLE
    assert len(gate.provider.fetches) == 2


def test_failures_back_off() -> None:
    """A provider that is in trouble would be asked without end; one that is back, only minutes later."""
    gate = Gate()
    pauses = []
    for _ in range(11):
        gate.provider.fail()
        started, count = gate.clock.seconds(), len(gate.provider.fetches)
        while len(gate.provider.fetches) == count:
            gate.clock.advance(0.5)
        pauses.append(gate.clock.seconds() - started)
    assert pauses == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]


@pytest.mark.parametrize("text", [b"", b"[]", b"null", b"<html>", b'{"keys":{}}', b'{"keys":[]}', b"[" * 100_000])
def test_garbage_changes_nothing(text: bytes) -> None:
    """A proxy's error page in the place of the set would lock everybody out."""
    gate = Gate(OLD)
    gate.clock.advance(REFRESH)
    gate.provider.fetches[-1].callback(text)
    assert gate.ask(OLD.token(CLAIMS)) == ["alice"]
    assert gate.keys.health()["jwks"][0] is Health.DEGRADED


def test_a_fetch_that_fails_at_once() -> None:
    """Such as by a name that is none: it must not hold up the tokens for ever."""
    clock = Clock()

    def broken() -> Deferred[bytes]:
        raise ValueError("no host")

    keys = JwksKeys(clock, broken, REFRESH)
    gate = JwtAuthenticator(Auth(), clock, keys)
    keys.start()
    errors: list[Any] = []
    gate.authenticate(OLD.token(CLAIMS)).addErrback(lambda failure: errors.append(failure.value))
    assert errors[0].kind is Kind.UNAVAILABLE
    keys.stop()
    assert clock.getDelayedCalls() == []


@pytest.mark.parametrize("started", [False, True])
def test_stopped(started: bool) -> None:
    """No timer, no fetch and no client is left behind."""
    gate = Gate(OLD) if started else Gate()
    waiting = gate.ask(NEW.token(CLAIMS))
    gate.keys.stop()
    assert gate.provider.cancelled == 1
    assert isinstance(waiting[0], GatewayError)
    assert gate.clock.getDelayedCalls() == []
    assert gate.why(NEW.token(CLAIMS)) in ("key_unknown", Kind.UNAVAILABLE)
    assert len(gate.provider.fetches) == 1 + started
    gate.keys.stop()


def test_a_client_that_goes_while_it_waits() -> None:
    """Its place must not be answered, nor hold up the others."""
    gate = Gate()
    gone: list[str] = []
    waiting = gate.authenticator.authenticate(OLD.token(CLAIMS))
    waiting.addCallbacks(lambda principal: gone.append(principal.user), lambda failure: gone.append("cancelled"))
    stays = gate.ask(OLD.token(CLAIMS))
    waiting.cancel()
    assert gone == ["cancelled"]
    gate.provider.answer(OLD)
    assert stays == ["alice"]


def test_b10_kid() -> None:
    """A kid is compared, and nothing else done with it."""
    gate = Gate(OLD)
    for kid in ("../../dev/null", "' OR 1=1 --", "https://evil.example/jwks", "k" * 1000, "", "OLD", "old "):
        waiting = gate.ask(OLD.token(CLAIMS, kid=kid))
        if not waiting:
            gate.provider.answer(OLD)
        assert waiting[0].reason == "key_unknown"


def test_b13_the_same_kid_of_another_issuer() -> None:
    """There is one set, from one URL: another issuer's key with the same kid has no way into it."""
    gate = Gate(OLD)
    assert gate.why(Signer("ES256", "old").token({**CLAIMS, "iss": "https://evil.example"})) == "signature"


def test_b4_a_key_is_for_its_algorithm() -> None:
    """``alg`` of the set counts, never that of the token."""
    gate = Gate(RSA)
    for algorithm in ("RS384", "RS512", "PS256"):
        text = jwt.encode(CLAIMS, RSA.private, algorithm=algorithm, headers={"kid": "rsa"})
        assert gate.why(text) == "algorithm"


def test_a_token_without_kid() -> None:
    """Providers with one key need none; with many keys each try costs a signature."""
    nameless = Signer("ES256", None)
    gate = Gate(nameless, RSA)
    assert gate.ask(nameless.token(CLAIMS)) == ["alice"]
    gate = Gate(OLD, RSA)
    assert gate.ask(without_kid(OLD)) == ["alice"]
    many = [Signer("ES256", f"k{number}") for number in range(MAX_TRIED + 1)]
    gate = Gate(*many)
    assert gate.why(without_kid(many[0])) == "key_unknown"
    gate = Gate(*many[:MAX_TRIED])
    assert gate.ask(without_kid(many[3])) == ["alice"]
    assert gate.why(without_kid(RSA)) == "algorithm"
    assert len(gate.provider.fetches) == 1


def without_kid(signer: Signer) -> str:
    return jwt.encode(CLAIMS, signer.private, algorithm=signer.algorithm)


def test_two_keys_of_one_kid() -> None:
    """RFC 7517 4.5 allows it, for keys of different types; but not a hundred, which would all be tried."""
    same = [Signer("ES256", "same"), Signer("EdDSA", "same")]
    gate = Gate(*same)
    assert [gate.ask(signer.token(CLAIMS)) for signer in same] == [["alice"], ["alice"]]
    gate = Gate(*[Signer("ES256", "same") for _ in range(20)])
    found = gate.keys.find(same[0].token(CLAIMS))
    assert isinstance(found, Sequence)
    assert len(found) == MAX_TRIED


def test_malformed_tokens_make_no_fetch() -> None:
    """Nothing is asked of the provider for garbage."""
    gate = Gate(OLD)
    for text in ("garbage", "a.b.c", "..", "e30.e30.", "W10.e30."):
        assert gate.why(text) in ("malformed", "algorithm")
    assert len(gate.provider.fetches) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"use": "enc"},
        {"use": None},
        {"key_ops": ["sign"]},
        {"key_ops": "verify"},
        {"alg": "HS256"},
        {"alg": "none"},
        {"alg": "RS256"},
        {"alg": "ES384"},
        {"alg": ["ES256"]},
        {"alg": 5},
        {"kty": "RSA"},
        {"kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LTEyMzQ"},
        {"kty": "OKP"},
        {"kty": ["EC"]},
        {"kty": None},
        {"crv": "secp256k1"},
        {"crv": "P-384"},
        {"x": "AAAA"},
        {"x": 5},
        {"y": None},
        {"kid": 5},
        {"kid": "k" * 256},
    ],
)
def test_keys_of_no_use(change: dict[str, Any]) -> None:
    """A symmetric key in a public set is known to everybody; the others fit nothing that is checked here."""
    jwk = {**OLD.jwk, **change}
    with pytest.raises(ValueError, match="no key"):
        parse(json.dumps({"keys": [jwk]}).encode())
    text = json.dumps({"keys": [jwk, None, 5, "x", [], {}, NEW.jwk]}).encode()
    assert [key.kid for key in parse(text)] == ["new"]


@pytest.mark.parametrize(
    "change", [{"use": "sig"}, {"key_ops": ["verify"]}, {"x5c": ["AAAA"], "d": "AAAA", "other": {}}]
)
def test_keys_of_use(change: dict[str, Any]) -> None:
    """Private members, should a provider ever publish them, are not taken."""
    jwk = {**OLD.jwk, **change}
    (key,) = parse(json.dumps({"keys": [jwk]}).encode())
    assert (key.kid, key.algorithms) == ("old", ("ES256",))
    assert not hasattr(key.material, "private_numbers")


def test_keys_without_alg() -> None:
    """Their type says what they are for."""
    signers = [RSA, OLD, Signer("ES384", "384"), Signer("EdDSA", "ed")]
    members = [{name: value for name, value in signer.jwk.items() if name != "alg"} for signer in signers]
    found: dict[str | None, Key] = {key.kid: key for key in parse(json.dumps({"keys": members}).encode())}
    assert found["rsa"].algorithms == ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
    assert found["old"].algorithms == ("ES256",)
    assert found["384"].algorithms == ("ES384",)
    assert found["ed"].algorithms == ("EdDSA",)


def test_too_many_keys() -> None:
    """A set is small; reading a large one would hold up the reactor."""
    parse(json.dumps({"keys": [OLD.jwk] * MAX_KEYS}).encode())
    with pytest.raises(ValueError, match="more than"):
        parse(json.dumps({"keys": [OLD.jwk] * (MAX_KEYS + 1)}).encode())


def test_short_rsa_keys_are_of_no_use() -> None:
    """1024 bits can be broken (NIST SP 800-131A)."""
    weak = Signer("RS256", "weak")
    weak.private = generate_private_key(65537, 1024)
    with pytest.raises(ValueError, match="no key"):
        parse(document(weak))


def test_a_principal_is_what_comes_out() -> None:
    """The same claims as with a configured key."""
    gate = Gate(OLD)
    found: list[Principal] = []
    gate.authenticator.authenticate(OLD.token({**CLAIMS, "topics": ["news"]})).addCallback(found.append)
    assert found[0].topics.patterns == ("news",)
