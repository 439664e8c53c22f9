"""What clients send: rows E1 to E14 of docs/hostile.md as far as they are about one message, and each command."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.commands import Bad, Disconnect, Ping, Refresh, Subscribe, Unsubscribe, read
from gateway.errors import Kind
from gateway.model import Cursor, Name


def bad(payload: bytes | str | dict[str, Any]) -> Bad:
    """The refusal of a message."""
    raw = payload if isinstance(payload, bytes) else payload.encode() if isinstance(payload, str) else None
    found = read(json.dumps(payload).encode() if raw is None else raw)
    assert isinstance(found, Bad)
    return found


def kind(payload: bytes | str | dict[str, Any]) -> Kind | None:
    return bad(payload).error.kind


NOT_JSON = {
    "E1 empty": b"",
    "E1 blanks": b" \n\t",
    "E1 not JSON": b"hello",
    "E1 half": b'{"type":"PING"',
    "E1 trailing comma": b'{"type":"PING",}',
    "E1 two documents": b'{"type":"PING"}{"type":"PING"}',
    "E1 byte order mark": b'\xef\xbb\xbf{"type":"PING"}',
    "E1 NUL": b'{"type":"PING"}\x00',
    "E1 single quotes": b"{'type':'PING'}",
    "E1 comment": b'{"type":"PING"}//',
    "E1 form feed": b'\x0c{"type":"PING"}',
    "E1 control character in a string": b'{"type":"PING","id":"\n"}',
    "E1 not UTF-8": b'{"type":"PING","id":"\xff"}',
    "E1 UTF-16": '{"type":"PING"}'.encode("utf-16"),
    "E1 raw surrogate": b'{"type":"PING","id":"\xed\xa0\x80"}',
    "E1 overlong": b'{"type":"PING","id":"\xc0\xaf"}',
    "E3 NaN": b'{"type":"PING","x":NaN}',
    "E3 Infinity": b'{"type":"PING","x":Infinity}',
    "E3 -Infinity": b'{"type":"PING","x":-Infinity}',
    "E3 1e999": b'{"type":"PING","x":1e999}',
    "E3 -1e999": b'{"type":"PING","x":[-1e999]}',
    "E3 hexadecimal": b'{"type":"PING","x":0x10}',
    "E3 leading zero": b'{"type":"PING","x":01}',
    "E3 Arabic digits": '{"type":"PING","x":\u0661}'.encode(),
    "E4 5,000 digits": b'{"type":"PING","x":' + b"9" * 5000 + b"}",
    "E4 5,000 digits as id": b'{"type":"PING","id":' + b"9" * 5000 + b"}",
    "E4 negative": b'{"type":"PING","x":-' + b"9" * 5000 + b"}",
    "E5 65 deep": b'{"type":"PING","x":' + b"[" * 64 + b"]" * 64 + b"}",
    "E5 65 deep, objects": b'{"type":"PING","x":' + b'{"a":' * 64 + b"1" + b"}" * 64 + b"}",
    "E5 10,000 deep": b"[" * 10_000 + b"]" * 10_000,
    "E5 60,000 deep": b"[" * 60_000 + b"]" * 60_000,
    "E5 60,000 deep, objects": b'{"a":' * 60_000 + b"1" + b"}" * 60_000,
    "E5 never closed": b"[" * 60_000,
}


@pytest.mark.parametrize("payload", NOT_JSON.values(), ids=NOT_JSON)
def test_what_is_not_json_is_bad_json(payload: bytes) -> None:
    found = bad(payload)
    assert found.error.kind is Kind.BAD_JSON and found.type is None and found.id is None


@pytest.mark.parametrize("payload", [b"[]", b"null", b"true", b"0", b'"PING"', b"1.5", b'[{"type":"PING"}]'])
def test_e2_what_is_not_an_object_is_bad_message(payload: bytes) -> None:
    assert kind(payload) is Kind.BAD_MESSAGE


@pytest.mark.parametrize(
    "type", [None, 5, 1.5, True, ["PING"], {"a": 1}, "", "ping", "PING ", "x" * 10_000, "__init__", "onOpen", "publish"]
)
def test_e8_e12_an_unknown_type(type: object) -> None:
    """A type is looked up in a table; what is shown of it is bounded."""
    found = bad({"type": type})
    assert found.error.kind is Kind.UNKNOWN_TYPE
    assert len(found.type or "") <= 32 and len(found.error.message) < 200


def test_e2_an_empty_object_has_no_type() -> None:
    assert kind(b"{}") is Kind.UNKNOWN_TYPE


def test_e6_of_a_key_that_stands_twice_the_last_one_counts() -> None:
    assert read(b'{"type":"DISCONNECT","type":"PING","id":"a","id":"b"}') == Ping("b")


@pytest.mark.parametrize("escaped", ["\\ud800", "\\u0000", "\\udc00\\ud800"])
def test_e7_a_lone_surrogate_or_nul_in_an_id(escaped: str) -> None:
    """It comes back escaped, as it came (core/events.py)."""
    assert read(f'{{"type":"PING","id":"{escaped}"}}'.encode()) == Ping(json.loads(f'"{escaped}"'))


@pytest.mark.parametrize("id", [5, True, ["a"], {}, 1.5, "x" * 65, "\u00e9" * 33, "\ud800" * 22])
def test_an_id_is_a_string_of_at_most_64_bytes(id: object) -> None:
    found = bad({"type": "PING", "id": id})
    assert found.error.kind is Kind.BAD_MESSAGE and found.type == "PING" and found.id is None


@pytest.mark.parametrize("id", ["", "x" * 64, "\u00e9" * 32])
def test_an_id_of_64_bytes(id: str) -> None:
    assert read(json.dumps({"type": "PING", "id": id}).encode()) == Ping(id)


@pytest.mark.parametrize("deep", [62, 63])
def test_64_deep_is_fine(deep: int) -> None:
    assert read(b'{"type":"PING","x":' + b"[" * deep + b"]" * deep + b"}") == Ping()


def test_brackets_in_strings_are_not_depth() -> None:
    assert read(json.dumps({"type": "PING", "x": "[{" * 5000}).encode()) == Ping()


def test_wide_is_not_deep() -> None:
    assert read(json.dumps({"type": "PING", "x": [[[]]] * 5000}).encode()) == Ping()


def test_subscribe() -> None:
    payload = b'{"type":"SUBSCRIBE","topics":["news","rooms/a%2Fb","news"],"since":"news~e@0:5","id":"i","timestamp":7}'
    expected = Subscribe((Name("news"), Name("rooms", "a/b")), {Name("news"): Cursor("e", {0: 5})}, "i")
    assert read(payload) == expected


@pytest.mark.parametrize("since", [None, "latest"])
def test_subscribe_at_latest(since: str | None) -> None:
    payload = {"type": "SUBSCRIBE", "topics": ["news"], "since": since}
    assert read(json.dumps(payload).encode()) == Subscribe((Name("news"),), None)


def test_since_is_as_long_as_the_message_may_be() -> None:
    """On the URL 4 KiB are the limit, here the message is."""
    since = "news@" + ",".join(f"{partition}:1" for partition in range(1000))
    assert isinstance(read(json.dumps({"type": "SUBSCRIBE", "topics": ["news"], "since": since}).encode()), Subscribe)


@pytest.mark.parametrize("command", ["SUBSCRIBE", "UNSUBSCRIBE"])
@pytest.mark.parametrize("topics", [None, "news", 5, {}, [5], ["news", None], [["news"]], [True]])
def test_e9_topics_of_a_wrong_type(command: str, topics: object) -> None:
    found = bad({"type": command, "topics": topics, "id": "i"})
    assert found.error.kind is Kind.BAD_MESSAGE and "topics" in found.error.message
    assert (found.type, found.id) == (command, "i")


@pytest.mark.parametrize("command", ["SUBSCRIBE", "UNSUBSCRIBE"])
@pytest.mark.parametrize("topics", [[], [""], ["*"], ["a b"], ["rooms/a/b"], ["rooms/%2f"], ["__consumer_offsets"]])
def test_e9_topics_that_are_no_names(command: str, topics: list[str]) -> None:
    assert kind({"type": command, "topics": topics}) is Kind.INVALID_TOPICS


@pytest.mark.parametrize("since", [5, True, ["latest"], {}])
def test_since_of_a_wrong_type(since: object) -> None:
    found = bad({"type": "SUBSCRIBE", "topics": ["a"], "since": since})
    assert found.error.kind is Kind.BAD_MESSAGE and "since" in found.error.message


@pytest.mark.parametrize("since", ["", "earliest", "-5", "a@0:-1", "a@0:01", "a@0:9223372036854775808", "a@0:1,0:2"])
def test_e10_since_that_is_no_cursor(since: str) -> None:
    assert kind({"type": "SUBSCRIBE", "topics": ["a"], "since": since}) is Kind.BAD_SINCE


def test_unsubscribe() -> None:
    assert read(b'{"type":"UNSUBSCRIBE","topics":["news"]}') == Unsubscribe((Name("news"),))


def test_refresh_does_not_show_its_token() -> None:
    command = read(b'{"type":"REFRESH","token":"secret","id":"i"}')
    assert command == Refresh("secret", "i") and "secret" not in repr(command)


@pytest.mark.parametrize("token", [None, 5, ["x"], {}])
def test_refresh_without_a_token(token: object) -> None:
    assert kind({"type": "REFRESH", "token": token}) is Kind.BAD_MESSAGE


def test_disconnect() -> None:
    assert read(b'{"type":"DISCONNECT"}') == Disconnect()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["PING", "a", "i"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["SUBSCRIBE", "UNSUBSCRIBE", "REFRESH", "PING", "DISCONNECT"]) | JSON,
        "id": JSON,
        "topics": JSON | st.lists(st.sampled_from(["a", "a/1", "*", ""]), max_size=3),
        "since": JSON | st.sampled_from(["latest", "a@0:1", "a@"]),
        "token": JSON,
    },
)


@given(st.binary(max_size=50) | FIELDS.map(lambda message: json.dumps(message).encode()))
@settings(max_examples=300, derandomize=True, deadline=None, database=None)
def test_whatever_comes_is_a_command_or_a_refusal(payload: bytes) -> None:
    """No input raises: an exception here would end the connection with 1011, or worse."""
    found = read(payload)
    assert found.id is None or len(found.id.encode("utf-8", "surrogatepass")) <= 64
    if isinstance(found, Bad):
        assert found.error.message.isprintable() and len(found.error.message) < 400
