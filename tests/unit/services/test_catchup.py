"""Sessions that are behind: slow ones and those that come back, chunk by chunk, and what is left of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from twisted.logger import capturedLogs

from gateway.core.feed import CHUNK
from gateway.core.names import parse
from gateway.errors import Close
from gateway.model import Audience, Encoding
from gateway.services.turns import TURN
from tests.support.harness import Client, Gateway, Log, Message, principal, serve, topic

Push = Callable[[bytes], bool]
BIG = {"x": "y" * 20_000}


def publish(gw: Gateway, name: str, count: int = 1, value: object = None, key: str | None = None) -> None:
    for _ in range(count):
        gw.log.append(name, {"user_id": "ann"} if value is None else value, key=key)
    gw.read(name)


def behind(gw: Gateway, topics: str = "news", user: str = "ann") -> Client:
    """A client in whose transport one record waits."""
    client = gw.connect(user, topics)
    client.take()
    client.stall()
    publish(gw, parse(topics.partition(",")[0]).topic, key="1")
    return client


def texts(messages: list[Message]) -> list[str]:
    return [message["type"] for message in messages]


def noting(push: Push, name: str, order: list[str]) -> Push:
    """``push``, and who was pushed to."""

    def noted(data: bytes) -> bool:
        order.append(name)
        return push(data)

    return noted


# --- slow ---


def test_a_session_that_is_behind_is_forgotten_by_the_dispatcher() -> None:
    """One write that did not fit, and no other one until it has drained, whatever comes."""
    gw = serve(topic("news"), topic("mail", Audience.USER), topic("rooms", Audience.KEY))
    client = behind(gw, "news,mail,rooms/1,rooms/2")
    pushes = client.channel.pushes
    for name in ("news", "mail", "rooms"):
        publish(gw, name, 3, key="1")
    assert client.channel.pushes == pushes
    assert all(len(topic.listeners) == 0 for topic in gw.topics.values())
    client.drain()
    assert Counter((m["topic"], m["offset"]) for m in client.take()) == {
        (name, offset): 1 for name, count in (("news", 4), ("mail", 3), ("rooms", 3)) for offset in range(count)
    }
    assert client.live() and len(gw.topics["rooms"].listeners) == 2


def test_what_waits_in_a_transport_is_bounded() -> None:
    """At most a chunk, and the frame that makes it full: the log is the queue."""
    gw = serve(topic("news"))
    client = behind(gw)
    publish(gw, "news", 50, BIG)
    for _ in range(100):
        client.gulp()
    assert client.offsets() == list(range(51))
    assert client.channel.most_waiting <= CHUNK + 200


def test_a_batch_larger_than_a_chunk_is_given_in_pieces() -> None:
    gw = serve(topic("news"))
    client = gw.connect(topics="news")
    client.stall()
    publish(gw, "news", 50, BIG)
    assert client.channel.most_waiting <= CHUNK + 200
    client.drain()
    assert client.offsets() == list(range(50))


def test_one_frame_larger_than_a_chunk_is_given_whole() -> None:
    gw = serve(topic("news"))
    client = behind(gw)
    publish(gw, "news", 3, {"x": "y" * 100_000})
    client.drain()
    assert client.offsets() == [0, 1, 2, 3]


def test_topics_are_read_in_turn() -> None:
    gw = serve(topic("news"), topic("other"))
    client = behind(gw, "news,other")
    publish(gw, "news", 7, BIG)
    publish(gw, "other", 7, BIG)
    client.drain()
    turns = [m["topic"] for m in client.take()][1:]
    assert turns.index("other") < 4, "not all of news first"
    assert turns.count("news") == turns.count("other") == 7


def test_sessions_are_read_for_in_turn() -> None:
    """One with a megabyte to read does not keep another waiting for it."""
    gw = serve(topic("news"))
    long, short = behind(gw), gw.connect(topics="news")
    publish(gw, "news", 50, BIG)
    short.take()
    short.stall()
    publish(gw, "news")
    publish(gw, "news")
    order: list[str] = []
    for name, client in (("long", long), ("short", short)):
        client.channel.stalled = False
        client.channel.flow()
        client.session.push = noting(client.session.push, name, order)
        gw.sessions.drained(client.session)
    gw.run()
    assert order.index("short") <= 1 and order.count("long") > 5
    assert short.offsets()[-1] == long.offsets()[-1] == 52


def test_reading_gives_way_to_other_work() -> None:
    """After 5 ms the reactor has its turn."""
    gw = serve(topic("news"))
    clients = [behind(gw) for _ in range(3)]
    publish(gw, "news", 9, BIG)
    for client in clients:
        client.channel.stalled = False
        client.channel.flow()
        gw.sessions.drained(client.session)
    gw.clock.cost = TURN
    between: list[int] = []
    gw.clock.callLater(0, lambda: between.append(sum(len(client.channel.received) for client in clients)))
    gw.run()
    assert between[0] < sum(len(client.channel.received) for client in clients), "not behind all of it"
    assert [client.offsets()[-1] for client in clients] == [11, 11, 11]


def test_a_window_that_moves_on_is_told_by_gap_before_what_is_left() -> None:
    gw = serve(topic("news"))
    client = behind(gw)
    publish(gw, "news", 9, BIG)
    gw.topics["news"].window.drop_oldest(5 * 20_000)
    client.drain()
    first, gap, *rest = client.take()
    assert first["offset"] == 0
    assert gap == {
        "type": "GAP",
        "topic": "news",
        "gaps": [{"partition": 0, "from": 1, "to": rest[0]["offset"], "reason": "window"}],
        "epoch": "e1",
        "position": {"0": rest[0]["offset"]},
    }
    assert [m["offset"] for m in rest] == list(range(rest[0]["offset"], 10))
    assert gw.metrics.topics["news"].gaps == 1 and gw.metrics.messages_sent["GAP"] == 1


def test_a_window_that_moves_on_over_what_is_not_for_the_session() -> None:
    """It cannot know that nothing of it was: the gap is told, with the whole cursor."""
    gw = serve(topic("rooms", Audience.KEY))
    client = behind(gw, "rooms/1")
    publish(gw, "rooms", 5, key="2")
    gw.topics["rooms"].window.drop_oldest(10**9)
    client.drain()
    assert [m["offset"] for m in client.take() if m["type"] == "MESSAGE"] == [0]
    assert client.all()[-1]["gaps"] == [{"partition": 0, "from": 1, "to": 6, "reason": "window"}]


def test_a_window_that_moves_on_exactly_to_the_session_is_no_gap() -> None:
    gw = serve(topic("news"))
    client = behind(gw)
    publish(gw, "news", 3)
    gw.topics["news"].window.drop_oldest(1)
    client.drain()
    assert client.offsets() == [0, 1, 2, 3]


def test_stalled_again_while_catching_up() -> None:
    gw = serve(topic("news"))
    client = behind(gw)
    publish(gw, "news", 9, BIG)
    client.gulp()
    publish(gw, "news", 2)
    assert client.behind()
    client.drain()
    assert client.offsets() == list(range(12)) and client.live()
    assert gw.metrics.overflows == 1, "it turned behind once"


def test_an_answer_that_waits_is_a_stall_too() -> None:
    """PONG stands in the transport: records behind it stay in the window, not in the transport."""
    gw = serve(topic("news"))
    client = gw.connect(topics="news")
    client.stall()
    client.send({"type": "PING"})
    publish(gw, "news", 5, BIG)
    assert len(client.channel.waiting) < 100 and gw.catch_up.behind == 1
    client.drain()
    assert texts(client.take()) == ["CONNECTED", "PONG", *["MESSAGE"] * 5]


def test_a_client_without_names_that_stalls_is_live_again_when_drained() -> None:
    gw = serve(topic("news"))
    client = gw.connect(topics="")
    client.stall()
    client.send({"type": "PING"})
    assert client.behind()
    client.drain()
    assert client.live() and gw.catch_up.behind == 0


def test_connected_that_is_not_taken_at_once() -> None:
    gw = serve(topic("news"))
    client = gw.connect(topics="news", stalled=True)
    publish(gw, "news", 2)
    client.drain()
    assert texts(client.take()) == ["CONNECTED", "MESSAGE", "MESSAGE"]


def test_unsubscribe_while_behind_keeps_the_rest() -> None:
    gw = serve(topic("rooms", Audience.KEY), topic("news"))
    client = behind(gw, "rooms/1,rooms/2,news")
    for key in ("1", "2", "1"):
        publish(gw, "rooms", key=key)
    publish(gw, "news")
    client.unsubscribe("rooms/1", "news")
    client.drain()
    assert [(m["type"], m.get("offset")) for m in client.take()] == [
        ("MESSAGE", 0),
        ("UNSUBSCRIBED", None),
        ("UNSUBSCRIBED", None),
        ("MESSAGE", 2),
    ]
    assert client.live()
    publish(gw, "rooms", key="2")
    assert client.offsets() == [4]


def test_unsubscribe_of_the_last_live_name_while_others_recover() -> None:
    """What recovers waits for the topic's position no more, for there is none."""
    gw = serve(topic("rooms", Audience.KEY))
    publish(gw, "rooms", 2, key="2")
    client = gw.connect(topics="rooms/1")
    client.subscribe("rooms/2", since="rooms/2@0:4")
    gw.run()
    assert texts(client.take()) == ["CONNECTED", "SUBSCRIBED"]
    client.unsubscribe("rooms/1")
    gw.run()
    assert texts(client.take()) == ["UNSUBSCRIBED", "RECOVERED"]
    assert client.all()[-1]["position"] == {"0": 4}
    publish(gw, "rooms", 4, key="2")
    gw.run()
    assert client.offsets() == [4, 5]


