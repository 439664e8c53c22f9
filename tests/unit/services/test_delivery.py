"""Whatever happens in whatever order: every entitled client gets each record once, in order a partition, or is told a
gap that names what is missing; nobody else gets it; and a cursor never passes a record that was neither.

One log is read by two gateways, each at its own pace. Clients stall, read a few bytes, are cut anywhere, and come back
with their cursor to the same gateway or the other one; they take names and give them up; topics are made anew, get new
partitions, lose their oldest records; windows are small; gateways are restarted. One thing is forgiven: gaps are told
by RECOVERED, so a client that is cut before it has not been told those that it recovered past.
"""

from __future__ import annotations

import contextlib

import attrs
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.config import Limits
from gateway.core.names import parse
from gateway.core.session import State
from gateway.errors import Refused
from gateway.model import Audience, Record
from gateway.services.turns import TURN
from tests.support.harness import Client, CursorKeeper, FakeClock, Gateway, Log, Message, Place, entry, topic

NEWS, MAIL, ROOMS = "news", "mail", "rooms"
KEYS = ("1", "2")
USERS = ("ann", "bob")
NAMES = (NEWS, MAIL, ROOMS, "rooms/1", "rooms/2")
SIZES = (10, 10, 10, 10_000, 30_000, 70_000)  # of values; the last one is too large to be sent
SETTINGS = {"max_frame_bytes": 65_536, "window_max_bytes": 120_000, "window_max_age": 30.0}


@attrs.frozen
class Written:
    """A record as the log has it for good, whatever retention does."""

    topic: str
    epoch: str
    partition: int
    offset: int
    key: str | None
    user: str | None


@attrs.define
class Segment:
    """What one client may have of one epoch of a topic under one name: offsets from ``start`` (a partition that is
    not in it: from 0) to ``end`` (still going on: not in it)."""

    epoch: str
    start: dict[int, int]
    end: dict[int, int] | None = None
    seen: set[tuple[int, int]] = attrs.Factory(set)
    last: dict[int, int] = attrs.Factory(dict)
    told: list[tuple[int, int, int]] = attrs.Factory(list)  # partition, from, to


@attrs.define
class Held:
    """One name that a client has, over all its connections."""

    name: str
    segments: list[Segment] = attrs.Factory(list)
    recovering: bool = False
    asked: Place | None = None  # the cursor with which it began to recover
    absorbed: bool = False

    @property
    def now(self) -> Segment:
        return self.segments[-1]


