"""Section B of the hostile inputs: tokens. The ids begin with the rows' ids.

Every forged, broken or borrowed token is refused with 401 and a constant text, counted by its reason, and found nowhere
afterwards. Each of these cases has let somebody in somewhere.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.api_jws import PyJWS

from tests.support.hostile import OLD_SECRET, Target, now
from tests.support.jwks_server import JwksServer, Signer
from tests.support.rawclient import TEXT, upgrade_request
from tests.support.tokens import SECRET, b64, token

HOUR = 3600
PROVIDERS, STRANGERS = Signer("RS256", "k1"), Signer("RS256", "k1")
ISSUER, AUDIENCE = "https://issuer.example", "app"


def claims(**changes: Any) -> dict[str, Any]:
    """Good ones with these changes; ``...`` takes one out."""
    return {
        name: value for name, value in {"sub": "mallory", "exp": now() + HOUR, **changes}.items() if value is not ...
    }


def raw(**members: str) -> str:
    """Claims as JSON text, for what json.dumps does not write; an empty text takes one out."""
    written = {"sub": '"mallory"', "exp": str(now() + HOUR), **members}
    return "{" + ",".join(f'"{name}":{value}' for name, value in written.items() if value) + "}"


HEADER, PAYLOAD, SIGNATURE = token(claims()).split(".")


def flipped(index: int) -> str:
    good = token(claims())
    return good[:index] + ("A" if good[index] != "A" else "B") + good[index + 1 :]


def case(id: str, reason: str, text: str) -> object:
    return pytest.param(text, reason, id=id)


NUMBERS_THAT_ARE_NONE = {
    "null": "null",
    "string": f'"{now() + HOUR}"',
    "list": f"[{now() + HOUR}]",
    "bool": "true",
    "negative": "-1",
    "1e400": "1e400",
    "400-digits": "9" * 400,
    "year-10000": "253402300800",
}
NOT_JSON = {"NaN": "NaN", "Infinity": "Infinity", "minus-Infinity": "-Infinity", "5000-digits": "9" * 5000}

EXTENSIONS: dict[str, dict[str, Any]] = {
    "unknown": {"crit": ["exp"], "exp": 1},
    "empty": {"crit": []},
    "no-list": {"crit": "exp"},
    "b64-false": {"b64": False, "crit": ["b64"]},
    "b64-false-uncritical": {"b64": False},
}

REFUSED = [
    # B1, no token at all
    *(
        case(f"B1-{name}", "malformed", text)
        for name, text in {
            "garbage": "garbage-garbage-garbage",
            "2-segments": f"{HEADER}.{PAYLOAD}",
            "5-segments": f"{HEADER}.{PAYLOAD}.{SIGNATURE}.{SIGNATURE}.{SIGNATURE}",
            "dots": "..",
            "5000-dots": "." * 5000,
            "blank-before": f" {token(claims())}",
            "line-end": f"{token(claims())}\n",
            "NUL": f"{token(claims())}\0",
            "not-ascii": f"{HEADER}.{PAYLOAD}.ü",
            "with-scheme": f"Bearer {token(claims())}",
            "quoted": f'"{token(claims())}"',
            "standard-base64": f"{HEADER}.{PAYLOAD}.+/{SIGNATURE[2:]}",
        }.items()
    ),
    case("B1-10000-dots", "too_large", "." * 10_000),
    # B2, signatures that do not hold
    case("B2-removed", "signature", f"{HEADER}.{PAYLOAD}."),
    case("B2-zero", "signature", f"{HEADER}.{PAYLOAD}.{b64(bytes(32))}"),
    case("B2-cut", "signature", f"{HEADER}.{PAYLOAD}.{SIGNATURE[:40]}"),
    case("B2-flipped", "signature", flipped(-10)),
    case("B2-payload-swapped", "signature", f"{HEADER}.{b64(claims(sub='root'))}.{SIGNATURE}"),
    case("B2-wrong-secret", "signature", token(claims(), key=b"another secret of thirty-two bytes")),
    case("B2-empty-secret", "signature", token(claims(), key=b"")),
    # B3, the algorithm is the key's and not the token's
    *(
        case(f"B3-{alg!r}", "algorithm", token(claims(), header={"alg": alg}))
        for alg in ("none", "None", "NONE", "nOnE", "", "hs256", "HS256 ", None, 256, True, ["HS256"], {"HS256": 1})
    ),
    *(
        case(f"B3-{alg}-unsigned", "algorithm", f"{b64({'alg': alg})}.{b64(claims())}.")
        for alg in ("none", "None", "NONE", "nOnE")
    ),
    case("B3-missing", "algorithm", token(claims(), header={"typ": "JWT"})),
    # B4, one family a key
    case("B4-HS384", "algorithm", token(claims(), header={"alg": "HS384"}, digest="sha384")),
    case("B4-HS512", "algorithm", token(claims(), header={"alg": "HS512"}, digest="sha512")),
    *(
        case(f"B4-{alg}", "algorithm", token(claims(), header={"alg": alg}))
        for alg in ("RS256", "PS256", "ES256", "ES512", "EdDSA", "ES256K")
    ),
    # B6, B7, times
    case("B6-expired", "expired", token(claims(exp=now() - HOUR))),
    case("B6-expired-in-1970", "expired", token(claims(exp=0))),
    case("B6-nbf", "not_yet_valid", token(claims(nbf=now() + HOUR // 2))),
    case("B6-iat", "not_yet_valid", token(claims(iat=now() + HOUR // 2))),
    case("B6-no-exp", "claims", token(claims(exp=...))),
    case("B6-100-years", "lifetime", token(claims(exp=now() + 100 * 365 * 86400))),
    *(
        case(f"B7-{name}-{kind}", "claims", token(raw(**{name: value})))
        for name in ("exp", "nbf", "iat")
        for kind, value in NUMBERS_THAT_ARE_NONE.items()
    ),
    *(
        case(f"B7-{name}-{kind}", "malformed", token(raw(**{name: value})))
        for name in ("exp", "nbf")
        for kind, value in NOT_JSON.items()
    ),
    # B9, users that cannot be one
    case("B9-missing", "user", token(claims(sub=...))),
    *(
        case(f"B9-{name}", "user", token(claims(sub=sub)))
        for name, sub in {
            "empty": "",
            "null": None,
            "float": 1.5,
            "bool": True,
            "list": ["alice"],
            "256-bytes": "x" * 256,
            "300-digits": 10**300,
            "CR-LF": "alice\r\nSET x 1",
            "NUL": "alice\0",
            "ESC": "\x1b[31malice",
            "NEL": "alice\x85",
            "line-separator": "alice\u2028bob",
            "surrogate": "alice\ud800",
        }.items()
    ),
    # B10, kid
    *(
        case(f"B10-{name}", "malformed", token(claims(), header={"alg": "HS256", "kid": kid}))
        for name, kid in {"list": ["a"], "number": 1, "null": None, "object": {}}.items()
    ),
    *(
        case(f"B10-{name}", "signature", token(claims(), header={"alg": "HS256", "kid": kid}, key=key))
        for name, kid, key in (
            ("dev-null", "../../../../dev/null", b""),
            ("sql", "x' UNION SELECT 'secret", b"secret"),
            ("url", "http://127.0.0.1:1/key", b"key"),
        )
    ),
    # B14, extensions
    *(
        case(f"B14-{name}", "malformed", token(claims(), header={"alg": "HS256", **header}))
        for name, header in EXTENSIONS.items()
    ),
    # B15, what is no object
    *(
        case(f"B15-payload-{name}", "malformed", token(payload))
        for name, payload in {
            "array": [claims()],
            "null": "null",
            "string": '"mallory"',
            "text": "hello",
            "empty": "",
            "two": raw() + raw(),
            "bom": "\ufeff" + raw(),
            "not-utf8": b'{"sub":"\xff"}',
            "utf16": raw().encode("utf-16"),
            "5000-deep": "[" * 5000,
            "deep-object": '{"a":' * 1100,
        }.items()
    ),
    *(
        case(f"B15-header-{name}", "malformed", token(claims(), header=header))
        for name, header in {
            "array": ["HS256"],
            "null": "null",
            "not-utf8": b'{"alg":"HS256","x":"\xff"}',
            "5000-deep": "[" * 5000,
            "digits": '{"alg":' + "9" * 4500 + "}",
        }.items()
    ),
    # B16, size
    case("B16-8-KiB", "too_large", token(claims(x="x" * 6500))),
    case("B16-15-KiB", "too_large", "x" * 15_000),
    # B20, clocks further apart than the leeway
    case("B20-issuer-an-hour-ahead", "not_yet_valid", token(claims(iat=now() + HOUR, exp=now() + 2 * HOUR))),
    case("B20-issuer-an-hour-behind", "expired", token(claims(iat=now() - 2 * HOUR, exp=now() - HOUR + 600))),
]


def places(text: str) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """The query, and the two headers where they can hold such a text."""
    yield Target.target(text), []
    if re.fullmatch(r"[!-~]+", text):
        yield "/ws", [("Authorization", f"Bearer {text}")]
        if "," not in text:
            yield "/ws", [("Sec-WebSocket-Protocol", f"bearer, {text}")]


def auth_errors(target: Target) -> dict[str, int]:
    """Counts by reason."""
    pattern = re.compile(r'ws_gateway_websocket_auth_errors_total\{reason="(.+)"\}')
    found = ((pattern.fullmatch(name), value) for name, value in target.daemon.metrics().items())
    return {match[1]: int(value) for match, value in found if match}


@pytest.mark.parametrize(("text", "reason"), REFUSED)
def test_a_token_that_is_refused(target: Target, text: str, reason: str) -> None:
    target.known(text)
    before = auth_errors(target)
    answers = [target.upgrade(where, headers=headers) for where, headers in places(text)]
    for answer in answers:
        assert (answer.status, answer.json()["code"]) == (401, "unauthorized"), answer
        assert answer.headers["www-authenticate"] == "Bearer"
    assert len({answer.body for answer in answers}) == 1
    counted = {kind: count - before.get(kind, 0) for kind, count in auth_errors(target).items()}
    assert {kind: count for kind, count in counted.items() if count} == {reason: len(answers)}


@pytest.mark.parametrize(
    ("where", "headers"),
    [
        pytest.param("/ws", [], id="B1-none"),
        pytest.param("/ws?token=", [], id="B1-empty"),
        pytest.param("/ws", [("Authorization", "Bearer")], id="B1-bearer-alone"),
        pytest.param("/ws", [("Authorization", "Basic bWFsbG9yeTp4")], id="B1-another-scheme"),
        pytest.param("/ws", [("Sec-WebSocket-Protocol", "bearer")], id="B1-subprotocol-alone"),
        pytest.param("/ws?TOKEN=x", [], id="B1-another-parameter"),
    ],
)
def test_no_token(target: Target, where: str, headers: list[tuple[str, str]]) -> None:
    before = auth_errors(target).get("missing", 0)
    assert target.upgrade(where, headers=headers).status == 401
    assert auth_errors(target)["missing"] == before + 1


# B8, B5, B10 to B13: keys of a provider


@pytest.fixture(scope="module")
def provider() -> Iterator[JwksServer]:
    with JwksServer(PROVIDERS) as server:
        yield server


@pytest.fixture(scope="module")
def attacked_by_strangers(provider: JwksServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A daemon that asks a provider for keys, and names issuer and audience."""
    auth = {"secretFile": None, "jwksUrl": provider.url, "audience": [AUDIENCE, "other"], "issuer": ISSUER}

    def sign(claims: Mapping[str, Any]) -> str:
        return PROVIDERS.token({"iss": ISSUER, "aud": AUDIENCE, **claims})

    with Target({"auth": auth}, tmp_path_factory.mktemp("provider"), sign) as target:
        yield target
        target.found_nowhere()


