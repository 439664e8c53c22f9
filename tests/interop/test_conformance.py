"""The case families of the Autobahn conformance suite, spoken to the daemon over a raw socket, with and without
permessage-deflate agreed.

The suite's server echoes; this one does not. What stands for the echo, so that every valid frame proves that it was
processed, and every bad one that nothing behind it was:

- 1 *framing*: a JSON PING is a text of any size (a field that nobody knows fills it), answered by PONG with its id;
  a binary message is answered by ERROR ``binary_not_supported``; an empty text by ERROR ``bad_json``.
- 2 *pings and pongs*: PING frames are answered as the RFC says; PONGs nobody asked for are ignored.
- 3 *reserved bits*, 4 *opcodes*: 1002, before and behind good messages, whole and in single bytes; with deflate agreed
  RSV1 alone on a first data frame is not reserved.
- 5 *fragmentation*: PINGs in pieces of every size with control frames between; 1002 where the order is wrong.
- 6 *UTF-8*: every sequence of the suite as the ``id`` of a PING, which comes back, whole and split at every byte; the
  invalid ones 1007, at the first byte that cannot be right.
- 7 *closing*: the close handshake, codes, reasons, what comes behind it.
- 9 *limits*: messages up to ``limits.messageBytes``, in one frame, in fragments, in small writes; 1009 above.
- 10 *automatic fragmentation*: a large message in pieces of 1,300 bytes (within 9 here).
- 12 *compression of messages of many sizes*, 13 *its negotiation*: clients of every window size, with and without
  context takeover (the gateway answers ``client_no_context_takeover``, and holds them to it), stored, fixed and
  dynamic blocks, empty blocks, fragments of a compressed message, the limit on what comes out to the byte. The gateway
  itself sends nothing compressed, which its answers allow it to; ``server_*`` parameters are promises that it keeps.

Performance families (9.7, 9.8, 12's thousands of messages) are bounded by the gateway's rate limits; a few of each.
"""

from __future__ import annotations

import socket
import zlib
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.conversation import (
    COMPRESSED,
    LIMIT,
    OFFER,
    answered,
    closes,
    deflated,
    ends,
    fragments,
    lives,
    path,
    ping,
    pong,
    refused,
    session,
)
from tests.support.hostile import Target
from tests.support.rawclient import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    RawClient,
    close_frame,
    frame,
)


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with Target({"publish": {"maxBytes": "128KiB"}}, tmp_path_factory.mktemp("conformance")) as target:
        yield target


@pytest.fixture
def target(attacked: Target) -> Iterator[Target]:
    """The daemon, looked after as in the tests of hostile inputs."""
    with attacked.guarded():
        yield attacked


@pytest.fixture(params=[None, OFFER], ids=["plain", "deflate"])
def offer(request: pytest.FixtureRequest) -> str | None:
    """Without and with compression agreed. What is sent uncompressed has to work the same in both."""
    chosen: str | None = request.param
    return chosen


@pytest.fixture
def client(offer: str | None, target: Target) -> Iterator[RawClient]:
    """A session."""
    with session(target, offer=offer) as client:
        yield client


def in_steps(client: RawClient, data: bytes, step: int) -> None:
    """In writes of ``step`` bytes."""
    for at in range(0, len(data), step):
        client.send(data[at : at + step])


# 1: framing


@pytest.mark.parametrize("step", [1_000_000, 997, 1], ids=["at-once", "by-997", "by-1"])
@pytest.mark.parametrize("size", [40, 125, 126, 127, 128, 65535, 65536])
def test_1_text_of_every_length_form(size: int, step: int, client: RawClient) -> None:
    in_steps(client, frame(TEXT, ping(size=size)), max(step, size // 300))
    answered(client)
    lives(client)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 128, 65535, 65536])