def test_unsubscribe_of_all_that_is_slow_while_another_name_recovers() -> None:
    gw = serve(topic("rooms", Audience.KEY))
    client = behind(gw, "rooms/1")
    publish(gw, "rooms", 3, key="2")
    client.subscribe("rooms/2", since="rooms/2@0:0")
    client.unsubscribe("rooms/1")
    client.drain()
    assert [(m["type"], m.get("offset")) for m in client.take()] == [
        ("MESSAGE", 0),
        ("SUBSCRIBED", None),
        ("UNSUBSCRIBED", None),
        *[("MESSAGE", offset) for offset in (1, 2, 3)],
        ("RECOVERED", None),
    ]
    publish(gw, "rooms", key="1")
    assert client.take() == [] and client.live()


def test_unsubscribe_of_all_that_recovers_while_another_name_is_slow() -> None:
    gw = serve(topic("rooms", Audience.KEY))
    client = behind(gw, "rooms/1")
    publish(gw, "rooms", 3, key="2")
    client.subscribe("rooms/2", since="rooms/2@0:0")
    client.unsubscribe("rooms/2")
    publish(gw, "rooms", key="1")
    client.drain()
    assert [(m["type"], m.get("offset")) for m in client.take()] == [
        ("MESSAGE", 0),
        ("SUBSCRIBED", None),
        ("UNSUBSCRIBED", None),
        ("MESSAGE", 4),
    ]
    assert client.live() and gw.catch_up.parked() == []