@pytest.fixture
def provided(attacked_by_strangers: Target) -> Iterator[Target]:
    with attacked_by_strangers.guarded():
        yield attacked_by_strangers


def theirs(signer: Signer = PROVIDERS, header: Mapping[str, Any] | None = None, **changes: Any) -> str:
    """As a provider signs it; PyJWT's own ``encode`` would not write an ``iss`` that is a list."""
    payload = json.dumps(claims(**{"iss": ISSUER, "aud": AUDIENCE, **changes})).encode()
    return PyJWS().encode(payload, signer.private, signer.algorithm, {"kid": signer.kid, **(header or {})})


def confused(key: bytes, alg: str = "HS256") -> str:
    """A token that is signed with the provider's public key as if that were a secret."""
    header = {"alg": alg, "kid": "k1"}
    return token(claims(iss=ISSUER, aud=AUDIENCE), header=header, key=key, digest=f"sha{alg[2:]}")


SSH = PROVIDERS.private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        *(
            pytest.param("algorithm", confused(key, alg), id=f"B5-{name}-{alg}")
            for name, key in {
                "pem": PROVIDERS.pem,
                "pem-stripped": PROVIDERS.pem.strip(),
                "jwk": json.dumps(PROVIDERS.jwk).encode(),
                "modulus": PROVIDERS.jwk["n"].encode(),
                "ssh": SSH,
                "empty": b"",
            }.items()
            for alg in ("HS256", "HS512")
        ),
        *(
            pytest.param("audience", theirs(aud=aud), id=f"B8-aud-{name}")
            for name, aud in {
                "wrong": "other-app",
                "missing": ...,
                "number": 1,
                "null": None,
                "prefix": "ap",
                "longer": "app2",
                "blank": "app ",
                "list-wrong": ["x", "y"],
                "list-nested": [["app"]],
                "object": {"app": 1},
                "list-empty": [],
            }.items()
        ),
        *(
            pytest.param("issuer", theirs(iss=iss), id=f"B8-iss-{name}")
            for name, iss in {
                "wrong": "https://evil.example",
                "missing": ...,
                "null": None,
                "list": [ISSUER],
                "part": ISSUER[:-1],
                "longer": ISSUER + ".evil.example",
                "slash": ISSUER + "/",
                "substring": "https",
            }.items()
        ),
        pytest.param("signature", theirs(STRANGERS), id="B13-same-kid"),
        pytest.param("signature", theirs(STRANGERS, iss="https://evil.example"), id="B13-same-kid-another-issuer"),
        *(
            pytest.param("key_unknown", theirs(header={"kid": kid}), id=f"B10-kid-{name}")
            for name, kid in {"path": "../../k1", "sql": "k1' OR '1'='1", "upper-case": "K1", "blank": "k1 "}.items()
        ),
    ],
)
def test_a_token_for_somebody_else(provided: Target, reason: str, text: str) -> None:
    before = auth_errors(provided).get(reason, 0)
    assert provided.upgrade(Target.target(provided.known(text))).status == 401
    assert auth_errors(provided)[reason] == before + 1


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="B8-right"),
        pytest.param({"aud": ["x", "app"]}, id="B8-one-of-a-list"),
        pytest.param({"aud": "other"}, id="B8-the-other-audience"),
    ],
)
def test_a_token_of_the_provider(provided: Target, changes: dict[str, Any]) -> None:
    """Without these, everything else here would pass for a daemon that lets nobody in."""
    with provided.connect() as client:
        assert client.upgrade(Target.target(provided.known(theirs(**changes)))).status == 101


