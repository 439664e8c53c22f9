"""Section E of the hostile inputs: messages that are no command, or one that cannot be carried out.

Every case is answered by one ERROR and the connection lives; ``target`` looks after what holds for everybody else, and
that no exception was logged. Rows are in the ids.
"""

from __future__ import annotations

import json
import pickle
import time
from typing import Any

import pytest

from tests.support.conversation import answered, lives, ping, refused, session
from tests.support.hostile import Target
from tests.support.rawclient import BINARY, TEXT, RawClient, frame

DIGITS = b"9" * 5000


def command(**fields: Any) -> bytes:
    """A message as JSON."""
    return json.dumps(fields).encode()


def subscribe(topics: Any, **fields: Any) -> bytes:
    return command(type="SUBSCRIBE", topics=topics, **fields)


def since(text: Any) -> bytes:
    return subscribe(["prices/a"], since=text)


BAD: dict[str, tuple[str, bytes]] = {
    # Not JSON.
    **{
        f"E1-{name}": ("bad_json", data)
        for name, data in {
            "empty": b"",
            "blanks": b" \r\n\t ",
            "words": b"subscribe please",
            "half": ping()[:-1],
            "half-a-string": b'{"type":"PI',
            "trailing-comma": b'{"type":"PING",}',
            "two-documents": ping() + ping(),
            "rest-behind": ping() + b" x",
            "byte-order-mark": b"\xef\xbb\xbf" + ping(),
            "nul-before": b"\0" + ping(),
            "nul-behind": ping() + b"\0",
            "nul-inside": b'{"type":"PING","id":"\0"}',
            "single-quotes": b"{'type':'PING'}",
            "no-quotes": b"{type:PING}",
            "comment": b'{"type":"PING"} // x',
            "hex": b'{"type":"PING","x":0x10}',
            "leading-zero": b'{"type":"PING","x":007}',
            "bad-escape": b'{"type":"PING","x":"\\q"}',
            "newline-in-string": b'{"type":"PING","x":"a\nb"}',
        }.items()
    },
    # No object.
    **{
        f"E2-{name}": ("bad_message", data)
        for name, data in {
            "array": b"[]",
            "array-of-commands": b"[" + ping() + b"]",
            "null": b"null",
            "true": b"true",
            "zero": b"0",
            "string": b'"PING"',
        }.items()
    },
    "E2-empty-object": ("unknown_type", b"{}"),
    # What Python's json takes, and JSON has not.
    **{f"E3-{name}": ("bad_json", b'{"type":"PING","x":' + name.encode() + b"}") for name in ("NaN", "Infinity")},
    "E3--Infinity": ("bad_json", b'{"type":"PING","x":-Infinity}'),
    "E3-1e999": ("bad_json", b'{"type":"PING","x":1e999}'),
    "E3--1e999-in-a-list": ("bad_json", b'{"type":"PING","x":[-1e999]}'),
    # Integers that Python refuses to read (sys.int_info.default_max_str_digits).
    "E4-id": ("bad_json", b'{"type":"PING","id":' + DIGITS + b"}"),
    "E4-type": ("bad_json", b'{"type":' + DIGITS + b"}"),
    "E4-alone": ("bad_json", b"-" + DIGITS),
    "E4-nobody-reads": ("bad_json", b'{"type":"PING","x":' + DIGITS + b"}"),
    "E4-in-topics": ("bad_json", b'{"type":"SUBSCRIBE","topics":[' + DIGITS + b"]}"),
    "E4-not-closed": ("bad_json", b'{"type":' + DIGITS),
    # Depth.
    **{f"E5-arrays-{depth}": ("bad_json", b"[" * depth + b"]" * depth) for depth in (65, 10_000, 32_000)},
    "E5-arrays-not-closed": ("bad_json", b"[" * 60_000),
    "E5-objects": ("bad_json", b'{"x":' * 10_000 + b"1" + b"}" * 10_000),
    "E5-in-a-command": ("bad_json", b'{"type":"PING","x":' + b"[" * 10_000 + b"]" * 10_000 + b"}"),
    # The last of two keys counts.
    "E6-type": ("unknown_type", b'{"type":"PING","type":"PONG"}'),
    "E6-id": ("bad_message", b'{"type":"PING","id":"x","id":1}'),
    # Surrogates and NUL, as escapes.
    "E7-type-surrogate": ("unknown_type", b'{"type":"\\ud800"}'),
    "E7-type-nul": ("unknown_type", b'{"type":"PING\\u0000"}'),
    "E7-name-surrogate": ("invalid_topics", b'{"type":"SUBSCRIBE","topics":["news\\udfff"]}'),
    "E7-name-nul": ("invalid_topics", b'{"type":"SUBSCRIBE","topics":["news\\u0000"]}'),
    "E7-since-surrogate": ("bad_since", b'{"type":"SUBSCRIBE","topics":["prices/a"],"since":"\\ud800@0:1"}'),
    "E7-token-surrogate": ("unauthorized", b'{"type":"REFRESH","token":"\\ud800.\\ud800.\\ud800"}'),
    "E7-id-of-65-bytes": ("bad_message", b'{"type":"PING","id":"' + b"\\ud800" * 22 + b'"}'),
    # The type.
    "E8-missing": ("unknown_type", b'{"id":"x"}'),
    **{
        f"E8-{name}": ("unknown_type", command(type=value))
        for name, value in {
            "null": None,
            "number": 1,
            "true": True,
            "list": ["PING"],
            "object": {"type": "PING"},
            "10-kb": "P" * 10_000,
            "lower-case": "ping",
            "blank-behind": "PING ",
            "__init__": "__init__",
            "__class__": "__class__",
            "onOpen": "onOpen",
            "CONNECTED": "CONNECTED",
            "full-width": "\uff30\uff29\uff2e\uff27",
        }.items()
    },
    # Names.
    **{
        f"E9-{name}": ("bad_message", subscribe(topics))
        for name, topics in {
            "string": "news",
            "null": None,
            "number": 1,
            "object": {"news": 1},
            "numbers": [1, 2],
            "nested": [["news"]],
            "one-is-null": ["news", None],
        }.items()
    },
    "E9-missing": ("bad_message", command(type="SUBSCRIBE")),
    "E9-unsubscribe-missing": ("bad_message", command(type="UNSUBSCRIBE")),
    "E9-empty": ("invalid_topics", subscribe([])),
    "E9-empty-name": ("invalid_topics", subscribe(["prices/a", ""])),
    "E9-2000-names": ("limit", subscribe([f"prices/{i}" for i in range(2000)])),
    "E9-names-of-40-kib": ("limit", subscribe([f"prices/{i:0>250}" for i in range(160)])),
    "E9-a-forbidden-one-among-them": ("forbidden", subscribe(["prices/a", "prices/b", "no-such-topic"])),
    "E9-unsubscribe-a-stranger": ("invalid_topics", command(type="UNSUBSCRIBE", topics=["news", "prices/a"])),
    # Offsets, partitions, ids.
    **{
        f"E10-{name}": ("bad_since", since(text))
        for name, text in {
            "negative": "prices/a@0:-1",
            "negative-partition": "prices/a@-1:0",
            "2^63": f"prices/a@0:{1 << 63}",
            "2^200": f"prices/a@0:{1 << 200}",
            "partition-2^31": f"prices/a@{1 << 31}:0",
            "float": "prices/a@0:1.0",
            "exponent": "prices/a@0:1e3",
            "leading-zero": "prices/a@0:01",
            "plus": "prices/a@0:+1",
            "underscore": "prices/a@0:1_0",
            "arabic-digits": "prices/a@0:\u0661",
            "blank": "prices/a@0: 1",
            "word": "prices/a@0:x",
            "no-offset": "prices/a@0",
            "no-partition": "prices/a@",
            "twice": "prices/a@0:1,0:1",
            "name-twice": "prices/a@0:1;prices/a@0:1",
            "another-name": "prices/b@0:1",
            "later": "earliest",
            "empty": "",
        }.items()
    },
    **{f"E10-since-{name}": ("bad_message", since(value)) for name, value in {"number": 5, "list": [0]}.items()},
    **{
        f"E10-id-{name}": ("bad_message", command(type="PING", id=value))
        for name, value in {"number": 5, "float": 0.5, "false": False, "list": [], "65-bytes": "x" * 65}.items()
    },
    # What there is not; what servers say, and other people's protocols.
    **{
        f"E11-{name}": ("unknown_type", command(type=name, id="x", topic="news", partition=0, offset=1 << 62))
        for name in ("ack", "ACK", "COMMIT", "SEEK")
    },
    **{
        f"E12-{name}": ("unknown_type", command(type=name, id="x", topic="news", data="forged", userId="alice"))
        for name in ("publish", "PUBLISH", "message", "MESSAGE", "auth", "BROADCAST", "CONNECTED", "PONG", "ERROR")
    },
    "E14-markup": ("unknown_type", command(type="<script>alert(1)</script>")),
    "E14-ansi-and-newlines": ("unknown_type", command(type="\x1b[31mroot\r\n{}")),
    "E14-in-a-name": ("invalid_topics", subscribe(['<img src=x onerror="x">\x1b[2J\n'])),
    "E14-token": ("unauthorized", command(type="REFRESH", token="<script>\x1b[31m\r\n")),
}

