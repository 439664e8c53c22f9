"""What tests of the HTTP side share: a site driven over a transport in memory, the parts behind it made by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import attrs
from prometheus_client import CollectorRegistry
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import globalLogPublisher

from gateway.config import Admin, Auth, Config, Kafka, Publish, TopicSettings
from gateway.core.limits import TokenBucket
from gateway.core.session import Session, State
from gateway.core.wire import Envelope
from gateway.errors import Close
from gateway.metrics import Metrics
from gateway.model import Audience, Grants, Health, Principal, Written
from gateway.ports import LogListener, Progress
from gateway.services.dispatcher import TopicInfo
from gateway.web.http import HttpParts
from gateway.web.routes import Site

KEY, OTHER_KEY = "0123456789abcdef", "fedcba9876543210"

TOPICS = (
    TopicSettings(name="notifications"),
    TopicSettings(name="news", audience=Audience.EVERYONE),
    TopicSettings(name="rooms", audience=Audience.KEY),
    TopicSettings(name="deep", user_from=("value.after.user_id", "value.before.user_id")),
    TopicSettings(name="keyed", user_from=("key",)),
    TopicSettings(name="headed", user_from=("header.user", "key")),
)


class WallClock(Clock):
    """A clock that also tells the time of day."""

    def wall(self) -> float:
        """Some day in 2023."""
        return 1_700_000_000.0 + self.seconds()


class Deaf:
    """A channel to nobody."""

    def push(self, data: bytes) -> bool:
        """Everything is taken."""
        return True

    answer = push

    def close(self, code: Close, reason: str = "") -> None:
        """Nobody is told."""

    def abort(self) -> None:
        """Nobody notices."""

    def progress(self) -> Progress:
        """Nothing moves."""
        return Progress(0, 0, 0)


def session(id: str, user: str, opened_at: float = 0.0) -> Session:
    """A session of a user who may do nothing."""
    principal = Principal(user, Grants(()), Grants(()), None, None)
    made = Session(
        id, principal, Envelope(), Deaf(), "192.0.2.7", opened_at, TokenBucket(1.0, 1.0), TokenBucket(1.0, 1.0)
    )
    made.state = State.LIVE
    return made


@attrs.define
class Sessions:
    """A few sessions, and who was told to go."""

    there: list[Session] = attrs.Factory(list)
    told: list[tuple[str, Close, str]] = attrs.Factory(list)

    def all(self) -> Collection[Session]:
        """Every session."""
        return self.there

    def of_user(self, user: str) -> Collection[Session]:
        """Those of one user."""
        return [session for session in self.there if session.principal.user == user]

    def close(self, session: Session, code: Close, reason: str = "") -> None:
        """Written down."""
        self.told.append((session.id, code, reason))


@attrs.define
class Dispatcher:
    """One topic's figures."""

    def topics(self) -> Sequence[TopicInfo]:
        """As a topic of two partitions has them."""
        return [TopicInfo("news", "everyone", "e1", {0: (1, 5, 5), 1: (0, 2, 9)}, 7, 700, 3)]


@attrs.define
class Reader:
    """A log reader in a state that the test chooses."""

    is_positioned: bool = True
    checks: dict[str, tuple[Health, str]] = attrs.Factory(lambda: {"kafka": (Health.OK, "connected")})

    def start(self, listener: LogListener) -> None:
        """Nothing is read."""

    def stop(self) -> Deferred[None]:
        """Nothing to end."""
        raise NotImplementedError

    def heard(self, topic: str, partition: int) -> float:
        """Never."""
        return -math.inf

    def positioned(self) -> bool:
        """As chosen."""
        return self.is_positioned

    def health(self) -> Mapping[str, tuple[Health, str]]:
        """As chosen."""
        return self.checks


@attrs.frozen
class Published:
    """What a writer was given, and the Deferred that its caller waits for."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    written: Deferred[Written] = attrs.field(factory=Deferred, eq=False)


@attrs.define
class Writer:
    """A log writer whose answers the test gives."""

    published: list[Published] = attrs.Factory(list)

    def start(self) -> None:
        """Nothing to begin."""

    def stop(self) -> Deferred[None]:
        """Nothing to end."""
        raise NotImplementedError

    def publish(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes]] = ()
    ) -> Deferred[Written]:
        """Written down; the answer is for the test to give."""
        self.published.append(Published(topic, key, value, tuple(headers)))
        return self.published[-1].written


@attrs.frozen
class Answer:
    """One HTTP answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, read as JSON."""
        return json.loads(self.body)


class Asked:
    """A connection on which one request was sent, in as many pieces as given."""

    def __init__(self, site: Site, *pieces: bytes) -> None:
        protocol = site.buildProtocol(None)
        assert protocol is not None
        self.protocol: Any = protocol
        self.transport = StringTransport()
        self.protocol.makeConnection(self.transport)
        self.send(*pieces)

    def send(self, *pieces: bytes) -> None:
        """More bytes of the client's."""
        for piece in pieces:
            self.protocol.dataReceived(piece)

    def answer(self) -> Answer | None:
        """What came back, if it did."""
        sent = self.transport.value()
        if not sent:
            return None
        head, _, body = sent.partition(b"\r\n\r\n")
        line, *fields = head.decode().split("\r\n")
        headers = dict(field.split(": ", 1) for field in fields)
        return Answer(int(line.split()[1]), {name.lower(): value for name, value in headers.items()}, body)


@attrs.define
class World:
    """The parts, and what one may ask of the sites made of them."""

    sessions: Sessions = attrs.Factory(Sessions)
    reader: Reader = attrs.Factory(Reader)
    writer: Writer = attrs.Factory(Writer)
    clock: WallClock = attrs.Factory(WallClock)
    registry: CollectorRegistry = attrs.Factory(CollectorRegistry)
    admin: Admin = attrs.Factory(lambda: Admin(api_keys=(KEY, OTHER_KEY)))
    metrics: Metrics = attrs.Factory(lambda self: Metrics(self.registry, "ws_gateway"), takes_self=True)
    publish: Publish = attrs.Factory(Publish)
    auth: Auth = attrs.Factory(Auth)
    draining: bool = False

    @property
    def parts(self) -> HttpParts:
        """As ``app.py`` would make them."""
        return HttpParts(
            config=Config(auth=self.auth, admin=self.admin, publish=self.publish, kafka=Kafka(topics=TOPICS)),
            sessions=self.sessions,
            dispatcher=Dispatcher(),
            positioned=self.reader.positioned,
            health=self.reader.health,
            writer=self.writer,
            metrics=self.metrics,
            registry=self.registry,
            clock=self.clock,
            draining=lambda: self.draining,
            version="1.2.3",
        )


def request(
    method: str,
    target: str,
    body: bytes = b"",
    key: str | None = None,
    content_type: str = "application/json",
    host: str = "gateway",
) -> bytes:
    """A whole request."""
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}"]
    if key is not None:
        lines.append(f"Authorization: Bearer {key}")
    if body:
        lines += [f"Content-Type: {content_type}", f"Content-Length: {len(body)}"]
    return "\r\n".join((*lines, "", "")).encode() + body


def ask(site: Site, *pieces: bytes) -> Answer:
    """The answer to a request that is answered at once."""
    answer = Asked(site, *pieces).answer()
    assert answer is not None
    return answer


@contextmanager
def logged() -> Iterator[list[Any]]:
    """The events logged inside."""
    events: list[Any] = []
    observer: Any = events.append
    globalLogPublisher.addObserver(observer)
    try:
        yield events
    finally:
        globalLogPublisher.removeObserver(observer)
