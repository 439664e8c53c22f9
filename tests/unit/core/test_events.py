"""*Server to client*: each frame has the fields that docs/protocol.md lists, and ``id`` only where one was sent."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.core import events
from gateway.model import Gap, GapReason

GAPS = [Gap(0, 3, 7, GapReason.WINDOW), Gap(1, 0, 9, GapReason.EXPIRED)]
SPELT = [
    {"partition": 0, "from": 3, "to": 7, "reason": "window"},
    {"partition": 1, "from": 0, "to": 9, "reason": "expired"},
]
AT = {"topic": "t", "epoch": "e", "position": {"0": 7, "10": 9}}
POSITION = {10: 9, 0: 7}
ID = [("i", {"id": "i"}), ("", {"id": ""}), (None, {})]


def test_connected() -> None:
    sub = events.subscription("t", ("t/1", "t/2"), None, {})
    assert sub == {"topic": "t", "names": ["t/1", "t/2"], "epoch": None, "position": {}}
    assert events.connected("ann", "c1", [sub], None, 65536, 50, "now") == {
        "type": "CONNECTED",
        "userId": "ann",
        "connectionId": "c1",
        "subscriptions": [sub],
        "expiresAt": None,
        "limits": {"messageBytes": 65536, "messagesPerSecond": 50},
        "timestamp": "now",
    }


@pytest.mark.parametrize(("id", "more"), ID)
def test_answers_repeat_the_id(id: str | None, more: dict[str, Any]) -> None:
    sub = events.subscription("t", ["t"], "e", POSITION)
    assert events.subscribed(sub, id) == {"type": "SUBSCRIBED", "names": ["t"]} | AT | more
    assert (
        events.unsubscribed("t", ["t"], "asked", id)
        == {
            "type": "UNSUBSCRIBED",
            "topic": "t",
            "names": ["t"],
            "reason": "asked",
        }
        | more
    )
    assert (
        events.recovered("t", ["t"], 5, GAPS, "e", POSITION, id)
        == {
            "type": "RECOVERED",
            "names": ["t"],
            "count": 5,
            "gaps": SPELT,
        }
        | AT
        | more
    )
    assert events.pong(id) == {"type": "PONG"} | more
    assert (
        events.ack("REFRESH", id, "now", expiresAt="later")
        == {
            "type": "ACK",
            "originalType": "REFRESH",
            "expiresAt": "later",
            "timestamp": "now",
        }
        | more
    )
    assert (
        events.error("limit", "too many", "SUBSCRIBE", id, "now", 0.5)
        == {
            "type": "ERROR",
            "code": "limit",
            "message": "too many",
            "originalType": "SUBSCRIBE",
            "retryAfter": 0.5,
            "timestamp": "now",
        }
        | more
    )


def test_an_error_that_answers_nothing_known() -> None:
    assert events.error("bad_json", "no", None, None, "now") == {
        "type": "ERROR",
        "code": "bad_json",
        "message": "no",
        "timestamp": "now",
    }


def test_frames_that_answer_nothing() -> None:
    assert events.gap("t", GAPS, "e", POSITION) == {"type": "GAP", "gaps": SPELT} | AT
    assert events.position("t", "e", POSITION) == {"type": "POSITION"} | AT
    assert events.token_expiring("soon") == {"type": "TOKEN_EXPIRING", "expiresAt": "soon"}


@pytest.mark.parametrize("reason", GapReason)
def test_every_reason_of_a_gap(reason: GapReason) -> None:
    (gap,) = events.gap("t", [Gap(0, 1, 2, reason)], "e", {})["gaps"]
    assert gap["reason"] == reason.value and reason.value in ("window", "expired", "recreated", "too_large")


def test_positions_are_in_the_order_of_partitions() -> None:
    assert list(events.position("t", "e", {10: 1, 9: 1, 0: 1})["position"]) == ["0", "9", "10"]