@pytest.mark.parametrize("count", [pytest.param(1000, id="B11-1000-fresh-kids")])
def test_unknown_kids_do_not_flood_the_provider(provided: Target, provider: JwksServer, count: int) -> None:
    """Whoever can make the gateway fetch has a lever against the provider, and against everybody who waits for keys."""
    asked, began = provider.requests, now()
    _, payload, signature = theirs().split(".")
    for number in range(count):
        forged = f"{b64({'alg': 'RS256', 'kid': f'fresh-{number}'})}.{payload}.{signature}"
        with provided.connect() as client:
            assert client.request(upgrade_request(Target.target(forged))).status == 401
    assert provider.requests - asked <= 1 + (now() - began) // 5  # one fetch each 5 s
    with provided.connect() as client:
        assert client.upgrade(Target.target(provided.token())).status == 101


@pytest.mark.parametrize(
    "header", [pytest.param(name, id=f"B12-{name}") for name in ("jku", "x5u", "jwk", "x5c", "iss")]
)
def test_nothing_that_a_token_points_at_is_fetched(provided: Target, header: str) -> None:
    """The attacker's own key, by the attacker's own address: the first thing that is tried."""
    with JwksServer(STRANGERS) as attackers:
        url = attackers.url
        headers: dict[str, Any] = {"jku": url, "x5u": url, "jwk": STRANGERS.jwk, "x5c": ["AAAA"]}
        text = theirs(STRANGERS, iss=url) if header == "iss" else theirs(STRANGERS, header={header: headers[header]})
        assert provided.upgrade(Target.target(provided.known(text))).status == 401
        assert attackers.requests == 0


