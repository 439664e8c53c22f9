"""Names and cursors have one spelling each; every other text is refused, without costing much."""

from __future__ import annotations

import re
import time
from urllib.parse import quote, unquote

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gateway.core import names
from gateway.errors import Kind, Refused
from gateway.model import Cursor, Name

TOPIC = st.from_regex(r"[a-zA-Z0-9._-]{1,249}", fullmatch=True).filter(names.is_topic)
KEY = st.text(st.characters(exclude_categories=["Cs"])).filter(lambda key: len(key.encode()) <= 255)
NAME = st.builds(Name, TOPIC, st.none() | KEY)
CURSOR = st.builds(
    Cursor,
    st.none() | st.from_regex(r"[A-Za-z0-9._-]{1,64}", fullmatch=True),
    st.dictionaries(st.integers(0, 2**31 - 1), st.integers(0, 2**63 - 1), min_size=1, max_size=20),
)


def refused(text: str, kind: Kind = Kind.INVALID_TOPICS) -> str:
    with pytest.raises(Refused) as caught:
        names.parse(text) if kind is Kind.INVALID_TOPICS else names.parse_since(text)
    assert caught.value.kind is kind
    return caught.value.message


@given(NAME)
def test_what_is_spelt_is_parsed_again(name: Name) -> None:
    """A name would get lost on its way through a URL, a claim or a cursor."""
    assert names.parse(names.spell(name)) == name


@given(st.text(), st.sampled_from(["", "rooms/", "rooms/%4", "a%2"]))
def test_no_other_text_is_a_name(text: str, prefix: str) -> None:
    """Two spellings of one name: a check that looks at one lets the other through."""
    try:
        name = names.parse(prefix + text)
    except Refused:
        return
    assert names.spell(name) == prefix + text


@given(TOPIC, KEY)
def test_another_spelling_of_a_key_is_refused(topic: str, key: str) -> None:
    """Small letters in %xx, bare bytes that need none, escapes that are not needed."""
    spelt = names.spell(Name(topic, key))
    others = {
        f"{topic}/{quote(key)}",
        re.sub("%..", lambda escape: escape[0].lower(), spelt),
        f"{topic}/" + "".join(f"%{byte:02X}" for byte in key.encode()),
        f"{topic}/{key}",
    }
    for other in others - {spelt}:
        if "/" not in key or other != f"{topic}/{key}":
            assume(unquote(other) == f"{topic}/{key}")
        refused(other)


@pytest.mark.parametrize(
    ("key", "spelt"),
    [
        ("AAPL", "prices/AAPL"),
        ("a.b_c-d", "prices/a.b_c-d"),
        ("~", "prices/%7E"),
        ("a/b", "prices/a%2Fb"),
        ("100%", "prices/100%25"),
        ("*", "prices/%2A"),
        ("ü", "prices/%C3%BC"),
        ("\0\r\n", "prices/%00%0D%0A"),
        ("", "prices/"),
    ],
)
def test_spelling_of_keys(key: str, spelt: str) -> None:
    """The wire format itself: clients write it."""
    assert names.spell(Name("prices", key)) == spelt
    assert names.parse(spelt) == Name("prices", key)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="C3-empty"),
        pytest.param("a" * 250, id="C4-topic-250"),
        pytest.param("a" * 65536, id="C4-topic-64Ki"),
        pytest.param("rooms/" + "k" * 256, id="C4-key-256"),
        pytest.param("rooms/" + "%C3%BC" * 128, id="C4-key-256-bytes"),
        *(pytest.param(text, id=f"C5-{text}") for text in ("*", "#", "^.*", "a.*", "$share", "rooms/*", "rooms/+")),
        *(
            pytest.param(text, id=f"C6-{text}")
            for text in (
                *("..", ".", "../../etc/passwd", "/", "\\", "/a", "rooms/a/b", "rooms//", "rooms/%2f", "rooms/%34"),
                *("rooms/~", "rooms/%", "rooms/%2", "rooms/%2G", "rooms/a b", "rooms/a+b", "a%62", "rooms/%c3%bc"),
                *("rooms/%C0%AF", "rooms/%ED%A0%80", "rooms/%FF", "rooms/%F4%90%80%80"),
            )
        ),
        *(
            pytest.param(text, id=f"C7-{text}")
            for text in ("__consumer_offsets", "__transaction_state", "_schemas", "__x", "__consumer_offsets/a")
        ),
        *(
            pytest.param(text, id=f"C8-{text!a}")
            for text in (
                *("a\0", "a\r\nSET x 1", "a\t", "a\n", " a", "a ", "\u202ea", "a\u200b", "\uff21", "e\u0301", "\u00e9"),
                *("\ud800", "rooms/\ud800", "rooms/\u00e9", "rooms/a\n", "\u0661", "rooms/\u0661"),
            )
        ),
    ],
)
def test_what_is_no_name(text: str) -> None:
    """Rows C3 to C8 of the hostile inputs, which may stand in a URL, in SUBSCRIBE, or in a cursor."""
    refused(text)
    if text:
        refused(f"{text}@0:1", Kind.BAD_SINCE)


