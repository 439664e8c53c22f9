"""A client's connection over a real socket: strict about frames, bounded in what a client can make it keep, and gone
without a trace (ids in brackets are rows of the table of hostile inputs)."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import random
import socket
import zlib
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.core.wire import frame as server_frame
from gateway.errors import Close
from tests.support.edge import HELLO, Edge, FakeSession, until
from tests.support.rawclient import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Closed,
    Frame,
    RawClient,
    close_frame,
    frame,
)

LIMIT = 4096
DEFLATE = [("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits")]
COMPRESSED = 4  # RSV1


@pytest.fixture(scope="module")
def edge() -> Iterator[Edge]:
    with Edge(limits={"message_bytes": LIMIT}, server={"write_timeout": 2.0}) as running:
        yield running


TOO_LONG = bytes(random.Random(1).choices(b"0123456789abcdef", k=LIMIT + 1))


def deflated(payload: bytes) -> bytes:
    """As RFC 7692 section 7.2.1."""
    squeeze = zlib.compressobj(wbits=-15)
    return (squeeze.compress(payload) + squeeze.flush(zlib.Z_SYNC_FLUSH))[:-4]


def received(edge: Edge, session: FakeSession, count: int) -> list[tuple[bytes, bool]]:
    until(lambda: len(session.received) >= count, f"{count} messages")
    return session.received


# What is right


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 128, LIMIT - 1, LIMIT])
@pytest.mark.parametrize("options", [{}, {"headers": DEFLATE}])
def test_messages_up_to_the_limit(edge: Edge, size: int, options: dict[str, Any]) -> None:
    """The same to the byte whether plain or deflated (D14)."""
    text = bytes(random.Random(size).choices(b"abcdefghijklmnopqrstuvwxyz", k=size))
    with edge.client(**options) as client:
        client.send(frame(TEXT, text))
        client.send(frame(BINARY, os.urandom(size)[:size]))
        if options:
            client.send(frame(TEXT, deflated(text), rsv=COMPRESSED))
        got = received(edge, edge.session, 2 + bool(options))
        assert got[0] == (text, False)
        assert (len(got[1][0]), got[1][1]) == (size, True)
        assert got[2:] == ([(text, False)] if options else [])


def test_fragments_with_control_frames_between(edge: Edge) -> None:
    with edge.client() as client:
        client.send(
            frame(TEXT, b"echo \xe2\x82", fin=False) + frame(PING, b"now") + frame(CONTINUATION, b"", fin=False)
        )
        client.send(frame(CONTINUATION, b"\xac"))
        assert client.frame()[:2] == (PONG, b"now")
        assert client.frame().payload == "€".encode()


def test_frames_in_single_bytes(edge: Edge) -> None:
    with edge.client() as client:
        client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in frame(PING, b"p" * 125) + frame(TEXT, b"echo " + b"y" * 200):
            client.send(bytes([byte]))
        assert client.frame()[:2] == (PONG, b"p" * 125)
        assert client.frame().payload == b"y" * 200


def test_nothing_that_goes_out_is_compressed(edge: Edge) -> None:
    with edge.client(headers=DEFLATE) as client:
        client.send(frame(TEXT, deflated(b"echo " + b"a" * 1000), rsv=COMPRESSED))
        assert client.frame() == Frame(TEXT, b"a" * 1000)


@pytest.mark.parametrize("count", [1, 300])
def test_each_deflated_message_stands_alone(edge: Edge, count: int) -> None:
    """The server said client_no_context_takeover, and so keeps no window for an idle connection."""
    with edge.connect() as client:
        answer = client.upgrade("/ws?token=good-alice", headers=DEFLATE)
        assert answer.headers["sec-websocket-extensions"] == "permessage-deflate; client_no_context_takeover"
        assert client.frame().payload == HELLO
        message = deflated(b'{"type":"PING"}')
        client.send(b"".join(frame(TEXT, message, rsv=COMPRESSED) for _ in range(count)))
        client.send(frame(TEXT, message[:3], rsv=COMPRESSED, fin=False) + frame(CONTINUATION, message[3:]))
        assert received(edge, edge.session, count + 1) == [(b'{"type":"PING"}', False)] * (count + 1)


@pytest.mark.parametrize(
    ("offer", "answer"),
    [
        ("permessage-deflate", "permessage-deflate; client_no_context_takeover"),
        ("x-other, Permessage-Deflate; server_no_context_takeover; server_max_window_bits=\"10\"",
         "permessage-deflate; client_no_context_takeover; server_no_context_takeover; server_max_window_bits=10"),
        ("permessage-deflate; unknown=1, permessage-deflate", "permessage-deflate; client_no_context_takeover"),
        ("permessage-deflate; server_max_window_bits=7", None),  # A20
        ("permessage-deflate; server_max_window_bits=99", None),
        ("permessage-deflate; server_max_window_bits", None),
        ("permessage-deflate; client_max_window_bits=" + "9" * 5000, None),
        ("permessage-deflate; client_max_window_bits; client_max_window_bits", None),
        ("permessage-deflate; client_no_context_takeover=1", None),
        ('permessage-deflate; x="' + "y" * 8000, None),
        (", ".join(["x-webkit-deflate-frame"] * 500), None),
        (";;;,,,==", None),
    ],
)  # fmt: skip
def test_offers_of_extensions(edge: Edge, offer: str, answer: str | None) -> None:
    with edge.connect() as client:
        got = client.upgrade("/ws?token=good-alice", headers=[("Sec-WebSocket-Extensions", offer)])
        assert (got.status, got.headers.get("sec-websocket-extensions")) == (101, answer)


def test_compression_can_be_off() -> None:
    with Edge(server={"compression": False}) as edge, edge.connect() as client:
        answer = client.upgrade("/ws?token=good-alice", headers=DEFLATE)
        assert "sec-websocket-extensions" not in answer.headers
        client.send(frame(TEXT, deflated(b"x"), rsv=COMPRESSED))
        assert client.closed().code == Close.PROTOCOL_ERROR


@pytest.mark.parametrize(
    ("offer", "selected"),
    [("bearer, good-alice", "bearer"), ("chat, BEARER, good-alice", "BEARER"), ("b" + " " * 9000 + "x", None)],
)
def test_subprotocols(edge: Edge, offer: str, selected: str | None) -> None:
    """A21: never one that was not offered."""
    target = "/ws" if selected else "/ws?token=good-alice"
    with edge.connect() as client:
        answer = client.upgrade(target, headers=[("Sec-WebSocket-Protocol", offer)])
        assert (answer.status, answer.headers.get("sec-websocket-protocol")) == (101, selected)


# What is wrong

VIOLATIONS: dict[str, tuple[bytes, int]] = {
    "D1 unmasked": (frame(TEXT, b"x", mask=None), 1002),
    **{f"D2 rsv {rsv}": (frame(TEXT, b"x", rsv=rsv), 1002) for rsv in range(1, 8)},
    **{f"D2 rsv {rsv} on ping": (frame(PING, b"x", rsv=rsv), 1002) for rsv in (1, 2, 4)},
    **{f"D3 opcode {opcode}": (frame(opcode, b"x"), 1002) for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
    "D4 fragmented ping": (frame(PING, b"x", fin=False), 1002),
    "D4 long ping": (frame(PING, b"x" * 126), 1002),
    "D4 long close": (frame(CLOSE, b"\x03\xe8" + b"x" * 124), 1002),
    "D5 continuation of nothing": (frame(CONTINUATION, b"x"), 1002),
    "D5 text in text": (frame(TEXT, b"x", fin=False) + frame(TEXT, b"y"), 1002),
    "D6 2-byte length": (frame(TEXT, b"x" * 5, size=2), 1002),
    "D6 8-byte length": (frame(TEXT, b"x" * 200, size=8), 1002),
    "D6 highest bit": (frame(TEXT, length=1 << 63), 1002),
    "D7 limit + 1": (frame(TEXT, b"x", length=LIMIT + 1), 1009),
    "D7 1 GiB": (frame(BINARY, length=1 << 30), 1009),
    "D7 2^63-1": (frame(BINARY, length=(1 << 63) - 1), 1009),
    "D8 fragments": (frame(TEXT, b"x" * LIMIT, fin=False) + frame(CONTINUATION, b"x"), 1009),
    "D9 empty fragments": (frame(TEXT, b"", fin=False) + frame(CONTINUATION, b"", fin=False) * 2000, 1009),
    "D10 lone": (frame(TEXT, b"\x80"), 1007),
    "D10 overlong": (frame(TEXT, b"\xc0\xaf"), 1007),
    "D10 surrogate": (frame(TEXT, b"\xed\xa0\x80"), 1007),
    "D10 too large": (frame(TEXT, b"\xf4\x90\x80\x80"), 1007),
    "D10 cut short": (frame(TEXT, b"\xe2\x82"), 1007),
    "D10 across fragments": (frame(TEXT, b"\xe2\x82", fin=False) + frame(CONTINUATION, b"x"), 1007),
    "D10 at once": (frame(TEXT, b"\xf8", fin=False), 1007),
    **{
        f"D11 code {code}": (close_frame(code), 1002)
        for code in (0, 1, 999, 1004, 1005, 1006, 1014, 1015, 1016, 1100, 2000, 2999, 5000, 65535)
    },
    "D11 one byte": (frame(CLOSE, b"\x03"), 1002),
    "D11 reason": (close_frame(1000, b"\xff"), 1007),
}  # fmt: skip


@pytest.mark.parametrize("options", [{}, {"headers": DEFLATE}])
@pytest.mark.parametrize(("data", "code"), VIOLATIONS.values(), ids=VIOLATIONS.keys())
def test_violations(edge: Edge, data: bytes, code: int, options: dict[str, Any]) -> None:
    """R2: the close frame has the code and arrives, what stands behind is not processed, TCP ends."""
    if options and (data[0] & 0x70) == 0x40 and data[0] & 0x0F < 3:
        data, code = frame(data[0] & 0x0F, b"\xff" * 3, rsv=COMPRESSED), 1007  # RSV1 was agreed on, this is no deflate
    with edge.client(**options) as client:
        client.send(data + frame(TEXT, b"echo behind") + frame(PING))
        assert client.closed().code == code
        until(lambda: edge.session.code is not None, "the session hears of it")
        assert edge.session.received == []
        assert edge.session.code == code


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        ([frame(TEXT, b"\xff\xff\xff", rsv=COMPRESSED)], 1007),  # D15
        ([frame(TEXT, deflated(b"\xe2\x82"), rsv=COMPRESSED)], 1007),
        ([frame(TEXT, b"x", fin=False), frame(CONTINUATION, b"x", rsv=COMPRESSED)], 1002),
        ([frame(TEXT, deflated(b"x" * (LIMIT + 1)), rsv=COMPRESSED)], 1009),  # D14
        ([frame(TEXT, deflated(b"x" * (LIMIT + 2)), rsv=COMPRESSED)], 1009),
        ([frame(TEXT, deflated(TOO_LONG), rsv=COMPRESSED)], 1009),
        ([frame(TEXT, deflated(TOO_LONG)[:2000], rsv=COMPRESSED, fin=False),
          frame(CONTINUATION, deflated(TOO_LONG)[2000:])], 1009),
    ],
)  # fmt: skip
def test_violations_in_deflated_messages(edge: Edge, frames: list[bytes], code: int) -> None:
    with edge.client(headers=DEFLATE) as client:
        for data in frames:
            client.send(data)
        assert client.closed().code == code
        assert edge.session.received == []


@pytest.mark.parametrize("pieces", [1, 50])
def test_a_bomb_is_not_inflated(edge: Edge, pieces: int) -> None:
    """D13: 64 MiB in 64 KiB; no more of it is inflated than the limit."""
    bomb = deflated(bytes(1 << 26))[: LIMIT - 100]
    step = len(bomb) // pieces + 1
    with edge.client(headers=DEFLATE) as client:
        for at in range(0, len(bomb), step):
            first, last = at == 0, at + step >= len(bomb)
            opcode = BINARY if first else CONTINUATION
            client.send(frame(opcode, bomb[at : at + step], rsv=COMPRESSED if first else 0, fin=last))
        assert client.closed().code == 1009


# The end


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        (close_frame(1000, b"bye"), 1000),
        (close_frame(None), 1005),
        (close_frame(1001), 1001),
        (close_frame(4999), 4999),
    ],
)
def test_a_close_is_answered_in_kind(edge: Edge, sent: bytes, told: int) -> None:
    """D12: and what comes behind it is ignored."""
    with edge.client() as client:
        client.send(sent + frame(TEXT, b"echo behind"))
        assert client.closed().code == told
        until(lambda: edge.session.code == told, "the session hears of it")
        assert edge.session.received == []


def test_a_close_of_ours_stands_behind_what_waits_and_arrives(edge: Edge) -> None:
    """Also where the client goes on sending: a close with unread input is a reset, which would eat the close frame."""
    with edge.client(receive_buffer=4096) as client:
        client.send(frame(TEXT, b"flood 300000") + frame(TEXT, b"bye"))
        until(lambda: edge.session.received[1:], "both are read")
        client.sock.setblocking(False)
        for _ in range(100):
            try:
                client.sock.send(frame(TEXT, b"echo behind" * 100))
            except BlockingIOError:
                break
        client.sock.settimeout(5)
        assert len(client.frame().payload) == 300_000
        assert client.closed() == Closed(Close.NORMAL)
        assert len(edge.session.received) == 2


def test_every_code_of_ours_can_be_sent(edge: Edge) -> None:
    """Autobahn's sendClose refuses all but 1000 and 3000 to 4999."""
    for code in Close:
        with edge.client() as client:
            edge.call(edge.session.channel.close, code, "because " + "é" * 100)
            got = client.closed()
            assert (got.code, got.reason[:8]) == (code, "because ")


