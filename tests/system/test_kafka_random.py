"""Everything at once: clients cut at random that come back with their cursors, the gateway killed, the broker killed;
at the end each has every record that is for it, once, in order a partition."""

from __future__ import annotations

import json
import random
import threading
import uuid
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus, WebSocketException

from tests.support.daemon import Daemon, until
from tests.support.harness import CursorKeeper
from tests.support.kafkacase import AWAITED, Client, Steady, TwoWays, down, gateway, in_kafka, read_whole

USERS, ROOMS = ("ann", "bob", "cy"), ("1", "2", "3", "4")

Seen = dict[tuple[str, int], list[tuple[int, Any]]]  # by topic and partition


class Wanderer:
    """A client that is cut again and again, after a few frames or many, and comes back with its cursor."""

    def __init__(self, daemon: Daemon, user: str, names: list[str], seed: str) -> None:
        self.user, self.names, self.seen, self.comings = user, names, Seen(), 0
        self._daemon, self._random, self._keeper = daemon, random.Random(seed), CursorKeeper()
        self._ending, self._failures = threading.Event(), list[BaseException]()
        self._client: Client | None = Client(daemon, *names, user=user, keeper=self._keeper)
        self._thread = threading.Thread(target=self._wander, daemon=True)

    def __enter__(self) -> Wanderer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join(AWAITED)

    def finished(self, count: int) -> None:
        """Wait until it has so many records. It is back with its cursor once more then, and there is nothing new."""
        until(lambda: self._failures or sum(map(len, self.seen.values())) >= count, f"{self.names}: {count}", AWAITED)
        self.__exit__()
        assert not self._failures, self._failures
        with self._come() as client:
            for _ in {name.partition("/")[0] for name in self.names}:
                recovered = client.frame("RECOVERED")
                assert (recovered["count"], recovered["gaps"]) == (0, [])
            client.quiet()

    def _wander(self) -> None:
        while not self._ending.is_set():
            try:
                client = self._client or self._come()
                self._client = None
                self._follow(client)
            except (InvalidStatus, WebSocketException, OSError):
                self._ending.wait(0.05)
            except BaseException as error:
                self._failures.append(error)
                return

    def _come(self) -> Client:
        self.comings += 1
        since = self._keeper.since(self.names)
        assert since is not None
        return Client(self._daemon, *self.names, user=self.user, keeper=self._keeper, since=since)

    def _follow(self, client: Client) -> None:
        with client:
            for _ in range(self._random.choice((0, 1, 3, 10, 100))):
                try:
                    frame = client.frame("MESSAGE", "RECOVERED", "POSITION", seconds=0.5)
                except TimeoutError:
                    break
                if frame["type"] == "RECOVERED":
                    assert frame["gaps"] == [], frame
                elif frame["type"] == "MESSAGE":
                    place = frame["topic"], frame["partition"]
                    self.seen.setdefault(place, []).append((frame["offset"], frame["data"]))
            client.cut()


@pytest.mark.parametrize("seed", [1])
def test_every_record_once_to_whom_it_is_for(two_ways: TwoWays, tmp_path: Path, seed: int) -> None:
    """What the gateway promises, where everything goes wrong that it promises it for."""
    choose = random.Random(seed)
    own, everyone, rooms = (f"{kind}-{uuid.uuid4().hex[:12]}" for kind in ("own", "everyone", "rooms"))
    for topic in (own, everyone, rooms):
        two_ways.create(topic, 3)

    def records(number: int) -> Iterable[tuple[str, bytes | None, bytes]]:
        user, room = choose.choice(USERS), choose.choice(ROOMS)
        value = json.dumps({"n": number, "user_id": user, "room": room}).encode()
        return [(own, None, value), (everyone, user.encode(), value), (rooms, room.encode(), value)]

    daemon = gateway(tmp_path, two_ways.bootstrap, own, everyone, {"name": rooms, "audience": "key"})
    daemon.config["kafka"]["topics"][0] = {"name": own}
    with ExitStack() as stack:
        stack.enter_context(daemon)
        held = [[own, everyone], [own, f"{rooms}/1", f"{rooms}/3"], [rooms, everyone], [own], [f"{rooms}/2"]]
        wanderers = [
            stack.enter_context(Wanderer(daemon, USERS[number % 3], names, f"{seed} {number}"))
            for number, names in enumerate(held)
        ]
        producer = stack.enter_context(Steady(two_ways, records=records))
        producer.goes_on(200)
        daemon.kill()
        producer.goes_on(50)
        daemon.start()
        producer.goes_on(100)
        with down(two_ways):
            producer.goes_on(50)
        producer.goes_on(200)
        producer.stop()
        truth = {topic: in_kafka(two_ways, topic) for topic in (own, everyone, rooms)}
        for topic in truth:
            read_whole(two_ways, daemon, topic)
        for wanderer in wanderers:
            expected = {
                (topic, partition): mine
                for topic, partitions in truth.items()
                for partition, there in partitions.items()
                if (mine := [(offset, value) for offset, value in there if entitled(wanderer, topic, own, value)])
            }
            wanderer.finished(sum(map(len, expected.values())))
            assert wanderer.seen == expected
        assert min(wanderer.comings for wanderer in wanderers) > 5


def entitled(wanderer: Wanderer, topic: str, own: str, value: dict[str, Any]) -> bool:
    """Whether a record is for this client."""
    if topic == own:
        return topic in wanderer.names and value["user_id"] == wanderer.user
    return topic in wanderer.names or f"{topic}/{value['room']}" in wanderer.names
