"""*Subscriptions and cursors, exactly* (docs/protocol.md): each rule, and each clause in it, is a test of that name."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.config import Limits
from gateway.errors import Kind, Refused
from gateway.model import Audience, Encoding, Opened, Start
from tests.support.harness import Client, Gateway, Log, serve, topic

BIG = "x" * 20_000  # four of these are more than a chunk


def rooms(**more: Any) -> Gateway:
    """A gateway with one keyed topic, one partition."""
    return serve(topic("rooms", Audience.KEY, **more))


def fill(gw: Gateway, *keys: str | None, name: str = "rooms", value: object = None, partition: int = 0) -> None:
    """One record for each key, read as one batch."""
    for key in keys:
        gw.log.append(name, {"k": key} if value is None else value, key=key, partition=partition)
    gw.read(name)


def shown(client: Client) -> list[tuple[str, int]]:
    """The keys and offsets of the records since the last look, and the types of everything else with -1."""
    return [(m["key"], m["offset"]) if m["type"] == "MESSAGE" else (m["type"], -1) for m in client.take()]


def ready(client: Client) -> Client:
    """Past what it was told so far."""
    client.gateway.run()
    client.take()
    return client


# --- rule 1 ---


def test_rule_1_order_and_once_a_name_and_partition() -> None:
    """A slow, a resumed and a live reader see the same records of a partition in the same order, each once."""
    gw = serve(topic("news", partitions=2))
    live, slow = ready(gw.connect(topics="news")), ready(gw.connect(topics="news"))
    slow.stall()
    for n in range(20):
        gw.log.append("news", {"n": n}, partition=n % 2)
        gw.read("news")
    back = gw.connect(topics="news", since="news~e1@0:0,1:0")
    slow.drain()
    for client in (live, slow, back):
        seen = [(m["partition"], m["offset"]) for m in client.all() if m["type"] == "MESSAGE"]
        for partition in (0, 1):
            assert [offset for at, offset in seen if at == partition] == list(range(10))


def test_rule_1_position_is_the_sessions_not_the_processes() -> None:
    """A session that is behind is told its own position, which is below what this process has read."""
    gw = rooms()
    client = ready(gw.connect(topics="rooms/1"))
    client.stall()
    fill(gw, "1", "1", "1")  # the first one waits in the transport, the rest in the window
    fill(gw, "1")
    client.subscribe("rooms/2", id="s")
    client.channel.flow()
    assert client.take()[-1]["position"] == {"0": 3}


def test_rule_1_position_is_not_above_what_is_still_given() -> None:
    """Of names in different places the lowest counts: a name that recovers, and one that is live."""
    gw = rooms()
    fill(gw, "1", "2", "1", "2")
    client = ready(gw.connect(topics="rooms/1"))
    client.subscribe("rooms/2", since="rooms/2~e1@0:1")
    assert client.one()["position"] == {"0": 1}
    client.subscribe("rooms/1", "rooms/2")
    assert client.one()["position"] == {"0": 1}
    client.subscribe("rooms/1")
    assert client.one()["position"] == {"0": 4}
    gw.run()
    assert client.take()[-1]["position"] == {"0": 4}


def test_rule_1_a_name_taken_at_latest_joins_a_topic_that_is_behind_at_its_position() -> None:
    gw = rooms()
    client = ready(gw.connect(topics="rooms/1"))
    client.stall()
    fill(gw, "1")
    fill(gw, "2", "1", "2")
    client.subscribe("rooms/2")
    client.drain()
    assert shown(client) == [("1", 0), ("SUBSCRIBED", -1), ("2", 1), ("1", 2), ("2", 3)]


def test_rule_1_a_topic_that_is_absorbed_while_behind_joins_at_its_position() -> None:
    gw = rooms()
    client = ready(gw.connect(topics="rooms/1"))
    client.stall()
    fill(gw, "1")
    fill(gw, "2", "1", "3")
    client.subscribe("rooms")
    client.drain()
    assert shown(client) == [("1", 0), ("SUBSCRIBED", -1), ("2", 1), ("1", 2), ("3", 3)]


def test_rule_1_a_name_taken_at_latest_joins_a_topic_that_is_ahead_at_its_position() -> None:
    """The client has seen offsets up to 4 at another gateway; its other names begin there too."""
    gw = rooms()
    fill(gw, "1", "2")
    client = ready(gw.connect(topics="rooms/1", since="rooms/1~e1@0:4"))
    client.subscribe("rooms/2")
    assert client.one()["position"] == {"0": 4}
    fill(gw, "1", "2", "1", "2")
    gw.run()
    assert shown(client) == [("1", 4), ("2", 5)]


def test_rule_1_a_name_taken_at_latest_beside_names_that_recover_ahead_of_this_process() -> None:
    """Before RECOVERED as after it: what the client keeps as cursor of the topic is what those names had."""
    gw = rooms()
    fill(gw, "1", "2")
    client = gw.connect(topics="rooms/1", since="rooms/1~e1@0:4")
    client.subscribe("rooms")
    assert client.take()[-1]["position"] == {"0": 4}
    fill(gw, "1", "2", "1", "2")
    gw.run()
    assert shown(client) == [("RECOVERED", -1), ("1", 4), ("2", 5)]


def test_rule_1_several_topics_have_a_position_each() -> None:
    gw = serve(topic("a"), topic("b"))
    fill(gw, None, None, name="a")
    fill(gw, None, name="b")
    told = gw.connect(topics="a,b", since="a~e1@0:1;b~e2@0:0").one()["subscriptions"]
    assert [(sub["topic"], sub["epoch"], sub["position"]) for sub in told] == [
        ("a", "e1", {"0": 1}),
        ("b", "e2", {"0": 0}),
    ]


# --- rule 2 ---


def test_rule_2_each_record_once_for_a_topic_and_a_key_of_it() -> None:
    gw = rooms()
    client = ready(gw.connect(topics="rooms,rooms/42"))
    fill(gw, "42", "1", "42")
    assert client.offsets() == [0, 1, 2]


def test_rule_2_each_record_once_when_topic_and_key_recover_together() -> None:
    gw = rooms()
    fill(gw, "42", "1", "42", "1", "42")
    client = gw.connect(topics="rooms,rooms/42", since="rooms@0:3;rooms/42@0:1")
    gw.run()
    assert shown(client) == [("CONNECTED", -1), ("42", 2), ("1", 3), ("42", 4), ("RECOVERED", -1)]


def test_rule_2_topic_and_key_recover_together_where_one_of_them_is_ahead_of_this_process() -> None:
    """The key's records are not held back because the topic's own cursor is further on."""
    gw = rooms()
    client = ready(gw.connect(topics="rooms,rooms/1", since="rooms@0:2;rooms/1@0:0"))
    fill(gw, "1", "2", "2", "1")
    gw.run()
    assert client.offsets() == [0, 2, 3]


def test_rule_4_names_at_different_places_are_told_recovered_once_they_are_at_one() -> None:
    """Its position holds for all of them: a client that has read rooms/2 up to 4 keeps rooms/1 at its own place."""
    gw = rooms()
    fill(gw, "1")
    client = ready(gw.connect(topics="rooms/1,rooms/2", since="rooms/1@0:0;rooms/2@0:4"))
    assert [m["type"] for m in client.all()] == ["CONNECTED", "MESSAGE"]
    fill(gw, "1", "2", "2")
    gw.run()
    assert [(m["type"], m.get("offset")) for m in client.take()] == [("MESSAGE", 1), ("RECOVERED", None)]
    assert client.all()[-1]["position"] == {"0": 4}
    fill(gw, "1", "2")
    assert client.offsets() == [4, 5]


@pytest.mark.parametrize("name", ["rooms/1", "rooms"])
def test_rule_2_a_name_it_has_already_is_told_the_current_position(name: str) -> None:
    gw = rooms()
    client = ready(gw.connect(topics="rooms/1,rooms"))
    fill(gw, "1", "1")
    client.take()
    client.subscribe(name, id="again")
    assert client.one() == {
        "type": "SUBSCRIBED",
        "topic": "rooms",
        "names": [name],
        "epoch": "e1",
        "position": {"0": 2},
        "id": "again",
    }
    fill(gw, "1")
    assert client.offsets() == [2]


@pytest.mark.parametrize(("held", "name"), [("rooms/1", "rooms/1"), ("rooms", "rooms/1"), ("rooms", "rooms")])
def test_rule_2_a_cursor_with_a_name_it_has_is_bad_since(held: str, name: str) -> None:
    gw = rooms()
    fill(gw, "1")
    client = ready(gw.connect(topics=held))
    client.subscribe(name, since=f"{name}@0:0")
    assert client.one()["code"] == "bad_since"
    fill(gw, "1")
    assert client.offsets() == [1]


def test_rule_2_a_cursor_with_a_name_that_recovers_is_bad_since() -> None:
    gw = rooms()
    fill(gw, "1")
    client = gw.connect(topics="rooms/1", since="rooms/1@0:0")
    client.take()
    client.subscribe("rooms/1", since="rooms/1@0:0")
    assert client.one()["code"] == "bad_since"


def test_rule_2_the_whole_topic_absorbs_its_keys() -> None:
    """Afterwards there is one name, and each record comes once."""
    gw = rooms()
    client = ready(gw.connect(topics="rooms/1,rooms/2"))
    client.subscribe("rooms")
    assert client.one()["names"] == ["rooms"]
    fill(gw, "1", "3", "2")
    assert client.offsets() == [0, 1, 2]
    client.unsubscribe("rooms/1")
    assert client.one()["code"] == "invalid_topics"
    assert not gw.topics["rooms"].listeners.at("1")


def test_rule_2_the_whole_topic_where_it_has_keys_is_latest_only() -> None:
    gw = rooms()
    fill(gw, "1")
    client = ready(gw.connect(topics="rooms/1"))
    client.subscribe("rooms", since="rooms@0:0")
    assert client.one()["code"] == "bad_since"


def test_rule_2_a_key_that_recovers_goes_on_to_its_recovered_when_the_topic_absorbs_it() -> None:
    """Its records come in order, each once, and the client's own cursor for it never passes one that did not come."""
    gw = rooms()
    fill(gw, *"42", *"4242", value={"big": BIG})  # keys 4 and 2; more than a chunk
    client = gw.connect(topics="rooms/4", since="rooms/4@0:0")
    client.take()
    client.subscribe("rooms", id="all")
    told = client.one()
    assert told["names"] == ["rooms"] and told["position"] == {"0": 6}
    fill(gw, "4", "2")
    gw.run()
    seen = shown(client)
    assert sorted(seen) == [("2", 7), ("4", 0), ("4", 2), ("4", 4), ("4", 6), ("RECOVERED", -1)]
    assert [offset for key, offset in seen if key == "4"] == [0, 2, 4, 6]
    fill(gw, "4", "2")
    assert client.offsets() == [8, 9]
    client.unsubscribe("rooms/4")
    assert client.one()["code"] == "invalid_topics", "it is no name of its own any more"