# B9, B10: odd, and right


@pytest.mark.parametrize(
    "sub",
    [
        pytest.param(sub, id=f"B9-odd-{name}")
        for name, sub in {
            "star": "*",
            "path": "../../etc/passwd",
            "slash": "a/b",
            "braces": "{sub}",
            "percent": "%41",
            "quote": "'; FLUSHALL; --",
            "blank": " ",
            "unicode": "\u0645\u0631\u062d\u0628\u0627 😀",
            "markup": "<script>alert(1)</script>",
            "255-bytes": "x" * 255,
        }.items()
    ],
)
def test_a_user_is_never_a_pattern(target: Target, sub: str) -> None:
    """``{sub}`` in a claim is this user's own name, whatever they are called: ``*`` would be everybody's keys."""
    with target.connect() as client:
        hello = target.open(client, token=target.token(sub, topics=["prices/{sub}"]))
        assert hello["userId"] == sub
        assert [len(entry["names"]) for entry in hello["subscriptions"]] == [1]
        client.send_text({"type": "SUBSCRIBE", "topics": ["prices/AAPL"]})
        assert client.message()["code"] == "forbidden"
    with target.connect() as client:
        assert client.upgrade(target.target(target.token(sub, topics=["prices/{sub}"]), topics="prices")).status == 403


