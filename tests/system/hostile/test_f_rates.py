"""Section F of the hostile inputs, F1 to F9: too much, too fast, too slow, or gone.

F10 and F11 are about ten thousand clients: ``bench/``. The clocks with a host that is gone, recovery, descriptors and
the end of the process: ``tests/system/test_slow_clients.py``.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import cycle
from pathlib import Path

import pytest

from tests.support.conversation import closed_with, connections, kernel_queue, path, ping, session
from tests.support.daemon import until
from tests.support.hostile import Target
from tests.support.rawclient import CLOSE, PING, PONG, TEXT, Answer, RawClient, frame, upgrade_request
from tests.support.slow import Firehose, behind, burst, contiguous, reader, turned_behind

MAX_LAG, PING_INTERVAL, PING_TIMEOUT, WRITE_TIMEOUT = 3.0, 1.0, 1.0, 2.0  # seconds
LOOKS = 2.5  # seconds that a clock may be late by: it is looked at each second, and the machine may be busy
FIREHOSE = {"name": "firehose", "audience": "everyone", "window": {"maxBytes": "4MiB"}}


@pytest.fixture(scope="module")
def clocked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """Short clocks, and a topic whose window is full, so that nothing grows any more."""
    config = {
        "server": {
            "pingInterval": f"{PING_INTERVAL}s",
            "pingTimeout": f"{PING_TIMEOUT}s",
            "writeTimeout": f"{WRITE_TIMEOUT}s",
        },
        "slowClient": {"maxLag": f"{MAX_LAG}s"},
        "publish": {"maxBytes": "512KiB"},
        "kafka": {"topics": ["notifications", {"name": "news", "audience": "everyone"}, FIREHOSE]},
    }
    with Target(config, tmp_path_factory.mktemp("clocked")) as target:
        burst(target.daemon, "firehose", 400_000, 15)
        yield target


@pytest.fixture
def slow(clocked: Target) -> Iterator[Target]:
    """The same, guarded, once nobody of an earlier test is left."""
    until(lambda: connections(clocked) == 1, "only the bystander is left")
    with clocked.guarded():
        yield clocked


# F1, F2: too much at once


def test_f1_20000_messages_in_a_burst(target: Target) -> None:
    """The bucket empties, each message too many is told so, and after twenty of them 4503 arrives, although most of
    what was sent is never read."""
    before = closed_with(target, 4503)
    with session(target) as client:
        client.send(frame(TEXT, ping()) * 20_000)
        told = []
        while (got := client.frame()).opcode == TEXT:
            told.append(got.json())
        assert (got.opcode, got.payload) == (CLOSE, struct.pack("!H", 4503) + b"rate limit")
        assert client.ended() == b""
        limited = [answer for answer in told if answer["type"] == "ERROR"]
        assert len(limited) == 20
        assert 50 <= len(told) - len(limited) <= 60
        assert {answer["code"] for answer in limited} == {"rate_limited"}
        assert all(0 < answer["retryAfter"] <= 1 for answer in limited)
    until(lambda: closed_with(target, 4503) == before + 1, "it is counted")


def test_f1_bytes_count_too(target: Target) -> None:
    """Few messages, but large ones: 256 KiB a second."""
    with session(target) as client:
        client.send(frame(TEXT, ping("x", 64 * 1024)) * 30)
        answers = [client.frame().json()["type"] for _ in range(24)]
        assert answers[:4] == ["PONG"] * 4
        assert answers[5:] == ["ERROR"] * 19
        assert client.closed().code == 4503


def test_f2_500_subscribes_in_a_burst(target: Target) -> None:
    """They cost more than PINGs, and count the same."""
    with session(target, topics="") as client:
        client.send(b"".join(frame(TEXT, b'{"type":"SUBSCRIBE","topics":["prices/%d"]}' % i) for i in range(500)))
        kinds = [client.frame().json()["type"] for _ in range(70)]
        assert 50 <= kinds.count("SUBSCRIBED") <= 60
        assert client.closed().code == 4503


def test_f2_the_rate_is_one_that_can_be_kept(target: Target) -> None:
    """Whoever waits as he is told is served, and never closed."""
    with session(target) as client:
        for _ in range(60):
            client.send(frame(TEXT, ping()))
            while (told := client.frame().json())["type"] == "ERROR":
                time.sleep(told["retryAfter"])
                client.send(frame(TEXT, ping()))


# F3, F4: too many


def answers(target: Target, clients: list[RawClient], users: int) -> list[Answer]:
    """Of all of them asking at once."""
    requests = [upgrade_request(path(target, f"user-{i}")) for i in range(min(users, len(clients)))]
    for client, request in zip(clients, cycle(requests), strict=False):
        client.send(request)
    return [client.answer() for client in clients]


def test_f3_300_connects_at_once(target: Target) -> None:
    """All come in, and all are served: a roll-out brings thousands."""
    with ExitStack() as stack:
        clients = [stack.enter_context(target.connect()) for _ in range(300)]
        assert {answer.status for answer in answers(target, clients, 10)} == {101}
        assert {client.message()["type"] for client in clients} == {"CONNECTED"}
        target.daemon.publish("news", {"n": -3})
        assert {client.message()["data"]["n"] for client in clients} == {-3}
    until(lambda: connections(target) == 1, "they are gone")


def test_f3_500_reconnects(target: Target) -> None:
    """One client that comes back again and again is let in each time, and leaves nothing behind."""
    wanted = path(target)
    for _ in range(500):
        with target.connect() as client:
            assert client.upgrade(wanted).status == 101
    until(lambda: connections(target) == 1, "they are gone")


def test_f3_more_handshakes_than_the_rate(tmp_path: Path) -> None:
    """503 with a time to come back, spread so that they do not come back together; tokens are not even looked at."""
    with Target({"limits": {"handshakesPerSecond": 50}}, tmp_path) as target, target.guarded(), ExitStack() as stack:
        clients = [stack.enter_context(target.connect()) for _ in range(200)]
        told = answers(target, clients, 50)
        refused = [answer for answer in told if answer.status != 101]
        assert len(refused) >= 100
        assert {answer.status for answer in refused} == {503}
        assert {answer.json()["code"] for answer in refused} == {"rate_limited"}
        waits = {int(answer.headers["retry-after"]) for answer in refused}
        assert min(waits) >= 1
        assert len(waits) > 2, "they must not all come back at once"


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """Three connections a user, ten an address, the bystander's among them."""
    limits = {"connectionsPerUser": 3, "connectionsPerAddress": 10}
    with Target({"limits": limits}, tmp_path_factory.mktemp("crowded")) as target:
        yield target