@pytest.mark.parametrize("size", [300_000, 8_000_000], ids=["the-kernel-has-it", "a-transport-that-is-full"])
def test_a_peer_that_takes_nothing_is_aborted_in_time(size: int) -> None:
    """F9: its close frame never leaves; nothing is kept for it beyond server.writeTimeout, not by the kernel either."""
    with Edge(server={"write_timeout": 0.5}) as edge, edge.client(receive_buffer=4096) as client:
        client.send(frame(TEXT, b"flood %d" % size))
        until(lambda: edge.session.received, "it is read")
        edge.call(edge.session.channel.close, Close.TOO_SLOW, "")
        until(lambda: edge.session.code == Close.TOO_SLOW, "the connection is gone", 3)
        assert edge.door.connections == 0
        until(lambda: client.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNRESET, "it is reset")


def test_a_peer_that_never_closes_is_closed(edge: Edge) -> None:
    """D12: it has its close frame and keeps the connection open."""
    with edge.client() as client:
        client.send(frame(TEXT, b"bye"))
        assert client.frame().opcode == CLOSE
        until(lambda: edge.session.code == 1000, "closed by us", 4)


@pytest.mark.parametrize("how", ["finish", "reset"])
def test_a_peer_that_vanishes(edge: Edge, how: str) -> None:
    """F8: a FIN without a close frame ends the connection; so does a RST."""
    client = edge.client()
    client.send(frame(TEXT, b"half a message", fin=False) + frame(CONTINUATION, b"x" * 50)[:20])
    getattr(client, how)()
    until(lambda: edge.session.code == 1006, "the session hears of it")
    client.sock.close()