BINARIES = {
    "E13-empty": b"",
    "E13-noise": bytes(range(256)),
    "E13-pickle": pickle.dumps({"type": "PING"}),
    "E13-pickle-that-runs": b"cos\nsystem\n(S'touch pickled'\ntR.",
    "E13-msgpack": b"\x81\xa4type\xa4PING",
    "E13-utf-16": ping().decode().encode("utf-16"),
    "E13-json": ping(),
}


def said(target: Target, kind: str) -> float:
    """How many of this type clients were sent."""
    return target.daemon.metrics().get(f'ws_gateway_websocket_messages_sent_total{{type="{kind}"}}', 0.0)


@pytest.mark.parametrize(("code", "data"), BAD.values(), ids=BAD.keys())
def test_a_bad_message_is_answered(code: str, data: bytes, target: Target) -> None:
    """One ERROR for it, ASCII JSON whatever was sent, in no time; the connection lives, and it is counted."""
    before = said(target, "ERROR")
    with session(target) as client:
        started = time.monotonic()
        client.send(frame(TEXT, data))
        raw = client.frame()
        assert time.monotonic() - started < 1
        told = raw.json()
        assert (told["type"], told["code"]) == ("ERROR", code)
        assert raw.payload.isascii()
        assert raw.payload.decode().isprintable()
        assert len(raw.payload) < 1000
        assert told["message"]
        assert told["timestamp"].endswith("Z")
        lives(client)
    assert said(target, "ERROR") == before + 1