def test_rule_2_the_topic_waits_for_keys_of_it_that_recover_though_both_go_on() -> None:
    """Chunk by chunk, with records of the key meanwhile: it comes from its own place alone until RECOVERED."""
    gw = rooms()
    fill(gw, *["4"] * 12, value={"big": BIG})
    client = gw.connect(topics="rooms/4", since="rooms/4@0:0")
    client.stall()
    gw.run()
    client.subscribe("rooms")
    for _ in range(8):
        fill(gw, "4", "2")
        client.gulp()
    client.drain()
    seen = shown(client)
    assert [offset for key, offset in seen if key == "4"] == [*range(12), *range(12, 28, 2)]
    assert [offset for key, offset in seen if key == "2"] == [*range(13, 28, 2)]
    assert [key for key, _ in seen if key == "RECOVERED"] == ["RECOVERED"]
    fill(gw, "4", "2")
    assert client.offsets() == [28, 29] and client.live()


# --- rule 3 ---


def test_rule_3_unsubscribe_of_a_whole_topic_ends_it_all() -> None:
    gw = rooms()
    fill(gw, "3")
    client = ready(gw.connect(topics="rooms/1,rooms/2"))
    client.subscribe("rooms/3", since="rooms/3@0:0")
    client.take()
    client.unsubscribe("rooms", id="u")
    assert client.one() == {
        "type": "UNSUBSCRIBED",
        "topic": "rooms",
        "names": ["rooms/1", "rooms/2", "rooms/3"],
        "reason": "asked",
        "id": "u",
    }
    fill(gw, "1", "2", "3")
    gw.run()
    assert client.take() == []
    assert len(gw.topics["rooms"].listeners) == 0 and client.session.subscriptions == {}


