"""The heart of the gateway (core/ and the services that push) over a clock that stands still, without a socket.

A :class:`Log` is the one truth. Any number of :class:`Gateway` read it, each at its own pace. A :class:`Client` speaks
the protocol through a :class:`FakeChannel` that can stall, and keeps its cursor as rule 5 of ``docs/protocol.md`` says.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs
from prometheus_client import CollectorRegistry
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from gateway.config import Limits, TopicSettings
from gateway.core import access
from gateway.core.roster import Roster
from gateway.core.session import Session, State
from gateway.core.topic import Topic
from gateway.core.wire import Envelope, Raw
from gateway.errors import AuthError, Close
from gateway.metrics import Metrics
from gateway.model import Audience, Deleted, Encoding, Fetched, LogEvent, Lost, Opened, Principal, Record, Start
from gateway.ports import Progress
from gateway.services.catchup import CatchUp
from gateway.services.changes import Changes
from gateway.services.dispatcher import Dispatcher
from gateway.services.sessions import Sessions
from gateway.services.subscriptions import Subscriptions

WALL = 1_700_000_000.0  # what the wall clock says when the monotonic one says 0

Message = dict[str, Any]


class FakeClock(Clock):
    """Twisted's test clock with a wall. While something is done, ``cost`` seconds of it pass for each push."""

    cost = 0.0

    def step(self) -> None:
        """Let one thing that is due be done; what comes of it waits."""
        if self.calls and self.calls[0].getTime() <= self.seconds():
            call = self.calls.pop(0)
            call.called = 1
            call.func(*call.args, **call.kw)

    def wall(self) -> float:
        """Seconds since 1970."""
        return WALL + self.seconds()