def test_two_twins_of_unicode_are_two_keys() -> None:
    """Normalising would give one user's records to another (C8)."""
    assert names.parse("rooms/%C3%A9") != names.parse("rooms/e%CC%81")


def test_messages_repeat_little_and_harmless() -> None:
    """A name ends up in a log and in a terminal (C9)."""
    message = refused("\x1b[31m\r\nfake: line\u202e" + "x" * 5000)
    assert len(message) < 200
    assert message.isascii()
    assert message.isprintable()


def test_a_list_is_split_at_commas() -> None:
    """As the protocol tells clients to join them; one asked for twice is one (C3)."""
    assert names.parse_list("b,a,b,rooms/42") == (Name("b"), Name("a"), Name("rooms", "42"))
    assert names.parse_list(",".join(["a"] * 100)) == (Name("a"),)
    assert names.parse_list("") == ()


@pytest.mark.parametrize("text", [",", ",,,,", "a,", ",a", "a,,b", "a, b", "a;b"])
def test_an_empty_item_is_no_name(text: str) -> None:
    """A client whose list went wrong would get nothing, and not know why."""
    with pytest.raises(Refused) as caught:
        names.parse_list(text)
    assert caught.value.kind is Kind.INVALID_TOPICS


@pytest.mark.parametrize("text", ["," * 2**20, "a," * 2**19, "a" * 2**20, "a" * 2**20 + "/", "%41" * 2**19])
def test_a_mebibyte_costs_little(text: str) -> None:
    """One client's list would hold up everybody else (A13, C4)."""
    started = time.process_time()
    with pytest.raises(Refused):
        names.parse_list(text)
    with pytest.raises(Refused):
        names.parse_since(text)
    assert time.process_time() - started < 0.05


@given(st.dictionaries(NAME, CURSOR, min_size=1, max_size=5))
def test_cursors_come_back(cursors: dict[Name, Cursor]) -> None:
    """A client would resume elsewhere than it stopped."""
    text = ";".join(names.spell_cursor(name, cursor) for name, cursor in cursors.items())
    assert names.parse_since(text, limit=2**20) == cursors


def test_a_cursor_as_clients_write_it() -> None:
    """The wire format itself."""
    assert names.parse_since("rooms/42~e1@0:17,3:9;news@1:0") == {
        Name("rooms", "42"): Cursor("e1", {0: 17, 3: 9}),
        Name("news"): Cursor(None, {1: 0}),
    }
    assert names.spell_cursor(Name("news"), Cursor("e", {2: 5, 1: 4})) == "news~e@1:4,2:5"
    assert names.parse_since(f"news@0:{2**63 - 1}") == {Name("news"): Cursor(None, {0: 2**63 - 1})}


def test_latest_is_no_cursor() -> None:
    """It is the default, written out."""
    assert names.parse_since("latest") is None


@pytest.mark.parametrize(
    "text",
    ["earliest", "-100", "-1", "2026-01-01T00:00:00Z", "1700000000000", "state"],
)
def test_what_comes_later_says_so(text: str) -> None:
    """Taken for ``latest``, a client would miss records that it asked for."""
    assert "not available" in refused(text, Kind.BAD_SINCE)


@pytest.mark.parametrize(
    "text",
    [
        *("", "Latest", "news", "@", "@0:1", "news@", "news@;", ";", "news@0:1;", ";news@0:1", "news@0:1;;a@0:1"),
        *("news@0", "news@0:", "news@:1", "news@0:1,", "news@,0:1", "news@0:1:2", "news@0:1@0:2", "news@a:b"),
        *("news@0:+1", "news@+0:1", "news@0:-1", "news@-1:0", "news@00:1", "news@0:01", "news@01:1", "news@0:1_0"),
        *("news@ 0:1", "news@0: 1", "news@0:1 ", "news@0:1\n", "news@\u0660:1", "news@0:\u0661", "news@0:1.0"),
        *(f"news@0:{2**63}", f"news@{2**31}:0", "news@0:" + "9" * 3000, "news@" + "9" * 3000 + ":0"),
        *("news@0:1,0:2", "news@0:1,1:1,0:1", "news@0:1;news@1:1", "news~a@0:1;news~b@0:1"),
        *("news~@0:1", "news~a b@0:1", "news~a~b@0:1", "news~" + "e" * 65 + "@0:1", "news~\u00e9@0:1"),
        "news@0:1;" + "x" * 4096 + "@0:1",
    ],
)
def test_a_cursor_that_is_malformed(text: str) -> None:
    """Read leniently, it would mean another place than the client's."""
    message = refused(text, Kind.BAD_SINCE)
    assert len(message) < 250
    assert message.isascii()


def test_the_url_takes_4_kib_and_subscribe_more() -> None:
    """Long cursors have to go into SUBSCRIBE: a URL that long does not pass every proxy."""
    text = ";".join(f"topic-{number}@0:1" for number in range(400))
    assert len(text) > names.MAX_URL_SINCE
    refused(text, Kind.BAD_SINCE)
    cursors = names.parse_since(text, limit=65536)
    assert cursors is not None
    assert len(cursors) == 400