def test_names_that_wait_for_a_topic_that_is_behind_go_on_when_it_has_caught_up() -> None:
    """Without another record of it."""
    gw = serve(topic("rooms", Audience.KEY), topic("news"))
    client = behind(gw, "rooms/1,news")
    publish(gw, "rooms", 4, BIG, key="1")
    client.subscribe("rooms/2", since="rooms/2@0:5")
    client.session.reading.rotate(1)  # the name that recovers is looked at first
    client.drain()
    told = client.take()
    assert texts(told)[-1] == "RECOVERED" and told[-1]["position"] == {"0": 5}
    assert client.live() and gw.catch_up.parked() == []


def test_a_topic_that_has_absorbed_a_key_is_not_pushed_before_the_key_has_recovered() -> None:
    """Though nothing else of it is left to read. Each read takes a turn, and records come in between."""
    gw = serve(topic("rooms", Audience.KEY))
    publish(gw, "rooms", 12, BIG, key="4")
    client = gw.connect(topics="rooms/4", since="rooms/4@0:0")
    client.subscribe("rooms")
    gw.clock.cost = TURN
    for turns in (1, 2, 3, 4):
        gw.clock.callLater(turns * TURN + 0.001, publish, gw, "rooms", 1, None, "4")
    gw.run()
    assert [m["offset"] for m in client.take() if m["type"] == "MESSAGE"] == list(range(16))
    assert client.live()


def test_refresh_that_forbids_a_name_while_behind() -> None:
    gw = serve(topic("rooms", Audience.KEY))
    client = behind(gw, "rooms/1,rooms/2")
    publish(gw, "rooms", key="2")
    publish(gw, "rooms", key="1")
    gw.authenticator.principals["t"] = principal("ann", ["rooms/2"])
    client.send({"type": "REFRESH", "token": "t"})
    client.drain()
    assert [(m["type"], m.get("offset")) for m in client.take()] == [
        ("MESSAGE", 0),
        ("UNSUBSCRIBED", None),
        ("ACK", None),
        ("MESSAGE", 1),
    ]


# --- raw ---


def raw(gw: Gateway, **more: object) -> Client:
    return gw.connect("ann", topics="news", encoding=Encoding.RAW, **more)  # type: ignore[arg-type]


CUT = (4501, "records are missing; come back at latest")