@pytest.mark.parametrize(("users", "room"), [(1, 3), (100, 9)], ids=["F4-one-user", "F4-one-address"])
def test_one_may_not_take_all_places(users: int, room: int, crowded: Target) -> None:
    """429 with a time to come back for those too many; those who are there stay, and their places come back. (A count
    for all processes in Redis comes with the registry there.)"""
    with crowded.guarded():
        with ExitStack() as stack:
            clients = [stack.enter_context(crowded.connect()) for _ in range(room + 5)]
            told = answers(crowded, clients, users)
            assert [answer.status for answer in told].count(101) == room
            refused = [answer for answer in told if answer.status != 101]
            assert {(answer.status, answer.json()["code"]) for answer in refused} == {(429, "too_many_connections")}
            assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
            first = next(client for client, answer in zip(clients, told, strict=True) if answer.status == 101)
            assert first.message()["type"] == "CONNECTED"
            first.send(frame(PING, b"still"))
            assert first.frame().payload == b"still"
        until(lambda: connections(crowded) == 1, "they are gone")
        with session(crowded, "user-0"):
            pass


# F5, F6, F9: who cannot be written to


@pytest.mark.parametrize(
    ("rate", "receive_buffer"),
    [(0, None), (0, 4096), (1000, None), (1000, 4096), (200_000, None)],
    ids=["F5-reads-nothing", "F5-and-has-no-room", "F6-reads-1-kB-a-second", "F6-and-has-no-room", "F6-reads-200-kB"],
)
def test_who_cannot_keep_up_is_cut_when_his_time_is_over(rate: int, receive_buffer: int | None, slow: Target) -> None:
    """At 10 MB a second of records: 4501 after ``slowClient.maxLag`` and not before, and it arrives; the kernel is no
    queue, the process holds nothing (``guarded``), what did not arrive is told, and others have no part in it."""
    with reader(slow, topics="firehose", receive_buffer=receive_buffer) as client:
        with Firehose(slow.daemon, "firehose", 400_000, 25):
            since = turned_behind(slow)
            held: list[int] = []

            def cut() -> bool:
                queue = kernel_queue(slow, client.sock)
                if behind(slow):
                    held.append(queue or 0)
                return not behind(slow)

            if rate:
                client.trickle(cut, rate)
            else:
                until(cut, "it is cut", interval=0.1)
        lasted = time.monotonic() - since
        assert MAX_LAG - 0.2 <= lasted <= MAX_LAG + LOOKS
        assert max(held[1:]) <= 64 * 1024, "the kernel became the queue"
        assert client.code() == 4501
        assert {gap["reason"] for gap in contiguous(client.records())} <= {"window"}