class Reader:
    """A client over all its connections: what it asked for, was told, got, and whether that is right."""

    def __init__(self, user: str, written: dict[int, Written], log: Log) -> None:
        self.user = user
        self.keeper = CursorKeeper()
        self.held: dict[str, Held] = {}
        self.client: Client | None = None
        self.gateway = 0
        self.asking: dict[str, dict[str, Place]] = {}  # by the id of SUBSCRIBE: the cursors
        self.connecting: dict[str, Place] = {}
        self.given_up: dict[str, Place] = {}
        self._written = written
        self._log = log
        self._ids = 0

    # --- what it does ---

    def connect(self, gateway: Gateway, number: int, names: list[str]) -> None:
        since = self.keeper.since(names)
        self.connecting = {name: _copy(self.keeper.place(name)) for name in names if since is not None}
        self.connecting = {name: place for name, place in self.connecting.items() if place.cursor}
        self.gateway = number
        self.client = gateway.connect(self.user, ",".join(names), since)

    def subscribe(self, names: list[str], cursors: dict[str, Place]) -> None:
        assert self.client is not None
        self._ids += 1
        self.asking[str(self._ids)] = cursors
        since = ";".join(entry(name, place) for name, place in cursors.items()) or None
        self.client.subscribe(*names, since=since, id=str(self._ids))

    def cut(self) -> None:
        """The connection is gone, and what waited with it."""
        assert self.client is not None
        self.receive()
        self.client.hang_up()
        self.client = None
        self.asking.clear()
        for held in self.held.values():
            if held.recovering and held.asked is not None:  # gaps that RECOVERED would have told
                for partition, offset in self.keeper.place(held.name).cursor.items():
                    held.now.told.append((partition, held.asked.cursor.get(partition, 0), offset))

    # --- what it gets ---

    def receive(self) -> None:
        if self.client is None:
            return
        for message in self.client.take():
            self._saw(message)

    def _saw(self, message: Message) -> None:
        kind = message["type"]
        if kind == "CONNECTED":
            self._connected(message)
        elif kind == "SUBSCRIBED":
            self._subscribed(message)
        elif kind == "UNSUBSCRIBED":
            ended = [*message["names"]]
            if ROOMS in ended:
                ended += [name for name in self.held if name.startswith("rooms/") and name not in ended]
            for name in ended:
                self.given_up[name] = _copy(self.keeper.place(name))
                del self.held[name]
            self.keeper.left(ended)
            if not any(parse(name).topic == message["topic"] for name in self.held):
                self.keeper.topics.pop(message["topic"], None)  # a cursor is of names that one has
        elif kind == "ERROR":
            assert message["code"] in ("bad_since", "invalid_topics"), message
            self.asking.pop(message.get("id", ""), None)
            return
        if kind == "MESSAGE":
            self._message(message)
        self.keeper.saw(message)
        if kind in ("GAP", "RECOVERED"):
            self._gaps(message)
        if kind == "RECOVERED":
            for name in message["names"]:
                self.held[name].recovering = False
                if ROOMS in self.held and name != ROOMS and message["topic"] == ROOMS:
                    self.held[name].absorbed = True
        if kind in ("GAP", "RECOVERED", "POSITION", "SUBSCRIBED"):
            self.check(message["topic"])

    def _connected(self, message: Message) -> None:
        for sub in message["subscriptions"]:
            for name in sub["names"]:
                self._began(name, self.connecting.get(name), sub, again=True)
        told = {name for sub in message["subscriptions"] for name in sub["names"]}
        for held in self.held.values():
            if held.name not in told and ROOMS in told:
                self._absorb(held, self.held[ROOMS])
        self.held = {name: held for name, held in self.held.items() if name in told}

    def _absorb(self, key: Held, whole: Held) -> None:
        """What the client had of a key it has of the topic now."""
        for record in self._written.values():
            if key in self._matching(record) and (_has(key, record) or _told(record, [key]) or _got(record, [key])):
                for segment in whole.segments:
                    if segment.epoch == record.epoch:
                        segment.seen.add((record.partition, record.offset))

    def _subscribed(self, message: Message) -> None:
        cursors = self.asking[message["id"]]
        if cursors:  # they are of one topic, so this is the one SUBSCRIBED
            del self.asking[message["id"]]
        for name in message["names"]:
            self._began(name, cursors.get(name), message, again=False)
        if ROOMS in message["names"] and not cursors:
            for held in self.held.values():
                if held.name.startswith("rooms/") and not held.recovering:
                    held.absorbed = True

    def _began(self, name: str, cursor: Place | None, told: Message, again: bool) -> None:
        position = {int(partition): offset for partition, offset in told["position"].items()}
        held = self.held.get(name)
        if cursor is None:
            if held is not None and not again:
                return  # it has the name already
            whole = self.held.get(name.partition("/")[0])
            if whole is not None and not again:
                return  # within the whole topic
            self.held[name] = Held(name, [Segment(told["epoch"], position)])
            return
        self.keeper.recovering(name, cursor.epoch, cursor.cursor)
        same = cursor.epoch in (None, told["epoch"])
        if held is None or not again:
            held = self.held[name] = Held(name)
            if not same:
                held.segments.append(Segment(cursor.epoch or "", dict(cursor.cursor), dict(cursor.cursor)))
        if held.segments and same and held.now.epoch == told["epoch"]:
            start = held.now.start
            for partition, offset in position.items():
                # CONNECTED tells what is not there any more by a position above the cursor
                held.now.told.append((partition, cursor.cursor.get(partition, 0), offset))
                if partition not in cursor.cursor and partition not in start:
                    held.now.start[partition] = 0
        elif same:
            held.segments.append(Segment(told["epoch"], dict(cursor.cursor)))
            held.now.told += [(p, cursor.cursor.get(p, 0), offset) for p, offset in position.items()]
        else:
            if held.segments and held.now.end is None:
                held.now.end = dict(cursor.cursor)
            held.segments.append(Segment(told["epoch"], position))
        held.recovering, held.asked, held.absorbed = True, cursor, False

    def _message(self, message: Message) -> None:
        record = self._written[message["data"]["n"]]
        at = record.partition, record.offset
        assert (record.topic, *at) == (message["topic"], message["partition"], message["offset"])
        expected = False
        for held in self._matching(record):
            if record.epoch != held.now.epoch:
                assert held.recovering, f"a record of {record.epoch} before that was told"
                held.now.end = dict(self.keeper.place(held.name).cursor)
                held.segments.append(Segment(record.epoch, {}))
            segment = held.now
            if record.offset < segment.start.get(record.partition, 0):
                continue
            if record.offset > segment.last.get(record.partition, -1):
                expected = True
                segment.last[record.partition] = record.offset
                segment.seen.add(at)
        assert expected, f"{record} was not for {self.user}, or not again, or not in this order: {self.held}"

    def _gaps(self, message: Message) -> None:
        names = message.get("names") or [
            held.name
            for held in self.held.values()
            if parse(held.name).topic == message["topic"] and not held.recovering
        ]
        for name in names:
            held = self.held[name]
            gaps = message["gaps"]
            recreated = [gap for gap in gaps if gap["reason"] == "recreated"]
            if recreated and message["epoch"] != held.now.epoch:
                held.now.end = {gap["partition"]: gap["from"] for gap in recreated}
                held.segments.append(Segment(message["epoch"], {}))
            for gap in recreated:
                if not held.recovering or gap["partition"] not in held.now.start:
                    held.now.start.setdefault(gap["partition"], gap["to"])
            for gap in gaps:
                if gap["reason"] != "recreated":
                    held.now.told.append((gap["partition"], gap["from"], gap["to"]))

    def _matching(self, record: Written) -> list[Held]:
        names = [record.topic] if record.topic != ROOMS else [ROOMS, f"{ROOMS}/{record.key}"]
        if record.topic == MAIL and record.user != self.user:
            return []
        return [self.held[name] for name in names if name in self.held]

    # --- whether it is right ---

    def check(self, of: str, final: bool = False) -> None:
        """Nothing below the cursor, or (``final``) in the log, is neither delivered nor told."""
        for held in self.held.values():
            if parse(held.name).topic == of and not held.recovering:
                for segment in held.segments:
                    self._check(held, segment, final)

    def _check(self, held: Held, segment: Segment, final: bool) -> None:
        cursor = self.keeper.place(held.name).cursor
        for record in self._written.values():
            matching = self._matching(record)
            if record.epoch != segment.epoch or held not in matching or any(_has(other, record) for other in matching):
                continue  # a key that recovers within the whole topic has a place of its own
            if segment.end is not None:
                due = record.offset < segment.end.get(record.partition, 0)
            else:
                due = final or record.offset < cursor.get(record.partition, 0)
            if due and record.offset >= segment.start.get(record.partition, 0):
                assert _got(record, matching) or _told(record, matching), (
                    f"{self.user} has {held.name}, and neither got nor was told of {record}; {held}"
                )

    def names(self) -> list[str]:
        """What it asks for when it comes back."""
        return [held.name for held in self.held.values() if not held.absorbed]


