"""The end at a pace: who reads has its close frame in time, and the process has an end whatever clients do."""

from __future__ import annotations

from typing import Any

import attrs

from gateway.config import Drain as Settings
from gateway.config import Server
from gateway.core.session import State
from gateway.errors import Close
from gateway.services.drain import Drain
from tests.support.harness import FakeClock


@attrs.define(eq=False)
class Client:
    """A session and its channel; it goes away ``takes`` seconds after it was told."""

    world: World
    takes: float = 0.05
    state: State = State.LIVE
    told_at: float | None = None
    aborted: bool = False

    @property
    def channel(self) -> Client:
        return self

    def abort(self) -> None:
        self.aborted = True


class World:
    def __init__(self, clients: int, **settings: Any) -> None:
        self.clock = FakeClock()
        self.clients = [Client(self) for _ in range(clients)]
        sessions: Any = self
        self.drain = Drain(Server(drain=Settings(**settings), write_timeout=10.0), sessions, self.clock)
        self.over: list[float] = []

    def run(self, seconds: float) -> None:
        self.drain.run().addCallback(lambda _: self.over.append(self.clock.seconds()))
        for _ in range(int(seconds * 20)):
            self.clock.advance(0.05)

    def all(self) -> list[Client]:
        return self.clients

    def close(self, client: Client, code: Close, reason: str = "") -> None:
        assert client.told_at is None, "told twice"
        assert code is Close.GOING_AWAY
        client.state, client.told_at = State.CLOSING, self.clock.seconds()
        self.clock.callLater(client.takes, self.clients.remove, client)


def test_at_the_pace_that_was_asked_for() -> None:
    world = World(1000, timeout=25.0, pace=200)
    everyone = list(world.clients)
    before = world.drain.draining
    world.run(26)
    assert (before, world.drain.draining) == (False, True)
    for second in range(5):
        told = sum(second <= (client.told_at or 0) < second + 1 for client in everyone)
        assert 180 <= told <= 220
    assert len(world.over) == 1
    assert world.over[0] <= 6, "it does not wait for the time-out where nobody is left"
    assert not any(client.aborted for client in everyone)


def test_faster_where_the_time_is_short() -> None:
    """All who read have their close frame server.writeTimeout before the end."""
    world = World(3000, timeout=15.0, pace=100)
    everyone = list(world.clients)
    world.run(16)
    assert max(client.told_at or 0 for client in everyone) <= 5.1
    assert min(client.told_at or 0 for client in everyone) == 0
    assert world.over[0] <= 5.5


def test_whoever_does_not_go_is_aborted_at_the_end() -> None:
    world = World(10, timeout=12.0, pace=500)
    stubborn = world.clients[0]
    stubborn.takes = 1000.0
    world.run(13)
    assert 12.0 <= world.over[0] <= 12.2
    assert stubborn.aborted


def test_who_was_at_the_door_is_told_too() -> None:
    world = World(100, timeout=25.0, pace=50)
    late = Client(world)
    world.clock.callLater(1.0, world.clients.append, late)
    world.run(26)
    assert late.told_at is not None
    assert world.over


def test_nobody_is_there() -> None:
    world = World(0)
    world.run(0.1)
    assert world.over == [0.0]
    assert world.clock.getDelayedCalls() == []