@pytest.mark.parametrize(
    "kid", [pytest.param(kid, id=f"B10-odd-{kid}") for kid in ("../../etc/passwd", "' OR 1=1 --", "")]
)
def test_kid_is_not_looked_at_where_keys_are_fixed(target: Target, kid: str) -> None:
    with target.connect() as client:
        text = token(claims(), header={"alg": "HS256", "kid": kid})
        assert client.upgrade(target.target(target.known(text))).status == 101


# B16: too large for any head


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(token(claims(sub="x" * 100_000)), id="B9-100-kB"),
        pytest.param(token(claims(), header={"alg": "HS256", "kid": "k" * 100_000}), id="B10-100-kB"),
        pytest.param(token('{"a":' * 50_000), id="B15-50000-deep"),
        pytest.param(token(claims(x="x" * (16 << 10))), id="B16-16-KiB"),
        pytest.param(token(claims(x="x" * (64 << 10))), id="B16-64-KiB"),
        pytest.param(token(claims(x="x" * (1 << 20))), id="B16-1-MiB"),
    ],
)
def test_a_token_that_no_head_can_hold(target: Target, text: str) -> None:
    """Refused by its size, before anything is decoded or kept."""
    target.known(text)
    assert target.upgrade(target.target(text)).status == 414
    assert target.upgrade("/ws", headers=[("Authorization", f"Bearer {text}")]).status == 431
    assert target.upgrade("/ws", headers=[("Sec-WebSocket-Protocol", f"bearer, {text}")]).status == 431


# B18: where it may stand


def two_places(first: str, second: str) -> dict[str, tuple[str, list[tuple[str, str]]]]:
    return {
        "query-and-header": (Target.target(first), [("Authorization", f"Bearer {second}")]),
        "query-and-subprotocol": (Target.target(first), [("Sec-WebSocket-Protocol", f"bearer, {second}")]),
        "header-and-subprotocol": (
            "/ws",
            [("Authorization", f"Bearer {first}"), ("Sec-WebSocket-Protocol", f"bearer, {second}")],
        ),
        "query-twice": (f"/ws?token={first}&token={second}", []),
        "subprotocol-twice": ("/ws", [("Sec-WebSocket-Protocol", f"bearer, {first}, bearer, {second}")]),
    }


