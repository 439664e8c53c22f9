"""The parts of a record's way and of a handshake, one by one, without sockets: ``python -m bench.micro [--save FILE]``.

For comparing two states of the code on the same machine: ``--save`` before, ``--against`` after. Each figure is the
least of several rounds, in us for what its name says; pin it (``taskset -c 0``) and look at differences.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import attrs
import jwt
from prometheus_client import CollectorRegistry

from bench.load import value
from gateway.auth.jwt import JwtAuthenticator
from gateway.config import load
from gateway.core.content import examine
from gateway.core.limits import TokenBucket
from gateway.core.roster import Roster
from gateway.core.session import Session, Subscription
from gateway.core.topic import Topic
from gateway.core.wire import Envelope, Raw, frame
from gateway.errors import Close
from gateway.metrics import Metrics
from gateway.model import Audience, Fetched, Grants, Principal, Record, Start
from gateway.ports import Progress
from gateway.services.catchup import CatchUp
from gateway.services.changes import Changes
from gateway.services.dispatcher import Dispatcher
from gateway.web.request import end_of_head, parse

ROUNDS = 7
LEAST = 0.05  # seconds that a round takes
SECRET = "a secret of the microbenchmark, long enough"
CONFIG = load(None, {"WSGATEWAY_KAFKA_TOPICS": "t", "WSGATEWAY_AUTH_SECRET": SECRET})

Benchmark = tuple[str, Callable[[], object], int]  # what is told, one call of it, how many of what is told a call does


class Time:
    """The ports' Clock; nothing here waits."""

    def seconds(self) -> float:
        return time.monotonic()

    def wall(self) -> float:
        return time.time()

    def callLater(self, delay: float, call: Callable[..., object], *args: Any) -> None:
        pass


class Taken:
    """A client whose transport takes everything."""

    def push(self, data: bytes) -> bool:
        return True

    def answer(self, data: bytes) -> bool:
        return True

    def close(self, code: Close, reason: str = "") -> None:
        pass

    def abort(self) -> None:
        pass

    def progress(self) -> Progress:
        return Progress(0, 0, 0)


class Audienced:
    """A topic with so many sessions, and records for them without end."""

    def __init__(self, audience: Audience, sessions: int, addresses: int, take: int = 1) -> None:
        clock, codecs = Time(), (Envelope(), Raw())
        metrics = Metrics(CollectorRegistry(), "micro")
        settings = attrs.evolve(CONFIG.kafka.topics[0], audience=audience, window_max_bytes=1 << 20)
        topic: Topic[Session] = Topic(settings, codecs, metrics.topic("t"), metrics.types, None)
        catch_up = CatchUp(metrics, clock)
        self._dispatcher = Dispatcher(
            [topic], codecs, catch_up, Changes(Roster(), catch_up, lambda _, partition: 0.0), 1 << 30, metrics, clock
        )
        topic.window.open("e", {0: Start(0, 0)})
        self._next = 0
        self._values = [value(n, 200, f"u{n % addresses}") for n in range(addresses)]
        self._keys = [f"k{n}".encode() for n in range(addresses)]
        for i in range(sessions):
            bucket = TokenBucket(1, 1)
            principal = Principal(f"u{i}", Grants(()), Grants(()), None, None)
            session = Session(f"c{i}", principal, codecs[0], Taken(), "127.0.0.1", 0.0, bucket, bucket)
            keys = {f"k{(i + j) % addresses}" for j in range(take)}
            sub = Subscription(topic, principal.user, audience is not Audience.KEY, keys)
            session.subscriptions["t"] = sub
            catch_up.listen(session, sub)

    def receive(self, records: int) -> None:
        """One batch of so many records, to everybody whose they are."""
        first, each = self._next, len(self._values)
        self._next = end = first + records
        now = time.monotonic()
        batch = tuple(
            Record("t", 0, n, 1_700_000_000_000 + n, self._keys[n % each], self._values[n % each])
            for n in range(first, end)
        )
        self._dispatcher.receive([Fetched("t", 0, batch, end, end)], now)


