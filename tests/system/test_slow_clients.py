"""Clients that are slow, stuck, gone, too many or too old, over real sockets against the daemon: who is behind catches
up or is told what he missed, and is cut by the clock that is for him and by no other.

Beside each of them others have their PONGs and records within a second, and the process grows by no more than its
bound (``Target.guarded``). What is about rates and readers at full load: ``hostile/test_f_rates.py``.
"""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.support.conversation import closed_with, connections, cpu, kernel_queue, path, ping, session
from tests.support.daemon import Config, Daemon, until
from tests.support.host import Host
from tests.support.hostile import Target
from tests.support.rawclient import PING, TEXT, Closed, Frame, RawClient, frame, upgrade_request
from tests.support.slow import Firehose, Reader, behind, burst, contiguous, reader, turned_behind

MAX_LAG, PING_INTERVAL, PING_TIMEOUT, WRITE_TIMEOUT = 3.0, 1.0, 1.0, 2.0  # seconds
LOOKS = 2.5  # seconds that a clock may be late by: it is looked at each second, and the machine may be busy
DEEP = 200  # records of 10 kB that are in the window of ``deep`` from the start


def config(**server: str) -> Config:
    """Short clocks, and topics for everyone with windows of several sizes."""
    topics = [
        {"name": name, "audience": "everyone", "window": {"maxBytes": size}}
        for name, size in {"news": "1MiB", "small": "256KiB", "deep": "8MiB"}.items()
    ]
    return {
        "server": {
            "pingInterval": f"{PING_INTERVAL}s",
            "pingTimeout": f"{PING_TIMEOUT}s",
            "writeTimeout": f"{WRITE_TIMEOUT}s",
            **server,
        },
        "slowClient": {"maxLag": f"{MAX_LAG}s"},
        "kafka": {"topics": topics},
    }


@pytest.fixture(scope="module")
def clocked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """The daemon of most tests here, its windows filled."""
    with Target(config(), tmp_path_factory.mktemp("clocked")) as target:
        burst(target.daemon, "deep", 10_000, DEEP)
        burst(target.daemon, "small", 10_000, 50)
        yield target


@pytest.fixture
def target(clocked: Target) -> Iterator[Target]:
    """The same, guarded, once nobody of an earlier test is left."""
    until(lambda: connections(clocked) == 1, "only the bystander is left")
    with clocked.guarded():
        yield clocked


# Behind, and up again


def test_who_falls_out_of_the_window_is_told_and_goes_on_at_its_start(target: Target) -> None:
    """Nothing twice, nothing out of order, and what is missing is named; then records come at once again."""
    with reader(target, topics="small") as client:
        last = burst(target.daemon, "small", 10_000, 150)  # six times the window
        turned_behind(target)
        client.read_until(offset(last))
        (gap,) = contiguous(client.records())
        assert gap["reason"] == "window"
        assert gap["partition"] == 0
        assert len(client.records()) + gap["to"] - gap["from"] == 150 + 1, "every record was given, or is in the gap"
        until(lambda: behind(target) == 0, "it is live again")
        at_once = burst(target.daemon, "small", 10, 1)
        started = time.monotonic()
        client.read_until(offset(at_once))
        assert time.monotonic() - started < 1


def test_who_falls_out_again_and_again_is_told_each_time(target: Target) -> None:
    """Reading at a tenth of the pace: gaps and records take turns, and the last record is there in the end."""
    with reader(target, topics="small", receive_buffer=4096) as client:
        started = time.monotonic()
        with Firehose(target.daemon, "small", 10_000, 100) as firehose:
            client.trickle(lambda: time.monotonic() - started > MAX_LAG - 1, 100_000)
        client.read_until(offset(firehose.last))
        gaps = contiguous(client.records())
        assert gaps
        assert {gap["reason"] for gap in gaps} == {"window"}


def offset(wanted: int) -> Callable[[Frame], bool]:
    """Whether a frame is the record of this offset."""
    return lambda got: got.opcode == TEXT and got.json().get("offset") == wanted


def test_a_burst_and_then_silence_cuts_nobody(tmp_path: Path) -> None:
    """1 kB a second is slow, but he catches up: neither the PING behind what he has not read nor the records that wait
    end it. Once the burst lies in his kernel, and once, without room there, he is behind for many seconds."""
    lag = {"slowClient": {"maxLag": "15s"}}
    with Target(config() | lag, tmp_path) as target, target.guarded(), ExitStack() as stack:
        roomy = stack.enter_context(reader(target, "roomy", topics="deep"))
        tight = stack.enter_context(reader(target, "tight", topics="deep", receive_buffer=4096))
        last = burst(target.daemon, "deep", 1000, 22)
        turned_behind(target)
        began = time.monotonic()
        assert held(target, [roomy, tight]) <= 64 * 1024
        with ThreadPoolExecutor() as both:
            list(both.map(lambda client: client.trickle(lambda: seen(client, last)), (roomy, tight)))
        assert time.monotonic() - began > 20, "he was as slow as he should be"
        for client in (roomy, tight):
            assert contiguous(client.records()) == []
            assert [got for got in client.taken if got.opcode == PING], "he was asked all the while"
            client.send_text(ping("still here").decode())
            client.read_until(lambda got: got.opcode == TEXT and got.json()["type"] == "PONG")