def frames(data: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """The whole frames (opcode, payload) that ``data`` begins with, and the rest."""
    found = []
    while len(data) >= 2:
        assert data[0] & 0xF0 == 0x80, "every frame of ours is final and without reserved bits"
        assert data[1] < 128, "no frame to a client is masked"
        size, head = data[1], 2
        if size > 125:
            head = 4 if size == 126 else 10
            if len(data) < head:
                break
            size = int.from_bytes(data[2:head], "big")
        if len(data) < head + size:
            break
        found.append((data[0] & 0x0F, data[head : head + size]))
        data = data[head + size :]
    return found, data


class FakeChannel:
    """A connection whose peer reads everything at once, or, while stalled, nothing."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self.stalled = False
        self.received = b""  # what has reached the client
        self.waiting = b""  # what the transport has taken and not sent
        self.most_waiting = 0
        self.closed_with: tuple[int, str] | None = None
        self.pushes = 0
        self.last = b""
        self.late = b""  # pushed behind the close

    def push(self, data: bytes) -> bool:
        """See ``ports.Channel``."""
        if self.closed_with is not None:
            self.late += data
        self.last = data
        self.pushes += 1
        self._clock.rightNow += self._clock.cost
        self.waiting += data
        self.most_waiting = max(self.most_waiting, len(self.waiting))
        if self.stalled:
            return False
        self.flow()
        return True

    def answer(self, data: bytes) -> bool:
        """See ``ports.Channel``."""
        return self.push(data)

    def close(self, code: Close, reason: str = "") -> None:
        """See ``ports.Channel``."""
        if self.closed_with is None:
            self.closed_with = int(code), reason

    def abort(self) -> None:
        """See ``ports.Channel``."""
        self.close(Close.INTERNAL)

    def progress(self) -> Progress:
        """See ``ports.Channel``."""
        return Progress(len(self.waiting), len(self.received), 0)

    def flow(self, amount: int | None = None) -> None:
        """The client reads what waits, or so many bytes of it."""
        taken = self.waiting if amount is None else self.waiting[:amount]
        self.received += taken
        self.waiting = self.waiting[len(taken) :]


class FakeAuthenticator:
    """Tokens are the names of principals it was given; an answer can be held back."""

    def __init__(self) -> None:
        self.principals: dict[str, Principal | Exception] = {}
        self.held: list[Deferred[None]] | None = None

    def authenticate(self, token: str) -> Deferred[Principal]:
        """See ``ports.Authenticator``."""
        gate: Deferred[None] = Deferred()
        if self.held is None:
            gate.callback(None)
        else:
            self.held.append(gate)
        return gate.addCallback(lambda _: self._answer(token))

    def _answer(self, token: str) -> Principal:
        found = self.principals.get(token, AuthError("the token is not valid", "signature"))
        if isinstance(found, Exception):
            raise found
        return found


def principal(user: str, topics: Sequence[str] | str = ("*", "*/*"), expires_at: float | None = None) -> Principal:
    """Who may subscribe to ``topics``."""
    grants = access.grants(list(topics) if not isinstance(topics, str) else topics, user)
    return Principal(user, grants, access.grants([], user), expires_at, expires_at)


def topic(name: str, audience: Audience = Audience.EVERYONE, **settings: Any) -> TopicSettings:
    """A topic's configuration."""
    return TopicSettings(name=name, audience=audience, **settings)


@attrs.define
class Partition:
    """What the log has of one partition: records from ``start`` on, ``end`` is the next offset."""

    start: int = 0
    end: int = 0
    records: list[Record] = attrs.Factory(list)


class Log:
    """Topics, epochs, partitions, offsets: what all gateways read."""

    def __init__(self) -> None:
        self.partitions: dict[str, dict[int, Partition]] = {}
        self.epochs: dict[str, str] = {}
        self._made = 0

    def create(self, topic: str, partitions: int = 1, first: int = 0) -> str:
        """Make a topic, anew if it was there; its epoch."""
        self._made += 1
        self.partitions[topic] = {number: Partition(first, first) for number in range(partitions)}
        self.epochs[topic] = f"e{self._made}"
        return self.epochs[topic]

    def add_partition(self, topic: str) -> int:
        """One more partition; its number."""
        number = len(self.partitions[topic])
        self.partitions[topic][number] = Partition()
        return number

    def append(
        self,
        topic: str,
        value: object = b"{}",
        key: bytes | str | None = None,
        partition: int = 0,
        headers: tuple[tuple[str, bytes], ...] = (),
        timestamp: int | None = 0,
    ) -> Record:
        """Write a record; a value that is neither bytes nor None is written as JSON."""
        at = self.partitions[topic][partition]
        raw = value if value is None or isinstance(value, bytes) else json.dumps(value).encode()
        spelt = key.encode() if isinstance(key, str) else key
        record = Record(topic, partition, at.end, timestamp, spelt, raw, headers)
        at.records.append(record)
        at.end += 1
        return record

    def hole(self, topic: str, partition: int = 0, size: int = 1) -> None:
        """Offsets without a record: control records, aborted transactions, compaction."""
        self.partitions[topic][partition].end += size

    def expire(self, topic: str, start: int, partition: int = 0) -> None:
        """Retention deletes what is below ``start``."""
        at = self.partitions[topic][partition]
        at.start = max(at.start, min(start, at.end))
        at.records = [record for record in at.records if record.offset >= at.start]


class Gateway:
    """One process: everything between the log's listener and the channels, wired as ``app.py`` does it."""

    def __init__(
        self,
        log: Log,
        *topics: TopicSettings,
        limits: Limits | None = None,
        total_bytes: int = 1 << 30,
        clock: FakeClock | None = None,
        per_user: bool = False,
    ) -> None:
        self.log = log
        self.clock = clock or FakeClock()
        self.metrics = Metrics(CollectorRegistry(), "test", per_user=per_user)
        envelope, raw = Envelope(), Raw()
        codecs = (envelope, raw)
        made: list[Topic[Session]] = [
            Topic(settings, codecs, self.metrics.topic(settings.name), self.metrics.types, self.metrics.users)
            for settings in topics
        ]
        self.topics = {topic.name: topic for topic in made}
        self.limits = limits or Limits()
        self.authenticator = FakeAuthenticator()
        self.roster = Roster()
        self.catch_up = CatchUp(self.metrics, self.clock)
        self.silent_since: float | None = None  # the log cannot be reached from then on
        self.changes = Changes(self.roster, self.catch_up, self._heard)
        self.dispatcher = Dispatcher(made, codecs, self.catch_up, self.changes, total_bytes, self.metrics, self.clock)
        self.subscriptions = Subscriptions(made, self.limits, self.catch_up, self.clock)
        self.sessions = Sessions(
            self.roster,
            self.subscriptions,
            self.catch_up,
            self.authenticator,
            {Encoding.ENVELOPE: envelope, Encoding.RAW: raw},
            self.limits,
            self.metrics,
            self.clock,
        )
        self._epochs: dict[str, str] = {}
        self._nexts: dict[str, dict[int, int]] = {}

    # --- reading the log ---

    def open(self, name: str, warm: int | None = None) -> None:
        """Read the topic from its start, which is live; or only the last ``warm`` offsets, for those who ask."""
        starts = {
            number: Start(part.start, part.start) if warm is None else Start(max(part.start, part.end - warm), part.end)
            for number, part in self.log.partitions[name].items()
            if self._epochs.get(name) != self.log.epochs[name] or number not in self._nexts[name]
        }
        if self._epochs.get(name) != self.log.epochs[name]:
            self._nexts[name] = {}
        self._epochs[name] = self.log.epochs[name]
        self._nexts[name] |= {number: start.first for number, start in starts.items()}
        self.tell(Opened(name, self.log.epochs[name], starts))

    def open_news(self, name: str) -> None:
        """Open what is new: the topic made anew, or a partition."""
        known = self._nexts.get(name, {})
        if self._epochs.get(name) != self.log.epochs[name] or len(known) < len(self.log.partitions[name]):
            self.open(name)

    def read(self, name: str, partition: int | None = None, most: int | None = None) -> None:
        """Take in what is new of a topic, or of one partition of it, or only so many records: one batch."""
        self.tell(*self.fetch(name, partition, most))

    def fetch(self, name: str, partition: int | None = None, most: int | None = None) -> list[LogEvent]:
        """What ``read`` would tell."""
        found: list[LogEvent] = []
        assert self._epochs[name] == self.log.epochs[name], "opened anew first"
        for number in self._nexts[name] if partition is None else (partition,):
            part, next = self.log.partitions[name][number], self._nexts[name][number]
            if next < part.start:
                found.append(Lost(name, number, next, part.start))
                next = part.start
            records = [record for record in part.records if record.offset >= next]
            until = part.end
            if most is not None and most < len(records):
                until = records[most].offset
            if until >= next:
                taken = tuple(record for record in records if record.offset < until)
                found.append(Fetched(name, number, taken, until, part.end))
            self._nexts[name][number] = max(next, until)
        return found

    def tell(self, *events: LogEvent) -> None:
        """Give the dispatcher one batch."""
        self.dispatcher.receive(events, self.clock.seconds())

    def _heard(self, name: str, partition: int) -> float:
        return self.clock.seconds() if self.silent_since is None else self.silent_since

    def delete(self, name: str) -> None:
        """The log says that the topic is gone."""
        self.tell(Deleted(name))

    def run(self, turns: int = 1000) -> None:
        """Let everybody who may read go on until nobody has anything to do."""
        for _ in range(turns):
            if not self.clock.getDelayedCalls():
                return
            self.clock.advance(0)
        raise AssertionError(f"still not at rest after {turns} turns")

    def advance(self, seconds: float) -> None:
        """Time passes, with the tick of each second."""
        while seconds > 0:
            step = min(1.0, seconds)
            self.clock.advance(step)
            self.dispatcher.tick(self.clock.seconds())
            seconds -= step

    # --- clients ---

    def connect(
        self,
        user: str = "u",
        topics: str | None = None,
        since: str | None = None,
        encoding: Encoding = Encoding.ENVELOPE,
        grants: Sequence[str] = ("*", "*/*"),
        stalled: bool = False,
        expires_at: float | None = None,
    ) -> Client:
        """A client that was let in; Refused for what the door would refuse."""
        who = principal(user, grants, expires_at)
        plan = self.sessions.plan(who, topics, since, encoding)
        channel = FakeChannel(self.clock)
        channel.stalled = stalled
        session = self.sessions.open(who, plan, channel, "127.0.0.1")
        return Client(self, session, channel)


class Client:
    """The other end: what it was sent, decoded, and the cursor that it keeps."""

    def __init__(self, gateway: Gateway, session: Session, channel: FakeChannel) -> None:
        self.gateway = gateway
        self.session = session
        self.channel = channel
        self._rest = b""
        self._seen = 0
        self._frames: list[tuple[int, bytes]] = []
        self._taken = 0

    # --- what it does ---

    def send(self, message: object, binary: bool = False) -> None:
        """Send one message: bytes as they are, anything else as JSON."""
        payload = message if isinstance(message, bytes) else json.dumps(message).encode()
        self.gateway.sessions.receive(self.session, payload, binary)

    def subscribe(self, *names: str, since: str | None = None, id: str | None = None) -> None:
        """SUBSCRIBE."""
        more = {key: value for key, value in (("since", since), ("id", id)) if value is not None}
        self.send({"type": "SUBSCRIBE", "topics": list(names), **more})

    def unsubscribe(self, *names: str, id: str | None = None) -> None:
        """UNSUBSCRIBE."""
        self.send({"type": "UNSUBSCRIBE", "topics": list(names), **({} if id is None else {"id": id})})

    def stall(self) -> None:
        """Read nothing any more."""
        self.channel.stalled = True

    def drain(self, turns: int = 1000) -> None:
        """Read everything that waits, and go on reading."""
        self.channel.stalled = False
        self.channel.flow()
        self.gateway.sessions.drained(self.session)
        self.gateway.run(turns)

    def gulp(self) -> None:
        """Read everything that waits, but stall again at the next byte: one chunk."""
        self.channel.flow()
        self.gateway.sessions.drained(self.session)
        self.gateway.run()

    def hang_up(self, code: int = 1006) -> None:
        """The connection is gone."""
        self.gateway.sessions.closed(self.session, code)

    # --- what it got ---

    def raw(self) -> list[tuple[int, bytes]]:
        """Every frame so far: opcode and payload."""
        assert not self.channel.late, f"pushed behind the close: {self.channel.late!r}"
        data = self._rest + self.channel.received[self._seen :]
        self._seen = len(self.channel.received)
        new, self._rest = frames(data)
        self._frames += new
        return self._frames

    def all(self) -> list[Message]:
        """Every message so far, decoded; each has to be one JSON object in a text frame."""
        return [_decoded(opcode, payload) for opcode, payload in self.raw()]

    def take(self) -> list[Message]:
        """The messages that came since the last call."""
        found = self.raw()[self._taken :]
        self._taken += len(found)
        return [_decoded(opcode, payload) for opcode, payload in found]

    def types(self) -> list[str]:
        """Of what came since the last call, the types."""
        return [message["type"] for message in self.take()]

    def data(self) -> list[Any]:
        """Of what came since the last call, the data of the records; there must be nothing else."""
        messages = self.take()
        assert {message["type"] for message in messages} <= {"MESSAGE"}, messages
        return [message["data"] for message in messages]

    def offsets(self) -> list[int]:
        """Of what came since the last call, the offsets of the records."""
        return [message["offset"] for message in self.take() if message["type"] == "MESSAGE"]

    def one(self) -> Message:
        """The one message that came since the last call."""
        (message,) = self.take()
        return message

    def closed(self) -> tuple[int, str] | None:
        """Code and reason of the close frame that the gateway sent."""
        return self.channel.closed_with

    def live(self) -> bool:
        """Whether its session is pushed to."""
        return self.session.state is State.LIVE

    def behind(self) -> bool:
        """Whether its session reads, or cannot be written to."""
        return self.session.state is State.BEHIND


def _decoded(opcode: int, payload: bytes) -> Message:
    assert opcode == 1, f"a frame with opcode {opcode} in an envelope session"
    message = json.loads(payload.decode())
    assert isinstance(message, dict) and isinstance(message["type"], str)
    return message


@attrs.define
class Place:
    """A cursor, and the epoch that it belongs to."""

    epoch: str | None = None
    cursor: dict[int, int] = attrs.Factory(dict)


class CursorKeeper:
    """Rule 5: ``cursor[partition] = max(cursor[partition], offset + 1, position)`` a topic, replaced by ``position``
    where ``epoch`` is another one or a gap is ``recreated``. A name that recovers has a cursor of its own until its
    RECOVERED. An ``epoch`` of null tells nothing."""

    def __init__(self) -> None:
        self.topics: dict[str, Place] = {}
        self.own: dict[str, Place] = {}  # by name

    def recovering(self, name: str, epoch: str | None, cursor: Mapping[int, int]) -> None:
        """This name is subscribed to with a cursor."""
        self.own[name] = Place(epoch, dict(cursor))

    def left(self, names: Iterable[str]) -> None:
        """These names are given up."""
        for name in names:
            self.own.pop(name, None)

    def saw(self, message: Message) -> None:
        """One frame came."""
        kind = message["type"]
        if kind == "CONNECTED":
            for subscription in message["subscriptions"]:
                self._positioned(subscription)
        elif kind in ("SUBSCRIBED", "RECOVERED", "GAP", "POSITION"):
            if kind == "RECOVERED":
                self.left(message["names"])
            self._positioned(message)
        elif kind == "MESSAGE":
            topic, partition = message["topic"], message["partition"]
            own = [self.own[name] for name in (topic, f"{topic}/{message['key']}") if name in self.own]
            for place in own or [self._topic(topic)]:
                place.cursor[partition] = max(place.cursor.get(partition, 0), message["offset"] + 1)

    def place(self, name: str) -> Place:
        """Where this name is."""
        return self.own.get(name) or self._topic(name.partition("/")[0])

    def since(self, names: Iterable[str]) -> str | None:
        """The cursor for a new connection that asks for ``names``; None where there is none yet."""
        return ";".join(entry(name, self.place(name)) for name in names if self.place(name).cursor) or None

    def _topic(self, topic: str) -> Place:
        return self.topics.setdefault(topic, Place())

    def _positioned(self, told: Message) -> None:
        epoch = told["epoch"]
        if epoch is None:
            return
        for place in [self.place(name) for name in told.get("names", [told["topic"]])]:
            another = place.epoch not in (None, epoch)
            if another or any(gap["reason"] == "recreated" for gap in told.get("gaps", ())):
                place.cursor.clear()
            place.epoch = epoch
            for partition, offset in told["position"].items():
                place.cursor[int(partition)] = max(place.cursor.get(int(partition), 0), offset)


def entry(name: str, place: Place) -> str:
    """One entry of ``since``."""
    epoch = "" if place.epoch is None else f"~{place.epoch}"
    return f"{name}{epoch}@" + ",".join(f"{partition}:{offset}" for partition, offset in sorted(place.cursor.items()))


def serve(*topics: TopicSettings, log: Log | None = None, **more: Any) -> Gateway:
    """A gateway whose topics are there and open, each read from its start."""
    found = log or Log()
    gateway = Gateway(found, *topics, **more)
    for settings in topics:
        if settings.name not in found.partitions:
            found.create(settings.name, settings.partitions)
        gateway.open(settings.name)
    return gateway
