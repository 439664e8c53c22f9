"""What a record's value is to clients, and whose it is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.content import Form, examine, parse, user_finder
from gateway.model import Record

DIGITS = b"9" * 5000

FORMS = {
    "nothing": (None, Form.NONE),
    "empty": (b"", Form.TEXT),
    "blanks": (b"  ", Form.TEXT),
    "object": (b' {"a": [1, null]}\n', Form.JSON),
    "string": (b'"a"', Form.JSON),
    "number": (b"-0.5e-3", Form.JSON),
    "null": (b"null", Form.JSON),
    "not UTF-8": (b'{"a":"\xff"}', Form.BINARY),
    "not JSON": (b"{a:1}", Form.TEXT),
    "two documents": (b"{}{}", Form.TEXT),
    "NaN": (b"NaN", Form.TEXT),
    "NaN inside": (b'{"a":[NaN]}', Form.TEXT),
    "Infinity": (b"-Infinity", Form.TEXT),
    "1e400": (b"1e400", Form.JSON),
    "1e400 inside": (b'{"a":-1e400}', Form.JSON),
    "byte order mark": (b"\xef\xbb\xbf{}", Form.TEXT),
    "UTF-16 with a mark": ("{}".encode("utf-16"), Form.BINARY),
    "UTF-16 without a mark": ("{}".encode("utf-16-le"), Form.TEXT),
    "raw surrogate": (b'"\xed\xa0\x80"', Form.BINARY),
    "escaped surrogate": (b'"\\ud800"', Form.JSON),
    "overlong": (b'"\xc0\x80"', Form.BINARY),
    "control character": (b'"\x01"', Form.TEXT),
    "DEL": (b'"\x7f"', Form.JSON),
    "64 deep": (b"[" * 64 + b"]" * 64, Form.JSON),
    "65 deep": (b"[" * 65 + b"]" * 65, Form.TEXT),
    "50,000 deep": (b"[" * 50_000 + b"]" * 50_000, Form.TEXT),
    "50,000 deep, objects": (b'{"a":' * 50_000 + b"1" + b"}" * 50_000, Form.TEXT),
    "5,000 digits": (DIGITS, Form.JSON),
    "5,000 digits inside": (b'{"a":-' + DIGITS + b"}", Form.JSON),
    "5,000 digits, not JSON": (b'{"a":' + DIGITS + b"}}", Form.TEXT),
    "5,000 digits, too deep": (b"[" * 65 + DIGITS + b"]" * 65, Form.TEXT),
    "duplicate keys": (b'{"a":1,"a":2}', Form.JSON),
    "1 MiB": (b'"' + b"x" * (1 << 20) + b'"', Form.JSON),
}


@pytest.mark.parametrize(("value", "form"), FORMS.values(), ids=FORMS)
def test_the_form_of_a_value(value: bytes | None, form: Form) -> None:
    found, parsed = examine(value)
    assert found is form
    assert form is Form.JSON or parsed is None


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=20,
    ),
    st.booleans(),
)
@settings(max_examples=200, derandomize=True, deadline=None, database=None)
def test_json_is_read_as_json(value: Any, escaped: bool) -> None:
    text = json.dumps(value, ensure_ascii=escaped)
    assert parse(text) == value
    try:
        raw = text.encode()
    except UnicodeEncodeError:
        return
    assert examine(raw) == (Form.JSON, value)


@given(st.binary(max_size=40))
@settings(max_examples=200, derandomize=True, deadline=None, database=None)
def test_no_value_raises(value: bytes) -> None:
    """A record that cannot be read must not stop the ones behind it (G8)."""
    form, _ = examine(value)
    if form is Form.TEXT:
        value.decode()


@pytest.mark.parametrize("text", ["1e999", "-1e999", "[1e400]", "9" * 4301, "-" + "9" * 4301])
def test_numbers_that_are_too_large_to_compute_with(text: str) -> None:
    parse(text)
    with pytest.raises(ValueError, match=r"large|limit"):
        parse(text, finite=True)


@pytest.mark.parametrize("text", ["1e308", "-0.0", "9" * 4300, "1e-999"])
def test_numbers_that_are_not(text: str) -> None:
    assert parse(text, finite=True) == parse(text)


# --- whose a record is ---


def record(
    value: object = None, key: bytes | None = None, headers: tuple[tuple[str, bytes], ...] = ()
) -> tuple[Record, object]:
    raw = json.dumps(value).encode()
    return Record("t", 0, 0, None, key, raw, headers), examine(raw)[1]


def users(places: str | list[str], value: object = None, **more: Any) -> list[str] | None:
    """Whose a record is by ``userFrom``; None: it names nobody that there is."""
    found = user_finder([places] if isinstance(places, str) else places)(*record(value, **more))
    return None if found is None else list(found)


FOUND = {
    "string": ("ann", ["ann"]),
    "empty string": ("", []),
    "integer": (42, ["42"]),
    "zero": (0, ["0"]),
    "negative": (-7, ["-7"]),
    "large": (2**70, [str(2**70)]),
    "float": (4.0, []),
    "true": (True, []),
    "null": (None, None),
    "object": ({"a": 1}, []),
    "list": (["ann", 7, "ann", "bob"], ["ann", "7", "bob"]),
    "list with what is no user": (["", None, True, 1.5, {}, ["eve"], "bob"], ["bob"]),
    "empty list": ([], []),
    "other letters": ("\u00e9\u4e2d/\u0000", ["\u00e9\u4e2d/\u0000"]),
    "a number and its text are one": ([7, "7"], ["7"]),
}


@pytest.mark.parametrize(("user", "expected"), FOUND.values(), ids=FOUND)
def test_user_from_a_value(user: object, expected: list[str] | None) -> None:
    assert users("value.user_id", {"user_id": user}) == expected
    assert users("value.a.b.c", {"a": {"b": {"c": user}}}) == expected


@pytest.mark.parametrize("value", [None, 5, "user_id", ["user_id"], {}, {"user": "x"}])
def test_user_from_a_value_that_has_none(value: object) -> None:
    assert users("value.user_id", value) is None
    assert users("value.user_id.b", value) is None


@pytest.mark.parametrize("value", [{"a": None}, {"a": 5}, {"a": [{"b": "x"}]}, {"a": {"c": "x"}}])
def test_user_from_a_path_through_what_is_no_object(value: object) -> None:
    assert users("value.a.b", value) is None


def test_an_integer_of_5000_digits_is_a_user_too() -> None:
    raw = b'{"user_id":' + DIGITS + b',"other":-3}'
    find = user_finder(["value.user_id"])
    assert find(Record("t", 0, 0, None, None, raw), examine(raw)[1]) == (DIGITS.decode(),)


def test_of_duplicate_keys_the_last_one_counts() -> None:
    raw = b'{"user_id":"ann","user_id":"bob"}'
    assert user_finder(["value.user_id"])(Record("t", 0, 0, None, None, raw), examine(raw)[1]) == ("bob",)


@pytest.mark.parametrize(
    ("key", "expected"), [(b"ann", ["ann"]), ("\u00e9".encode(), ["\u00e9"]), (b"\xff", []), (b"", None), (None, None)]
)
def test_user_from_the_key(key: bytes | None, expected: list[str] | None) -> None:
    assert users("key", key=key) == expected


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ((("u", b"ann"),), ["ann"]),
        ((("u", b"ann"), ("u", b"bob")), ["bob"]),
        ((("u", b"ann"), ("v", b"bob")), ["ann"]),
        ((("U", b"ann"),), None),
        ((("u", b"\xff"),), []),
        ((("u", b""),), None),
        ((), None),
    ],
    ids=["one", "twice: the last", "others", "another case", "not UTF-8", "empty", "none"],
)
def test_user_from_a_header(headers: tuple[tuple[str, bytes], ...], expected: list[str] | None) -> None:
    assert users("header.u", headers=headers) == expected


def test_user_from_a_header_with_a_dot() -> None:
    assert users("header.x.user", headers=(("x.user", b"ann"),)) == ["ann"]


AFTER_BEFORE = ["value.after.user_id", "value.before.user_id"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"after": {"user_id": "ann"}, "before": {"user_id": "bob"}}, ["ann"]),
        ({"after": None, "before": {"user_id": "bob"}}, ["bob"]),
        ({"after": {"user_id": None}, "before": {"user_id": "bob"}}, ["bob"]),
        ({"after": {"user_id": ""}, "before": {"user_id": "bob"}}, []),
        ({}, None),
    ],
)
def test_of_a_list_of_places_the_first_that_is_there_counts(value: object, expected: list[str] | None) -> None:
    assert users(AFTER_BEFORE, value) == expected


def test_places_of_different_kinds() -> None:
    places = ["header.u", "key", "value.u"]
    assert users(places, {"u": "v"}) == ["v"]
    assert users(places, {"u": "v"}, key=b"k") == ["k"]
    assert users(places, {"u": "v"}, key=b"k", headers=(("u", b"h"),)) == ["h"]
