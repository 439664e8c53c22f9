"""Fixtures that more than one kind of test needs; what they start stands in ``tests/support``."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest
from hypothesis import settings

from tests.support.kafka import EXTERNAL, Broker, Cluster
from tests.support.kafka_install import KafkaMissingError
from tests.support.reactor import ThreadedReactor

# How long an example takes depends on what else the machine does.
settings.register_profile("any-machine", deadline=None)
settings.load_profile("any-machine")


@pytest.fixture(scope="session")
def kafka() -> Iterator[Cluster]:
    """A Kafka that runs for the whole session: topics may be made, the broker itself is not to be touched."""
    if os.environ.get(EXTERNAL):
        yield Cluster(os.environ[EXTERNAL])
        return
    with _made(Broker) as broker:
        yield broker.start()


@pytest.fixture
def broker() -> Iterator[Broker]:
    """A broker of the test's own, which it may kill."""
    with _made(Broker) as broker:
        yield broker.start()


@pytest.fixture(scope="session")
def secure_broker() -> Iterator[Broker]:
    """A broker that demands TLS with a certificate, SCRAM-SHA-512, and rights."""
    with _made(lambda: Broker(secure=True)) as broker:
        yield broker.start()


@pytest.fixture(scope="session")
def threaded_reactor() -> Iterator[ThreadedReactor]:
    """A reactor that runs beside the tests, for adapters with threads of their own."""
    with ThreadedReactor() as reactor:
        yield reactor


def _made(make: Callable[[], Broker]) -> Broker:
    try:
        return make()
    except KafkaMissingError as missing:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(missing))