def test_an_error_of_our_own_closes_that_one_with_1011(edge: Edge) -> None:
    """I12; its text is not shown."""
    with edge.client() as other, edge.client() as client:
        client.send(frame(TEXT, b"boom"))
        assert client.closed() == Closed(Close.INTERNAL)
        other.send(frame(PING))
        assert other.frame().opcode == PONG


def test_a_push_that_finds_the_peer_gone_ends_the_connection(edge: Edge) -> None:
    """The kernel knows before the reactor tells; whoever pushes to thousands need not care."""
    client = edge.client()
    channel = edge.session.channel

    def pushed_to_the_gone() -> list[bool]:
        client.reset()
        return [channel.push(server_frame(b"x")) for _ in range(3)]

    assert edge.call(pushed_to_the_gone) == [True] * 3
    until(lambda: edge.session.code == 1006, "the session hears of it")


def test_a_session_that_begins_with_more_than_the_kernel_takes(edge: Edge) -> None:
    with edge.client("token=good-alice&topics=much") as client:
        pulse = edge.call(getattr, edge.session.channel, "_pulse")
        assert pulse.waiting
        assert len(client.frame().payload) == 5_000_000
        until(lambda: edge.session.drained == 1, "drained")
        assert not pulse.waiting


def test_a_session_that_is_over_at_once(edge: Edge) -> None:
    with edge.client("token=good-alice&topics=short") as client:
        assert client.closed().code == Close.TOO_SLOW
        until(lambda: edge.session.code == Close.TOO_SLOW, "the session hears of it")