def test_raw_catches_up_like_any_other() -> None:
    gw = serve(topic("news"))
    client = raw(gw)
    client.stall()
    for n in range(5):
        publish(gw, "news", value=n)
    publish(gw, "news", value=b"\xff")
    gw.log.append("news", None)
    gw.read("news")
    client.drain()
    assert client.raw() == [*[(1, str(n).encode()) for n in range(5)], (2, b"\xff")]
    assert client.live()


def test_raw_is_cut_where_the_window_has_moved_on() -> None:
    """And is given nothing from behind the gap."""
    gw = serve(topic("news"))
    client = raw(gw)
    client.stall()
    publish(gw, "news", 3, b"1")
    publish(gw, "news", 3, b"2")
    gw.topics["news"].window.drop_oldest(10)
    gw.topics["news"].window.drop_oldest(10**4)
    client.drain()
    assert client.closed() == CUT
    assert client.raw() == [(1, b"1")] * 3


@pytest.mark.parametrize("stalled", [False, True])
def test_raw_is_cut_at_a_record_that_is_too_large(stalled: bool) -> None:
    gw = serve(topic("news", max_frame_bytes=1024))
    client = raw(gw)
    if stalled:
        client.stall()
        publish(gw, "news", value=b"0")
    for value in (b"1", b'"' + b"x" * 2000 + b'"', b"2"):
        gw.log.append("news", value)
    gw.read("news")
    client.drain()
    assert client.closed() == CUT
    assert client.raw() == [(1, b"0")] * stalled + [(1, b"1")]
    client.hang_up(4501)
    gw.run()
    assert gw.catch_up.behind == 0


@pytest.mark.parametrize("user", [True, False])
def test_raw_is_cut_at_a_record_that_is_too_large_and_addressed(user: bool) -> None:
    """Others of the batch get theirs."""
    gw = serve(topic("mail", Audience.USER, max_frame_bytes=1024))
    client = gw.connect("ann", topics="mail", encoding=Encoding.RAW)
    other = gw.connect("ann" if user else "bob", topics="mail")
    other.take()
    small = {"user_id": ["ann", "bob"]}
    for value in (small, small | {"x": "y" * 2000}, small):
        gw.log.append("mail", value)
    gw.read("mail")
    assert client.closed() == CUT and len(client.raw()) == 1
    assert texts(other.take()) == ["MESSAGE", "GAP", "MESSAGE"]


def test_raw_is_cut_by_what_retention_deleted() -> None:
    gw = serve(topic("news"))
    client, other = raw(gw), gw.connect(topics="news")
    other.take()
    for _ in range(3):
        gw.log.append("news")
    gw.log.expire("news", 2)
    gw.read("news")
    assert client.closed() == CUT and client.raw() == []
    assert texts(other.take()) == ["GAP", "MESSAGE"]


def test_raw_is_cut_by_a_topic_made_anew() -> None:
    gw = serve(topic("news"))
    publish(gw, "news")
    client = raw(gw)
    gw.log.create("news")
    gw.open("news")
    publish(gw, "news")
    assert client.closed() == CUT and client.raw() == []


def test_raw_whose_cursor_stops_being_whole_between_the_door_and_the_first_record() -> None:
    gw = serve(topic("news"))
    publish(gw, "news", 3)
    client = raw(gw, since="news@0:0")
    gw.topics["news"].window.drop_oldest(1)
    gw.run()
    assert client.closed() == CUT and client.raw() == []


def test_raw_whose_cursor_turns_out_to_be_of_another_log() -> None:
    gw = serve(topic("news"))
    publish(gw, "news")
    client = raw(gw, since="news@0:9")
    gw.advance(10)
    gw.run()
    assert client.closed() == CUT


def test_raw_on_a_topic_that_cannot_be_read_yet() -> None:
    gw = Gateway(Log(), topic("news"))
    client = raw(gw, since="news~e9@0:0")
    gw.log.create("news")
    gw.open("news")
    gw.run()
    assert client.closed() == CUT, "the cursor is of another epoch"


# --- the end, at any moment ---


def test_closed_from_within_a_push_of_the_dispatcher() -> None:
    """A transport may find its peer gone while it writes. The others of the batch get theirs, nothing leaks."""
    gw = serve(topic("news"), topic("mail", Audience.USER))
    clients = [gw.connect("ann", topics="news,mail") for _ in range(3)]
    victim = clients[1]

    def gone(data: bytes) -> bool:
        victim.hang_up()
        return False

    victim.session.push = gone
    for name in ("news", "mail"):
        gw.log.append(name, {"user_id": "ann"})
    gw.tell(*gw.fetch("news"), *gw.fetch("mail"))
    for client in (clients[0], clients[2]):
        assert texts(client.take()) == ["CONNECTED", "MESSAGE", "MESSAGE"]
    nothing_left(gw, victim)