@pytest.mark.parametrize("name", ["rooms/1", "rooms/9", "other", "nowhere"])
def test_rule_3_unsubscribe_of_a_name_it_does_not_have_on_its_own(name: str) -> None:
    """All or none: the name beside it, which it has, stays."""
    gw = serve(topic("rooms", Audience.KEY), topic("other"))
    client = ready(gw.connect(topics="rooms"))
    client.unsubscribe("rooms", name)
    assert client.one()["code"] == "invalid_topics"
    fill(gw, "1")
    assert client.offsets() == [0]


def test_rule_3_unsubscribe_of_a_name_that_recovers_has_no_recovered() -> None:
    gw = rooms()
    fill(gw, "1", "2", "1")
    client = gw.connect(topics="rooms/1,rooms/2", since="rooms@0:0")
    client.take()
    client.unsubscribe("rooms/1")
    gw.run()
    assert shown(client) == [("UNSUBSCRIBED", -1), ("2", 1), ("RECOVERED", -1)]
    assert client.all()[-1]["names"] == ["rooms/2"]
    client.unsubscribe("rooms/2")
    client.take()
    client.subscribe("rooms/1", since="rooms/1@0:0")
    client.unsubscribe("rooms/1")
    gw.run()
    assert client.types() == ["SUBSCRIBED", "UNSUBSCRIBED"]


