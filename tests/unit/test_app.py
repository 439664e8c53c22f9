"""The composition as a whole: what it opens when, and that it ends whatever its parts do."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Iterator
from typing import Any, cast

import attrs
import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import capturedLogs

from gateway.app import Gateway, build
from gateway.config import Config, load
from gateway.errors import ConfigError
from gateway.runtime import ReactorClock
from gateway.services.drain import Drain

ENVIRONMENT = {
    "WSGATEWAY_AUTH_SECRET": "0123456789abcdef0123456789abcdef",
    "WSGATEWAY_KAFKA_TOPICS": "notifications",
    "WSGATEWAY_ADMIN_PORT": "9090",
}


@pytest.fixture
def config() -> Config:
    return load(None, ENVIRONMENT)


@pytest.fixture
def collector_as_before() -> Iterator[None]:
    thresholds = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)


def test_building_opens_nothing(config: Config) -> None:
    """twistd forks after it: descriptors would be shared with the parent, threads would be gone, timers too."""
    reactor = MemoryReactorClock()
    descriptors, threads = os.listdir("/proc/self/fd"), threading.enumerate()
    build(config, reactor, lambda: 0.0, None)
    assert os.listdir("/proc/self/fd") == descriptors
    assert threading.enumerate() == threads
    assert not reactor.tcpServers
    assert not reactor.getDelayedCalls()


@pytest.mark.usefixtures("collector_as_before")
def test_it_binds_with_privileges_starts_without_and_leaves_no_timer(config: Config) -> None:
    """A port below 1024 is bound as root only; a timer that is left keeps its part alive."""
    reactor = MemoryReactorClock()
    gateway = build(config, reactor, lambda: 0.0, "etc/config.yaml")
    gateway.privilegedStartService()
    assert [server[0] for server in reactor.tcpServers] == [8080, 9090]
    assert not reactor.getDelayedCalls()
    gateway.startService()
    assert reactor.getDelayedCalls()
    ended: list[object] = []
    gateway.stopService().addCallback(ended.append)
    reactor.advance(1)
    assert ended == [None]
    assert not reactor.getDelayedCalls()


def test_keys_that_cannot_be_used_are_told_by_their_setting() -> None:
    """Found by the first client otherwise."""
    config = load(None, ENVIRONMENT)
    short = attrs.evolve(config, auth=attrs.evolve(config.auth, secrets=(b"short",)))
    with pytest.raises(ConfigError, match=r"auth\.secret"):
        build(short, MemoryReactorClock(), lambda: 0.0, None)


class StuckDrain:
    """Clients who never go."""

    draining = False

    def run(self) -> Deferred[None]:
        return Deferred()


class BrokenDrain:
    """A bug."""

    draining = False

    def run(self) -> Deferred[None]:
        raise ZeroDivisionError


def gateway(config: Config, clock: Clock, drain: Any) -> Gateway:
    return Gateway(config, None, cast("Drain", drain), ReactorClock(clock, lambda: 0.0))


def test_the_end_comes_in_time_whatever_is_not_done(config: Config) -> None:
    """A supervisor would kill it in the end, and count a crash."""
    clock = Clock()
    ended: list[object] = []
    gateway(config, clock, StuckDrain()).stopService().addCallback(ended.append)
    clock.advance(config.server.drain.timeout - 0.1)
    assert not ended
    clock.advance(0.2)
    assert ended == [None]


def test_a_second_signal_ends_at_once(config: Config) -> None:
    """``end_now`` is what it calls; once more is no error."""
    clock = Clock()
    ended: list[object] = []
    stuck = gateway(config, clock, StuckDrain())
    stuck.stopService().addCallback(ended.append)
    stuck.end_now()
    assert ended == [None]
    clock.advance(config.server.drain.timeout)
    assert ended == [None]


def test_a_bug_in_the_drain_is_logged_and_the_end_comes(config: Config) -> None:
    """A process that cannot end because of a bug in its end is killed, and its log says nothing."""
    ended: list[object] = []
    with capturedLogs() as events:
        gateway(config, Clock(), BrokenDrain()).stopService().addCallback(ended.append)
    assert ended == [None]
    assert [event for event in events if event.get("log_failure")]