def nothing_left(gw: Gateway, client: Client) -> None:
    """Of a client that is gone."""
    gw.run()
    assert client.session not in gw.sessions.all()
    assert gw.catch_up.behind == 0 and gw.catch_up.parked() == [] and gw.catch_up.waiting() == 0
    assert not client.session.subscriptions and not client.session.reading
    for found in gw.topics.values():
        assert all(client.session not in group for group in found.listeners.everyone)
        assert client.session not in found.listeners.at(client.session.principal.user)


@pytest.mark.parametrize("taken", [True, False])
def test_closed_from_within_a_push_of_reading(taken: bool) -> None:
    gw = serve(topic("news"), topic("other"))
    client = behind(gw, "news,other")
    publish(gw, "news", 9, BIG)
    publish(gw, "other", 9, BIG)

    def gone(data: bytes) -> bool:
        client.hang_up()
        return taken

    client.session.push = gone
    client.drain()
    nothing_left(gw, client)


@pytest.mark.parametrize("taken", [True, False])
def test_closed_from_within_a_push_of_a_gap(taken: bool) -> None:
    gw = serve(topic("news"))
    clients = [gw.connect(topics="news") for _ in range(2)]

    def gone(data: bytes) -> bool:
        clients[0].hang_up()
        return taken

    clients[0].session.push = gone
    for _ in range(3):
        gw.log.append("news")
    gw.log.expire("news", 2)
    gw.read("news")
    nothing_left(gw, clients[0])
    assert texts(clients[1].take()) == ["CONNECTED", "GAP", "MESSAGE"]


def test_another_session_closed_from_within_a_push() -> None:
    """It gets nothing behind its close, though it is in the list that is being gone through."""
    gw = serve(topic("news"))
    first, second, third = (gw.connect(topics="news") for _ in range(3))
    push = first.session.push

    def ending(data: bytes) -> bool:
        gw.sessions.close(second.session, Close.OPERATOR)
        return push(data)

    first.session.push = ending
    publish(gw, "news")
    assert [len(client.take()) for client in (first, second, third)] == [2, 1, 2]


def test_a_fault_of_ours_while_reading_ends_one_session_and_no_other() -> None:
    gw = serve(topic("news"))
    victim, other = behind(gw), behind(gw)
    publish(gw, "news", 3)

    def broken(data: bytes) -> bool:
        raise RuntimeError("a fault")

    victim.session.push = broken
    for client in (victim, other):
        client.channel.stalled = False
        client.channel.flow()
        gw.sessions.drained(client.session)
    with capturedLogs() as lines:
        gw.run()
    assert [line["log_failure"].type for line in lines] == [RuntimeError]
    assert victim.closed() == (1011, "") and other.offsets()[-1] == 4
    victim.hang_up()
    nothing_left(gw, victim)


def test_end_while_its_turn_to_read_is_due() -> None:
    gw = serve(topic("news"))
    client = behind(gw)
    publish(gw, "news", 9, BIG)
    client.channel.flow()
    gw.sessions.drained(client.session)
    gw.sessions.close(client.session, Close.OPERATOR)
    gw.run()
    client.hang_up()
    nothing_left(gw, client)
    assert len(client.take()) == 1


def test_bytes_that_wait_are_asked_of_those_who_are_stalled() -> None:
    gw = serve(topic("news"))
    gw.connect(topics="news")
    client = behind(gw)
    assert gw.catch_up.waiting() == len(client.channel.waiting) > 0
    client.drain()
    assert gw.catch_up.waiting() == 0


def test_what_is_read_for_does_not_grow_with_what_is_asked_while_stalled() -> None:
    """SUBSCRIBE with a cursor and UNSUBSCRIBE, over and over, by a client that reads nothing."""
    gw = serve(topic("rooms", Audience.KEY))
    publish(gw, "rooms", 3, key="1")
    client = gw.connect(topics="", stalled=True)
    client.stall()
    for _ in range(200):
        gw.clock.advance(1)
        client.subscribe("rooms/1", since="rooms/1@0:0")
        client.unsubscribe("rooms/1")
    assert len(client.session.reading) <= 2
    client.drain()
    assert texts(client.take())[-1] == "UNSUBSCRIBED" and client.live()
