"""A broker that demands TLS with a client certificate, SCRAM-SHA-512 and rights, and ends sessions after 5 s; one of
three topics may not be read, one may not even be seen, and another one never. All of it at once, on one gateway."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack

import attrs
import pytest

from tests.support.daemon import Daemon, until
from tests.support.kafka import PASSWORD, Broker
from tests.support.kafkacase import (
    Client,
    Steady,
    cpu,
    epoch,
    gateway,
    in_kafka,
    position,
    published,
    ready,
    secured,
    shown,
)

SESSION = 5.0  # s until the broker ends a session that has not proved itself again
RETRY = 45.0  # s within which a right that was given is noticed: every 10 s, on a busy machine


@attrs.define
class Secure:
    """Broker, gateway, topics. To ``readable`` somebody writes since ``began``, and ``client`` reads it."""

    broker: Broker
    daemon: Daemon
    readable: str
    denied: str
    hidden: str
    secret: str
    producer: Steady
    client: Client
    began: float


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    """A gateway that has just started. In the topics that it cannot read there are records already."""
    reauthenticate = {"connections.max.reauth.ms": str(int(SESSION * 1000))}
    with ExitStack() as stack:
        broker = stack.enter_context(Broker(secure=True, properties=reauthenticate)).start()
        topics = readable, denied, hidden, secret = [broker.fresh(2) for _ in range(4)]
        broker.allow("gateway", [readable], ["READ", "WRITE", "DESCRIBE"])
        broker.allow("gateway", [denied], ["DESCRIBE"])
        for unreadable in (denied, hidden):
            broker.write(unreadable, [b"1"], partition=0)
        folder, security = tmp_path_factory.mktemp("secure"), {"security": secured(broker)}
        daemon = gateway(folder, broker.bootstrap, *topics, kafka=security, publish={"timeout": "2s"})
        stack.enter_context(daemon)
        client = stack.enter_context(Client(daemon, readable))
        producer = stack.enter_context(Steady(broker, readable, rate=20))
        yield Secure(broker, daemon, readable, denied, hidden, secret, producer, client, time.monotonic())


def test_topics_that_may_not_be_read(secure: Secure) -> None:
    """Rule 8: they can be subscribed to, and nothing comes. Where the gateway may describe one it knows the place, and
    goes on there; one that it may not even see begins at its end, told by POSITION. The processor idles meanwhile."""
    broker, daemon = secure.broker, secure.daemon
    status, checks = ready(daemon)
    assert status == 200
    assert (checks["kafka"], checks[f"topic:{secure.readable}"]) == ("ok", "ok")
    began, before = time.monotonic(), cpu(daemon)
    with Client(daemon, secure.denied) as denied, Client(daemon, secure.hidden) as hidden:
        assert position(denied.hello) == {0: 1, 1: 0}
        (subscription,) = hidden.hello["subscriptions"]
        assert (subscription["epoch"], subscription["position"]) == (None, {})
        for topic in (secure.denied, secure.hidden):
            unreadable(daemon, topic)
            assert published(daemon, topic, 1)[:2] == (503, "unavailable")
            broker.write(topic, [b"2"], partition=0)
        denied.quiet()
        hidden.quiet()
        assert cpu(daemon) - before < 0.4 * (time.monotonic() - began)
        broker.allow("gateway", [secure.denied, secure.hidden])
        told = hidden.frame("POSITION", seconds=RETRY)
        assert epoch(told)
        assert position(told) == {0: 2, 1: 0}
        assert denied.data(1, RETRY) == [2]
        for topic, client in ((secure.denied, denied), (secure.hidden, hidden)):
            broker.write(topic, [b"3"], partition=0)
            broker.write(topic, [b"4"], partition=1)
            assert sorted(client.data(2)) == [3, 4]
            client.quiet()
    until(lambda: bad(daemon) == {f"topic:{secure.secret}"}, "the others are well", RETRY)


def test_sessions_that_the_broker_ends(secure: Secure) -> None:
    """Reader and writer prove themselves again before each end: records flow through three of them, none twice, and
    nobody sees anything of it. The writer, which was idle, can write at once."""
    daemon, client = secure.daemon, secure.client
    seen = []
    while time.monotonic() < secure.began + 3.5 * SESSION:
        assert published(daemon, secure.readable, -1)[0] == 200
        seen += client.messages(20)
    assert published(daemon, secure.readable, -2)[0] == 200
    secure.producer.stop()
    truth = in_kafka(secure.broker, secure.readable)
    seen += client.messages(sum(map(len, truth.values())) - len(seen))
    assert shown(seen) == truth
    client.quiet()
    assert bad(daemon) <= {f"topic:{topic}" for topic in (secure.denied, secure.hidden, secure.secret)}
    assert PASSWORD not in daemon.log()
    assert "Kafka is away" not in daemon.log()
    errors = [line["message"] for line in daemon.log_lines() if line["level"] == "error"]
    library = {f"Topic {topic} is not authorized for this client" for topic in (secure.hidden, secure.secret)}
    assert set(errors) <= library  # ten a minute


def bad(daemon: Daemon) -> set[str]:
    """What /readyz names as not well."""
    return {name for name, health in ready(daemon)[1].items() if health != "ok"}


def unreadable(daemon: Daemon, topic: str) -> None:
    """/readyz names the topic, soon: what may not be read is found out by reading."""
    until(lambda: ready(daemon)[1][f"topic:{topic}"] == "degraded", "the topic is named")