def test_f9_a_connection_that_is_closed_with_a_full_buffer_ends(slow: Target) -> None:
    """Its close frame has no way out: it is aborted after ``server.writeTimeout``, and takes no place any more."""
    with reader(slow, "stuck", topics="firehose", receive_buffer=4096) as client:
        burst(slow.daemon, "firehose", 400_000, 2)
        turned_behind(slow)
        started = time.monotonic()
        assert slow.daemon.api("POST", "/disconnect", {"userId": "stuck"})[0] == 200
        until(lambda: kernel_queue(slow, client.sock) is None, "it is gone", interval=0.05)
        assert WRITE_TIMEOUT - 0.2 <= time.monotonic() - started <= WRITE_TIMEOUT + LOOKS
        until(lambda: connections(slow) == 1, "its place is free")


# F7, F8: who is gone


@pytest.mark.parametrize("behaviour", ["F7-silent", "F7-keeps-sending", "F7-wrong-pongs", "F7-reads-records"])
def test_who_answers_no_ping_is_cut(behaviour: str, slow: Target) -> None:
    """4502 after a ping's interval and timeout, whatever else comes from there, and whatever goes there."""
    started = time.monotonic()
    with ExitStack() as stack:
        client = stack.enter_context(reader(slow, topics="firehose"))
        client.pongs = False
        if behaviour == "F7-reads-records":
            stack.enter_context(Firehose(slow.daemon, "firehose", 700, 3))

        def talk(got: object = None) -> bool:
            if behaviour == "F7-keeps-sending":
                client.send_text(ping("here").decode())
            elif behaviour == "F7-wrong-pongs":
                client.send(frame(PONG, b"\0" * 8))
            return client.taken[-1:] != [] and client.taken[-1].opcode == CLOSE

        client.trickle(lambda: talk() or time.monotonic() - started > 10, 100_000)
        assert client.taken[-1].opcode == CLOSE, "it is still connected"
        assert client.taken[-1].payload[:2] == struct.pack("!H", 4502)
    unread = 3.0 if behaviour == "F7-reads-records" else 1.0  # KiB before the first PING, a second for each
    assert PING_TIMEOUT <= time.monotonic() - started <= PING_INTERVAL + PING_TIMEOUT + unread + LOOKS


def test_f7_who_answers_stays(slow: Target) -> None:
    """The same clocks, and a client that only ever answers."""
    started = time.monotonic()
    with reader(slow) as client:
        client.trickle(lambda: time.monotonic() - started > PING_INTERVAL + PING_TIMEOUT + LOOKS, 100_000)
        assert {got.opcode for got in client.taken} == {PING}
        assert len(client.taken) >= 2


@pytest.mark.parametrize("state", ["F8-at-rest", "F8-within-a-frame", "F8-with-a-full-buffer"])
def test_half_closed_is_closed(state: str, slow: Target) -> None:
    """A FIN without a close frame: nothing more will ever come, so the connection ends; it is seen at once, too of a
    client who reads nothing."""
    with reader(slow, topics="firehose", receive_buffer=4096) as client:
        if state == "F8-with-a-full-buffer":
            burst(slow.daemon, "firehose", 400_000, 2)
            turned_behind(slow)
        if state == "F8-within-a-frame":
            client.send(frame(TEXT, ping())[:9])
        client.finish()
        started = time.monotonic()
        until(lambda: kernel_queue(slow, client.sock) is None, "it is gone")
        until(lambda: connections(slow) == 1, "its place is free")
        assert time.monotonic() - started < 1
