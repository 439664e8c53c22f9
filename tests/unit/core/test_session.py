"""What a session holds of a topic: names and positions. Its states: tests/unit/services."""

from __future__ import annotations

import math

from gateway.model import Audience, Name
from tests.support.harness import Client, Gateway, serve, topic


def rooms() -> tuple[Gateway, Client]:
    """A keyed topic with three records of key 2, and a client with key 1 of it."""
    gw = serve(topic("rooms", Audience.KEY))
    for _ in range(3):
        gw.log.append("rooms", key="2")
    gw.read("rooms")
    return gw, gw.connect(topics="rooms/1")


def test_names_that_are_held_on_their_own() -> None:
    gw, client = rooms()
    client.subscribe("rooms/2", since="rooms/2@0:0")
    sub = client.session.subscriptions["rooms"]
    assert sub.names() == [Name("rooms", "1"), Name("rooms", "2")]
    assert sub.has("1") and sub.has("2") and not sub.has("3") and not sub.has(None)
    assert sub.holds() and sub.recovering_keys() == {"2"} and len(list(sub.feeds())) == 1
    client.subscribe("rooms")
    assert sub.names() == [Name("rooms")] and sub.has("3") and sub.has(None)
    assert len(list(sub.feeds())) == 2, "the topic waits, beside the key that recovers"
    gw.run()
    assert list(sub.feeds()) == [] and sub.keys == set()


def test_a_whole_topic_that_recovers() -> None:
    gw = serve(topic("rooms", Audience.KEY))
    sub = gw.connect(topics="rooms,rooms/1", since="rooms@0:0").session.subscriptions["rooms"]
    assert not sub.holds() and sub.has("anything") and sub.has(None)
    assert sub.names() == [Name("rooms"), Name("rooms", "1")]


def test_positions_of_names_in_different_places() -> None:
    gw, client = rooms()
    client.subscribe("rooms/2", since="rooms/2@0:1")
    sub = client.session.subscriptions["rooms"]
    assert sub.position([Name("rooms", "1")]) == {0: 3}
    assert sub.position([Name("rooms", "2")]) == {0: 1}
    assert sub.position([Name("rooms", "1"), Name("rooms", "2")]) == {0: 1}
    assert sub.position() == {0: 3}, "of the names that do not recover"
    gw.run()
    assert sub.position([Name("rooms", "2")]) == {0: 3}


def test_the_position_of_partitions_that_only_some_know() -> None:
    _, client = rooms()
    client.subscribe("rooms/2", since="rooms/2@0:1,5:7")
    sub = client.session.subscriptions["rooms"]
    assert sub.position([Name("rooms", "2")]) == {0: 1, 5: 7}
    assert sub.position([Name("rooms", "1"), Name("rooms", "2")]) == {0: 1, 5: 7}


def test_slow_since_is_the_earliest_and_not_of_what_is_ahead() -> None:
    gw = serve(topic("a"), topic("b"), topic("c"))
    client = gw.connect(topics="a,b,c", since="c@0:9")
    gw.run()
    assert not list(client.session.slow_feeds()), "c waits for this process, not for the client"
    client.stall()
    gw.clock.advance(5)
    gw.log.append("a")
    gw.read("a")
    assert client.session.slow_since == 5.0
    assert [sub.topic.name for sub, _ in client.session.slow_feeds()] == ["a", "b"]
    assert client.session.subscriptions["c"].slow is not None
    assert math.isinf(client.session.subscriptions["c"].slow.since)


def test_a_new_session_is_live() -> None:
    _, client = rooms()
    assert client.live()
