"""The wheel and its three clocks, with time that the test moves: who is lost is let go in time, and nobody else."""

from __future__ import annotations

from itertools import pairwise
from random import Random
from typing import Any, cast

import attrs

from gateway.config import Auth, Config, Connections, Server, SlowClient
from gateway.errors import Close
from gateway.model import Grants, Principal
from gateway.ports import Progress
from gateway.services.keepalive import SLICE, TICK, KeepAlive, Pulse
from tests.support.harness import WALL, FakeClock

INTERVAL, TIMEOUT, LAG = 25.0, 10.0, 60.0
PING = 0x89
ALICE = Principal("alice", Grants(()), Grants(()), None, None)
IDLE = Progress(0, 0, 0)


@attrs.define(eq=False)
class Client:
    """A session and its channel. As long as it ``reads``, it answers each PING at once."""

    world: World
    principal: Principal = ALICE
    slow_since: float | None = None
    max_lag: float = LAG
    progressed: Progress = IDLE
    reads: bool = True
    pings: list[float] = attrs.Factory(list)
    ended: tuple[float, Close] | None = None
    aborted: bool = False
    positions: list[float] = attrs.Factory(list)
    warnings: list[float] = attrs.Factory(list)
    pulse: Pulse = attrs.field(init=False)

    def push(self, data: bytes) -> bool:
        assert data[0] == PING
        assert self.progressed.waiting == 0, "a PING would stand behind what waits"
        self.pings.append(self.world.clock.seconds())
        if self.reads:
            assert self.world.keepalive.pong(self.pulse, data[2:])
        return True

    answer = push

    def progress(self) -> Progress:
        return self.progressed

    def close(self, code: Close, reason: str = "") -> None:
        raise AssertionError("sessions close channels")

    def abort(self) -> None:
        self.aborted = True

    def lives(self) -> bool:
        return self.ended is None

    def stall(self) -> None:
        """Something waits in its transport."""
        self.progressed = self.progressed._replace(waiting=100_000)
        self.world.keepalive.waiting(self.pulse)

    def drain(self) -> None:
        """Nothing waits any more."""
        self.progressed = self.progressed._replace(waiting=0)
        self.world.keepalive.drained(self.pulse)

    def take(self, count: int) -> None:
        """Bytes are sent, and the peer acknowledges them."""
        at = self.progressed
        self.progressed = at._replace(acked=at.acked + count, sent=at.sent + count)


class World:
    """The wheel, and the sessions it looks after."""

    def __init__(self, max_age: float | None = None, **server: Any) -> None:
        self.clock = FakeClock()
        self.config = Config(
            server=Server(ping_interval=INTERVAL, ping_timeout=TIMEOUT, **server),
            auth=Auth(expiry_warning=60.0),
            slow_client=SlowClient(max_lag=LAG),
            connections=Connections(max_age=max_age),
        )
        self.keepalive = KeepAlive(self.config, self, self.clock, Random(1))
        self.keepalive.start()

    def client(self, **fields: Any) -> Client:
        client = Client(self, **fields)
        client.pulse = self.keepalive.add(client, client)
        return client

    def run(self, seconds: float, step: float = TICK / 2) -> None:
        """Let time pass in small steps, as a reactor does."""
        end = self.clock.seconds() + seconds
        while self.clock.seconds() < end:
            self.clock.advance(step)

    def until_pinged(self, client: Client, times: int = 1) -> None:
        """Let time pass until a client has its PING."""
        for _ in range(int(times * 2 * INTERVAL / TICK)):
            if len(client.pings) >= times:
                return
            self.run(TICK)
        raise AssertionError("there is no PING")

    def position_due(self, session: Client, now: float) -> None:
        session.positions.append(now)

    def expiring(self, session: Client) -> None:
        session.warnings.append(self.clock.seconds())

    def too_slow(self, session: Client, now: float) -> bool:
        return session.slow_since is not None and now - session.slow_since > session.max_lag

    def close(self, session: Client, code: Close, reason: str = "") -> None:
        assert session.ended is None, "ended twice"
        session.ended = (self.clock.seconds(), code)
        self.keepalive.remove(session.pulse)