def test_1_binary_of_every_length_form(size: int, client: RawClient) -> None:
    in_steps(client, frame(BINARY, b"\xfe" * size), max(1, size // 100))
    refused(client, "binary_not_supported")
    lives(client)


def test_1_empty_text(client: RawClient) -> None:
    client.send(frame(TEXT))
    refused(client, "bad_json")
    lives(client)


@pytest.mark.parametrize("mask", [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x01\x02\x03\x04", b"{}{}"])
def test_1_every_mask_is_a_mask(mask: bytes, client: RawClient) -> None:
    for size in range(40, 49):  # each place within the four bytes
        client.send(frame(TEXT, ping(str(size), size), mask=mask))
        answered(client, str(size))


def test_1_many_frames_in_one_write(client: RawClient) -> None:
    client.send(b"".join(frame(TEXT, ping(str(i), 40 + i)) + frame(PING, b"%d" % i) for i in range(40)))
    for i in range(40):
        answered(client, str(i))
        pong(client, b"%d" % i)


# 2: pings and pongs


@pytest.mark.parametrize("step", [1000, 1], ids=["at-once", "by-1"])
@pytest.mark.parametrize(
    "payload", [b"", b"Hello, world!", bytes(range(0, 250, 2)), b"\xfe\xff\xfd\xfc\xfb\0\xff", b"\xfe" * 125]
)
def test_2_a_ping_is_answered_with_its_payload(payload: bytes, step: int, client: RawClient) -> None:
    in_steps(client, frame(PING, payload), step)
    pong(client, payload)


def test_2_a_ping_is_at_most_125_bytes(client: RawClient, target: Target) -> None:
    closes(target, client, frame(PING, b"\xfe" * 126), 1002)


@pytest.mark.parametrize("payload", [b"", b"unsolicited"])
def test_2_pongs_that_nobody_asked_for_are_ignored(payload: bytes, client: RawClient) -> None:
    client.send(frame(PONG, payload))
    client.send(frame(PING, b"mine") + frame(PONG, b"mine") + frame(PONG, payload))
    pong(client, b"mine")
    lives(client)


@pytest.mark.parametrize("step", [1000, 1], ids=["at-once", "by-1"])
def test_2_ten_pings_have_ten_pongs(step: int, client: RawClient) -> None:
    in_steps(client, b"".join(frame(PING, b"payload-%d" % i) for i in range(10)), step)
    for i in range(10):
        pong(client, b"payload-%d" % i)


# 3: reserved bits. 4: opcodes


@pytest.mark.parametrize("step", [1000, 1], ids=["at-once", "by-1"])
@pytest.mark.parametrize("kind", ["text", "binary", "ping", "pong", "close"])
@pytest.mark.parametrize("rsv", range(1, 8))
def test_3_reserved_bits(rsv: int, kind: str, step: int, offer: str | None, client: RawClient) -> None:
    opcode = {"text": TEXT, "binary": BINARY, "ping": PING, "pong": PONG, "close": CLOSE}[kind]
    bad = frame(opcode, b"" if kind == "close" else b"?", rsv=rsv)
    before = frame(TEXT, ping("before")) + frame(PING, b"before")
    in_steps(client, before + bad + frame(TEXT, ping("behind")), step)
    answered(client, "before")
    pong(client, b"before")
    compressed = rsv == COMPRESSED and kind in ("text", "binary") and offer is not None
    ends(client, 1007 if compressed else 1002)


@pytest.mark.parametrize("payload", [b"", b"reserved"], ids=["empty", "with-payload"])
@pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 11, 12, 13, 14, 15])
def test_4_reserved_opcodes(opcode: int, payload: bytes, client: RawClient) -> None:
    client.send(frame(TEXT, ping("before")) + frame(opcode, payload) + frame(PING) + frame(TEXT, ping("behind")))
    answered(client, "before")
    ends(client, 1002)


@pytest.mark.parametrize("opcode", [3, 7, 11, 15])
def test_4_reserved_opcodes_within_a_message(opcode: int, client: RawClient) -> None:
    client.send(frame(TEXT, ping()[:5], fin=False) + frame(opcode) + frame(CONTINUATION, ping()[5:]))
    ends(client, 1002)


# 5: fragmentation


@pytest.mark.parametrize("size", [1, 2, 7, 20, 39, 40])
@pytest.mark.parametrize("step", [1000, 1], ids=["at-once", "by-1"])
def test_5_text_in_fragments(size: int, step: int, client: RawClient) -> None:
    in_steps(client, b"".join(fragments(ping(size=40), size)), step)
    answered(client)
    lives(client)


@pytest.mark.parametrize("step", [1000, 1], ids=["at-once", "by-1"])
def test_5_pings_between_fragments_are_answered_at_once(step: int, client: RawClient) -> None:
    pieces = fragments(ping(size=40), 8)
    for i, piece in enumerate(pieces):
        in_steps(client, piece + frame(PING, b"%d" % i) + frame(PONG, b"?"), step)
        if i == len(pieces) - 1:
            answered(client)
        pong(client, b"%d" % i)


def test_5_empty_fragments(client: RawClient) -> None:
    for opcode in (TEXT, BINARY):
        client.send(frame(opcode, fin=False) + frame(CONTINUATION, fin=False) * 3 + frame(CONTINUATION))
        refused(client, "bad_json" if opcode == TEXT else "binary_not_supported")
    whole = fragments(ping(), 9)
    client.send(frame(CONTINUATION, fin=False).join([whole[0], *whole[1:]]))
    answered(client)


BROKEN = {
    "fragmented-ping": frame(PING, b"x", fin=False) + frame(CONTINUATION, b"x"),
    "fragmented-pong": frame(PONG, b"x", fin=False) + frame(CONTINUATION, b"x"),
    "fragmented-close": frame(CLOSE, b"\x03", fin=False) + frame(CONTINUATION, b"\xe8"),
    "continuation-of-nothing": frame(CONTINUATION, ping()),
    "continuation-of-nothing-not-final": frame(CONTINUATION, ping(), fin=False) + frame(TEXT, ping()),
    "text-within-text": frame(TEXT, ping()[:9], fin=False) + frame(TEXT, ping()[9:]),
    "text-within-text-not-final": frame(TEXT, ping()[:9], fin=False) * 2 + frame(CONTINUATION, ping()[18:]),
    "binary-within-text": frame(TEXT, ping()[:9], fin=False) + frame(BINARY),
    "text-within-binary": frame(BINARY, ping()[:9], fin=False) + frame(TEXT, ping()),
}


@pytest.mark.parametrize("step", [1000, 1], ids=["at-once", "by-1"])
@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN.keys())
def test_5_fragments_out_of_order(data: bytes, step: int, client: RawClient) -> None:
    in_steps(client, data, step)
    ends(client, 1002)


def test_5_continuation_behind_the_end(client: RawClient) -> None:
    client.send(b"".join(fragments(ping(), 9)) + frame(CONTINUATION, b"more", fin=False) + frame(TEXT, ping("behind")))
    answered(client)
    ends(client, 1002)


# 6: UTF-8


VALID_UTF8 = [
    "Hello-\u00b5@\u00df\u00f6\u00e4\u00fc\u00e0\u00e1-UTF-8!!",
    "\u03ba\u1f79\u03c3\u03bc\u03b5",
    "\u007f\u0080\u07ff\u0800\uffff",
    "\U00010000\U0010ffff",
    "\ud7ff\ue000\ufffd",
    "\ufffe\uffff\ufdd0\ufdef\U0001fffe\U0010ffff",  # noncharacters are characters to UTF-8
    "\u200b\u202e\ufeff",
    "\u4f60\u597d\U0001f600\U0001f468\u200d\U0001f469",
]
# The suite's families: impossible bytes, lonely continuations and starts, cut sequences, overlong forms, surrogates,
# and what is above U+10FFFF. Each with the number of bytes after which it cannot be right any more.
INVALID_UTF8 = {
    **{f"byte-{byte:02x}": (bytes([byte]), 1) for byte in (0x80, 0xBF, 0xC0, 0xC1, 0xF5, 0xF8, 0xFC, 0xFE, 0xFF)},
    **{f"start-{byte:02x}-and-blank": (bytes([byte, 0x20]), 2) for byte in (0xC2, 0xDF, 0xE0, 0xEF, 0xF0, 0xF4)},
    "all-continuations": (bytes(range(0x80, 0xC0)), 1),
    "cut-3": (b"\xe2\x82 ", 3),
    "cut-4": (b"\xf0\x9f\x98 ", 4),
    "two-cut": (b"\xe2\x82\xe2\x82", 3),
    "overlong-2": (b"\xc0\xaf", 1),
    "overlong-3": (b"\xe0\x9f\xbf", 2),
    "overlong-4": (b"\xf0\x8f\xbf\xbf", 2),
    "overlong-nul": (b"\xc0\x80", 1),
    "surrogate-first": (b"\xed\xa0\x80", 2),
    "surrogate-last": (b"\xed\xbf\xbf", 2),
    "surrogate-pair": (b"\xed\xad\xbf\xed\xbf\xbf", 2),
    "above": (b"\xf4\x90\x80\x80", 2),
    "five-bytes": (b"\xf8\x88\x80\x80\x80", 1),
    "six-bytes": (b"\xfc\x84\x80\x80\x80\x80", 1),
    "good-then-bad": ("\u03ba\u1f79\u03c3\u03bc\u03b5".encode() + b"\xed\xa0\x80edited", 13),
}
HEAD, TAIL = b'{"type":"PING","id":"', b'"}'


@pytest.mark.parametrize("text", VALID_UTF8, ids=ascii)
def test_6_valid_utf8_comes_back(text: str, client: RawClient) -> None:
    data = HEAD + text.encode() + TAIL
    client.send(frame(TEXT, data))
    answered(client, text)
    for at in range(len(HEAD), len(data) - 1):  # split within every character, by frames
        client.send(frame(TEXT, data[:at], fin=False) + frame(PING) + frame(CONTINUATION, data[at:]))
        pong(client)
        answered(client, text)


def test_6_valid_utf8_in_single_bytes(client: RawClient) -> None:
    text = "\u00b5\u1f79\U0001f600"
    data = HEAD + text.encode() + TAIL
    client.send(b"".join(fragments(data, 1)))
    answered(client, text)
    in_steps(client, frame(TEXT, data), 1)
    answered(client, text)


def test_6_controls_are_utf8_though_no_json(client: RawClient) -> None:
    client.send(frame(TEXT, HEAD + b"\x00\x01\x1f" + TAIL))
    refused(client, "bad_json")
    lives(client)


@pytest.mark.parametrize("how", ["whole", "by-frame", "by-byte", "as-soon-as-seen"])
@pytest.mark.parametrize(("data", "seen"), INVALID_UTF8.values(), ids=INVALID_UTF8.keys())
def test_6_invalid_utf8(data: bytes, seen: int, how: str, client: RawClient) -> None:
    whole = HEAD + data + TAIL
    if how == "whole":
        client.send(frame(TEXT, whole) + frame(TEXT, ping("behind")))
    elif how == "by-frame":
        client.send(b"".join(fragments(whole, 1)) + frame(TEXT, ping("behind")))
    elif how == "by-byte":
        in_steps(client, frame(TEXT, whole), 1)
    else:  # neither the frame nor the message is over
        client.send(frame(TEXT, HEAD + data[:seen], length=len(HEAD) + seen + 100, fin=False))
    ends(client, 1007)


@pytest.mark.parametrize("cut", ["\u00b5", "\u20ac", "\U0001f600"], ids=ascii)
def test_6_a_character_cut_by_the_end(cut: str, client: RawClient) -> None:
    client.send(frame(TEXT, HEAD + cut.encode()[:-1]) + frame(TEXT, ping("behind")))
    ends(client, 1007)


def test_6_invalid_utf8_is_fine_in_binary(client: RawClient) -> None:
    client.send(frame(BINARY, b"\xff\xed\xa0\x80") + frame(PING, b"\xff\xfe"))
    refused(client, "binary_not_supported")
    pong(client, b"\xff\xfe")


def test_6_each_message_begins_anew(client: RawClient) -> None:
    """What a binary message ends with is not the beginning of the next text."""
    client.send(frame(BINARY, b"\xe2\x82") + frame(TEXT, ping()))
    refused(client, "binary_not_supported")
    answered(client)


# 7: closing


def test_7_a_close_is_answered_behind_what_came_before(client: RawClient, target: Target) -> None:
    client.send(frame(TEXT, ping("before")))
    answered(client, "before")
    assert closes(target, client, close_frame(1000, b"bye"), 1000) == b""


BEHIND = {
    "close": close_frame(1000),
    "ping": frame(PING),
    "text": frame(TEXT, ping()),
    "rest-of-a-message": frame(CONTINUATION, ping()[9:]),
    "256-kib": frame(BINARY, b"", length=256 << 10) + b"x" * (256 << 10),
    "what-is-no-frame": b"\xff" * 100,
}


@pytest.mark.parametrize("data", BEHIND.values(), ids=BEHIND.keys())
def test_7_what_comes_behind_a_close_is_not_processed(data: bytes, client: RawClient) -> None:
    client.send(frame(TEXT, ping()[:9], fin=False) + close_frame(1000) + data)
    ends(client, 1000)


def test_7_an_empty_close_is_answered_by_an_empty_one(client: RawClient, target: Target) -> None:
    closes(target, client, close_frame(None), None)


@pytest.mark.parametrize(
    "code", [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 3000, 3999, 4000, 4999]
)
def test_7_valid_codes_come_back(code: int, client: RawClient) -> None:
    client.send(close_frame(code))
    ends(client, code)


@pytest.mark.parametrize(
    "code", [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 10_000, 32_768, 65_535]
)
def test_7_invalid_codes(code: int, client: RawClient) -> None:
    client.send(close_frame(code, b"why"))
    ends(client, 1002)


REASONS = {
    "short": (b"Hello World!", 1000),
    "as-long-as-may-be": (b"*" * 123, 1000),
    "utf8": ("\u03ba\u1f79\u03c3\u03bc\u03b5".encode() * 11, 1000),
    "too-long": (b"*" * 124, 1002),
    "invalid-utf8": (b"\xce\xba\xed\xa0\x80", 1007),
    "cut-utf8": (b"\xce\xba\xe1\xbd", 1007),
}


@pytest.mark.parametrize(("reason", "code"), REASONS.values(), ids=REASONS.keys())
def test_7_reasons(reason: bytes, code: int, client: RawClient) -> None:
    client.send(close_frame(1000, reason))
    ends(client, code)


def test_7_a_body_of_one_byte(client: RawClient) -> None:
    client.send(frame(CLOSE, b"\x03"))
    ends(client, 1002)


def test_7_the_peer_may_close_the_connection_with_its_close_frame(client: RawClient) -> None:
    client.send(close_frame(1001))
    client.finish()
    ends(client, 1001)


# 9 and 10: limits


@pytest.mark.parametrize("size", [LIMIT // 16, LIMIT // 2, LIMIT - 1, LIMIT])
@pytest.mark.parametrize("piece", [64, 256, 1300, 4096, LIMIT])
def test_9_large_messages(size: int, piece: int, client: RawClient) -> None:
    in_steps(client, b"".join(fragments(ping(size=size), piece)), 2048)
    answered(client)
    lives(client)


@pytest.mark.parametrize("over", [1, 2, 1024])
@pytest.mark.parametrize("piece", [256, 4096, 1 << 20])
@pytest.mark.parametrize("opcode", [TEXT, BINARY], ids=["text", "binary"])
def test_9_above_the_limit(opcode: int, piece: int, over: int, client: RawClient) -> None:
    client.send(b"".join(fragments(ping(size=LIMIT + over), piece, opcode)))
    ends(client, 1009)


@pytest.mark.parametrize("size", [0, 16, 64, 125])
def test_9_a_thousand_round_trips(size: int, client: RawClient) -> None:
    for _ in range(10):
        client.send(frame(PING, b"x" * size) * 100)
        for _ in range(100):
            pong(client, b"x" * size)


# 12: compression


@pytest.fixture
def deflating(target: Target) -> Iterator[RawClient]:
    """A session with compression agreed."""
    with session(target, offer=OFFER) as client:
        yield client


def compressed(payload: bytes, piece: int = 1 << 20, opcode: int = TEXT, **how: Any) -> bytes:
    """A message in frames of ``piece`` bytes, compressed as a whole."""
    return b"".join(fragments(deflated(payload, **how), piece, opcode, COMPRESSED))


SIZES = [40, 64, 256, 1024, 4096, 8192, 16_384, 32_768, LIMIT - 1, LIMIT]


@pytest.mark.parametrize("level", [0, 1, 9], ids=["stored", "fast", "best"])
@pytest.mark.parametrize("size", SIZES)
def test_12_compressed_text_of_many_sizes(size: int, level: int, deflating: RawClient) -> None:
    for i in range(3):
        deflating.send(compressed(ping(str(i), size), level=level))
        answered(deflating, str(i))


@pytest.mark.parametrize("piece", [1, 7, 64, 1024, 4096])
@pytest.mark.parametrize("step", [1 << 20, 1000])
def test_12_compressed_messages_in_fragments(piece: int, step: int, deflating: RawClient) -> None:
    data = ping(size=min(800 * piece, 32_768))  # a message has so many fragments at most
    in_steps(deflating, compressed(data, piece, level=0 if piece > 1 else 6), step)
    answered(deflating)
    pieces = fragments(deflated(data), 16, TEXT, COMPRESSED)
    deflating.send(pieces[0] + frame(PING, b"between") + b"".join(pieces[1:]))
    pong(deflating, b"between")
    answered(deflating)


@pytest.mark.parametrize("bits", range(9, 16))
def test_12_every_window_of_the_client(bits: int, target: Target) -> None:
    with session(target, offer=f"{OFFER}; client_max_window_bits={bits}") as client:
        client.send(compressed(ping(size=LIMIT), window_bits=bits))
        answered(client)


def test_12_binary_and_uncompressed_between(deflating: RawClient) -> None:
    deflating.send(compressed(b"\xff" * 1000, opcode=BINARY) + frame(TEXT, ping("plain")) + compressed(ping("packed")))
    refused(deflating, "binary_not_supported")
    answered(deflating, "plain")
    answered(deflating, "packed")


FORMS = {
    "empty": (b"\x00", "bad_json"),  # as RFC 7692 section 7.2.3.6 has it
    "nothing": (b"", "bad_json"),
    "empty-blocks-before": (b"\x00\x00\x00\xff\xff" * 5 + deflated(ping()), None),
    "empty-blocks-behind": (deflated(ping()) + b"\x00\x00\xff\xff\x00", None),
    "two-blocks": (deflated(ping()[:9]) + b"\x00\x00\xff\xff" + deflated(ping()[9:]), None),
    "final-block": (zlib.compress(ping(), wbits=-15) + b"\x00", None),  # section 7.2.3.4
    "fixed-codes": (zlib.compressobj(9, zlib.DEFLATED, -15, 8, zlib.Z_FIXED), None),
    "codes-only": (zlib.compressobj(9, zlib.DEFLATED, -15, 8, zlib.Z_HUFFMAN_ONLY), None),
    "runs": (zlib.compressobj(9, zlib.DEFLATED, -15, 8, zlib.Z_RLE), None),
}


@pytest.mark.parametrize(("form", "error"), FORMS.values(), ids=FORMS.keys())
def test_12_every_form_of_deflate(form: Any, error: str | None, deflating: RawClient) -> None:
    data = form if isinstance(form, bytes) else deflated(ping(size=2000), compressor=form.copy())
    deflating.send(frame(TEXT, data, rsv=COMPRESSED))
    if error is None:
        answered(deflating)
    else:
        refused(deflating, error)
    lives(deflating)


@pytest.mark.parametrize("piece", [1 << 20, 4096, 100], ids=["whole", "by-4096", "by-100"])
@pytest.mark.parametrize("level", [0, 9], ids=["stored", "best"])
def test_12_what_comes_out_is_limited_to_the_byte(level: int, piece: int, target: Target) -> None:
    """limit - 1 and limit are messages, limit + 1 and limit + 2 are not: Autobahn's own check cuts these short."""
    if level == 0 and piece == 100:
        piece = 128  # else it has more fragments than a message may have
    for size in (LIMIT - 1, LIMIT, LIMIT + 1, LIMIT + 2):
        with session(target, offer=OFFER) as client:
            client.send(compressed(ping(size=size), piece, level=level) + frame(PING, b"behind"))
            if size > LIMIT:
                ends(client, 1009)
            else:
                answered(client)
                pong(client, b"behind")


def test_12_invalid_utf8_that_was_compressed(deflating: RawClient) -> None:
    deflating.send(compressed(HEAD + b"\xed\xa0\x80" + TAIL) + compressed(ping("behind")))
    ends(deflating, 1007)


def test_12_utf8_across_compressed_fragments(deflating: RawClient) -> None:
    text = "\u03ba\u1f79\u03c3\u03bc\u03b5\U0001f600"
    deflating.send(compressed(HEAD + text.encode() + TAIL, 1, level=0))
    answered(deflating, text)


# 13: negotiation


def agreed(target: Target, offer: str) -> str | None:
    """The answer to an offer."""
    with target.connect() as client:
        answer = client.upgrade(path(target), headers=[("Sec-WebSocket-Extensions", offer)])
        assert answer.status == 101
        assert client.message()["type"] == "CONNECTED"
        found = answer.headers.get("sec-websocket-extensions")
        client.send(compressed(ping("packed"), window_bits=9) if found else frame(TEXT, ping("plain")))
        answered(client, "packed" if found else "plain")
        lives(client)
        return found


BASE = "permessage-deflate; client_no_context_takeover"
OFFERS = {
    # The suite's seven, and more: what a client asks of the server's side is granted as asked.
    "permessage-deflate": BASE,
    "permessage-deflate; client_no_context_takeover": BASE,
    "permessage-deflate; server_no_context_takeover": f"{BASE}; server_no_context_takeover",
    "permessage-deflate; client_max_window_bits": BASE,
    "permessage-deflate; client_max_window_bits=9": BASE,
    "permessage-deflate; client_max_window_bits=15": BASE,
    "permessage-deflate; server_max_window_bits=9": f"{BASE}; server_max_window_bits=9",
    "permessage-deflate; server_max_window_bits=15": f"{BASE}; server_max_window_bits=15",
    'permessage-deflate; server_max_window_bits="10"': f"{BASE}; server_max_window_bits=10",
    "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=9; "
    "client_max_window_bits=9": f"{BASE}; server_no_context_takeover; server_max_window_bits=9",
    "PerMessage-Deflate;client_max_window_bits": BASE,
    "x-webkit-deflate-frame, permessage-deflate": BASE,
    "permessage-bzip2; server_max_compress_level=9, permessage-deflate": BASE,
    # The first offer that can be taken; a bad one is declined, and the next one looked at.
    "permessage-deflate; server_max_window_bits=7, permessage-deflate; server_max_window_bits=12": (
        f"{BASE}; server_max_window_bits=12"
    ),
    "permessage-deflate; unknown_parameter, permessage-deflate": BASE,
    # None of it can be taken (RFC 7692 section 7.1): no extension, and no refusal.
    "permessage-deflate; unknown_parameter": None,
    "permessage-deflate; server_no_context_takeover=1": None,
    "permessage-deflate; client_no_context_takeover=": None,
    "permessage-deflate; server_no_context_takeover; server_no_context_takeover": None,
    "permessage-deflate; server_max_window_bits": None,
    "permessage-deflate; client_max_window_bits; client_max_window_bits": None,
    **{f"permessage-deflate; server_max_window_bits={bits}": None for bits in ("7", "16", "0", "08", "-9", "x", '""')},
    **{f"permessage-deflate; client_max_window_bits={bits}": None for bits in ("7", "16", "1" * 5000, "9.0", "")},
    "x-webkit-deflate-frame": None,
    "permessage-bzip2": None,
    "permessage": None,
    ";;;,,,===": None,
    'permessage-deflate; client_max_window_bits="9': None,
    "permessage-deflate-more": None,
}


@pytest.mark.parametrize(("offer", "answer"), OFFERS.items(), ids=[offer[:60] for offer in OFFERS])
def test_13_offers(offer: str, answer: str | None, target: Target) -> None:
    found = agreed(target, offer)
    assert (None if found is None else set(found.split("; "))) == (None if answer is None else set(answer.split("; ")))


def test_13_offers_in_several_headers(target: Target) -> None:
    """They are one list (RFC 9110 section 5.3)."""
    with target.connect() as client:
        headers = [("Sec-WebSocket-Extensions", offer) for offer in ("permessage-bzip2", OFFER)]
        answer = client.upgrade(path(target), headers=headers)
        assert answer.headers["sec-websocket-extensions"] == BASE


def test_13_no_context_is_kept_for_a_client(deflating: RawClient) -> None:
    """Messages that each stand alone are read, however many; the client was told to make them so."""
    for i in range(40):
        deflating.send(compressed(ping(str(i), 1000)))
        answered(deflating, str(i))


def test_13_a_client_that_keeps_its_context_all_the_same(deflating: RawClient) -> None:
    """Its second message refers to the first: it cannot be read, and is not misread."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    for i in range(2):
        deflating.send(frame(TEXT, deflated(ping("same", 1000), compressor=compressor), rsv=COMPRESSED))
        if i == 0:
            answered(deflating, "same")
    ends(deflating, 1007)


def test_13_nothing_comes_compressed(target: Target) -> None:
    """The gateway may, and does not: records, answers and close frames have no reserved bit set."""
    with session(target, offer=OFFER) as client:
        target.daemon.publish("news", {"n": -13})
        got = client.frame()
        assert (got.rsv, got.json()["data"]) == (0, {"n": -13})
        client.send(compressed(ping()) + frame(PING))
        assert [client.frame().rsv for _ in range(2)] == [0, 0]
        client.send(close_frame(1000))
        ends(client, 1000)


def test_compression_that_is_off_is_not_agreed(tmp_path_factory: pytest.TempPathFactory) -> None:
    """``server.compression: false``: RSV1 is a reserved bit again."""
    with Target({"server": {"compression": False}}, tmp_path_factory.mktemp("plain")) as target:
        assert agreed(target, OFFER) is None
        with session(target) as client:
            closes(target, client, compressed(ping()), 1002)


@pytest.mark.parametrize("size", [0, 1, 100, 65_000, 100_000])
def test_1_what_the_gateway_sends_is_framed_as_strictly(size: int, client: RawClient, target: Target) -> None:
    """A length in its shortest form, no mask, no reserved bit."""
    target.daemon.publish("news", {"n": -1, "pad": "x" * size})
    head = client.sock.recv(10, socket.MSG_PEEK)
    got = client.frame()
    assert got.payload.endswith(b"x" * size + b'"}}')
    length = len(got.payload)
    if length < 126:
        assert head[:2] == bytes([0x80 | TEXT, length])
    elif length < 65_536:
        assert head[:4] == bytes([0x80 | TEXT, 126]) + length.to_bytes(2, "big")
    else:
        assert head == bytes([0x80 | TEXT, 127]) + length.to_bytes(8, "big")
    lives(client)