def test_what_is_pushed_to_a_closed_connection_is_swallowed(edge: Edge) -> None:
    with edge.client() as client:
        channel = edge.session.channel
        push = channel.push
        client.send(frame(TEXT, b"bye"))
        client.closed()
    until(lambda: edge.session.code, "it is gone")
    assert edge.call(push, server_frame(b"late")) is True
    assert edge.call(channel.answer, server_frame(b"late")) is True
    edge.call(channel.close, Close.NORMAL)
    edge.call(channel.abort)
    assert edge.call(channel.progress) == (0, 0, 0, False, 0)


# Bounds


def test_many_pings_are_answered_or_end_the_connection(edge: Edge) -> None:
    """D16."""
    with edge.client() as client:
        client.send(frame(PING, b"x") * 1000)
        assert [client.frame().opcode for _ in range(1000)] == [PONG] * 1000
        client.send(frame(PING, b"x") * 3000)
        assert client.closed().code == Close.RATE_LIMITED
    with edge.client() as client:
        client.send(frame(PONG, b"nobody asked") * 4000)
        assert client.closed().code == Close.RATE_LIMITED


def test_who_sends_and_does_not_read_is_not_listened_to() -> None:
    """D17: no more than 64 KiB of answers wait, and a turn's worth; once they are taken, all the rest is answered."""
    with Edge(limits={"message_bytes": 65536}) as edge:
        client = edge.client(receive_buffer=4096)
        channel: Any = edge.session.channel
        message = frame(TEXT, b"echo " + b"x" * 20000)
        client.sock.settimeout(1)
        sent = 0
        rest = message
        try:
            while sent < 1000:
                rest = rest[client.sock.send(rest) :] or message
                sent += rest is message
        except TimeoutError:
            pass
        assert sent < 1000
        progress = edge.call(channel.progress)
        assert progress.paused
        assert 40000 < progress.waiting < 65536 + 2 * 20000
        assert edge.session.code is None
        client.sock.settimeout(10)
        for _ in range(sent):
            assert len(client.frame().payload) == 20000
        until(lambda: not edge.call(channel.progress).paused, "it is listened to again")
        client.send(rest if rest is not message else message)
        assert len(client.frame().payload) == 20000
        client.sock.close()


