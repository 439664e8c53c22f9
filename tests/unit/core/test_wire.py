"""What is on the wire: every field of MESSAGE, frames by the letter of RFC 6455."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any

import attrs
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.core.content import Form, examine
from gateway.core.wire import BINARY, CLOSE, PING, PONG, TEXT, Envelope, Raw, close_frame, frame, timestamp
from tests.support.harness import frames

BOUNDED = settings(max_examples=300, derandomize=True, deadline=None, database=None)


@attrs.define
class Shown:
    """A record, as a codec sees it."""

    value: bytes | None = b"{}"
    key: bytes | None = None
    partition: int = 0
    offset: int = 0
    timestamp: int | None = 0
    form: Form = attrs.field(init=False)

    @form.default
    def _form(self) -> Form:
        return examine(self.value)[0]


def text(data: bytes) -> bytes:
    """The payload of the one text frame."""
    ((opcode, payload),), rest = frames(data)
    assert opcode == TEXT and rest == b""
    return payload


def message(record: Shown, topic: str = "news") -> dict[str, Any]:
    """MESSAGE as a client's JSON parser has it: strict UTF-8, no key twice."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert len(dict(pairs)) == len(pairs), pairs
        return dict(pairs)

    found = json.loads(text(Envelope().record(topic, record)).decode(), object_pairs_hook=once)
    assert isinstance(found, dict)
    return found


# --- frames ---


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 200_000])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_a_frame_has_the_shortest_length_that_holds(size: int, opcode: int) -> None:
    data = frame(b"x" * size, opcode)
    assert data[0] == 0x80 | opcode
    head = 2 if size < 126 else 4 if size < 65536 else 10
    assert len(data) == head + size
    assert frames(data) == ([(opcode, b"x" * size)], b"")


def test_control_frames() -> None:
    assert frame(b"hi", PING) == b"\x89\x02hi" and frame(b"", PONG) == b"\x8a\x00"


@pytest.mark.parametrize("reason", ["", "bye", "x" * 123, "x" * 124, "\u00e9" * 100, "\U0001f600" * 50])
def test_a_close_frame_fits_and_is_utf8(reason: str) -> None:
    ((opcode, payload),), _ = frames(close_frame(4501, reason))
    assert opcode == CLOSE and len(payload) <= 125
    assert int.from_bytes(payload[:2], "big") == 4501
    told = payload[2:].decode()
    assert reason.startswith(told) and (told == reason or len(payload) > 125 - 4)


# --- MESSAGE ---


def test_message_has_its_fields_in_order_and_no_others() -> None:
    record = Shown(b'{"a": 1}', b"k", 3, 2**40, 1_700_000_000_123)
    assert text(Envelope().record("news", record)) == (
        b'{"type":"MESSAGE","topic":"news","partition":3,"offset":1099511627776,'
        b'"timestamp":"2023-11-14T22:13:20.123Z","key":"k","data":{"a": 1}}'
    )


VALUES = {
    "object": (b' {"a": [1, 1.50, "\\u00e9"]}\n', {}, {"a": [1, 1.5, "\u00e9"]}),
    "1e400": (b"1e400", {}, float("inf")),
    "null": (b"null", {}, None),
    "empty": (b"", {"encoding": "text"}, ""),
    "not JSON": (b'say "hi"\\\n\x00', {"encoding": "text"}, 'say "hi"\\\n\x00'),
    "NaN": (b"NaN", {"encoding": "text"}, "NaN"),
    "byte order mark": (b"\xef\xbb\xbf{}", {"encoding": "text"}, "\ufeff{}"),
    "not UTF-8": (b"\xff\x00", {"encoding": "base64"}, "/wA="),
    "UTF-16": ("{}".encode("utf-16"), {"encoding": "base64"}, base64.b64encode("{}".encode("utf-16")).decode()),
    "raw surrogate": (b'"\xed\xa0\x80"', {"encoding": "base64"}, "Iu2ggCI="),
    "65 deep": (b"[" * 65 + b"]" * 65, {"encoding": "text"}, "[" * 65 + "]" * 65),
    "no value": (None, {"tombstone": True}, None),
    "line separator": ("\u2028".encode(), {"encoding": "text"}, "\u2028"),
}


@pytest.mark.parametrize(("value", "more", "data"), VALUES.values(), ids=VALUES)
def test_data(value: bytes | None, more: dict[str, Any], data: object) -> None:
    found = message(Shown(value))
    assert found.pop("data") == data
    for field in ("type", "topic", "partition", "offset", "timestamp", "key"):
        found.pop(field)
    assert found == more


KEYS = {
    "none": (None, {}, None),
    "empty": (b"", {}, ""),
    "text": (b'a"b\n', {}, 'a"b\n'),
    "other letters": ("\u00e9\U0001f600".encode(), {}, "\u00e9\U0001f600"),
    "not UTF-8": (b"\xff", {"keyEncoding": "base64"}, "/w=="),
}


@pytest.mark.parametrize(("key", "more", "shown"), KEYS.values(), ids=KEYS)
def test_key(key: bytes | None, more: dict[str, Any], shown: object) -> None:
    found = message(Shown(key=key))
    assert found["key"] == shown and {name: found[name] for name in found if name == "keyEncoding"} == more


