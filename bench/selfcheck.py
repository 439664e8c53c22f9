"""Does the sink see what it is there to see? A server that makes known mistakes, before anything is measured.

Of eight clients who are due every other of 20 records, one misses a record, one gets one twice, one gets another's,
and one never gets the last; all are sent a PING and wait for their PONG.
"""

from __future__ import annotations

import json
import socket
import subprocess
import threading
import time
from contextlib import ExitStack

from bench.programs import HERE, BenchError

CLIENTS, RECORDS, EVERY = 8, 20, 2
LATE = 0.05  # seconds that every record is old when it is sent
ANSWER = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)
EXPECTED = {"records": 80 - 1 + 1 + 1 - 1, "missing": 2, "repeated": 2, "incomplete": 1, "pings": CLIENTS, "lost": 0}


def frame(opcode: int, payload: bytes) -> bytes:
    head = bytes([0x80 | opcode, len(payload)]) if len(payload) < 126 else b""
    return (head or bytes([0x80 | opcode, 126]) + len(payload).to_bytes(2, "big")) + payload


def records(client: int) -> list[int]:
    """The numbers that a client is given, mistakes and all."""
    given = [n for n in range(RECORDS) if n % EVERY == client % EVERY]
    if client == 1:
        given.remove(5)
    if client == 2:
        given.insert(4, 6)
    if client == 3:
        given.insert(4, 6)  # after 1, 3, 5, 7; and 6 is for the even ones
    if client == 4:
        given.pop()
    return given


def serve(peer: socket.socket) -> None:
    """One client: the answer, the records in pieces that cut frames anywhere, the PING, the wait for its PONG."""
    request = b""
    while not request.endswith(b"\r\n\r\n"):
        request += peer.recv(4096)
    client = int(request.split()[1].removeprefix(b"/"))
    sent = time.time_ns() - int(LATE * 1e9)
    out = ANSWER + frame(1, b'{"type":"CONNECTED"}') + frame(9, b"here?")
    for n in records(client):
        out += frame(1, b'{"data":{"n":%d,"ns":%d,"payload":"%s"}}' % (n, sent, b"x" * 20 * client))
    for start in range(0, len(out), 61):
        peer.sendall(out[start : start + 61])
    if peer.recv(64) != b"\x8a\x85\0\0\0\0here?":
        peer.close()  # the sink tells a lost client


def selfcheck() -> None:
    """Raises BenchError where the sink does not say what it must."""
    words = ["--clients", str(CLIENTS), "--records", str(RECORDS), "--every", str(EVERY), "--path", "/%d"]
    with socket.create_server(("127.0.0.1", 0)) as server, ExitStack() as peers:
        port = server.getsockname()[1]
        process = subprocess.Popen(
            [str(HERE / "bin" / "sink"), "--port", str(port), *words, "--seconds", "1"], stdout=subprocess.PIPE
        )
        for _ in range(CLIENTS):
            peer = peers.enter_context(server.accept()[0])
            peer.settimeout(5)
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=serve, args=(peer,), daemon=True).start()
        said, _ = process.communicate(timeout=10)
    end = json.loads(said.splitlines()[-1])
    seen = {name: end[name] for name in EXPECTED}
    if seen != EXPECTED or not 1e3 * LATE <= end["p50"] < 1e3 * LATE + 500:
        raise BenchError(f"the sink says {seen}, p50 {end['p50']} ms; it should say {EXPECTED}, p50 {1e3 * LATE} ms")


if __name__ == "__main__":
    selfcheck()