def test_who_is_not_listened_to_can_still_be_closed() -> None:
    """D17: the lag clock ends it; what it had sent on is dropped."""
    with Edge(max_lag=1.0, server={"write_timeout": 0.5}) as edge, edge.client(receive_buffer=4096) as client:
        client.sock.settimeout(0.3)
        with contextlib.suppress(TimeoutError):
            while True:
                client.send(frame(TEXT, b"echo " + b"x" * 20000))
        until(lambda: edge.session.code == Close.TOO_SLOW, "the lag clock", 15)


def test_records_that_wait_do_not_stop_the_listening() -> None:
    """A slow client's UNSUBSCRIBE, PONG and FIN are seen."""
    with Edge() as edge, edge.client(receive_buffer=4096) as client:
        client.send(frame(TEXT, b"flood 4000000"))
        until(lambda: edge.session.received, "it is read")
        assert edge.call(edge.session.channel.progress).waiting > 1_000_000
        client.send(frame(TEXT, b"still here"))
        assert received(edge, edge.session, 2)[1] == (b"still here", False)
        assert not edge.call(edge.session.channel.progress).paused


def test_the_kernel_is_not_the_queue(edge: Edge) -> None:
    """A peer that reads nothing holds its window and 16 KiB in the kernel, and not megabytes."""
    with edge.client() as client:
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        client.send(frame(TEXT, b"flood 8000000"))
        until(lambda: edge.session.received, "it is read")
        channel: Any = edge.session.channel
        sizes: list[int] = []

        def settled() -> bool:
            sizes.append(edge.call(channel.progress).waiting)
            return len(sizes) > 20 and sizes[-1] == sizes[-20]

        until(settled, "the kernel takes no more")
        unsent = edge.call(lambda: int.from_bytes(
            channel.transport.getHandle().getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 148)[144:148], "little"
        ))  # fmt: skip
        assert unsent <= 64 * 1024


