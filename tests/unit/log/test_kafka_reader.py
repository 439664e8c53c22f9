"""The reader's pace. All else of it is held by tests/contract, with a real broker."""

from __future__ import annotations

import pytest

from gateway.log.kafka_reader import pause


@pytest.mark.parametrize(
    ("elapsed", "pauses", "why"),
    [
        (0.0005, 0.0025, "many small fetches are made few: a fetch costs the same however little it brings"),
        (0.002, 0.002, "half of a core is the most that reading takes"),
        (0.2, 0.003, "neither a large fetch nor a long wait must stop reading for long"),
    ],
)
def test_pause(elapsed: float, pauses: float, why: str) -> None:
    assert pause(elapsed, 0.003) == pytest.approx(pauses), why


def test_no_pause_where_none_is_wanted() -> None:
    assert pause(0.001, 0.0) == 0.0
