"""Section C of the hostile inputs: names. The ids begin with the rows' ids.

A name from a client becomes a key of an index, a field of the log, and text that claims are compared with; once it
would have been a pattern for Kafka. Each is asked for on the URL and by SUBSCRIBE, and both answer alike.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest

from tests.support.hostile import Target
from tests.support.rawclient import TEXT, RawClient, frame

EVERYTHING = ["*", "__consumer_offsets", "__transaction_state", "_schemas", "..", "prices/*"]


def subscribe(client: RawClient, names: object, **fields: object) -> Any:
    """The answer to SUBSCRIBE; names may hold what JSON has to escape."""
    command = {"type": "SUBSCRIBE", "topics": names, "id": "s", **fields}
    client.send(frame(TEXT, json.dumps(command).encode()))
    return client.message()


def alive(client: RawClient) -> None:
    client.send_text({"type": "PING", "id": "alive"})
    assert client.message() == {"type": "PONG", "id": "alive"}


INVALID = {
    "C3-comma": ["", ""],
    "C3-commas": [""] * 100,
    "C3-comma-behind": ["news", ""],
    "C3-blank": [" "],
    "C3-blank-before": [" news"],
    "C4-topic-of-250": ["a" * 250],
    "C4-topic-of-300": ["a" * 300],
    "C4-topic-of-10000": ["a" * 10_000],
    "C4-key-of-256-bytes": ["prices/" + "a" * 256],
    "C4-key-of-256-bytes-escaped": ["prices/" + "%C3%A9" * 128],
    "C4-key-of-10000": ["prices/" + "a" * 10_000],
    "C5-star": ["*"],
    "C5-hash": ["#"],
    "C5-plus": ["+"],
    "C5-caret": ["^.*"],
    "C5-regex": ["a.*"],
    "C5-prefix": ["new*"],
    "C5-alternatives": ["news|prices"],
    "C5-class": ["[n]ews"],
    "C5-share": ["$share/group/news"],
    "C5-sub": ["{sub}"],
    "C5-star-in-key": ["prices/*"],
    "C5-prefix-in-key": ["prices/AA*"],
    "C6-dots": [".."],
    "C6-dot": ["."],
    "C6-passwd": ["../../etc/passwd"],
    "C6-slash": ["/"],
    "C6-slash-first": ["/news"],
    "C6-backslash": ["..\\..\\x"],
    "C6-lower-case-escape": ["prices/%2f"],
    "C6-needless-escape": ["prices/%34"],
    "C6-tilde": ["prices/~"],
    "C6-slash-in-key": ["prices/a/b"],
    "C6-blank-in-key": ["prices/a b"],
    "C6-half-escape": ["prices/%4"],
    "C6-bad-escape": ["prices/%GG"],
    "C6-percent": ["prices/%"],
    "C6-overlong": ["prices/%C0%AF"],
    "C6-not-utf8": ["prices/%FF"],
    "C6-surrogate": ["prices/%ED%A0%80"],
    "C6-escaped-topic": ["%6Eews"],
    "C6-key-of-a-topic-without-keys": ["news/AAPL"],
    "C6-empty-key-of-a-topic-without-keys": ["news/"],
    "C7-consumer-offsets": ["__consumer_offsets"],
    "C7-transaction-state": ["__transaction_state"],
    "C7-schemas": ["_schemas"],
    "C7-own": ["__anything"],
    "C8-NUL": ["news\0"],
    "C8-redis": ["news\r\nFLUSHALL\r\n"],
    "C8-tab": ["news\t"],
    "C8-line-end": ["news\n"],
    "C8-RTL-override": ["\u202ewsen"],
    "C8-zero-width": ["ne\u200bws"],
    "C8-full-width": ["\uff4eews"],
    "C8-cyrillic": ["n\u0435ws"],
    "C8-NFC": ["caf\u00e9"],
    "C8-NFD": ["cafe\u0301"],
    "C8-raw-in-key": ["prices/\u00e9"],
    "C8-NUL-in-key": ["prices/\0"],
    "C8-emoji": ["\U0001f600"],
    "C9-ansi": ["\x1b[31mnews\x1b[0m"],
    "C9-forged-line": ['news\n{"level":"info"}'],
}


@pytest.mark.parametrize("names", [pytest.param(names, id=id) for id, names in INVALID.items()])
def test_what_is_no_name(target: Target, names: list[str]) -> None:
    """Refused whatever the token allows, by either way, before anything is compared or looked up."""
    token = target.token(topics=EVERYTHING)
    answer = target.upgrade(target.target(token, topics=",".join(names)))
    assert (answer.status, answer.json()["code"]) == (400, "invalid_topics")
    with target.connect() as client:
        hello = target.open(client, token=token, topics="")
        error = subscribe(client, names)
        assert (error["type"], error["code"], error["id"]) == ("ERROR", "invalid_topics", "s")
        assert error["message"] == answer.json()["message"]
        assert len(error["message"]) < 400
        assert error["message"].isprintable()
        assert target.connection(hello)["topics"] == []
        alive(client)
    for event in target.events():  # C9: nobody forges a line, or colours a terminal
        assert event["text"].isprintable(), event


@pytest.mark.parametrize(
    ("text", "code"),
    [
        pytest.param('{"type":"SUBSCRIBE","topics":["\\ud800"]}', "invalid_topics", id="C8-lone-surrogate"),
        pytest.param('{"type":"SUBSCRIBE","topics":["prices/\\udfff"]}', "invalid_topics", id="C8-surrogate-in-key"),
        pytest.param('{"type":"SUBSCRIBE","topics":"news"}', "bad_message", id="C3-no-list"),
        pytest.param('{"type":"SUBSCRIBE","topics":[["news"]]}', "bad_message", id="C3-nested"),
        pytest.param('{"type":"SUBSCRIBE","topics":[null]}', "bad_message", id="C3-null"),
        pytest.param('{"type":"SUBSCRIBE"}', "bad_message", id="C3-missing"),
        pytest.param('{"type":"SUBSCRIBE","topics":[]}', "invalid_topics", id="C3-empty-list"),
    ],
)
def test_what_only_subscribe_can_say(target: Target, text: str, code: str) -> None:
    with target.connect() as client:
        target.open(client, token=target.token(topics=EVERYTHING), topics="")
        client.send_text(text)
        assert client.message()["code"] in (code, "bad_json")
        alive(client)


@pytest.mark.parametrize(
    "topics", [pytest.param("%ed%a0%80", id="C8-url-surrogate"), pytest.param("%c0%af", id="C6-url-overlong")]
)
def test_a_url_that_is_not_utf8(target: Target, topics: str) -> None:
    """Replaced by U+FFFD it would be another name than the one that was asked for."""
    assert target.upgrade(f"/ws?token={target.token()}&topics={topics}").status == 400


@pytest.mark.parametrize(
    "topics", [pytest.param("C4", id="C4-64-Ki-in-url"), pytest.param("names", id="C4-10000-in-url")]
)
def test_more_names_than_a_head_holds(target: Target, topics: str) -> None:
    long = "a" * 65536 if topics == "C4" else ",".join(f"prices/{number}" for number in range(10_000))
    assert target.upgrade(target.target(target.token(topics=EVERYTHING), topics=long)).status == 414


@pytest.mark.parametrize("count", [pytest.param(1001, id="C4-1001-names"), pytest.param(4000, id="C4-4000-names")])
def test_more_names_than_a_session_may_have(target: Target, count: int) -> None:
    """``limits.subscriptions`` is 1000; refused as a whole."""
    token = target.token(topics=EVERYTHING)
    with target.connect() as client:
        hello = target.open(client, token=token, topics="news")
        assert subscribe(client, [f"prices/{number}" for number in range(count)])["code"] == "limit"
        assert target.connection(hello)["topics"] == ["news"]
        alive(client)


@pytest.mark.parametrize("size", [pytest.param(65536, id="C4-message-too-long")])
def test_a_name_that_no_message_can_hold(target: Target, size: int) -> None:
    with target.connect() as client:
        target.open(client, topics="")
        client.send(frame(TEXT, json.dumps({"type": "SUBSCRIBE", "topics": ["a" * size]}).encode()))
        assert client.closed().code == 1009


# C1, C2: what may not be had


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("no-such-topic", id="C1-unknown"),
        pytest.param("news", id="C1-forbidden"),
        pytest.param("no-such-topic/key", id="C1-unknown-with-key"),
        pytest.param("prices/MSFT", id="C1-forbidden-key"),
        pytest.param("prices", id="C1-forbidden-whole-topic"),
        pytest.param("n.ws", id="C5-a-dot-is-a-dot"),
        pytest.param("NEWS", id="C8-upper-case"),
    ],
)
def test_unknown_and_forbidden_are_told_alike(target: Target, name: str) -> None:
    """Else whoever has a token could find out what topics there are."""
    token = target.token(topics=["notifications", "prices/AAPL"])
    answer = target.upgrade(target.target(token, topics=name))
    said = f"{name} is not allowed by the token, or does not exist"
    assert (answer.status, answer.json()["code"], answer.json()["message"]) == (403, "forbidden", said)
    with target.connect() as client:
        hello = target.open(client, token=token, topics="")
        error = subscribe(client, [name])
        assert (error["code"], error["message"]) == ("forbidden", said)
        assert target.connection(hello)["topics"] == []
        alive(client)


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(["notifications", "news"], id="C2-behind"),
        pytest.param(["news", "notifications"], id="C2-before"),
        pytest.param(["notifications", "prices/AAPL", "prices/MSFT"], id="C2-one-key-of-two"),
        pytest.param(["notifications", "no-such-topic"], id="C2-unknown"),
    ],
)
def test_nothing_is_half_subscribed(target: Target, names: list[str]) -> None:
    token = target.token(topics=["notifications", "prices/AAPL"])
    assert target.upgrade(target.target(token, topics=",".join(names))).status == 403
    with target.connect() as client:
        hello = target.open(client, token=token, topics="")
        assert subscribe(client, names)["code"] == "forbidden"
        target.daemon.publish("notifications", {"user_id": "mallory"})
        target.daemon.publish("prices", 1, key="AAPL")
        assert target.connection(hello)["topics"] == []
        alive(client)  # the next message: no record came before it


# C3: none, and the same again


@pytest.mark.parametrize(
    ("topics", "held"),
    [
        pytest.param("", [], id="C3-none"),
        pytest.param(",".join(["news"] * 100), [["news"]], id="C3-100-duplicates"),
        pytest.param(
            ",".join(["prices/a", "prices/a", "prices"] * 30), [["prices/a", "prices"]], id="C3-key-and-topic"
        ),
    ],
)
def test_duplicates_are_one(target: Target, topics: str, held: list[list[str]]) -> None:
    """One copy of each record."""
    with target.connect() as client:
        hello = target.open(client, token=target.token(topics=["news", "prices"]), topics=topics)
        assert [entry["names"] for entry in hello["subscriptions"]] == held
        if held:
            assert subscribe(client, held[0])["type"] == "SUBSCRIBED"
        target.daemon.publish("news", {"n": -1})
        target.daemon.publish("prices", 1, key="a")
        if held:
            assert client.message()["type"] == "MESSAGE"
        alive(client)


# C8: in keys, bytes are bytes

TWINS = {
    "C8-NFC-and-NFD": ("caf\u00e9", "cafe\u0301"),
    "C8-full-width-key": ("AAPL", "\uff21APL"),
    "C8-zero-width-key": ("AAPL", "AA\u200bPL"),
    "C8-RTL-key": ("AAPL", "\u202eAAPL"),
    "C8-NUL-key": ("AAPL", "AAPL\0"),
    "C8-line-end-key": ("AAPL", "AAPL\r\n"),
    "C8-case-key": ("AAPL", "aapl"),
    "C6-slash-key": ("a", "a/b"),
    "C6-dots-key": (".", ".."),
    "C5-star-key": ("A", "*"),
    "C8-empty-key": ("a", ""),
}


@pytest.mark.parametrize(("one", "twin"), [pytest.param(*twins, id=id) for id, twins in TWINS.items()])
def test_two_keys_that_look_alike_are_two(target: Target, one: str, twin: str) -> None:
    """Normalised, or cut at a NUL, somebody would get the records of a key that they may not have."""
    spelt = quote(twin, safe="._-")
    spelt = spelt.replace("~", "%7E")
    token = target.token(topics=[f"prices/{spelt.replace('*', '%2A')}"])
    with target.connect() as client:
        hello = target.open(client, token=token, topics=f"prices/{spelt}")
        assert [entry["names"] for entry in hello["subscriptions"]] == [[f"prices/{spelt}"]]
        assert subscribe(client, [f"prices/{quote(one, safe='._-')}"])["code"] == "forbidden"
        target.daemon.publish("prices", 1, key=one)
        target.daemon.publish("prices", 2, key=twin)
        record = client.message()
        assert (record["data"], record["key"]) == (2, twin)
        alive(client)


# C10, C11


@pytest.mark.parametrize(
    ("had", "keeps", "loses"),
    [
        pytest.param(["news", "notifications"], ["notifications"], ["news"], id="C10-a-topic"),
        pytest.param(["prices/a", "prices/b"], ["prices/b"], ["prices/a"], id="C10-a-key"),
        pytest.param(["prices/a", "notifications"], ["notifications"], ["prices/a"], id="C10-the-last-key"),
    ],
)
def test_what_is_not_allowed_any_more_ends(target: Target, had: list[str], keeps: list[str], loses: list[str]) -> None:
    """At once, with the new token; behind UNSUBSCRIBED nothing of it comes."""
    with target.connect() as client:
        target.open(client, token=target.token(topics=had), topics=",".join(had))
        client.send_text({"type": "REFRESH", "token": target.token(topics=keeps), "id": "r"})
        gone = client.message()
        assert (gone["type"], gone["names"], gone["reason"]) == ("UNSUBSCRIBED", loses, "forbidden")
        assert client.message()["type"] == "ACK"
        target.daemon.publish("news", {"n": -1})
        target.daemon.publish("prices", 1, key="a")
        target.daemon.publish("notifications", {"user_id": "mallory"})
        target.daemon.publish("prices", 2, key="b")
        record = client.message()
        assert record["topic"] == keeps[0].partition("/")[0]
        assert record["key"] in (None, "b")
        alive(client)
        assert subscribe(client, loses)["code"] == "forbidden"


@pytest.mark.parametrize(
    "name", [pytest.param("brand-new", id="C11-topic"), pytest.param("brand-new/key", id="C11-key")]
)
def test_asking_creates_no_topic(target: Target, name: str) -> None:
    """Only configured names ever reach the log: with Kafka's auto-creation any client could make topics."""
    before = target.daemon.api("GET", "/topics")[1]
    token = target.token(topics=["*", "brand-new"])
    topic = name.partition("/")[0]
    for query in ({"topics": name}, {"topics": "", "since": f"{topic}@0:1"}, {"topics": name, "since": f"{name}@0:0"}):
        assert target.upgrade(target.target(token, **query)).status in (400, 403)
    with target.connect() as client:
        target.open(client, token=token, topics="")
        for fields in ({}, {"since": f"{topic}@0:1"}):
            assert subscribe(client, [name], **fields)["code"] == "forbidden"
        client.send_text({"type": "UNSUBSCRIBE", "topics": [name]})
        assert client.message()["code"] == "invalid_topics"
    assert target.daemon.api("POST", "/publish", {"topic": topic, "data": 1})[0] == 404
    after = target.daemon.api("GET", "/topics")[1]
    assert [entry["name"] for entry in after["topics"]] == [entry["name"] for entry in before["topics"]]
