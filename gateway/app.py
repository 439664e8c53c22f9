"""Puts the gateway together: the one place that knows every class. Builds everything, opens nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import SystemRandom
from typing import Any, Protocol

from prometheus_client import CollectorRegistry
from twisted.application.internet import TimerService
from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from gateway import __version__
from gateway.auth.fetch import Fetcher
from gateway.auth.jwks import JwksKeys
from gateway.auth.jwt import JwtAuthenticator
from gateway.config import Config, notices
from gateway.core.roster import Roster
from gateway.core.session import Session
from gateway.core.topic import Topic
from gateway.core.wire import Codec, Envelope, Raw
from gateway.log.memory import MemoryLog
from gateway.metrics import Metrics
from gateway.model import Encoding
from gateway.ports import Clock, LogListener, LogReader, LogWriter
from gateway.runtime import Collector, ReactorClock, Signals, raise_descriptors
from gateway.services.catchup import CatchUp
from gateway.services.changes import Changes
from gateway.services.dispatcher import Dispatcher
from gateway.services.door import Door
from gateway.services.drain import Drain
from gateway.services.keepalive import KeepAlive
from gateway.services.lateness import Lateness
from gateway.services.sessions import Sessions
from gateway.services.subscriptions import Plan, Subscriptions
from gateway.web.http import HttpParts, admin_site, public_site
from gateway.web.listen import Listener, tcp
from gateway.web.port import Port
from gateway.web.websocket import WebSockets

AGING = 1.0  # s between two looks at what has grown too old in the windows

_log = Logger()


def build(config: Config, reactor: Any, wall: Callable[[], float], source: str | None) -> MultiService:
    """The gateway as one service. ``wall``: seconds since 1970; ``source``: the file the configuration came from.

    Raises GatewayError for what the configuration names and cannot be used.
    """
    clock = ReactorClock(reactor, wall)
    random = SystemRandom()
    registry = CollectorRegistry()
    metrics = Metrics(registry, config.metrics.namespace, per_user=config.metrics.per_user, version=__version__)

    envelope, raw = Envelope(), Raw()
    codecs = (envelope, raw)
    topics: list[Topic[Session]] = [
        Topic(settings, codecs, metrics.topic(settings.name), metrics.types, metrics.users)
        for settings in config.kafka.topics
    ]
    roster = Roster()
    catch_up = CatchUp(metrics, clock)
    reader, writer = _log_of(config, clock, reactor, metrics)
    changes = Changes(roster, catch_up, reader.heard)
    dispatcher = Dispatcher(topics, codecs, catch_up, changes, config.window.total_bytes, metrics, clock)
    subscriptions = Subscriptions(topics, config.limits, catch_up, clock)
    jwks = _jwks(config, clock, reactor)
    authenticator = JwtAuthenticator(config.auth, clock, jwks)
    by_encoding: dict[Encoding, Codec] = {Encoding.ENVELOPE: envelope, Encoding.RAW: raw}
    sessions = Sessions(roster, subscriptions, catch_up, authenticator, by_encoding, config.limits, metrics, clock)

    drain = Drain(config.server, sessions, clock)
    keepalive = KeepAlive(config, sessions, clock, random)
    door: Door[Plan] = Door(
        config,
        authenticator,
        sessions.plan,
        ready=reader.positioned,
        draining=lambda: drain.draining,
        clock=clock,
        metrics=metrics,
        random=random,
    )
    websockets = WebSockets(
        sessions, keepalive, clock, config.limits.message_bytes, config.server.compression, config.server.write_timeout
    )
    parts = HttpParts(
        config,
        sessions,
        dispatcher,
        reader.positioned,
        lambda: {**reader.health(), **(jwks.health() if jwks is not None else {})},
        writer,
        metrics,
        registry,
        clock,
        lambda: drain.draining,
        __version__,
    )
    metrics.active_connections = lambda: len(roster)
    metrics.sessions_behind = lambda: catch_up.behind
    metrics.bytes_waiting = catch_up.waiting

    gateway = Gateway(config, source, drain, clock)
    children: list[Service] = [
        Signals(reactor, gateway.end_now),
        *_listeners(config, reactor, Port(config, door, websockets, public_site(parts), clock, metrics), parts),
        _Log(reader, writer, dispatcher.receive),
        _Started(keepalive),
        _aging(dispatcher, clock),
        Lateness(clock, metrics.reactor_lateness),
        Collector(clock),
    ]
    if jwks is not None:
        children.append(_Started(jwks))
    for child in children:
        child.setServiceParent(gateway)
    return gateway


class Gateway(MultiService):
    """All parts. Its end has an order: clients are told to move on while the port still answers, then the rest ends;
    all of it within ``server.drain.timeout``."""

    def __init__(self, config: Config, source: str | None, drain: Drain, clock: Clock) -> None:
        super().__init__()
        self._config = config
        self._source = source
        self._drain = drain
        self._clock = clock
        self._over: Deferred[None] = Deferred()

    def privilegedStartService(self) -> None:
        """Say what starts, and bind."""
        _log.info("configuration: {source}", source=self._source or "defaults and environment")
        _log.info("embedded registry: this process knows its own connections only")
        for notice in notices(self._config):
            _log.warn("{notice}", notice=notice)
        raise_descriptors(self._config.limits.connections)
        super().privilegedStartService()

    def stopService(self) -> Deferred[None]:
        """Fires once everything has ended, or ``end_now`` was called."""
        deadline = self._clock.callLater(self._config.server.drain.timeout, self.end_now)
        self._over.addBoth(lambda _: deadline.cancel() if deadline.active() else None)
        Deferred.fromCoroutine(self._end()).addErrback(_tell).addCallback(lambda _: self.end_now())
        return self._over

    async def _end(self) -> None:
        await self._drain.run()
        await maybeDeferred(super().stopService)

    def end_now(self) -> None:
        """Wait for nothing more."""
        if not self._over.called:
            self._over.callback(None)


def _listeners(config: Config, reactor: Any, public: Port, parts: HttpParts) -> Iterator[Listener]:
    server, admin = config.server, config.admin
    if server.listen:
        yield Listener(reactor, server.listen, public, "server.listen")
    else:
        yield Listener(reactor, (tcp(server.host, server.port),), public, "server.port")
    if admin.port is not None:
        yield Listener(reactor, (tcp(admin.host, admin.port),), admin_site(parts), "admin.port")


class _Log(Service):
    """Starts and ends the two ends of the log."""

    def __init__(self, reader: LogReader, writer: LogWriter, listener: LogListener) -> None:
        self._reader = reader
        self._writer = writer
        self._listener = listener

    def startService(self) -> None:
        super().startService()
        self._writer.start()
        self._reader.start(self._listener)

    def stopService(self) -> Deferred[Any]:
        super().stopService()
        return gatherResults([self._writer.stop(), self._reader.stop()])


class _Starts(Protocol):
    def start(self) -> None: ...

    def stop(self) -> None: ...


class _Started(Service):
    """What starts and stops at once, as a service."""

    def __init__(self, part: _Starts) -> None:
        self._part = part

    def startService(self) -> None:
        super().startService()
        self._part.start()

    def stopService(self) -> None:
        super().stopService()
        self._part.stop()


def _aging(dispatcher: Dispatcher, clock: Clock) -> TimerService:
    """Windows grow old although nothing comes."""
    timer = TimerService(AGING, lambda: dispatcher.tick(clock.seconds()))
    timer.clock = clock
    return timer


def _jwks(config: Config, clock: Clock, reactor: Any) -> JwksKeys | None:
    url = config.auth.jwks_url
    return None if url is None else JwksKeys(clock, Fetcher(reactor, url), config.auth.jwks_refresh)


def _log_of(config: Config, clock: Clock, reactor: Any, metrics: Metrics) -> tuple[LogReader, LogWriter]:
    """The log that the configuration names. Kafka's library is not even imported without it."""
    if not config.kafka.bootstrap_servers:
        embedded = MemoryLog(config.kafka.topics, clock)
        return embedded, embedded
    from gateway.log.kafka_reader import KafkaReader
    from gateway.log.kafka_writer import KafkaWriter

    thread = reactor.callFromThread
    return (
        KafkaReader(config.kafka, clock, thread, metrics),
        KafkaWriter(config.kafka, config.publish, clock, thread, metrics),
    )


def _tell(failure: Failure) -> None:
    _log.failure("the end was not in order", failure)