@pytest.mark.parametrize("data", BINARIES.values(), ids=BINARIES.keys())
def test_binary_is_not_looked_into(data: bytes, target: Target) -> None:
    """Nothing is unpickled or decoded, not even JSON: one way to say things."""
    with session(target) as client:
        client.send(frame(BINARY, data))
        refused(client, "binary_not_supported")
        lives(client)
    assert not (target.daemon.folder / "pickled").exists()


GOOD: dict[str, tuple[str | None, bytes]] = {
    "E1-blanks-around": ("x", b" \r\n\t" + ping() + b"\r\n "),
    "E3-a-number-that-rounds": (None, b'{"type":"PING","x":[1e308,1e-999,0.1e1]}'),
    "E4-4000-digits": (None, b'{"type":"PING","x":' + b"9" * 4000 + b"}"),
    "E5-as-deep-as-allowed": (None, b'{"type":"PING","x":' + b"[" * 63 + b"]" * 63 + b"}"),
    "E5-brackets-in-a-string": ("[" * 60, b'{"type":"PING","x":"' + b"[{" * 10_000 + b'","id":"' + b"[" * 60 + b'"}'),
    "E6-the-last-one": ("b", b'{"type":"SUBSCRIBE","id":"a","type":"PING","id":"b"}'),
    "E6-ten-thousand": ("x", b'{"type":"PING"' + b',"id":"x"' * 7000 + b"}"),
    "E7-id-surrogate": ("\ud800", b'{"type":"PING","id":"\\ud800"}'),
    "E7-id-pair": ("\U0001f600", b'{"type":"PING","id":"\\ud83d\\ude00"}'),
    "E7-id-nul": ("\0", b'{"type":"PING","id":"\\u0000"}'),
    "E8-escaped": ("x", b'{"\\u0074ype":"\\u0050ING","id":"x"}'),
    "E8-beside-others": ("x", command(type="PING", id="x", __class__="x", topics=1, since=[], token=None, data={})),
    "E10-id-64-bytes": ("x" * 64, ping("x" * 64)),
    "E10-id-64-bytes-of-utf8": ("\U0001f600" * 16, ping("\U0001f600" * 16)),
    "E10-id-empty": ("", ping("")),
    "E10-id-null": (None, b'{"type":"PING","id":null}'),
    "E14-id-markup": ("<script>alert(1)</script>", ping("<script>alert(1)</script>")),
    "E14-id-ansi": ("\x1b[31m\r\n\u202e", command(type="PING", id="\x1b[31m\r\n\u202e")),
}