def test_rule_3_what_the_transport_has_stands_before_unsubscribed_and_nothing_behind_it() -> None:
    gw = rooms()
    client = ready(gw.connect(topics="rooms/1,rooms/2"))
    client.stall()
    fill(gw, "1")  # handed to the transport
    fill(gw, "1", "2")  # not
    client.unsubscribe("rooms/1")
    client.drain()
    assert shown(client) == [("1", 0), ("UNSUBSCRIBED", -1), ("2", 2)]


# --- rule 4 ---


def test_rule_4_of_one_topics_names_all_have_a_cursor_or_none() -> None:
    gw = rooms()
    client = ready(gw.connect(topics=""))
    client.subscribe("rooms/1", "rooms/2", since="rooms/1@0:0")
    assert client.one()["code"] == "bad_since"
    assert client.session.subscriptions == {}, "all or none"
    with pytest.raises(Refused) as refused:
        gw.connect(topics="rooms/1,rooms/2", since="rooms/2@0:0")
    assert refused.value.kind is Kind.BAD_SINCE


def test_rule_4_topics_differ_in_that_freely() -> None:
    gw = serve(topic("a"), topic("b"))
    fill(gw, None, name="a")
    fill(gw, None, name="b")
    client = gw.connect(topics="a,b", since="a@0:0")
    gw.run()
    assert [(m["topic"], m["offset"]) for m in client.all() if m["type"] == "MESSAGE"] == [("a", 0)]


def test_rule_4_an_entry_of_a_topic_holds_for_its_keys_that_have_none_of_their_own() -> None:
    gw = rooms()
    fill(gw, "1", "2", "3", "1", "2", "3")
    client = gw.connect(topics="rooms/1,rooms/2,rooms/3", since="rooms@0:2;rooms/2@0:0")
    gw.run()
    assert shown(client) == [("CONNECTED", -1), ("2", 1), ("3", 2), ("1", 3), ("2", 4), ("3", 5), ("RECOVERED", -1)]


def test_rule_4_names_with_cursors_recover_together_and_one_recovered_tells_all() -> None:
    gw = rooms()
    fill(gw, "1", "2", "1", "2")
    client = ready(gw.connect(topics=""))
    client.subscribe("rooms/2", "rooms/1", since="rooms/1@0:2;rooms/2@0:1", id="s")
    gw.run()
    told, *records, done = client.take()
    assert told["type"] == "SUBSCRIBED" and told["names"] == ["rooms/2", "rooms/1"] and told["position"] == {"0": 1}
    assert [record["offset"] for record in records] == [1, 2, 3]
    assert done == {
        "type": "RECOVERED",
        "topic": "rooms",
        "names": ["rooms/1", "rooms/2"],
        "count": 3,
        "gaps": [],
        "epoch": "e1",
        "position": {"0": 4},
        "id": "s",
    }


def test_rule_4_recovered_tells_what_was_lost_meanwhile_and_gap_does_not() -> None:
    """The window moves past a name that recovers; its live neighbour is told nothing, for it lost nothing."""
    gw = rooms()
    client = ready(gw.connect(topics="rooms/1"))
    fill(gw, *["2"] * 8, value={"big": BIG})
    client.stall()
    client.subscribe("rooms/2", since="rooms/2@0:0")
    gw.run()
    gw.topics["rooms"].window.drop_oldest(5 * 20_000)
    client.drain()
    told = client.take()
    assert [m["type"] for m in told] == ["SUBSCRIBED", *["MESSAGE"] * 3, "RECOVERED"]
    assert told[-1]["gaps"] == [{"partition": 0, "from": 0, "to": 5, "reason": "window"}] and told[-1]["count"] == 3