ALICES, BOBS = token(claims(sub="alice")), token(claims(sub="bob"))


@pytest.mark.parametrize(
    ("where", "headers"),
    [
        pytest.param(*place, id=f"B18-{name}")
        for name, place in {
            **two_places(ALICES, BOBS),
            "cookie": ("/ws", [("Cookie", f"token={ALICES}; Authorization=Bearer {ALICES}")]),
            "x-token": ("/ws", [("X-Token", ALICES), ("X-Access-Token", ALICES), ("Proxy-Authorization", ALICES)]),
            "referer": ("/ws", [("Referer", f"https://app.example/?token={ALICES}")]),
            "access_token": (f"/ws?access_token={ALICES}&jwt={ALICES}", []),
        }.items()
    ],
)
def test_a_token_in_the_wrong_place(target: Target, where: str, headers: list[tuple[str, str]]) -> None:
    """A cookie comes along whoever wrote the page; of two tokens a proxy has checked the other one."""
    target.known(ALICES)
    target.known(BOBS)
    assert target.upgrade(where, headers=headers).status == 401


@pytest.mark.parametrize(
    ("where", "headers"),
    [
        pytest.param(*place, id=f"B18-{name}")
        for name, place in {
            **{f"the-same-{name}": place for name, place in two_places(ALICES, ALICES).items()},
            "basic-of-a-proxy": (Target.target(ALICES), [("Authorization", "Basic cHJveHk6eA==")]),
            "cookie-beside": (Target.target(ALICES), [("Cookie", f"token={BOBS}")]),
        }.items()
    ],
)
def test_a_token_in_its_place(target: Target, where: str, headers: list[tuple[str, str]]) -> None:
    target.known(ALICES)
    target.known(BOBS)
    with target.connect() as client:
        answer = client.upgrade(where, headers=headers)
        assert answer.status == 101
        assert ALICES not in str(answer)
        assert client.message()["userId"] == "alice"


# B19: expiry while connected