def benchmarks() -> Iterator[Benchmark]:
    payload = value(1, 200, "u1")
    record = Record("t", 0, 1, 1_700_000_000_000, b"k1", payload)
    yield "frame of 330 bytes", lambda: frame(payload + payload[:130]), 1
    yield "a value examined", lambda: examine(payload), 1

    topic: Topic[Session] = Topic(
        attrs.evolve(CONFIG.kafka.topics[0], audience=Audience.EVERYONE, window_max_bytes=1 << 20),
        (Envelope(), Raw()),
        Metrics(CollectorRegistry(), "micro").topic("t"),
        Metrics(CollectorRegistry(), "micro2").types,
        None,
    )
    topic.window.open("e", {0: Start(0, 0)})
    offsets = count()

    def append() -> None:
        first = next(offsets) * 100
        batch = tuple(record._replace(offset=first + n) for n in range(100))
        topic.take(Fetched("t", 0, batch, first + 100, first + 100), time.monotonic())
        topic.trim(time.monotonic())

    yield "a record into the window", append, 100
    envelope, entry = Envelope(), topic.window.append(record, None, examine(payload)[0], 0.0)
    yield "a record's frame", lambda: envelope.record("t", entry), 1

    everyone = Audienced(Audience.EVERYONE, 500, 1)
    yield "everyone, 500 sessions, a batch of 1: a delivery", lambda: everyone.receive(1), 500
    yield "everyone, 500 sessions, a batch of 50: a delivery", lambda: everyone.receive(50), 500 * 50
    users = Audienced(Audience.USER, 1000, 1000)
    yield "a user each, 1,000 sessions, a batch of 1: a record", lambda: users.receive(1), 1
    yield "a user each, 1,000 sessions, a batch of 100: a record", lambda: users.receive(100), 100
    few, many = Audienced(Audience.KEY, 100, 100), Audienced(Audience.KEY, 10_000, 10_000)
    yield "a key each, 100 sessions, a batch of 25: a record", lambda: few.receive(25), 25
    yield "a key each, 10,000 sessions, a batch of 25: a record", lambda: many.receive(25), 25
    lists = Audienced(Audience.KEY, 1000, 1000, take=100)
    yield "100 of 1,000 keys, 1,000 sessions, a batch of 4: a delivery", lambda: lists.receive(4), 400

    claims = {"sub": "u1", "exp": int(time.time()) + 86400, "topics": ["t"]}
    token = jwt.encode(claims, SECRET, algorithm="HS256")
    head = (
        f"GET /ws?token={token}&topics=t HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n"
        "Upgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ).encode()
    yield "a request head read", lambda: parse(head[: end_of_head(head)]), 1
    authenticator = JwtAuthenticator(CONFIG.auth, Time())
    yield "an HS256 token checked", lambda: authenticator.authenticate(token), 1


def microseconds(call: Callable[[], object], each: int) -> float:
    """The least of several rounds, for one of what a call does ``each`` of."""
    times, best = 1, float("inf")
    while True:  # as many calls as make a round long enough
        began = time.perf_counter()
        for _ in range(times):
            call()
        if time.perf_counter() - began >= LEAST:
            break
        times *= 2
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for _ in range(times):
            call()
        best = min(best, time.perf_counter() - began)
    return 1e6 * best / times / each


def main() -> None:
    options = argparse.ArgumentParser(prog="bench.micro", description=__doc__)
    options.add_argument("--save", type=Path, help="write the figures to this file")
    options.add_argument("--against", type=Path, help="compare with a file that --save wrote")
    chosen = options.parse_args()
    before: dict[str, float] = json.loads(chosen.against.read_text()) if chosen.against else {}
    found = {}
    for name, call, each in benchmarks():
        found[name] = us = microseconds(call, each)
        compared = f"  {us / before[name] - 1:+7.1%}" if name in before else ""
        print(f"{us:10.3f} us  {name}{compared}", flush=True)
    if chosen.save:
        chosen.save.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