def seen(client: Reader, last: int) -> bool:
    return any(map(offset(last), client.taken))


def held(target: Target, clients: list[Reader]) -> int:
    """The most that the kernel holds for one of them."""
    return max(kernel_queue(target, client.sock) or 0 for client in clients)


# Behind, and cut


@pytest.mark.parametrize("way", ["url", "subscribe"])
def test_an_old_cursor_and_no_reading(way: str, target: Target) -> None:
    """He asks for 2 MB and takes none of it. Recovering is no slowness, but standing still is: 4501 after maxLag, and
    it arrives when he reads."""
    with reader(target, topics="deep", since="deep@0:0") if way == "url" else reader(target, topics="") as client:
        if way == "subscribe":
            client.send_text({"type": "SUBSCRIBE", "topics": ["deep"], "since": "deep@0:0"})
        since = turned_behind(target)
        queues = []

        def cut() -> bool:
            queues.append(held(target, [client]))
            return behind(target) == 0

        until(cut, "it is cut", interval=0.1)
        assert MAX_LAG - 0.2 <= time.monotonic() - since <= MAX_LAG + LOOKS
        assert max(queues[1:-1]) <= 64 * 1024
        assert client.code() == 4501
        assert contiguous(client.records()) == []


def test_an_old_cursor_and_reading_for_longer_than_max_lag(target: Target) -> None:
    """Whoever reads may take as long as he likes for what he missed: he gets all of it, and RECOVERED."""
    with reader(target, topics="deep", since="deep@0:0") as client:
        started = time.monotonic()
        client.trickle(lambda: time.monotonic() - started > MAX_LAG + 2, 150_000)
        client.read_until(lambda got: got.opcode == TEXT and got.json()["type"] == "RECOVERED")
        told = client.taken[-1].json()
        assert (told["count"], told["gaps"]) == (DEEP, [])
        assert [record["offset"] for record in client.records()] == list(range(DEEP))


def test_input_whose_answers_are_never_read_ends_too(target: Target) -> None:
    """Row D17: he is not listened to any more, and after maxLag he is cut."""
    with reader(target, receive_buffer=4096) as client:
        before = closed_with(target, 4501)
        client.sock.settimeout(0.5)
        with suppress(TimeoutError):
            client.send(frame(PING, b"x" * 125) * 100_000)
        started = time.monotonic()
        until(lambda: kernel_queue(target, client.sock) is None, "it is gone")
        assert time.monotonic() - started <= MAX_LAG + WRITE_TIMEOUT + LOOKS
        assert closed_with(target, 4501) == before + 1


# Gone


def test_a_host_that_is_gone(tmp_path: Path) -> None:
    """Nothing it has is acknowledged any more, and no reset comes: its clients are cut after a ping's interval and
    timeout, idle or not. What lies unread over there would buy a living client a minute and more."""
    with Host() as host, Target(config(host=host.ours), tmp_path) as target, target.guarded(), ExitStack() as stack:
        address = target.daemon.host, target.daemon.port

        def connected(topics: str, receive_buffer: int | None = None) -> None:
            client = stack.enter_context(host.run(Reader, address, receive_buffer=receive_buffer))
            assert client.upgrade(path(target, topics=topics)).status == 101

        connected("")  # idle
        connected("small")  # has something sent when it is gone
        connected("deep")  # has much unread
        connected("deep", 4096)  # is behind
        burst(target.daemon, "deep", 10_000, 6)
        until(lambda: behind(target) == 1, "one is behind")
        host.vanish()
        gone = time.monotonic()
        burst(target.daemon, "small", 100, 1)
        until(lambda: closed_with(target, 4502) >= 3, "those who were not behind are cut")
        assert time.monotonic() - gone <= PING_INTERVAL + PING_TIMEOUT + LOOKS
        until(lambda: connections(target) == 1, "so is the one who was, by whichever clock")
        assert time.monotonic() - gone <= MAX_LAG + WRITE_TIMEOUT + LOOKS


def test_a_client_that_stands_still_is_not_taken_for_gone(target: Target) -> None:
    """His window is closed, nothing is in flight: the lag clock is for him, and the ping's comes too early."""
    with reader(target, topics="deep", receive_buffer=4096) as client:
        burst(target.daemon, "deep", 10_000, 6)
        since = turned_behind(target)
        until(lambda: behind(target) == 0, "it is cut", interval=0.1)
        assert time.monotonic() - since >= MAX_LAG - 0.2
        assert client.code() == 4501


# Too old