def test_a_client_that_answers_stays_and_costs_a_ping_an_interval() -> None:
    world = World()
    client = world.client()
    world.run(10 * INTERVAL)
    assert client.ended is None
    assert len(client.pings) in (9, 10)
    gaps = [after - before for before, after in pairwise(client.pings)]
    assert all(INTERVAL <= gap <= INTERVAL + 2 * TICK for gap in gaps)


def test_clients_that_come_together_are_pinged_apart() -> None:
    world = World()
    clients = [world.client() for _ in range(200)]
    world.run(INTERVAL)
    moments = {round(client.pings[0] / TICK) for client in clients}
    assert len(moments) > 40


def test_positions_are_told_in_their_interval_or_never() -> None:
    world, without = World(position_interval=30.0), World(position_interval=0.0)
    client, other = world.client(), without.client()
    world.run(300)
    without.run(300)
    assert 9 <= len(client.positions) <= 11
    assert other.positions == []


# The pong clock


def test_no_pong_ends_after_the_time_out() -> None:
    world = World()
    client = world.client(reads=False)
    world.run(3 * INTERVAL)
    assert client.ended is not None
    when, code = client.ended
    assert code is Close.NO_PONG
    assert TIMEOUT <= when - client.pings[0] <= TIMEOUT + 1.5
    assert not client.aborted, "its host is there: it gets its close frame"


def test_a_second_more_for_each_kib_since_the_last_answer() -> None:
    """A burst that the peer's kernel has taken and the program has not read: the PING stands behind it."""
    world = World()
    client = world.client(reads=False)
    client.take(100 * 1024)
    world.run(3 * INTERVAL)
    assert client.lives()
    world.run(3 * INTERVAL)
    assert client.ended is not None
    assert TIMEOUT + 100 <= client.ended[0] - client.pings[0] <= TIMEOUT + 102


def test_what_was_read_before_the_last_answered_ping_does_not_count() -> None:
    world = World()
    client = world.client()
    client.take(1 << 30)
    world.run(2 * INTERVAL)
    client.reads = False
    world.run(2 * INTERVAL)
    assert client.ended is not None
    assert client.ended[0] - client.pings[-1] <= TIMEOUT + 1.5


def test_what_was_sent_behind_the_ping_does_not_count() -> None:
    """Else a client that is given more than 1 KiB a second need never answer."""
    world = World()
    client = world.client(reads=False)
    while client.lives():
        client.take(2048)
        world.run(1.0)
    assert client.ended is not None
    assert client.ended[0] - client.pings[0] <= TIMEOUT + 2 * INTERVAL + 1.5


def test_patience_has_an_end() -> None:
    world = World()
    client = world.client(reads=False)
    client.take(1 << 30)
    world.run(400)
    assert client.ended is not None
    assert 300 <= client.ended[0] - client.pings[0] <= 302


def test_sending_is_no_pong() -> None:
    """F7: the peer's other frames prove nothing; a PONG of another PING neither."""
    world = World()
    client = world.client(reads=False)
    world.run(INTERVAL)
    assert not world.keepalive.pong(client.pulse, b"another")
    world.run(INTERVAL)
    assert client.ended is not None


def test_the_pong_clock_stands_while_nothing_is_read_from_the_client() -> None:
    world = World()
    client = world.client(reads=False)
    world.until_pinged(client)
    client.progressed = Progress(100_000, 0, 0, paused=True)
    world.keepalive.waiting(client.pulse)
    for _ in range(50):
        client.take(1)
        world.run(1)
    assert client.lives()
    client.progressed = client.progressed._replace(waiting=0, paused=False)
    client.drain()
    world.run(TIMEOUT + 3)
    assert client.ended is not None
    assert client.ended[1] is Close.NO_PONG


# Host gone


def test_a_host_that_is_gone_is_aborted() -> None:
    """Packets are in flight, and none is acknowledged: with much sent before, the pong clock would wait for minutes."""
    world = World()
    client = world.client(reads=False)
    client.take(1 << 20)
    client.progressed = client.progressed._replace(in_flight=1)
    world.until_pinged(client)
    world.run(TIMEOUT + 2)
    assert client.ended is not None
    assert client.ended[1] is Close.NO_PONG
    assert client.aborted