def _has(held: Held, record: Written) -> bool:
    """Recovering, it is looked at by itself; and what is below the cursor with which it came the client has."""
    return held.recovering or (
        held.absorbed
        and held.asked is not None
        and held.now.epoch == record.epoch
        and record.offset < held.asked.cursor.get(record.partition, 0)
    )


def _got(record: Written, matching: list[Held]) -> bool:
    """A record of a key may have come for the key, and not again for the topic that absorbed it."""
    at = record.partition, record.offset
    return any(at in segment.seen for held in matching for segment in held.segments if segment.epoch == record.epoch)


def _told(record: Written, matching: list[Held]) -> bool:
    return any(
        partition == record.partition and first <= record.offset < to
        for held in matching
        for segment in held.segments
        if segment.epoch == record.epoch
        for partition, first, to in segment.told
    )


def _copy(place: Place) -> Place:
    return Place(place.epoch, dict(place.cursor))


class Delivery(RuleBasedStateMachine):
    """See above."""

    def __init__(self) -> None:
        super().__init__()
        self.log = Log()
        self.written: dict[int, Written] = {}
        self.readers: list[Reader] = []
        self.log.create(NEWS, 1)
        self.log.create(MAIL, 1)
        self.log.create(ROOMS, 2)
        self.clock = FakeClock()
        self.clock.cost = TURN  # each read is a turn of its own
        self.gateways = [self._gateway(), self._gateway()]
        for gateway in self.gateways:
            for name in (NEWS, MAIL, ROOMS):
                gateway.open(name)

    def _gateway(self) -> Gateway:
        return Gateway(
            self.log,
            topic(NEWS, Audience.EVERYONE, **SETTINGS),
            topic(MAIL, Audience.USER, **SETTINGS),
            topic(ROOMS, Audience.KEY, **SETTINGS),
            clock=self.clock,
            limits=Limits(messages_per_second=0, malformed=0),
        )

    def _here(self, which: int, connected: bool = True) -> Reader | None:
        found = [reader for reader in self.readers if (reader.client is not None) is connected]
        return found[which % len(found)] if found else None

    @initialize(wanted=st.lists(st.sets(st.sampled_from(NAMES), min_size=1), min_size=2, max_size=3))
    def begin(self, wanted: list[set[str]]) -> None:
        for number, names in enumerate(wanted):
            self.connect(number % 2, USERS[number % 2], names)

    # --- the log ---

    @rule(
        name=st.sampled_from((NEWS, MAIL, ROOMS, ROOMS)),
        records=st.lists(
            st.tuples(
                st.integers(0, 2), st.sampled_from((*KEYS, None)), st.sampled_from(USERS), st.sampled_from(SIZES)
            ),
            min_size=1,
            max_size=8,
        ),
        read_by=st.sets(st.integers(0, 1)),
    )
    def publish(self, name: str, records: list[tuple[int, str | None, str, int]], read_by: set[int]) -> None:
        """Records that one gateway, or both, read at once, or neither."""
        for partition, key, user, size in records:
            partition %= len(self.log.partitions[name])
            n = len(self.written)
            value = {"n": n, "user_id": user, "x": "x" * size}
            record: Record = self.log.append(name, value, key, partition)
            self.written[n] = Written(name, self.log.epochs[name], partition, record.offset, key, user)
        for which in read_by:
            self.read(which, name, None)

    @rule(name=st.sampled_from((NEWS, ROOMS)), size=st.integers(1, 3))
    def hole(self, name: str, size: int) -> None:
        self.log.hole(name, 0, size)

    @rule(name=st.sampled_from((NEWS, MAIL, ROOMS)), part=st.sampled_from((0.2, 0.6, 1.0)))
    def expire(self, name: str, part: float) -> None:
        at = self.log.partitions[name][0]
        self.log.expire(name, at.start + int((at.end - at.start) * part))

    @rule(name=st.sampled_from((NEWS, MAIL, ROOMS)))
    def recreate(self, name: str) -> None:
        self.log.create(name, 2 if name == ROOMS else 1)

    @precondition(lambda self: len(self.log.partitions[ROOMS]) < 3)
    @rule()
    def add_partition(self) -> None:
        self.log.add_partition(ROOMS)

    # --- the gateways ---

    @rule(which=st.integers(0, 1), name=st.sampled_from((NEWS, MAIL, ROOMS)), most=st.sampled_from((None, None, 1, 3)))
    def read(self, which: int, name: str, most: int | None) -> None:
        gateway = self.gateways[which]
        gateway.open_news(name)
        gateway.read(name, most=most)

    @rule(
        which=st.integers(0, 1),
        bytes=st.sampled_from((1, 20_000, 1_000_000)),
        name=st.sampled_from((NEWS, MAIL, ROOMS)),
    )
    def trim(self, which: int, bytes: int, name: str) -> None:
        self.gateways[which].topics[name].window.drop_oldest(bytes)

    @rule(seconds=st.sampled_from((1, 2, 8, 40)))
    def time(self, seconds: int) -> None:
        """Readers poll all the while, so that gateways know where the log ends; not necessarily what is in it."""
        for _ in range(seconds):
            for gateway in self.gateways:
                for name in (NEWS, MAIL, ROOMS):
                    gateway.open_news(name)
                    gateway.read(name, most=1 if seconds < 8 else None)
            self.clock.advance(1)
            for gateway in self.gateways:
                gateway.dispatcher.tick(self.clock.seconds())
                for session in list(gateway.sessions.all()):
                    gateway.sessions.position_due(session, self.clock.seconds())

    @rule(times=st.integers(1, 4))
    def turn(self, times: int) -> None:
        """So many reads, of whoever is next."""
        for _ in range(times):
            self.clock.step()

    @rule(which=st.integers(0, 1), warm=st.sampled_from((0, 2, 1000)))
    def restart(self, which: int, warm: int) -> None:
        for reader in self.readers:
            if reader.client is not None and reader.gateway == which:
                reader.cut()
        self._empty(self.gateways[which])
        self.gateways[which] = self._gateway()
        for name in (NEWS, MAIL, ROOMS):
            self.gateways[which].open(name, warm)

    # --- the clients ---

    @precondition(lambda self: len(self.readers) < 4)
    @rule(which=st.integers(0, 1), user=st.sampled_from(USERS), names=st.sets(st.sampled_from(NAMES), max_size=4))
    def connect(self, which: int, user: str, names: set[str]) -> None:
        reader = Reader(user, self.written, self.log)
        self.readers.append(reader)
        reader.connect(self.gateways[which], which, sorted(names))

    @rule(which=st.integers(0, 3), gateway=st.integers(0, 1))
    def cut_and_back(self, which: int, gateway: int) -> None:
        reader = self._here(which)
        if reader is not None:
            reader.cut()
            reader.connect(self.gateways[gateway], gateway, reader.names())

    @rule(which=st.integers(0, 3))
    def cut(self, which: int) -> None:
        reader = self._here(which)
        if reader is not None:
            reader.cut()

    @rule(which=st.integers(0, 3), gateway=st.integers(0, 1))
    def back(self, which: int, gateway: int) -> None:
        reader = self._here(which, connected=False)
        if reader is not None:
            reader.connect(self.gateways[gateway], gateway, reader.names())

    @rule(which=st.integers(0, 3))
    def stall(self, which: int) -> None:
        reader = self._here(which)
        if reader is not None and reader.client is not None:
            reader.client.stall()

    @rule(which=st.integers(0, 3), amount=st.sampled_from((1, 100, 10_000)))
    def sip(self, which: int, amount: int) -> None:
        reader = self._here(which)
        if reader is not None and reader.client is not None and len(reader.client.channel.waiting) > amount:
            reader.client.channel.flow(amount)

    @rule(which=st.integers(0, 3))
    def gulp(self, which: int) -> None:
        """It has read all that waits, and stalls at the next byte."""
        reader = self._here(which)
        if reader is not None and reader.client is not None and reader.client.channel.waiting:
            reader.client.channel.flow()
            reader.client.gateway.sessions.drained(reader.client.session)
            self.clock.step()

    @rule(which=st.integers(0, 3), run=st.booleans())
    def drain(self, which: int, run: bool) -> None:
        """It reads everything from now on; ``run``: until nobody has anything more to read."""
        reader = self._here(which)
        if reader is not None and reader.client is not None:
            if run:
                _drain(reader.client)
            else:
                reader.client.channel.stalled = False
                reader.client.channel.flow()
                reader.client.gateway.sessions.drained(reader.client.session)

    @rule(which=st.integers(0, 3), names=st.sets(st.sampled_from(NAMES), min_size=1, max_size=3))
    def subscribe(self, which: int, names: set[str]) -> None:
        """At latest. Not together with a name that recovers: one position would be told for both, the lower one."""
        reader = self._here(which)
        if reader is not None:
            names -= {name for cursors in reader.asking.values() for name in cursors}
            names -= {held.name for held in reader.held.values() if held.recovering}
            if names:
                reader.subscribe(sorted(names), {})

    @rule(which=st.integers(0, 3), name=st.sampled_from(NAMES), bare=st.booleans())
    def subscribe_again(self, which: int, name: str, bare: bool) -> None:
        """With the cursor at which the name was given up."""
        reader = self._here(which)
        if reader is not None and reader.given_up.get(name, Place()).cursor:
            reader.subscribe([name], {name: reader.given_up[name]})

    @rule(
        which=st.integers(0, 3),
        names=st.sampled_from(
            (["news"], ["mail"], ["rooms"], ["rooms/1"], ["rooms/1", "rooms/2"], ["rooms", "rooms/1"])
        ),
        parts=st.lists(st.sampled_from((0.0, 0.3, 0.7, 1.0)), min_size=3, max_size=3),
        bare=st.booleans(),
        unknown=st.sampled_from((None, None, None, 0, 3)),
    )
    def subscribe_from(self, which: int, names: list[str], parts: list[float], bare: bool, unknown: int | None) -> None:
        """With a cursor into what the log had at any time, or into a partition that it has not."""
        reader = self._here(which)
        if reader is None:
            return
        name = names[0].partition("/")[0]
        cursors = {}
        for number, asked in enumerate(names):
            cursor = {
                partition: int(at.end * parts[(number + partition) % 3])
                for partition, at in self.log.partitions[name].items()
                if partition == 0 or parts[partition] > 0.2
            }
            if unknown is not None:
                cursor[9] = unknown
            cursors[asked] = Place(None if bare else self.log.epochs[name], cursor)
        reader.subscribe(names, cursors)

    @rule(which=st.integers(0, 3), name=st.sampled_from(NAMES))
    def unsubscribe(self, which: int, name: str) -> None:
        reader = self._here(which)
        if reader is not None and reader.client is not None:
            reader.client.unsubscribe(name)

    # --- what holds all the while ---

    @invariant()
    def received(self) -> None:
        for reader in self.readers:
            reader.receive()

    @invariant()
    def counted(self) -> None:
        for gateway in self.gateways:
            behind = [session for session in gateway.sessions.all() if session.state is State.BEHIND]
            assert gateway.catch_up.behind == len(behind)

    def teardown(self) -> None:
        for _ in range(2):
            for gateway in self.gateways:
                for name in (NEWS, MAIL, ROOMS):
                    gateway.open_news(name)
                    gateway.read(name)
            for reader in self.readers:
                if reader.client is not None:
                    _drain(reader.client)
            self.time(8)
        for reader in self.readers:
            reader.receive()
            if reader.client is not None:
                assert not any(held.recovering for held in reader.held.values()), "RECOVERED came"
                assert reader.client.live()
                for name in (NEWS, MAIL, ROOMS):
                    reader.check(name, final=True)
                reader.cut()
        for gateway in self.gateways:
            self._empty(gateway)

    def _empty(self, gateway: Gateway) -> None:
        """Nothing is left of those who are gone."""
        assert gateway.catch_up.behind == 0 and not gateway.catch_up.parked() and not len(gateway.roster)
        assert all(not len(topic.listeners) for topic in gateway.topics.values())


def _drain(client: Client) -> None:
    client.channel.stalled = False
    client.channel.flow()
    with contextlib.suppress(Refused):
        client.gateway.sessions.drained(client.session)
    client.gateway.run()


TestDelivery = Delivery.TestCase
TestDelivery.settings = settings(
    max_examples=150,
    stateful_step_count=60,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