def test_connections_have_an_age(tmp_path: Path) -> None:
    """``connections.maxAge``: 1001 for each, spread by a fifth, so that they do not come back together."""
    with Target({"connections": {"maxAge": "1s"}}, tmp_path) as target, ExitStack() as stack:
        target.bystander.stop()  # it is of that age, too
        started = time.monotonic()
        clients = [stack.enter_context(session(target)) for _ in range(20)]

        def lasted(client: RawClient) -> float:
            assert client.closed() == Closed(1001, "connection is old")
            return time.monotonic() - started

        with ThreadPoolExecutor(20) as pool:
            ages = sorted(pool.map(lasted, clients))
        assert ages[0] > 0.7
        assert ages[-1] < 1.2 + LOOKS
        assert ages[-1] - ages[0] > 0.1


# Too many for the process


def test_no_descriptors_left(tmp_path: Path) -> None:
    """Those who are connected are served, and the process does not spin; as soon as some leave, others come in."""
    target = Target({}, tmp_path)
    target.daemon.behind("prlimit", "--nofile=100:100")
    with target, target.guarded(), ExitStack() as stack:
        request = upgrade_request(path(target))
        served = []
        for _ in range(150):
            client = stack.enter_context(target.connect(timeout=0.3))
            with suppress(OSError, EOFError):
                if client.request(request).status == 101:
                    served.append(client)
        assert 50 < len(served) < 100
        before = cpu(target)
        time.sleep(2)  # what is measured is an amount of time
        assert cpu(target) - before < 0.5
        for client in served:
            assert client.message()["type"] == "CONNECTED"
            client.send_text(ping("served").decode())
            assert client.message()["id"] == "served"
        stack.close()

        def comes_in() -> bool:
            with suppress(OSError, EOFError), target.connect(timeout=1) as client:
                return client.request(request).status == 101
            return False

        until(comes_in, "there is room again")


# The end of the process


def drained(folder: Path, **drain: Any) -> Daemon:
    """A daemon that takes its end as ``server.drain`` says."""
    return Daemon(config() | {"server": {"writeTimeout": "1s", "drain": drain}}, folder)


def stuck(stack: ExitStack, daemon: Daemon) -> RawClient:
    """A client whose buffers are full, and who reads nothing."""
    client = stack.enter_context(RawClient((daemon.host, daemon.port), receive_buffer=4096))
    assert client.upgrade(daemon.url(user="stuck", topics="deep").partition(str(daemon.port))[2]).status == 101
    burst(daemon, "deep", 60_000, 10)
    until(lambda: daemon.metrics()["ws_gateway_websocket_sessions_behind"], "it is behind")
    return client


def test_the_end_is_in_order(tmp_path: Path) -> None:
    """SIGTERM: 503 with Retry-After until the end, 1001 for all who read, at the pace, an end in time for those who
    do not, exit 0."""
    with drained(tmp_path, pace=20, timeout="6s") as daemon, ExitStack() as stack:
        stuck(stack, daemon)
        path = daemon.url(user="late").partition(str(daemon.port))[2]
        address = daemon.host, daemon.port
        clients = [stack.enter_context(RawClient(address)) for _ in range(40)]
        for i, client in enumerate(clients):
            assert client.upgrade(daemon.url(user=f"user-{i}").partition(str(daemon.port))[2]).status == 101
        daemon.signal(signal.SIGTERM)
        started = time.monotonic()

        def told(client: RawClient) -> tuple[int, float]:
            return client.closed().code, time.monotonic() - started

        with ThreadPoolExecutor(40) as pool:
            ends = pool.map(told, clients)
            statuses = []
            while (status := answer(address, path)) is not None:
                statuses.append(status)
            ended = time.monotonic() - started
            codes, times = zip(*ends, strict=True)
        assert set(codes) == {1001}
        assert 1.0 < max(times) < 5.0, "at the pace"
        assert set(statuses[2:]) == {(503, "draining", True)}
        assert daemon.wait(5) == 0
        assert max(times) <= ended + 0.5, "answers come until the end"
        assert time.monotonic() - started < 6 + 1


def answer(address: tuple[str, int], path: str) -> tuple[int, str, bool] | None:
    """Status, code, and whether a time to come back is told, of a handshake; None where nobody listens any more."""
    try:
        with RawClient(address, timeout=5) as client:
            got = client.upgrade(path)
            if got.status == 101:
                return 101, "", False
            return got.status, json.loads(got.body)["code"], int(got.headers["retry-after"]) > 0
    except (ConnectionError, EOFError):
        return None


def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    """An operator in a hurry does not wait for anybody."""
    with drained(tmp_path, pace=1, timeout="30s") as daemon, ExitStack() as stack:
        stuck(stack, daemon)
        daemon.signal(signal.SIGTERM)
        until(lambda: daemon.http("GET", "/readyz")[0] == 503, "it drains")
        with pytest.raises(subprocess.TimeoutExpired):
            daemon.wait(0.5)
        daemon.signal(signal.SIGTERM)
        assert daemon.wait(1) == 0
