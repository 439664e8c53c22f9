"""Section D of the hostile inputs: frames that break RFC 6455 or 7692, or are too many.

Each case is one client of its own; ``target`` looks after what holds for everybody else. What a client sent is never
logged, and each of these ends is counted under its close code (``closes``).
"""

from __future__ import annotations

import itertools
import json
import random
import struct
import threading
import time
import zlib
from contextlib import suppress

import pytest

from tests.support.conversation import (
    COMPRESSED,
    LIMIT,
    OFFER,
    answered,
    closed_with,
    closes,
    connections,
    deflated,
    descriptors,
    ends,
    fragments,
    kernel_queue,
    path,
    ping,
    pong,
    session,
)
from tests.support.daemon import until
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
    upgrade_request,
)

MARK = "seen-in-no-log"
BODY = ping(MARK)
NOISE = random.Random(7692).randbytes(100_000)


def bad_header(first: int, length: bytes, payload: bytes = b"") -> bytes:
    """A masked frame with a length as it is spelt here."""
    return bytes([first]) + length + b"\0\0\0\0" + payload


WRONG: dict[str, tuple[int, bytes]] = {
    # Frames of a client are masked (section 5.1).
    "D1-text": (1002, frame(TEXT, BODY, mask=None)),
    "D1-binary": (1002, frame(BINARY, BODY, mask=None)),
    "D1-ping": (1002, frame(PING, b"x", mask=None)),
    "D1-close": (1002, frame(CLOSE, struct.pack("!H", 1000), mask=None)),
    "D1-second-fragment": (1002, frame(TEXT, BODY, fin=False) + frame(CONTINUATION, b"", mask=None)),
    # Reserved bits (5.2).
    **{f"D2-text-rsv{rsv}": (1002, frame(TEXT, BODY, rsv=rsv)) for rsv in range(1, 8)},
    **{f"D2-ping-rsv{rsv}": (1002, frame(PING, b"x", rsv=rsv)) for rsv in (1, 2, 4)},
    "D2-close-rsv4": (1002, frame(CLOSE, struct.pack("!H", 1000), rsv=4)),
    "D2-continuation-rsv4": (1002, frame(TEXT, BODY, fin=False) + frame(CONTINUATION, b"", rsv=4)),
    # Reserved opcodes (5.2).
    **{f"D3-opcode-{opcode:x}": (1002, frame(opcode, BODY)) for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
    **{f"D3-empty-opcode-{opcode:x}": (1002, frame(opcode)) for opcode in (3, 11)},
    "D3-opcode-3-unfinished": (1002, frame(3, BODY, fin=False)),
    # Control frames are whole and short (5.5).
    **{f"D4-fragmented-{opcode}": (1002, frame(opcode, b"x", fin=False)) for opcode in (PING, PONG)},
    "D4-fragmented-close": (1002, frame(CLOSE, struct.pack("!H", 1000), fin=False)),
    **{f"D4-long-{opcode}": (1002, frame(opcode, b"x" * 126)) for opcode in (PING, PONG)},
    "D4-long-close": (1002, frame(CLOSE, struct.pack("!H", 1000) + b"x" * 124)),
    "D4-ping-of-4-gib": (1002, frame(PING, b"", length=1 << 32)),
    # Fragments in order (5.4).
    "D5-continuation-of-nothing": (1002, frame(CONTINUATION, BODY)),
    "D5-unfinished-continuation-of-nothing": (1002, frame(CONTINUATION, BODY, fin=False)),
    "D5-text-inside-text": (1002, frame(TEXT, BODY, fin=False) + frame(TEXT, BODY)),
    "D5-binary-inside-text": (1002, frame(TEXT, BODY, fin=False) + frame(BINARY, BODY, fin=False)),
    # Lengths in their shortest form, below 2^63 (5.2).
    "D6-0-in-2-bytes": (1002, bad_header(0x81, b"\xfe\0\0")),
    "D6-125-in-2-bytes": (1002, frame(TEXT, b"x" * 125, size=2)),
    "D6-125-in-8-bytes": (1002, frame(TEXT, b"x" * 125, size=8)),
    "D6-65535-in-8-bytes": (1002, frame(TEXT, b"x" * 65535, size=8)),
    "D6-most-significant-bit": (1002, frame(TEXT, b"", length=1 << 63)),
    "D6-all-bits": (1002, frame(TEXT, b"", length=(1 << 64) - 1)),
    # Too long: refused by the header alone, whether or not anything follows.
    **{
        f"D7-{name}-{kind}": (1009, frame(opcode, b"", length=length))
        for name, length in {"limit+1": LIMIT + 1, "1-gib": 1 << 30, "2^63-1": (1 << 63) - 1}.items()
        for kind, opcode in {"text": TEXT, "binary": BINARY}.items()
    },
    "D7-second-fragment": (1009, frame(TEXT, b"", fin=False) + frame(CONTINUATION, b"", length=LIMIT + 1)),
    "D8-two-fragments": (1009, frame(TEXT, b" " * LIMIT, fin=False) + frame(CONTINUATION, b" ")),
    "D8-sixty-five-fragments": (1009, b"".join(fragments(b" " * (LIMIT + 1024), 1024))),
    "D8-the-last-one-tips": (1009, b"".join(fragments(b" " * (LIMIT + 1), 4096, BINARY))),
    # Fragments without end: 200,000 of them, and the fewest that are too many.
    "D9-1025-empty": (1009, frame(TEXT, fin=False) + frame(CONTINUATION, fin=False) * 1024),
    "D9-200000-empty": (1009, frame(TEXT, fin=False) + frame(CONTINUATION, fin=False) * 200_000),
    "D9-200000-of-one-byte": (1009, frame(BINARY, b"x", fin=False) + frame(CONTINUATION, b"x", fin=False) * 200_000),
    # UTF-8 (8.1).
    **{
        f"D10-{name}": (1007, frame(TEXT, b'{"type":"PING","id":"' + data + b'"}'))
        for name, data in {
            "lone-continuation-byte": b"\x80",
            "lone-start-byte": b"\xc3",
            "overlong-slash": b"\xc0\xaf",
            "overlong-nul": b"\xe0\x80\x80",
            "overlong-in-4-bytes": b"\xf0\x8f\xbf\xbf",
            "surrogate": b"\xed\xa0\x80",
            "surrogate-pair": b"\xed\xa0\xbd\xed\xb8\x80",
            "above-10ffff": b"\xf4\x90\x80\x80",
            "five-bytes": b"\xf8\x88\x80\x80\x80",
            "ff": b"\xff",
        }.items()
    },
    "D10-cut-short": (1007, frame(TEXT, b'"\xe2\x82')),
    "D10-across-fragments": (1007, frame(TEXT, b'"\xe2\x82', fin=False) + frame(CONTINUATION, b'x"')),
    "D10-cut-short-across-fragments": (1007, frame(TEXT, b'"\xe2', fin=False) + frame(CONTINUATION, b"\x82")),
    "D10-seen-before-the-end": (1007, frame(TEXT, b"\xff", fin=False)),
    "D10-seen-within-a-frame": (1007, frame(TEXT, b"\xff", length=1000)),
    # Close frames (7.4).
    **{
        f"D11-{code}": (1002, close_frame(code))
        for code in (0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 9999, 65535)
    },
    "D11-one-byte": (1002, frame(CLOSE, b"\x03")),
    "D11-reason-not-utf8": (1007, close_frame(1000, b"\xc0\xaf")),
    "D11-reason-cut-short": (1007, close_frame(1000, b"\xe2\x82")),
    "D11-bad-code-with-reason": (1002, close_frame(1006, MARK.encode())),
}


@pytest.mark.parametrize(("code", "data"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_frame_closes(code: int, data: bytes, target: Target) -> None:
    """R2: the close code of the RFC arrives, nothing behind it is processed, and the connection ends."""
    with session(target) as client:
        reason = closes(target, client, data, code)
    assert reason, "a developer reads the reason"
    told_of_the_end(target, code)


@pytest.mark.parametrize("name", ["D1-text", "D4-long-9", "D6-most-significant-bit", "D7-1-gib-text", "D10-ff"])
def test_it_closes_too_when_bytes_come_one_by_one(name: str, target: Target) -> None:
    """A parser that sees a header in pieces must not read it otherwise."""
    code, data = WRONG[name]
    with session(target) as client:
        for byte in data:
            client.send(bytes([byte]))
        ends(client, code)


def told_of_the_end(target: Target, code: int) -> None:
    """R4: one line says how the connection ended, and no line says what was in it."""

    def line() -> bool:
        ends = [event["fields"] for event in target.events() if event["text"] == "connection closed"]
        return any((end["user"], end["code"]) == ("'mallory'", str(code)) for end in ends)

    until(line, "the end is logged")
    assert MARK not in json.dumps(target.events())


@pytest.mark.parametrize("name", ["D2-text-rsv1", "D3-opcode-3", "D5-continuation-of-nothing", "D10-surrogate"])
def test_what_came_before_is_answered_first(name: str, target: Target) -> None:
    """A client finds the fault by what was answered."""
    code, data = WRONG[name]
    with session(target) as client:
        client.send(frame(TEXT, ping("before")) + frame(PING, b"before") + data + frame(TEXT, ping("behind")))
        answered(client, "before")
        pong(client, b"before")
        ends(client, code)


# D12: after the close frame


def test_d12_frames_behind_a_close_frame_are_not_processed(target: Target) -> None:
    """Commands of a client that said goodbye must not be carried out."""
    with session(target) as client:
        assert closes(target, client, close_frame(1000, b"bye") + frame(TEXT, BODY) * 50, 1000) == b""


@pytest.mark.parametrize("ending", ["D12-of-ours", "D12-of-theirs"])
def test_the_connection_ends_though_the_peer_does_not(ending: str, target: Target) -> None:
    """A peer that keeps its end open, and sends on, must not hold ours for ever."""
    with session(target) as client:
        client.send(frame(TEXT, BODY, mask=None) if ending == "D12-of-ours" else close_frame(1000))
        assert client.frame().opcode == CLOSE
        end = time.monotonic() + 10

        def gone() -> bool:
            with suppress(OSError):
                client.send(frame(PING))
            return kernel_queue(target, client.sock) is None

        until(gone, "the gateway's socket is gone", end - time.monotonic(), 0.1)


# D13 to D15: permessage-deflate


def bomb(size: int) -> bytes:
    """``size`` zeros, deflated."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = b"\0" * (1 << 20)
    return b"".join(compressor.compress(block) for _ in range(size >> 20)) + compressor.flush(zlib.Z_SYNC_FLUSH)[:-4]


BOMB = bomb(60 << 20)  # as much as fits into a message as it comes
TEXT_LIMIT = ping("x", LIMIT)


def stored(payload: bytes) -> bytes:
    """Deflated without becoming smaller."""
    return deflated(payload, level=0)


DEFLATED: dict[str, tuple[int, bytes]] = {
    "D13-whole": (1009, frame(BINARY, BOMB, rsv=COMPRESSED)),
    "D13-text": (1009, frame(TEXT, deflated(b" " * (32 << 20)), rsv=COMPRESSED)),
    "D13-in-fragments": (1009, b"".join(fragments(BOMB, 1000, BINARY, COMPRESSED))),
    "D13-first-fragment": (1009, fragments(BOMB, 30_000, BINARY, COMPRESSED)[0]),
    "D13-256-kib-of-it": (1009, frame(BINARY, b"", rsv=COMPRESSED, length=256 << 10)),
    **{
        f"D14-limit+{over}-{name}": (1009, b"".join(fragments(pack(ping("x", LIMIT + over)), size, TEXT, COMPRESSED)))
        for over in (1, 2, 3, 258, 1024, 1088, 1089, 1090)
        for name, pack, size in (("whole", deflated, LIMIT * 2), ("fragments", deflated, 7), ("stored", stored, 4096))
    },
    "D15-not-deflate": (1007, frame(TEXT, b"\xff" * 20, rsv=COMPRESSED)),
    "D15-text-as-it-is": (1007, frame(TEXT, BODY, rsv=COMPRESSED)),
    "D15-noise": (1007, frame(BINARY, b"\x06" + NOISE[:1000], rsv=COMPRESSED)),
    "D15-reaches-before-its-message": (1007, frame(TEXT, deflated(b"x" * 300)[3:] + b"\x22\xff", rsv=COMPRESSED)),
    "D15-noise-in-the-second-fragment": (
        1007,
        frame(TEXT, deflated(BODY), fin=False, rsv=COMPRESSED) + frame(CONTINUATION, b"\xff" * 20),
    ),
    "D15-rsv1-on-continuation": (
        1002,
        frame(TEXT, deflated(BODY), fin=False, rsv=COMPRESSED) + frame(CONTINUATION, b"", rsv=COMPRESSED),
    ),
    "D15-rsv1-on-ping": (1002, frame(PING, deflated(b"x"), rsv=COMPRESSED)),
    "D15-rsv1-on-close": (1002, frame(CLOSE, struct.pack("!H", 1000), rsv=COMPRESSED)),
    "D15-rsv2": (1002, frame(TEXT, deflated(BODY), rsv=2)),
    "D15-rsv1-and-2": (1002, frame(TEXT, deflated(BODY), rsv=6)),
    "D15-bad-utf8-inside": (1007, frame(TEXT, deflated(b'"\xed\xa0\x80"'), rsv=COMPRESSED)),
    "D15-utf8-cut-short-inside": (1007, frame(TEXT, deflated(b'"\xe2\x82'), rsv=COMPRESSED)),
}


@pytest.mark.parametrize(("code", "data"), DEFLATED.values(), ids=DEFLATED.keys())
def test_wrong_compression_closes(code: int, data: bytes, target: Target) -> None:
    """As for other frames; what comes out counts, and little more than that is ever made of it."""
    started = time.monotonic()
    with session(target, offer=OFFER) as client:
        closes(target, client, data, code)
    assert time.monotonic() - started < 1
    told_of_the_end(target, code)


# D16 to D18: floods


def test_d16_pings_are_answered_one_by_one_up_to_a_bound(target: Target) -> None:
    """Each PING costs us more than it costs its sender; one who reads the answers gets all of them, or is told."""
    answers = 0
    with session(target) as client:
        flood = b"".join(frame(PING, struct.pack("!I", i)) for i in range(10_000))
        sender = threading.Thread(target=sends_what_it_can, args=(client, flood))
        sender.start()
        while (got := client.frame()).opcode == PONG:
            assert got.payload == struct.pack("!I", answers)
            answers += 1
        assert got.opcode == CLOSE
        assert got.payload[:2] == struct.pack("!H", 4503)
        sender.join()
    assert answers >= 2048


def sends_what_it_can(client: RawClient, data: bytes) -> None:
    with suppress(OSError):
        client.send(data)


@pytest.mark.parametrize("flood", ["D16-pongs-nobody-asked-for", "D16-empty-pings"])
def test_control_frames_that_cost_nothing_to_send_are_bounded(flood: str, target: Target) -> None:
    """The idea of CVE-2019-9512, whatever the frame; the close frame reaches one who only sends."""
    with session(target) as client:
        before = closed_with(target, 4503)
        sends_what_it_can(client, frame(PONG if "pongs" in flood else PING) * 100_000)
        assert client.closed().code == 4503
        until(lambda: closed_with(target, 4503) == before + 1, "counted")


@pytest.mark.parametrize("kind", ["D17-pings", "D17-messages", "D17-errors"])
def test_whoever_does_not_read_answers_is_not_listened_to(kind: str, target: Target) -> None:
    """64 MiB of input whose answers nobody reads: it is bounded by what was sent (a limit), or by reading no more."""
    data = {"D17-pings": frame(PING, b"x" * 125), "D17-messages": frame(TEXT, BODY), "D17-errors": frame(TEXT, b"?")}
    with session(target, receive_buffer=4096, timeout=3) as client:
        sends_what_it_can(client, data[kind] * ((64 << 20) // len(data[kind])))
        queue = kernel_queue(target, client.sock)
        assert queue is None or queue <= 64 * 1024
    # The gateway's memory is looked at by ``target``.


def test_d18_resets_in_the_middle_of_frames_leave_nothing(target: Target) -> None:
    """200 clients that vanish in each state a connection can be in."""
    settled = nobody_but_the_bystander(target)
    heads = itertools.cycle((b"\x81", frame(TEXT, b"", length=100), frame(TEXT, BODY, fin=False), frame(PING, b"x")))
    wanted = path(target)
    for _ in range(200):
        with target.connect() as client:
            assert client.upgrade(wanted).status == 101
            client.send(next(heads))
            client.reset()
    until(lambda: nobody_but_the_bystander(target) <= settled, "nothing is left")


def test_d18_resets_right_after_the_connect_leave_nothing(target: Target) -> None:
    """500 of them: before the request, within it, and before its answer."""
    settled = nobody_but_the_bystander(target)
    request = upgrade_request(path(target))
    for i in range(500):
        with target.connect() as client:
            client.send((b"", request[:40], request)[i % 3])
            client.reset()
    until(lambda: nobody_but_the_bystander(target) <= settled, "nothing is left")


def nobody_but_the_bystander(target: Target) -> int:
    """Descriptors that are open once every other session is gone."""
    until(lambda: connections(target) == 1, "only the bystander is left")
    return descriptors(target)
