"""Fixtures of the system tests alone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.kafkacase import TwoWays


@pytest.fixture(scope="session")
def two_ways() -> Iterator[TwoWays]:
    """A broker that tests may kill (each leaves it running), which can also be reached through a proxy."""
    with TwoWays() as broker:
        yield broker