def test_rule_4_several_topics_recover_in_turn_a_chunk_each() -> None:
    gw = serve(topic("a"), topic("b"))
    for name in "ab":
        fill(gw, *[None] * 9, name=name, value={"big": BIG})
    client = gw.connect(topics="a,b", since="a@0:0;b@0:0")
    gw.run()
    turns = [m["topic"] for m in client.all()[1:]]
    assert turns == [*"aaabbb", *"aaabbb", *"aaaa", *"bbbb"], "three records a chunk, RECOVERED behind the last"
    assert client.types().count("RECOVERED") == 2


def test_rule_4_a_name_with_a_cursor_joins_the_topic_where_that_is() -> None:
    """The topic is behind: RECOVERED comes where both are at one place, and its position is the whole cursor."""
    gw = rooms()
    client = ready(gw.connect(topics="rooms/1"))
    client.stall()
    fill(gw, "1")
    fill(gw, "1", "2", "1", "2")
    client.subscribe("rooms/2", since="rooms/2@0:4")
    client.drain()
    told = client.take()
    assert [(m["key"], m["offset"]) for m in told if m["type"] == "MESSAGE"] == [("1", 0), ("1", 1), ("1", 3), ("2", 4)]
    at = next(i for i, m in enumerate(told) if m["type"] == "RECOVERED")
    below = [m["offset"] for m in told[at:] if m["type"] == "MESSAGE"]
    assert all(offset >= told[at]["position"]["0"] for offset in below), "the position is of nothing still to come"


def test_rule_4_a_name_ahead_of_this_process_does_not_raise_the_topics_cursor() -> None:
    """RECOVERED waits: its position holds for the live names too, and these are where this process is."""
    gw = rooms()
    fill(gw, "1", "2")
    client = ready(gw.connect(topics="rooms/1"))
    client.subscribe("rooms/2", since="rooms/2@0:4")
    gw.run()
    assert client.types() == ["SUBSCRIBED"]
    fill(gw, "1", "2")
    gw.run()
    fill(gw, "1", "2")
    gw.run()
    told = client.take()
    assert [(m["key"], m["offset"]) for m in told if m["type"] == "MESSAGE"] == [("1", 2), ("1", 4), ("2", 5)]
    (done,) = [m for m in told if m["type"] == "RECOVERED"]
    assert done["position"]["0"] >= 4 and done["gaps"] == []


# --- rule 6 ---


def test_rule_6_another_epoch_is_one_gap_recreated() -> None:
    """To the first offset given again: the window's start."""
    gw = rooms()
    fill(gw, "1", "1", "1")
    gw.topics["rooms"].window.drop_oldest(1)
    client = gw.connect(topics="rooms/1", since="rooms/1~old@0:900")
    gw.run()
    told, *records, done = client.take()
    assert told["subscriptions"][0]["epoch"] == "e1" and told["subscriptions"][0]["position"] == {"0": 1}
    assert [record["offset"] for record in records] == [1, 2]
    assert done["gaps"] == [{"partition": 0, "from": 900, "to": 1, "reason": "recreated"}]
    assert done["epoch"] == "e1" and done["position"] == {"0": 3}


def test_rule_6_epochs_are_compared_first() -> None:
    """Not the offsets: a cursor that would fit belongs to another topic of the same name."""
    gw = rooms()
    fill(gw, "1", "1", "1")
    client = gw.connect(topics="rooms/1", since="rooms/1~old@0:2")
    gw.run()
    assert [m["offset"] for m in client.all() if m["type"] == "MESSAGE"] == [0, 1, 2]
    assert client.all()[-1]["gaps"] == [{"partition": 0, "from": 2, "to": 0, "reason": "recreated"}]


def test_rule_6_no_epoch_is_the_same_epoch() -> None:
    gw = rooms()
    fill(gw, "1", "1", "1")
    client = gw.connect(topics="rooms/1", since="rooms/1@0:2")
    gw.run()
    assert [m["offset"] for m in client.all() if m["type"] == "MESSAGE"] == [2]
    assert client.all()[-1]["gaps"] == []


# --- rule 7 ---


def test_rule_7_a_cursor_ahead_is_live_and_records_below_it_are_not_given() -> None:
    gw = rooms()
    fill(gw, "1", "1")
    client = gw.connect(topics="rooms/1", since="rooms/1~e1@0:4")
    gw.run()
    told, done = client.take()
    assert told["subscriptions"][0]["position"] == {"0": 4}
    assert (done["type"], done["count"], done["gaps"], done["position"]) == ("RECOVERED", 0, [], {"0": 4})
    assert client.live()
    fill(gw, "1", "1", "1", "1")
    gw.run()
    assert client.offsets() == [4, 5]
    fill(gw, "1")
    assert client.offsets() == [6], "pushed to again, without a turn"


