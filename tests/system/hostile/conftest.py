"""One daemon for sections A to C, attacked by one test after another; what holds in every row is checked after each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.hostile import Target

CONFIG = {
    "server": {
        "origins": ["https://app.example", "http://dev.example:3000", "https://[2001:db8::1]"],
        "readTimeout": "1s",  # what is dropped after 10 s by default is dropped in time for a test
    },
}


@pytest.fixture(scope="session")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """The daemon, and at the end the search for tokens in everything that it wrote and serves."""
    with Target(CONFIG, tmp_path_factory.mktemp("hostile")) as target:
        yield target
        target.found_nowhere()


@pytest.fixture
def target(attacked: Target) -> Iterator[Target]:
    """The daemon, for one test."""
    with attacked.guarded():
        yield attacked