@given(
    value=st.none() | st.binary() | st.text().map(str.encode) | st.builds(lambda v: json.dumps(v).encode(), st.text()),
    key=st.none() | st.binary() | st.text().map(str.encode),
    partition=st.integers(0, 2**31 - 1),
    offset=st.integers(0, 2**63 - 1),
    stamp=st.none() | st.integers(-(2**63), 2**63 - 1),
)
@example(value=b"x" * 70_000, key=None, partition=0, offset=0, stamp=None)
@BOUNDED
def test_any_record_survives_a_json_parser(
    value: bytes | None, key: bytes | None, partition: int, offset: int, stamp: int | None
) -> None:
    found = message(Shown(value, key, partition, offset, stamp), "t.o-p_ic")
    assert (found["topic"], found["partition"], found["offset"]) == ("t.o-p_ic", partition, offset)
    if found.get("keyEncoding") == "base64":
        assert base64.b64decode(found["key"], validate=True) == key
    else:
        assert (None if found["key"] is None else found["key"].encode()) == key
    encoding = found.get("encoding")
    if found.get("tombstone"):
        assert value is None and found["data"] is None
    elif encoding == "base64":
        assert base64.b64decode(found["data"], validate=True) == value
    elif encoding == "text":
        assert found["data"].encode() == value
    else:
        assert value is not None and found["data"] == json.loads(value)


@given(st.recursive(st.none() | st.integers() | st.text(), st.lists, max_leaves=9), st.sampled_from(["", " ", "\n\t"]))
@BOUNDED
def test_json_stands_byte_for_byte(value: Any, blank: str) -> None:
    raw = f"{blank}{json.dumps(value, indent=1, ensure_ascii=False)}{blank}".encode()
    assert text(Envelope().record("t", Shown(raw))).endswith(b'"data":' + raw + b"}")


# --- timestamps ---


@given(st.integers(-62_135_596_800_000, 253_402_300_799_999))
@example(-1)
@example(999)
@BOUNDED
def test_timestamp_is_rfc_3339_in_utc_with_milliseconds(ms: int) -> None:
    expected = datetime.fromtimestamp(0, UTC).replace(tzinfo=None)
    spelt = timestamp(ms)
    assert spelt is not None and spelt.endswith("Z") and len(spelt) == 24
    moment = datetime.fromisoformat(spelt.removesuffix("Z"))
    assert round((moment - expected).total_seconds() * 1000) == ms
    assert message(Shown(timestamp=ms))["timestamp"] == spelt


@pytest.mark.parametrize("ms", [253_402_300_800_000, 2**63 - 1, -(2**63), -62_200_000_000_000])
def test_a_year_without_four_digits_is_null(ms: int) -> None:
    """Kafka passes whatever a producer wrote (G13)."""
    shown = message(Shown(timestamp=ms))["timestamp"]
    assert shown is None or (len(shown) == 24 and ms < 0)
    assert shown == timestamp(ms)


def test_what_no_clock_has_is_null() -> None:
    """A token's exp may be any number."""
    assert timestamp(10**40) is None and timestamp(-(10**40)) is None


def test_neighbours_share_a_second_and_nothing_else() -> None:
    """The last second that was spelt is kept; another one in between must not leak into it."""
    codec = Envelope()
    stamps = [1000, 1001, 1999, 2000, None, 2**62, 1002, -1, 0]
    spelt = [json.loads(text(codec.record("t", Shown(timestamp=stamp))))["timestamp"] for stamp in stamps]
    assert spelt == [None if stamp is None else timestamp(stamp) for stamp in stamps]


def test_heads_are_kept_by_topic_and_partition() -> None:
    codec = Envelope()
    for _ in range(2):
        for topic in ("a", "b"):
            for partition in (0, 1):
                found = json.loads(text(codec.record(topic, Shown(partition=partition))))
                assert (found["topic"], found["partition"]) == (topic, partition)


# --- events ---


def test_events_are_ascii_json() -> None:
    payload = text(Envelope().event({"type": "PONG", "id": '\ud800\u00e9"'}))
    assert payload == b'{"type":"PONG","id":"\\ud800\\u00e9\\""}'


def test_events_never_hold_nan() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        Envelope().event({"type": "ERROR", "retryAfter": float("nan")})


# --- raw ---


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b'{"a":1}', [(TEXT, b'{"a":1}')]),
        ("\ufeff\u00e9".encode(), [(TEXT, "\ufeff\u00e9".encode())]),
        (b"", [(TEXT, b"")]),
        (b"\xff", [(BINARY, b"\xff")]),
        (b"\xed\xa0\x80", [(BINARY, b"\xed\xa0\x80")]),
        (None, []),
    ],
)
def test_raw_is_the_value_as_it_stands(value: bytes | None, expected: list[tuple[int, bytes]]) -> None:
    assert frames(Raw().record("t", Shown(value))) == (expected, b"")


def test_raw_has_no_events() -> None:
    assert Raw().event({"type": "CONNECTED"}) == b"" and not Raw().tells_gaps and Envelope().tells_gaps
    assert Raw().slot != Envelope().slot