# The wheel, with peers that are real


def test_a_peer_that_answers_no_ping() -> None:
    """F7: although it goes on sending."""
    with Edge(server={"ping_interval": 0.2, "ping_timeout": 0.3}) as edge, edge.client() as client:
        while (got := client.frame()).opcode != CLOSE:
            assert got.opcode == PING
            client.send(frame(TEXT, b"busy") + frame(PONG, b"another's"))
        assert got.payload[:2] == Close.NO_PONG.to_bytes(2, "big")
        client.finish()
        until(lambda: edge.session.code == Close.NO_PONG, "the session hears of it")


def test_a_peer_that_answers_stays() -> None:
    with Edge(server={"ping_interval": 0.1, "ping_timeout": 0.2}) as edge, edge.client() as client:
        for _ in range(5):
            got = client.frame()
            assert got.opcode == PING
            client.send(frame(PONG, got.payload))
        assert edge.session.code is None


def test_a_peer_that_stood_still_reads_its_close_frame() -> None:
    """F5: the kernel takes no close frame for a closed window unless the low-water mark is raised."""
    with Edge(max_lag=1.0) as edge, edge.client(receive_buffer=4096) as client:
        client.send(frame(TEXT, b"flood 200000"))
        until(lambda: edge.session.closing == Close.TOO_SLOW, "the lag clock", 15)
        assert len(client.frame().payload) == 200_000
        assert client.closed().code == Close.TOO_SLOW


def test_drained_is_told_once_everything_is_taken(edge: Edge) -> None:
    with edge.client() as client:
        client.send(frame(TEXT, b"flood 2000000"))
        assert len(client.frame().payload) == 2_000_000
        until(lambda: edge.session.drained == 1, "drained")
        client.send(frame(TEXT, b"echo x"))
        assert client.frame().payload == b"x"
        assert edge.session.drained == 1


def test_progress_counts_what_the_peer_has(edge: Edge) -> None:
    with edge.client() as client:
        channel = edge.session.channel
        before = edge.call(channel.progress).acked
        client.send(frame(TEXT, b"flood 1000000"))
        assert len(client.frame().payload) == 1_000_000
        until(lambda: edge.call(channel.progress).acked >= before + 1_000_000, "acknowledged")
        assert edge.call(channel.progress)[0] == 0


def test_closed_connections_leave_nothing_for_the_cyclic_collector(edge: Edge) -> None:
    """A circle that is frozen is never freed, and a collection stops the reactor: 500 ends of every kind leave none."""

    def end(client: RawClient, kind: int) -> None:
        if kind == 0:
            client.send(close_frame(1000))
        elif kind == 1:
            client.send(frame(TEXT, b"bye"))
        elif kind == 2:
            client.send(frame(TEXT, b"x", fin=False) + frame(TEXT, b"violation"))
        elif kind == 3:
            client.send(frame(TEXT, deflated(b"x"), rsv=COMPRESSED))
            client.send(frame(TEXT, b"x", fin=False))
        if kind < 3:
            client.closed()
        client.reset() if kind == 4 else client.sock.close()

    def churn(rounds: int) -> None:
        for n in range(rounds):
            client = edge.client(headers=DEFLATE)
            if n % 7 == 0:
                client.send(frame(TEXT, b"flood 3000000"))
            end(client, n % 5)
            if n % 10 == 0:
                with edge.connect() as refused, edge.connect() as noise:
                    refused.upgrade("/ws?token=forged")
                    noise.request(b"noise\r\n\r\n")
        until(lambda: edge.door.connections == 0, "all are gone")
        edge.sessions.opened.clear()

    churn(20)
    gc.collect()
    gc.freeze()  # what other tests left is not looked at
    gc.disable()
    try:
        churn(500)
        edge.call(lambda: None)
        assert gc.collect() == 0
    finally:
        gc.enable()
        gc.unfreeze()