def test_a_host_that_goes_away_in_a_stream() -> None:
    world = World()
    client = world.client()
    world.run(5)
    client.progressed = client.progressed._replace(in_flight=10)
    client.stall()
    began = world.clock.seconds()
    world.run(TIMEOUT + 2)
    assert client.ended is not None
    assert TIMEOUT <= client.ended[0] - began <= TIMEOUT + 1.5
    assert client.aborted


def test_a_host_that_acknowledges_is_there() -> None:
    world = World()
    client = world.client()
    client.progressed = client.progressed._replace(in_flight=10)
    client.stall()
    for _ in range(50):
        client.take(1000)
        world.run(1)
    assert client.ended is None


def test_a_window_that_opens_after_long_is_no_host_that_is_gone() -> None:
    """A slow reader: nothing leaves for longer than the time-out, then something is in flight, for one round trip."""
    world = World()
    client = world.client()
    client.stall()
    for _ in range(3):
        world.run(TIMEOUT + 5)
        client.progressed = client.progressed._replace(in_flight=2)
        world.run(1.5)  # it is looked at just then
        client.take(2000)
        client.progressed = client.progressed._replace(in_flight=0)
    assert client.lives()


def test_neither_is_a_window_that_opens_with_a_ping_behind_it() -> None:
    """The PING lay in our kernel all the while; the first look at it falls into the round trip."""
    world = World()
    client = world.client(reads=False)
    client.take(100 * 1024)
    world.until_pinged(client)
    world.run(TIMEOUT - 1)
    client.progressed = client.progressed._replace(in_flight=2)
    world.run(2)
    assert client.lives()


def test_an_old_acknowledgement_does_not_start_the_clock() -> None:
    """An idle client gets a burst: what it has not acknowledged yet is a moment old, not as old as its last packet."""
    world = World()
    client = world.client()
    world.until_pinged(client, 2)
    world.run(INTERVAL - 5)
    client.progressed = client.progressed._replace(in_flight=3)
    client.stall()
    world.run(3)
    assert client.ended is None


# Lag


def test_taking_nothing_ends_after_max_lag() -> None:
    """A closed window: nothing in flight, nothing acknowledged. It is the same while the client recovers."""
    world = World()
    client = world.client(reads=False)
    client.stall()
    began = world.clock.seconds()
    world.run(LAG + 5)
    assert client.ended is not None
    assert client.ended[1] is Close.TOO_SLOW
    assert LAG <= client.ended[0] - began <= LAG + 1.5
    assert client.pings == []


def test_taking_a_little_now_and_then_is_not_nothing() -> None:
    world = World()
    client = world.client()
    client.stall()
    for _ in range(10):
        world.run(LAG - 5)
        client.take(1)
        world.run(2)
    assert client.ended is None


def test_behind_for_too_long() -> None:
    world = World()
    client = world.client(slow_since=0.0, max_lag=30.0)
    world.keepalive.waiting(client.pulse)
    client.drain()
    for _ in range(40):
        client.take(1000)
        world.run(1)
    assert client.ended is not None
    assert client.ended[1] is Close.TOO_SLOW
    assert 30 <= client.ended[0] <= 32


def test_whoever_catches_up_is_left_alone() -> None:
    world = World()
    client = world.client()
    client.slow_since = world.clock.seconds()
    client.stall()
    world.run(20)
    client.slow_since = None
    client.drain()
    world.run(10 * INTERVAL)
    assert client.ended is None
    assert len(client.pings) >= 8, "it is pinged again"


# The end of tokens and of old connections


def test_a_token_runs_out() -> None:
    world = World()
    until = WALL + 300
    client = world.client(principal=Principal("alice", Grants(()), Grants(()), until, until + 30))
    world.run(340)
    assert len(client.warnings) == 1
    assert 240 <= client.warnings[0] <= 240 + 2 * TICK
    assert client.ended is not None
    assert client.ended[1] is Close.TOKEN_EXPIRED
    assert 330 <= client.ended[0] <= 330 + 2 * TICK