def test_rule_7_an_end_that_stays_below_the_cursor_is_another_log() -> None:
    gw = rooms()
    fill(gw, "1", "1")
    client = ready(gw.connect(topics="rooms/1", since="rooms/1~e1@0:9"))
    gw.advance(4)
    gw.run()
    assert client.take() == []
    gw.advance(3)
    gw.run()
    assert client.one() == {
        "type": "GAP",
        "topic": "rooms",
        "gaps": [{"partition": 0, "from": 9, "to": 2, "reason": "recreated"}],
        "epoch": "e1",
        "position": {"0": 2},
    }
    fill(gw, "1")
    gw.run()
    assert client.offsets() == [2]


def test_rule_7_the_silence_of_the_log_proves_nothing() -> None:
    """Another process may have heard more of it; what it tells once it can be reached again is what counts."""
    gw = rooms()
    fill(gw, "1", "1")
    client = ready(gw.connect(topics="rooms/1", since="rooms/1~e1@0:4,1:3"))
    gw.silent_since = gw.clock.seconds() + 3.0
    gw.advance(60)
    gw.run()
    assert client.take() == []
    gw.silent_since = None
    fill(gw, "1", "1", "1")
    gw.run()
    assert client.offsets() == [4]
    gw.advance(3)
    gw.run()
    gap = client.one()  # of the other partition, which the log has said to be no longer than it was
    assert gap["gaps"] == [{"partition": 1, "from": 3, "to": 0, "reason": "recreated"}]


def test_rule_7_an_end_that_reaches_the_cursor_in_time_is_no_gap() -> None:
    """The end counts, not what was read."""
    gw = rooms()
    fill(gw, "1")
    client = ready(gw.connect(topics="rooms/1", since="rooms/1~e1@0:3"))
    gw.advance(3)
    for _ in range(3):
        gw.log.append("rooms", key="1")
    gw.read("rooms", most=1)
    gw.advance(60)
    gw.run()
    assert client.take() == []
    gw.read("rooms")
    gw.run()
    assert client.offsets() == [3]


def test_rule_7_a_name_that_recovers_beside_others_is_told_by_recovered() -> None:
    """GAP speaks only of names that do not recover (rule 4)."""
    gw = rooms()
    fill(gw, "1", "2")
    client = ready(gw.connect(topics="rooms/1"))
    client.subscribe("rooms/2", since="rooms/2@0:9")
    client.take()
    gw.advance(7)
    gw.run()
    told = client.one()
    assert told["type"] == "RECOVERED"
    assert told["gaps"] == [{"partition": 0, "from": 9, "to": 2, "reason": "recreated"}]
    assert told["position"] == {"0": 2}
    fill(gw, "1", "2")
    assert client.offsets() == [2, 3]


def test_rule_7_a_partition_that_this_process_does_not_know_yet() -> None:
    gw = rooms()
    fill(gw, "1")
    client = ready(gw.connect(topics="rooms/1", since="rooms/1~e1@0:1,1:2"))
    assert client.all()[-1]["position"] == {"0": 1, "1": 2}
    gw.silent_since = gw.clock.seconds()  # metadata may be 10 s old
    gw.advance(10)
    assert client.take() == []
    gw.silent_since = None
    number = gw.log.add_partition("rooms")
    for _ in range(3):
        gw.log.append("rooms", key="1", partition=number)
    gw.open("rooms")
    gw.read("rooms")
    gw.run()
    assert client.offsets() == [2]


def test_rule_7_a_partition_that_comes_where_the_cursor_is() -> None:
    """It is live from then on, without a record."""
    gw = rooms()
    client = ready(gw.connect(topics="rooms/1", since="rooms/1~e1@0:0,1:5"))
    assert len(gw.catch_up.parked()) == 1
    gw.tell(Opened("rooms", "e1", {1: Start(5, 5)}))
    gw.run()
    assert gw.catch_up.parked() == [] and len(gw.topics["rooms"].listeners) == 1 and client.live()


def test_rule_7_a_partition_that_never_comes() -> None:
    gw = rooms()
    client = ready(gw.connect(topics="rooms/1", since="rooms/1~e1@0:0,7:2"))
    gw.advance(7)
    gw.run()
    assert client.one()["gaps"] == [{"partition": 7, "from": 2, "to": 0, "reason": "recreated"}]


