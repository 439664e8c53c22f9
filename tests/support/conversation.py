"""Sessions of raw clients, and how the gateway takes what they say: with an answer, or with a close frame.

Strictly: nothing else comes before the answer, nothing behind a bad frame is processed, a close frame is the last thing
that is sent, the end of the connection follows it, and it is counted under its code.
"""

from __future__ import annotations

import json
import socket
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.daemon import until
from tests.support.hostile import Target
from tests.support.rawclient import (
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Frame,
    RawClient,
    frame,
)

GONE = 10.0  # seconds within which a connection is gone after its close frame
LIMIT = 64 * 1024  # limits.messageBytes, as it is by default
COMPRESSED = 4  # RSV1, as ``rawclient.frame`` takes it
OFFER = "permessage-deflate"


@contextmanager
def session(
    target: Target,
    user: str = "mallory",
    *,
    offer: str | None = None,
    receive_buffer: int | None = None,
    timeout: float = GONE,
    **query: str,
) -> Iterator[RawClient]:
    """An open session, its CONNECTED taken. ``offer``: a Sec-WebSocket-Extensions, which has to be taken up."""
    with RawClient((target.daemon.host, target.daemon.port), timeout, receive_buffer) as client:
        headers = [] if offer is None else [("Sec-WebSocket-Extensions", offer)]
        answer = client.upgrade(path(target, user, **query), headers=headers)
        assert answer.status == 101, answer
        assert ("sec-websocket-extensions" in answer.headers) == (offer is not None)
        assert client.message()["type"] == "CONNECTED"
        yield client


def path(target: Target, user: str = "mallory", **query: str) -> str:
    """What a client of this user asks for."""
    return target.target(target.token(user, topics=["*"]), **{"topics": "news", **query})


# What a client says


def ping(id: str = "x", size: int | None = None) -> bytes:
    """The JSON of a PING, in UTF-8, filled up to ``size`` bytes by a field that nobody knows."""
    text = json.dumps({"type": "PING", "id": id}, ensure_ascii=False)
    if size is not None:
        empty = text[:-1] + ', "pad": ""}'
        text = empty[:-2] + "." * (size - len(empty.encode())) + '"}'
    return text.encode()


def fragments(payload: bytes, size: int, opcode: int = TEXT, rsv: int = 0) -> list[bytes]:
    """A message in frames of ``size`` bytes."""
    pieces = [payload[at : at + size] for at in range(0, len(payload), size)] or [b""]
    return [
        frame(opcode if i == 0 else CONTINUATION, piece, fin=i == len(pieces) - 1, rsv=rsv if i == 0 else 0)
        for i, piece in enumerate(pieces)
    ]


def deflated(payload: bytes, level: int = 6, window_bits: int = 15, compressor: Any = None) -> bytes:
    """As permessage-deflate sends it (RFC 7692 section 7.2.1)."""
    if compressor is None:
        compressor = zlib.compressobj(level, zlib.DEFLATED, -window_bits)
    data: bytes = compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH)
    return data.removesuffix(b"\x00\x00\xff\xff")


# How it is taken


def answered(client: RawClient, id: str = "x") -> None:
    """The PING with this id was processed, and nothing else was."""
    assert client.frame().json() == {"type": "PONG", "id": id}


def refused(client: RawClient, code: str) -> dict[str, Any]:
    """The message was processed, and is no command: the ERROR."""
    told = client.frame().json()
    assert isinstance(told, dict)
    assert (told["type"], told["code"]) == ("ERROR", code)
    return told


def pong(client: RawClient, payload: bytes = b"") -> None:
    """The answer to a PING frame."""
    assert client.frame() == Frame(PONG, payload)


def lives(client: RawClient) -> None:
    """The connection is open, and nothing is waiting in it."""
    client.send(frame(PING, b"alive?"))
    pong(client, b"alive?")


def closes(target: Target, client: RawClient, data: bytes, code: int | None) -> bytes:
    """What is sent ends the connection with this close code (None: a close frame without one). The reason, as bytes."""
    before = closed_with(target, code)
    client.send(data)
    client.send(frame(TEXT, ping("behind")) + frame(PING, b"behind"))
    reason = ends(client, code)
    client.sock.close()
    until(lambda: closed_with(target, code) == before + 1, "it is counted", GONE)
    return reason


def ends(client: RawClient, code: int | None) -> bytes:
    """The next frame is this close frame, and the last. The reason."""
    got = client.frame()
    assert (got.opcode, got.fin, got.rsv) == (CLOSE, True, 0), got
    assert got.payload[:2] == (b"" if code is None else code.to_bytes(2, "big")), got
    got.payload[2:].decode()
    assert client.ended() == b"", "something behind the close frame"
    return got.payload[2:]


def closed_with(target: Target, code: int | None) -> float:
    """How many connections ended with this close code."""
    return target.daemon.metrics().get(f'ws_gateway_websocket_closes_total{{code="{code or 1005}"}}', 0.0)


def connections(target: Target) -> int:
    """How many sessions there are."""
    return int(target.daemon.metrics()["ws_gateway_websocket_active_connections"])


# The gateway's end, from outside


def descriptors(target: Target) -> int:
    """How many files and sockets the process has open."""
    return len(list(Path(f"/proc/{target.daemon.pid}/fd").iterdir()))


def resident(target: Target) -> int:
    """Bytes of memory that the process holds."""
    return int(Path(f"/proc/{target.daemon.pid}/statm").read_text().split()[1]) * 4096


def cpu(target: Target) -> float:
    """Seconds of CPU that the process has used (proc(5), fields 14 and 15, in ticks of 10 ms)."""
    fields = Path(f"/proc/{target.daemon.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def kernel_queue(target: Target, sock: socket.socket) -> int | None:
    """Bytes that the gateway's kernel holds for this client: unsent, or not acknowledged. None: the socket is gone."""
    peer = f"{sock.getsockname()[1]:04X}"
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, state, queues, *_ = line.split()
        if local.endswith(f":{target.daemon.port:04X}") and remote.endswith(f":{peer}") and state != "06":  # TIME_WAIT
            return int(queues.partition(":")[0], 16)
    return None