def test_a_new_token_is_seen() -> None:
    world = World()
    old, new = WALL + 100, WALL + 400
    client = world.client(principal=Principal("alice", Grants(()), Grants(()), old, old + 30))
    world.run(90)
    client.principal = Principal("alice", Grants(()), Grants(()), new, new + 30)
    world.run(260)
    assert client.ended is None
    assert [round(moment / 10) * 10 for moment in client.warnings] == [40, 340]


def test_old_connections_go_with_jitter() -> None:
    world = World(max_age=100.0)
    clients = [world.client() for _ in range(50)]
    world.run(125)
    ends = [client.ended for client in clients]
    assert all(end is not None and end[1] is Close.GOING_AWAY for end in ends)
    moments = sorted(end[0] for end in ends if end is not None)
    assert moments[0] >= 80
    assert moments[-1] <= 121
    assert moments[-1] - moments[0] > 20


# The process


def test_a_process_that_was_stopped_lets_nobody_down() -> None:
    """I8: SIGSTOP for longer than every time-out. PONGs lie unread in the kernel, and clients that were slow go on."""
    world = World()
    pinged, stalled, behind = world.client(reads=False), world.client(), world.client()
    world.until_pinged(pinged)
    stalled.stall()
    behind.slow_since = world.clock.seconds()
    world.keepalive.waiting(behind.pulse)
    world.run(5)
    world.clock.advance(300)
    world.run(3)
    assert [client.ended for client in (pinged, stalled, behind)] == [None, None, None]
    world.run(LAG)
    assert pinged.ended is not None
    assert stalled.ended is not None
    assert stalled.ended[1] is Close.TOO_SLOW
    assert behind.ended is not None


def test_a_stop_does_not_count_for_ever() -> None:
    """A client that falls behind after it has no more time than others."""
    world = World()
    client = world.client()
    world.clock.advance(300)
    world.run(1)
    client.slow_since = began = world.clock.seconds()
    world.keepalive.waiting(client.pulse)
    for _ in range(70):
        client.take(1)
        world.run(1)
    assert client.ended is not None
    assert client.ended[0] - began <= LAG + 1.5


def test_a_slow_reactor_loses_no_turn() -> None:
    """A tick that is a little late looks at all that have become due meanwhile."""
    world = World()
    clients = [world.client() for _ in range(50)]
    world.run(INTERVAL * 3, step=0.9)
    assert all(len(client.pings) >= 2 for client in clients)
    assert all(client.ended is None for client in clients)


def test_many_are_looked_at_in_slices() -> None:
    """A turn of the reactor is never longer than a slice takes."""
    world = World()
    clients = [world.client() for _ in range(5 * SLICE)]
    for client in clients:
        client.pulse.next_ping = 0.0
        world.keepalive.waiting(client.pulse)  # all at the same tick
        client.drain()
    turns = [0]
    call_later = world.clock.callLater

    def next_turn(delay: float, call: Any, *args: Any) -> Any:
        turns.append(sum(len(client.pings) for client in clients))
        return call_later(delay, call, *args)

    world.clock.callLater = next_turn  # type: ignore[method-assign,assignment]
    world.run(2)
    assert turns[-1] == 5 * SLICE
    assert max(after - before for before, after in pairwise(turns)) == SLICE


def test_an_error_of_one_session_stops_nobody_else() -> None:
    world = World()
    broken, other = world.client(), world.client()
    broken.progressed = cast("Progress", None)  # a bug
    world.run(2 * INTERVAL)
    assert broken.ended is not None
    assert broken.ended[1] is Close.INTERNAL
    assert other.ended is None
    assert other.pings


def test_who_is_gone_is_not_held() -> None:
    world = World()
    client = world.client()
    world.keepalive.remove(client.pulse)
    assert client.pulse.session is None
    assert client.pulse.channel is None
    world.run(2 * INTERVAL)
    assert client.pings == []
    world.keepalive.stop()
    assert world.clock.getDelayedCalls() == []