@pytest.mark.parametrize(("id", "data"), GOOD.values(), ids=GOOD.keys())
def test_what_looks_bad_and_is_not_is_carried_out(id: str | None, data: bytes, target: Target) -> None:
    """Strict does not mean fussy: these are JSON objects with a known type, and answers repeat the id unharmed."""
    with session(target) as client:
        client.send(frame(TEXT, data))
        raw = client.frame()
        assert raw.payload.isascii()
        assert raw.json() == {"type": "PONG"} if id is None else {"type": "PONG", "id": id}


def test_e9_nothing_is_half_done(target: Target) -> None:
    """Of a SUBSCRIBE and an UNSUBSCRIBE with one bad name no other name is taken either."""
    with session(target) as client:
        client.send(frame(TEXT, subscribe(["prices/a", "prices/b", "no-such-topic"])))
        assert refused(client, "forbidden")["originalType"] == "SUBSCRIBE"
        client.send(frame(TEXT, command(type="UNSUBSCRIBE", topics=["prices/a"])))
        refused(client, "invalid_topics")
        client.send(frame(TEXT, command(type="UNSUBSCRIBE", topics=["news", "prices/b"])))
        refused(client, "invalid_topics")
        target.daemon.publish("prices", {"n": "nobody's"}, key="a")
        target.daemon.publish("news", {"n": -1})
        assert client.message()["data"] == {"n": -1}, "news is still subscribed to, and prices/a is not"


def test_e11_what_a_client_says_of_offsets_moves_nobody_else(target: Target) -> None:
    """There is nothing to acknowledge: a cursor is the client's own, and says nothing about others."""
    with session(target) as client, session(target, "other", topics="prices/e11") as other:
        client.send(frame(TEXT, subscribe(["prices/e11"], since=f"prices/e11@0:{(1 << 63) - 1}", id="far")))
        assert client.message()["id"] == "far"
        target.daemon.publish("prices", {"n": 11}, key="e11")
        assert other.message()["data"] == {"n": 11}
        lives_among_records(client)


def lives_among_records(client: RawClient) -> None:
    client.send(frame(TEXT, ping("alive?")))
    while client.message() != {"type": "PONG", "id": "alive?"}:
        pass


@pytest.mark.parametrize("kind", ["bad_json", "bad_message", "unknown_type", "binary_not_supported"])
def test_twenty_of_them_end_it(kind: str, target: Target) -> None:
    """E1 to E13: 4400 after ``limits.malformed``, and it arrives."""
    bad = {"bad_json": b"{", "bad_message": b"[]", "unknown_type": b"{}", "binary_not_supported": b""}[kind]
    with session(target) as client:
        client.send(frame(BINARY if kind == "binary_not_supported" else TEXT, bad) * 30)
        for _ in range(20):
            refused(client, kind)
        assert client.closed() == (4400, "too many malformed messages")


def test_errors_of_what_is_well_formed_do_not_end_it(target: Target) -> None:
    """A client with many names that it may not have is no attacker."""
    with session(target) as client:
        client.send(frame(TEXT, subscribe(["no-such-topic"])) * 30)
        for _ in range(30):
            refused(client, "forbidden")
        lives(client)


# E15: what takes longest