@pytest.mark.parametrize("offset", [0, 2])
def test_rule_7_a_partition_that_never_comes_does_not_keep_a_name_from_its_neighbours(offset: int) -> None:
    gw = rooms()
    client = ready(gw.connect(topics="rooms/1"))
    client.subscribe("rooms/2", since=f"rooms/2~e1@0:0,7:{offset}")
    gw.advance(17)
    gw.run()
    told = client.take()
    assert [m["type"] for m in told] == ["SUBSCRIBED", "RECOVERED"] and told[-1]["position"] == {"0": 0}
    assert len(told[-1]["gaps"]) == (offset > 0)


# --- rule 8 ---


def test_rule_8_a_new_partition_starts_at_its_first_offset_for_everybody() -> None:
    gw = rooms()
    live = ready(gw.connect(topics="rooms/1"))
    slow = ready(gw.connect(topics="rooms"))
    slow.stall()
    fill(gw, "1")
    number = gw.log.add_partition("rooms")
    gw.log.append("rooms", key="1", partition=number)
    gw.open("rooms")
    gw.read("rooms")
    slow.drain()
    for client in (live, slow):
        assert [(m["partition"], m["offset"]) for m in client.take()] == [(0, 0), (1, 0)]


def test_rule_8_a_deleted_topic_stays_subscribed_and_is_told_recreated_when_made_anew() -> None:
    gw = rooms()
    client = ready(gw.connect(topics="rooms/1"))
    fill(gw, "1", "1")
    client.take()
    gw.delete("rooms")
    gw.run()
    assert client.take() == []
    gw.log.create("rooms")
    gw.open("rooms")
    gw.run()
    assert client.one() == {
        "type": "GAP",
        "topic": "rooms",
        "gaps": [{"partition": 0, "from": 2, "to": 0, "reason": "recreated"}],
        "epoch": "e2",
        "position": {"0": 0},
    }
    fill(gw, "1")
    assert client.offsets() == [0]


def test_rule_8_made_anew_while_a_name_recovers() -> None:
    """RECOVERED tells it; a neighbour that does not recover is told by GAP."""
    gw = rooms()
    fill(gw, "1", "2", "1")
    client = ready(gw.connect(topics="rooms/1"))
    client.stall()
    client.subscribe("rooms/2", since="rooms/2@0:0")
    gw.log.create("rooms")
    gw.open("rooms")
    fill(gw, "2")
    client.drain()
    told = {m["type"]: m for m in client.take()}
    gap = {"partition": 0, "from": 3, "to": 0, "reason": "recreated"}
    assert told["GAP"]["gaps"] == [gap] and told["GAP"]["epoch"] == "e2"
    assert told["RECOVERED"]["gaps"][-1]["reason"] == "recreated" and told["RECOVERED"]["epoch"] == "e2"
    assert told["MESSAGE"]["offset"] == 0


def unread(*settings: Any) -> Gateway:
    """A gateway whose topics cannot be read yet."""
    return Gateway(Log(), *settings)


def test_rule_8_a_topic_that_cannot_be_read_yet() -> None:
    gw = unread(topic("rooms", Audience.KEY))
    client = gw.connect(topics="rooms/1")
    (told,) = client.one()["subscriptions"]
    assert told == {"topic": "rooms", "names": ["rooms/1"], "epoch": None, "position": {}}
    gw.log.create("rooms")
    gw.open("rooms")
    gw.run()
    assert client.one() == {"type": "POSITION", "topic": "rooms", "epoch": "e1", "position": {"0": 0}}
    fill(gw, "1")
    assert client.offsets() == [0], "the topic did not exist: its first offset"


def test_rule_8_a_topic_that_existed_starts_at_its_end_told_by_position() -> None:
    gw = unread(topic("rooms", Audience.KEY))
    client = ready(gw.connect(topics="rooms/1"))
    gw.log.create("rooms")
    for _ in range(3):
        gw.log.append("rooms", key="1")
    gw.open("rooms", warm=3)
    gw.run()
    assert client.one() == {"type": "POSITION", "topic": "rooms", "epoch": "e1", "position": {"0": 3}}
    gw.read("rooms")
    fill(gw, "1")
    gw.run()
    assert client.offsets() == [3]


def test_rule_8_a_cursor_waits_for_a_topic_that_cannot_be_read_yet() -> None:
    gw = unread(topic("rooms", Audience.KEY))
    client = gw.connect(topics="rooms/1", since="rooms/1~e1@0:1")
    gw.run()
    (told,) = client.one()["subscriptions"]
    assert told["epoch"] is None
    gw.advance(60)
    gw.run()
    assert client.take() == [], "nothing proves the cursor wrong"
    gw.log.create("rooms")
    for _ in range(3):
        gw.log.append("rooms", key="1")
    gw.open("rooms", warm=3)
    gw.read("rooms")
    gw.run()
    assert shown(client) == [("1", 1), ("1", 2), ("RECOVERED", -1)]