@pytest.fixture(scope="module")
def attacked_by_latecomers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A daemon whose sessions end with their tokens, to the second."""
    with Target({"auth": {"leeway": "0s"}}, tmp_path_factory.mktemp("brief")) as target:
        yield target
        target.found_nowhere()


@pytest.fixture
def brief(attacked_by_latecomers: Target) -> Iterator[Target]:
    with attacked_by_latecomers.guarded():
        yield attacked_by_latecomers


@pytest.mark.parametrize("refreshes", [pytest.param(False, id="B19-expires"), pytest.param(True, id="B19-refresh-bad")])
def test_a_session_ends_with_its_token(brief: Target, refreshes: bool) -> None:
    """Whatever is tried before: nobody stays longer than they may."""
    ends = now() + 2
    bad = {
        "of another user": brief.token("bob"),
        "forged": flipped(-10),
        "expired": token(claims(exp=now() - 1)),
        "too large": "x" * 20_000,
        "empty": "",
    }
    with brief.connect() as client:
        brief.open(client, token=brief.token(exp=ends), topics="news")
        assert client.message()["type"] == "TOKEN_EXPIRING"
        for name, text in bad.items() if refreshes else ():
            client.send_text({"type": "REFRESH", "token": brief.known(text), "id": name})
            answer = client.message()
            assert (answer["type"], answer["code"], answer["id"]) == ("ERROR", "unauthorized", name)
        while (got := client.frame()).opcode == TEXT:
            assert got.json()["type"] == "MESSAGE"
        assert got.payload[:2] == (4500).to_bytes(2, "big")
        assert ends <= now() <= ends + 1


@pytest.mark.parametrize(
    ("renewed", "left"),
    [
        pytest.param({"topics": ["news", "prices"]}, ["news"], id="B19-refresh-wider"),
        pytest.param({"topics": ["news"]}, ["news"], id="B19-refresh-the-same"),
        pytest.param({"topics": []}, [], id="B19-refresh-narrower"),
    ],
)
def test_a_refresh_goes_on_and_never_widens(brief: Target, renewed: dict[str, Any], left: list[str]) -> None:
    """A client that is given more topics than it asked for cannot tell; one that keeps what it lost is a leak."""
    with brief.connect() as client:
        hello = brief.open(client, token=brief.token(exp=now() + 2, topics=["news"]), topics="news")
        client.message()
        client.send_text({"type": "REFRESH", "token": brief.token(**renewed), "id": "r"})
        if not left:
            gone = client.message()
            assert (gone["type"], gone["names"], gone["reason"]) == ("UNSUBSCRIBED", ["news"], "forbidden")
        assert client.message()["type"] == "ACK"
        assert brief.connection(hello)["topics"] == left


# B20: clocks that differ by less than the leeway


@pytest.mark.parametrize(
    ("ahead", "status"),
    [
        pytest.param(25, 101, id="B20-issuer-25-s-ahead"),
        pytest.param(-25, 101, id="B20-issuer-25-s-behind"),
        pytest.param(40, 401, id="B20-issuer-40-s-ahead"),
        pytest.param(-40, 401, id="B20-issuer-40-s-behind"),
    ],
)
def test_clocks_may_differ_by_the_leeway(target: Target, ahead: int, status: int) -> None:
    """``auth.leeway`` is 30 s: an issuer that is ahead dates tokens into the future, one behind lets them run out."""
    times = {"iat": now() + ahead, "exp": now() + HOUR} if ahead > 0 else {"exp": now() + ahead}
    with target.connect() as client:
        client.send(upgrade_request(target.target(target.known(token(claims(**times))))))
        assert client.answer().status == status


# B21


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        pytest.param(data, status, id=f"B21-{name}")
        for name, (data, status) in {
            "path": (upgrade_request(f"/{ALICES}"), 404),
            "other-path": (upgrade_request(f"/other?token={ALICES}"), 404),
            "health": (f"GET /healthz?token={ALICES} HTTP/1.1\r\nHost: a\r\n\r\n".encode(), 200),
            "not-found": (f"GET /{ALICES} HTTP/1.1\r\nHost: a\r\nReferer: /?token={ALICES}\r\n\r\n".encode(), 404),
            "api": (f"GET /api/info HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {ALICES}\r\n\r\n".encode(), 401),
            "api-query": (f"GET /api/connections?userId={ALICES} HTTP/1.1\r\nHost: a\r\n\r\n".encode(), 401),
            "method": (f"{ALICES.replace('.', '')} /ws HTTP/1.1\r\nHost: a\r\n\r\n".encode(), 501),
            "header-name": (upgrade_request(headers=[(ALICES.replace(".", ""), "x")]), 401),
        }.items()
    ],
)
def test_tokens_are_repeated_nowhere(target: Target, request_: bytes, status: int) -> None:
    """Wherever a client puts it by mistake: logs are read by more people than may be its user. (The log is searched
    after every test here, and the metrics at the end.)"""
    target.known(ALICES)
    with target.connect() as client:
        client.send(request_)
        answer = client.answer()
        assert answer.status == status
        assert not any(part in str(answer) for part in ALICES.split("."))


# B22


@pytest.mark.parametrize("tries", [pytest.param(200, id="B22-brute-force")])
def test_guessing(target: Target, tries: int) -> None:
    """Every guess costs the gateway one signature, and others nothing. (That it is compared in constant time is a unit
    test.)"""
    for number in range(tries):
        guess = f"{HEADER}.{PAYLOAD}.{b64(number.to_bytes(32, 'big'))}"
        with target.connect() as client:
            assert client.request(upgrade_request(target.target(guess))).status == 401


# B23


@pytest.mark.parametrize(
    ("key", "status"),
    [
        pytest.param(SECRET, 101, id="B23-new-key"),
        pytest.param(OLD_SECRET, 101, id="B23-old-key"),
        pytest.param(SECRET + b"\n" + OLD_SECRET, 401, id="B23-both-as-one"),
        pytest.param(SECRET + b"\n", 401, id="B23-line-end"),
    ],
)
def test_two_keys_while_they_rotate(target: Target, key: bytes, status: int) -> None:
    """Each line of ``auth.secretFile`` is a key."""
    with target.connect() as client:
        client.send(upgrade_request(target.target(target.known(token(claims(), key=key)))))
        assert client.answer().status == status