KEYS = [f"prices/{i}" for i in range(1000)]
COSTLY: dict[str, list[tuple[str, bytes]]] = {
    "E15-1000-names-with-cursors": [
        ("SUBSCRIBED", subscribe(KEYS, since=";".join(f"{key}@0:0" for key in KEYS))),
    ],
    "E15-1000-names-given-up-one-by-one": [
        ("SUBSCRIBED", subscribe(KEYS)),
        ("UNSUBSCRIBED", command(type="UNSUBSCRIBE", topics=KEYS)),
    ],
    "E15-500-of-1000-names-given-up": [
        ("SUBSCRIBED", subscribe(KEYS)),
        ("UNSUBSCRIBED", command(type="UNSUBSCRIBE", topics=KEYS[::2])),
    ],
    "E15-1000-names-again": [("SUBSCRIBED", subscribe(KEYS)), ("SUBSCRIBED", subscribe(KEYS))],
    "E15-a-name-nobody-has-among-1000": [
        ("SUBSCRIBED", subscribe(KEYS)),
        ("ERROR", command(type="UNSUBSCRIBE", topics=[*KEYS, "prices/x"])),
    ],
    "E15-the-topic-of-1000-names": [("SUBSCRIBED", subscribe(KEYS[1:])), ("SUBSCRIBED", subscribe(["prices"]))],
    "E15-cursors-for-strangers": [
        ("ERROR", subscribe(["news"], since=";".join(f"prices/{i}@0:0" for i in range(3000))))
    ],
    "E15-5000-partitions": [
        ("SUBSCRIBED", subscribe(["prices/a"], since="prices/a@" + ",".join(f"{i}:0" for i in range(5000))))
    ],
    "E15-names-of-percents": [("ERROR", subscribe(["prices/" + "%41" * 250] * 60))],
    "E15-names-of-slashes": [("ERROR", subscribe(["/" * 64_000])), ("ERROR", subscribe(["prices/" + "/" * 60_000]))],
    "E15-a-long-key": [("ERROR", subscribe(["prices/" + "%C3" * 20_000]))],
    "E15-cursor-of-tildes": [("ERROR", since(mark * 60_000)) for mark in "~@;,:"],
    "E15-cursor-of-digits": [
        ("ERROR", since("prices/a@0:" + "1" * 60_000)),
        ("ERROR", since("prices/a@" + "0:" * 30_000)),
    ],
    "E15-empty-objects": [("PONG", b'{"type":"PING","x":[' + b"{}," * 21_000 + b"{}]}")],
    "E15-thousands-of-fields": [("PONG", json.dumps({**{str(i): i for i in range(4000)}, "type": "PING"}).encode())],
    "E15-escapes": [("ERROR", b'{"type":"' + b"\\u0000" * 10_000 + b'"}')],
    "E15-a-long-number": [
        ("ERROR", b'{"type":' + b"1" * 65_000 + b"}"),
        ("ERROR", b'{"type":1.' + b"1" * 65_000 + b"e-5000}"),
    ],
    "E15-a-long-token": [("ERROR", command(type="REFRESH", token=text * 60_000)) for text in ".A"],
}


@pytest.mark.parametrize("messages", COSTLY.values(), ids=COSTLY.keys())
def test_e15_what_takes_longest_takes_little(messages: list[tuple[str, bytes]], target: Target) -> None:
    """A handler that takes 100 ms is a denial of service at ten messages a second."""
    with session(target, topics="") as client:
        for answer, message in messages:
            assert len(message) <= 64 * 1024
            worked = cpu_seconds(target)
            client.send(frame(TEXT, message))
            assert client.message()["type"] == answer
            assert cpu_seconds(target) - worked < 0.1


def cpu_seconds(target: Target) -> float:
    """Of CPU that the process has used, to the nanosecond (proc(5), schedstat)."""
    with open(f"/proc/{target.daemon.pid}/schedstat") as file:
        return int(file.read().split()[0]) / 1e9


def test_answered_in_order(target: Target) -> None:
    """Bad ones among good ones: each has its answer, and they come in the order of what was sent."""
    with session(target) as client:
        client.send(frame(TEXT, ping("1")) + frame(TEXT, b"{") + frame(TEXT, ping("2")) + frame(TEXT, b"[]"))
        answered(client, "1")
        refused(client, "bad_json")
        answered(client, "2")
        refused(client, "bad_message")