# --- warm start ---


def test_warm_up_is_for_those_who_ask_for_the_past() -> None:
    gw = unread(topic("news"))
    gw.log.create("news")
    for n in range(6):
        gw.log.append("news", {"n": n})
    gw.open("news", warm=6)
    gw.read("news", most=2)
    latest = ready(gw.connect(topics="news"))
    assert latest.all()[0]["subscriptions"][0]["position"] == {"0": 6}
    back = ready(gw.connect(topics="news", since="news~e1@0:1"))
    gw.read("news")
    gw.run()
    assert latest.offsets() == []
    assert [m["offset"] for m in back.all() if m["type"] == "MESSAGE"] == [1, 2, 3, 4, 5]
    gw.log.append("news")
    gw.read("news")
    assert latest.offsets() == [6]


def test_warm_up_is_not_for_a_name_that_a_stalled_client_takes_at_latest() -> None:
    gw = unread(topic("news"))
    gw.log.create("news")
    for n in range(6):
        gw.log.append("news", {"n": n})
    gw.open("news", warm=6)
    client = gw.connect(topics="", stalled=True)
    client.subscribe("news")
    client.drain()
    gw.advance(3600)
    assert not gw.sessions.too_slow(client.session, gw.clock.seconds()), "what it waits for is this process"
    gw.read("news")
    gw.log.append("news")
    gw.read("news")
    gw.run()
    assert client.offsets() == [6]


def test_warm_up_of_a_name_at_latest_is_not_its_neighbours() -> None:
    """A client back with a cursor takes another name at latest, still during warm-up: the first one loses nothing."""
    gw = unread(topic("rooms", Audience.KEY))
    gw.log.create("rooms")
    for key in "121212":
        gw.log.append("rooms", key=key)
    gw.open("rooms", warm=6)
    gw.read("rooms", most=2)
    client = ready(gw.connect(topics="rooms/1", since="rooms/1~e1@0:0"))
    client.subscribe("rooms/2")
    client.take()
    gw.read("rooms")
    gw.run()
    fill(gw, "2")
    gw.run()
    assert shown(client) == [("1", 2), ("1", 4), ("2", 6)]


# --- limits, access, names ---


def test_limits_count_names_and_their_bytes() -> None:
    gw = serve(topic("rooms", Audience.KEY), limits=Limits(subscriptions=3, subscription_bytes=256))
    client = ready(gw.connect(topics="rooms/1,rooms/2"))
    client.subscribe("rooms/2", "rooms/3")
    assert client.types() == ["SUBSCRIBED"], "a name that it has is not counted twice"
    client.subscribe("rooms/4")
    assert client.one()["code"] == "limit"
    with pytest.raises(Refused) as refused:
        gw.connect(topics=f"rooms/{'a' * 130},rooms/{'b' * 130}")
    assert refused.value.kind is Kind.LIMIT


def test_a_raw_client_whose_cursor_cannot_be_served_whole_is_refused_at_the_door() -> None:
    gw = serve(topic("news"))
    fill(gw, None, None, name="news")
    gw.topics["news"].window.drop_oldest(1)
    with pytest.raises(Refused) as refused:
        gw.connect(topics="news", since="news@0:0", encoding=Encoding.RAW)
    assert refused.value.kind is Kind.BAD_SINCE
    client = gw.connect(topics="news", since="news@0:1", encoding=Encoding.RAW)
    gw.run()
    assert len(client.raw()) == 1


def test_partitions_that_the_cursor_does_not_name_start_at_their_earliest_offset() -> None:
    gw = serve(topic("news", partitions=2))
    for partition in (0, 1):
        fill(gw, None, None, name="news", partition=partition)
    client = gw.connect(topics="news", since="news~e1@0:2")
    gw.run()
    assert [(m["partition"], m["offset"]) for m in client.all() if m["type"] == "MESSAGE"] == [(1, 0), (1, 1)]
    assert client.all()[-1]["gaps"] == []


def test_a_partition_that_the_cursor_does_not_name_and_that_has_lost_its_beginning_is_a_gap() -> None:
    gw = serve(topic("news"))
    gw.tell(Opened("news", "e1", {1: Start(5, 5)}))
    client = gw.connect(topics="news", since="news~e1@0:0")
    gw.run()
    assert client.all()[-1]["gaps"] == [{"partition": 1, "from": 0, "to": 5, "reason": "window"}]
