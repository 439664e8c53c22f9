"""From the log to the sessions: who gets what, in how many writes, and what befalls topics."""

from __future__ import annotations

import json
from typing import Any

import pytest
from twisted.logger import capturedLogs

from gateway.core.feed import CHUNK
from gateway.core.wire import Envelope
from gateway.model import Audience, Encoding, Fetched, Lost, Opened, Record, Start
from tests.support.harness import Client, Gateway, Log, serve, topic


def connected(gw: Gateway, user: str = "ann", topics: str | None = None, **more: Any) -> Client:
    """A client that has read CONNECTED."""
    client = gw.connect(user, topics, **more)
    client.raw() if more.get("encoding") is Encoding.RAW else client.take()
    return client


def publish(gw: Gateway, name: str, *values: object, key: str | bytes | None = None, partition: int = 0) -> None:
    """Records, read as one batch."""
    for value in values:
        gw.log.append(name, value, key, partition)
    gw.read(name)


# --- who gets it ---


def test_message_has_every_field() -> None:
    gw = serve(topic("news"))
    client = connected(gw)
    gw.log.append("news", {"n": 1}, key="k", timestamp=1500)
    gw.read("news")
    assert client.one() == {
        "type": "MESSAGE",
        "topic": "news",
        "partition": 0,
        "offset": 0,
        "timestamp": "1970-01-01T00:00:01.500Z",
        "key": "k",
        "data": {"n": 1},
    }


def test_everyone_who_subscribed_and_nobody_else() -> None:
    gw = serve(topic("news"), topic("other"))
    here, elsewhere = connected(gw, topics="news"), connected(gw, topics="other")
    publish(gw, "news", 1)
    assert here.offsets() == [0] and elsewhere.take() == []


def test_user() -> None:
    """All sessions of a user; a record for several users once to each."""
    gw = serve(topic("mail", Audience.USER))
    ann, again, bob = connected(gw, "ann"), connected(gw, "ann"), connected(gw, "bob")
    users: tuple[object, ...] = ("ann", "bob", ["ann", "bob", "ann"], 7, None, "", "eve")
    publish(gw, "mail", *[{"user_id": user} for user in users], "no object")
    assert ann.offsets() == again.offsets() == [0, 2]
    assert bob.offsets() == [1, 2]


def test_a_user_gets_nothing_of_a_topic_it_did_not_subscribe_to() -> None:
    gw = serve(topic("mail", Audience.USER), topic("news"))
    client = connected(gw, "ann", "news")
    publish(gw, "mail", {"user_id": "ann"})
    assert client.take() == []


def test_an_integer_user() -> None:
    gw = serve(topic("mail", Audience.USER))
    client = connected(gw, "42")
    publish(gw, "mail", {"user_id": 42}, {"user_id": "42"}, {"user_id": 42.0})
    assert client.offsets() == [0, 1]


def test_a_record_without_a_user_goes_to_nobody_is_counted_and_logged_once_a_batch() -> None:
    gw = serve(topic("mail", Audience.USER), topic("news"))
    client = connected(gw)
    with capturedLogs() as lines:
        publish(gw, "mail", {}, {"user_id": None}, b"\xff", b"not JSON", None)
    assert client.take() == []
    metrics = gw.metrics.topics["mail"]
    assert (metrics.without_user, metrics.processed, metrics.deserialize_errors) == (5, 5, 3)
    (line,) = lines
    assert (line["topic"], line["records"]) == ("mail", 5)
    assert len(gw.topics["mail"].window) == 0, "it takes no place in the window"


def test_a_record_without_a_user_is_no_gap() -> None:
    gw = serve(topic("mail", Audience.USER))
    publish(gw, "mail", {"user_id": "ann"}, {}, {"user_id": "ann"})
    client = gw.connect("ann", since="mail@0:1")
    gw.run()
    assert [m["type"] for m in client.take()] == ["CONNECTED", "MESSAGE", "RECOVERED"]
    assert client.all()[-1]["gaps"] == []


@pytest.mark.parametrize(
    ("user_from", "record"),
    [
        ("key", {"key": "ann"}),
        ("header.u", {"headers": (("u", b"bob"), ("u", b"ann"))}),
        ("value.a.b", {"value": {"a": {"b": "ann"}}}),
    ],
)
def test_user_from(user_from: str, record: dict[str, Any]) -> None:
    gw = serve(topic("mail", Audience.USER, user_from=(user_from,)))
    ann, bob = connected(gw, "ann"), connected(gw, "bob")
    gw.log.append("mail", **record)
    gw.log.append("mail", b"no JSON")
    gw.read("mail")
    assert ann.offsets() == [0] and bob.take() == []
    errors = gw.metrics.topics["mail"].deserialize_errors
    assert errors == (user_from == "value.a.b"), "only where the value had to be read"


def test_key() -> None:
    gw = serve(topic("rooms", Audience.KEY))
    one, both, whole = (connected(gw, topics=names) for names in ("rooms/1", "rooms/1,rooms/2", "rooms"))
    for key in ("1", "2", "3", None, "1"):
        gw.log.append("rooms", {"k": key}, key=key)
    gw.read("rooms")
    assert one.offsets() == [0, 4]
    assert both.offsets() == [0, 1, 4]
    assert whole.offsets() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("key", "name"),
    [("x" * 255, "rooms/" + "x" * 255), ("a/b ~", "rooms/a%2Fb%20%7E"), ("\u00e9" * 127, "rooms/" + "%C3%A9" * 127)],
)
def test_a_key_is_what_its_name_spells(key: str, name: str) -> None:
    gw = serve(topic("rooms", Audience.KEY))
    client = connected(gw, topics=name)
    publish(gw, "rooms", 1, key=key)
    assert client.offsets() == [0]


@pytest.mark.parametrize("key", [None, b"x" * 256, b"\xff", ("\u00e9" * 128).encode()])
def test_a_record_without_a_usable_key_goes_to_the_whole_topic_only(key: bytes | None) -> None:
    gw = serve(topic("rooms", Audience.KEY))
    whole, one = connected(gw, topics="rooms"), connected(gw, topics="rooms/x")
    publish(gw, "rooms", 1, key=key)
    assert whole.offsets() == [0] and one.take() == []
    assert gw.metrics.topics["rooms"].without_user == 0


def test_the_empty_key_is_a_key() -> None:
    gw = serve(topic("rooms", Audience.KEY))
    client = connected(gw, topics="rooms/")
    publish(gw, "rooms", 1, key="")
    assert client.offsets() == [0]


def test_raw_is_the_value() -> None:
    gw = serve(topic("news"))
    client = connected(gw, topics="news", encoding=Encoding.RAW)
    publish(gw, "news", b'{"a":1}', b"\xff", None, b"")
    assert client.raw() == [(1, b'{"a":1}'), (2, b"\xff"), (1, b"")]
    assert client.channel.pushes == 1


@pytest.mark.parametrize("audience", [Audience.EVERYONE, Audience.USER])
def test_raw_and_a_tombstone_alone(audience: Audience) -> None:
    gw = serve(topic("news", audience, user_from=("key",)))
    client = connected(gw, topics="news", encoding=Encoding.RAW)
    publish(gw, "news", None, key="ann")
    assert client.raw() == [] and client.channel.pushes == 0


# --- how often it is written, and made ---


@pytest.mark.parametrize("audience", Audience)
def test_a_batch_is_one_write_a_session(audience: Audience) -> None:
    gw = serve(topic("t", audience, partitions=2))
    client = connected(gw, "ann", "t/a,t/b,t/c" if audience is Audience.KEY else "t")
    before = client.channel.pushes
    for n, key in enumerate("abcabc"):
        gw.log.append("t", {"user_id": "ann"}, key=key, partition=n % 2)
    gw.read("t")
    assert client.channel.pushes == before + 1
    assert [(m["partition"], m["offset"]) for m in client.take()] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]


@pytest.mark.parametrize("audience", Audience)
def test_what_several_get_is_joined_once(audience: Audience) -> None:
    """The bytes are the same object for all who get the same."""
    gw = serve(topic("t", audience))
    clients = [connected(gw, "ann", "t/a" if audience is Audience.KEY else "t") for _ in range(3)]
    publish(gw, "t", {"user_id": "ann"}, {"user_id": "ann"}, key="a")
    last = [client.channel.last for client in clients]
    assert last[0] is last[1] is last[2] and len(clients[0].take()) == 2


def test_a_frame_is_made_once_whoever_reads_it_and_not_before(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    record = Envelope.record

    def counted(self: Envelope, name: str, entry: Any) -> bytes:
        made.append(entry.offset)
        return record(self, name, entry)

    monkeypatch.setattr(Envelope, "record", counted)
    gw = serve(topic("mail", Audience.USER))
    clients = [connected(gw, "ann") for _ in range(3)]
    publish(gw, "mail", {"user_id": "ann"}, {"user_id": "nobody"})
    slow = gw.connect("ann", since="mail@0:0")
    gw.run()
    assert made == [0] and slow.offsets() == [0] and clients[2].offsets() == [0]


def test_a_record_costs_nothing_for_those_it_is_not_for() -> None:
    """No look at every session: what is touched is found through the index. Counted by look-ups."""
    gw = serve(topic("rooms", Audience.KEY))
    for key in range(200):
        connected(gw, topics=f"rooms/{key}")
    looked: list[str] = []
    listeners = gw.topics["rooms"].listeners
    at = listeners.at
    listeners.at = lambda address: looked.append(address) or at(address)  # type: ignore[method-assign,func-returns-value,redundant-expr]
    publish(gw, "rooms", 1, 2, key="7")
    assert set(looked) == {"7"} and len(looked) <= 3


def test_order_of_what_is_for_several_addresses_of_one_session() -> None:
    gw = serve(topic("rooms", Audience.KEY))
    client = connected(gw, topics="rooms/1,rooms/2,rooms/3")
    other = connected(gw, topics="rooms/1")
    for key in "3121332":
        gw.log.append("rooms", key=key)
    gw.read("rooms")
    assert client.offsets() == list(range(7)) and other.offsets() == [1, 3]


def test_more_than_a_chunk_for_one_address_is_given_in_pieces() -> None:
    gw = serve(topic("rooms", Audience.KEY))
    client = connected(gw, topics="rooms/1,rooms/2")
    client.stall()
    for n in range(20):
        gw.log.append("rooms", {"x": "y" * 20_000}, key="12"[n % 2])
    gw.read("rooms")
    assert client.channel.most_waiting <= CHUNK
    client.drain()
    assert client.offsets() == list(range(20))


def test_some_stall_in_the_middle_of_a_batch_and_others_do_not() -> None:
    gw = serve(topic("news"))
    slow, fast = connected(gw, topics="news"), connected(gw, topics="news")
    slow.stall()
    publish(gw, "news", *[{"x": "y" * 20_000}] * 10)
    assert fast.offsets() == list(range(10)) and slow.channel.most_waiting <= CHUNK
    slow.drain()
    assert slow.offsets() == list(range(10))


def test_several_topics_in_one_batch() -> None:
    """A session that stalls at the first gets the second from where it was."""
    gw = serve(topic("a"), topic("b"))
    client = connected(gw, topics="a,b")
    client.stall()
    for name in "ab":
        gw.log.append(name)
    gw.tell(*gw.fetch("a"), *gw.fetch("b"))
    client.drain()
    assert [(m["topic"], m["offset"]) for m in client.take()] == [("a", 0), ("b", 0)]


def test_a_record_that_was_read_is_not_read_again() -> None:
    gw = serve(topic("news"))
    client = connected(gw)
    record = gw.log.append("news")
    gw.read("news")
    gw.tell(Fetched("news", 0, (record, Record("news", 0, 1, None, None, b"2")), 2, 2))
    assert client.offsets() == [0, 1]


# --- too large ---


def test_a_record_whose_frame_is_too_large_is_a_gap_for_those_it_was_for() -> None:
    gw = serve(topic("rooms", Audience.KEY, max_frame_bytes=1024))
    one, two, whole = (connected(gw, topics=names) for names in ("rooms/1", "rooms/2", "rooms"))
    publish(gw, "rooms", {"x": "y" * 2000}, key="1")
    gap = {"partition": 0, "from": 0, "to": 1, "reason": "too_large"}
    told = one.one()
    assert told == {"type": "GAP", "topic": "rooms", "gaps": [gap], "epoch": "e1", "position": {"0": 1}}
    assert whole.one() == told and two.take() == []
    publish(gw, "rooms", 2, key="1")
    assert one.offsets() == [1]


def test_gaps_are_counted_one_a_client_and_are_no_messages() -> None:
    """Live, alone or in a batch, addressed or not, and read by who is slow."""
    gw = serve(topic("rooms", Audience.KEY, max_frame_bytes=1024), topic("news", max_frame_bytes=1024))
    clients = [connected(gw, topics=names) for names in ("rooms/1", "rooms/1,rooms/2", "rooms,news", "rooms/3")]
    slow = connected(gw, topics="rooms/2")
    slow.stall()
    large = {"x": "y" * 2000}
    publish(gw, "rooms", 1, large, 3, key="1")
    publish(gw, "rooms", large, key="1")
    publish(gw, "rooms", 1, large, large, key="2")
    publish(gw, "rooms", large, key="2")
    publish(gw, "news", large)
    slow.drain()
    told = [m["type"] for client in (*clients, slow) for m in client.take()]
    assert gw.metrics.messages_sent["GAP"] == told.count("GAP") == 2 + (2 + 3) + (2 + 3 + 1) + 3
    assert gw.metrics.messages_sent["MESSAGE"] == told.count("MESSAGE") == 2 + 3 + 3 + 1
    assert gw.metrics.topics["rooms"].gaps == told.count("GAP") - 1 and gw.metrics.topics["news"].gaps == 1


def test_a_record_that_is_too_large_while_recovering_is_told_by_recovered() -> None:
    gw = serve(topic("news", max_frame_bytes=1024))
    publish(gw, "news", 1, {"x": "y" * 2000}, 3)
    client = gw.connect(topics="news", since="news@0:0")
    gw.run()
    *_, done = client.take()
    assert done["gaps"] == [{"partition": 0, "from": 1, "to": 2, "reason": "too_large"}] and done["count"] == 2


@pytest.mark.parametrize(
    "value", [b"\xff", b"\x01", '"\u00e9"'.encode(), b'"x"'], ids=["base64", "text", "utf-8", "json"]
)
def test_max_frame_bytes_is_about_the_frame_exactly(value: bytes) -> None:
    """Whatever a value grows to on its way: 6 times as a text of control characters."""
    limit = 2048
    gw = serve(topic("news", max_frame_bytes=limit))
    client = connected(gw)
    fits = dropped = 0
    for size in (200, 250, 300, 320, 330, 340, 1400, 1425, 1430, 1900, 1930, 1940, 1960, 2000, 2100):
        inside = value[1:-1] * size if value[:1] == b'"' else value * size
        publish(gw, "news", b'"' + inside + b'"' if value[:1] == b'"' else inside)
        (frame,) = client.raw()[-1:]
        if json.loads(frame[1])["type"] == "GAP":
            dropped += 1
        else:
            fits += 1
            assert len(client.channel.last) <= limit
    assert fits > 2 and dropped > 2


def test_a_large_key_counts_too() -> None:
    gw = serve(topic("news", max_frame_bytes=1024))
    client = connected(gw)
    publish(gw, "news", 1, key="x" * 2000)
    assert client.one()["type"] == "GAP"


def test_1_mib_and_a_frame_above_the_default() -> None:
    gw = serve(topic("news"))
    client = connected(gw)
    publish(gw, "news", {"x": "y" * (1 << 20)})
    assert client.one()["gaps"][0]["reason"] == "too_large"
    assert gw.topics["news"].window.bytes < 1000, "nothing of it is kept"


# --- windows are bounded ---


def test_windows_are_trimmed_behind_each_batch_and_each_second() -> None:
    gw = serve(topic("news", window_max_bytes=10_000, window_max_age=60.0))
    for _ in range(10):
        publish(gw, "news", *[{"x": "y" * 1000}] * 5)
    window = gw.topics["news"].window
    assert window.bytes <= 10_000 and 0 < len(window) < 10
    assert gw.metrics.topics["news"].window_bytes == window.bytes
    assert gw.metrics.topics["news"].window_records == len(window)
    gw.advance(70)
    assert len(window) == 0 and gw.metrics.topics["news"].window_records == 0


def test_what_is_new_is_pushed_before_it_is_let_go() -> None:
    gw = serve(topic("news", window_max_bytes=1000))
    client = connected(gw)
    publish(gw, "news", *[{"x": "y" * 1000}] * 20)
    assert client.offsets() == list(range(20))


def test_all_windows_together_are_bounded_and_the_oldest_records_go_first() -> None:
    gw = serve(topic("a"), topic("b"), total_bytes=200_000)
    publish(gw, "a", *[{"x": "y" * 1000}] * 50)
    gw.clock.advance(1)
    publish(gw, "b", *[{"x": "y" * 1000}] * 130)
    a, b = gw.topics["a"].window, gw.topics["b"].window
    assert a.bytes + b.bytes <= 200_000 and len(b) == 130 and len(a) < 50


def test_a_total_smaller_than_one_record() -> None:
    gw = serve(topic("a"), topic("b"), total_bytes=10)
    client = connected(gw)
    publish(gw, "a", 1, 2)
    assert client.offsets() == [0, 1] and len(gw.topics["a"].window) == 0


# --- what befalls topics ---


def test_what_retention_deleted_before_it_was_read_is_told_to_all() -> None:
    """Whatever their address; who is behind, in its place among the records."""
    gw = serve(topic("rooms", Audience.KEY))
    live, slow = connected(gw, topics="rooms/1"), connected(gw, topics="rooms/2")
    slow.stall()
    publish(gw, "rooms", 1, key="2")
    for _ in range(4):
        gw.log.append("rooms", key="2")
    gw.log.expire("rooms", 4)
    with capturedLogs() as lines:
        gw.read("rooms")
    gap = {"partition": 0, "from": 1, "to": 4, "reason": "expired"}
    assert live.one() == {"type": "GAP", "topic": "rooms", "gaps": [gap], "epoch": "e1", "position": {"0": 4}}
    slow.drain()
    assert [(m["type"], m.get("offset")) for m in slow.take()] == [("MESSAGE", 0), ("GAP", None), ("MESSAGE", 4)]
    assert [line["topic"] for line in lines] == ["rooms"]
    assert gw.metrics.topics["rooms"].gaps >= 1


def test_what_was_read_before_a_loss_is_pushed_before_it() -> None:
    gw = serve(topic("news"))
    client = connected(gw)
    first = gw.log.append("news")
    later = Record("news", 0, 9, None, None, b"9")
    gw.tell(Fetched("news", 0, (first,), 1, 10), Lost("news", 0, 1, 9), Fetched("news", 0, (later,), 10, 10))
    assert [(m["type"], m.get("offset")) for m in client.take()] == [("MESSAGE", 0), ("GAP", None), ("MESSAGE", 9)]


def test_a_topic_made_anew_in_the_middle_of_a_batch() -> None:
    gw = serve(topic("news"))
    client = connected(gw)
    first = gw.log.append("news")
    again = Record("news", 0, 0, None, None, b'"again"')
    with capturedLogs() as lines:
        gw.tell(
            Fetched("news", 0, (first,), 1, 1),
            Opened("news", "e2", {0: Start(0, 0)}),
            Fetched("news", 0, (again,), 1, 1),
        )
    told = client.take()
    assert [m["type"] for m in told] == ["MESSAGE", "GAP", "MESSAGE"]
    assert told[1]["gaps"] == [{"partition": 0, "from": 1, "to": 0, "reason": "recreated"}]
    assert (told[1]["epoch"], told[1]["position"], told[2]["data"]) == ("e2", {"0": 0}, "again")
    assert [line["epoch"] for line in lines] == ["e2"]


def test_a_topic_made_anew_is_told_each_by_its_own_position() -> None:
    """Who was behind lost more. The frame is made once for all at one place."""
    gw = serve(topic("news"))
    live, live2, slow = (connected(gw, topics="news") for _ in range(3))
    slow.stall()
    publish(gw, "news", 1)
    publish(gw, "news", 2, 3)
    for client in (live, live2):
        client.take()
    gw.log.create("news")
    gw.open("news")
    publish(gw, "news", 4)
    slow.drain()
    assert live.channel.last == live2.channel.last
    assert [[gap["from"] for gap in m["gaps"]] for m in live.take() if m["type"] == "GAP"] == [[3]]
    told = slow.take()
    assert [m["type"] for m in told] == ["MESSAGE", "GAP", "MESSAGE"]
    assert told[1]["gaps"] == [{"partition": 0, "from": 1, "to": 0, "reason": "recreated"}] and told[2]["data"] == 4


def test_a_deleted_topic_is_logged_and_nothing_else() -> None:
    gw = serve(topic("news"))
    client = connected(gw)
    with capturedLogs() as lines:
        gw.delete("news")
    assert client.take() == [] and [line["topic"] for line in lines] == ["news"]


# --- what operators see ---


def test_topics() -> None:
    gw = serve(topic("rooms", Audience.KEY, partitions=2), topic("news"))
    connected(gw, topics="rooms/1,rooms/2")
    connected(gw, topics="rooms,news")
    publish(gw, "rooms", 1, 2, key="9", partition=1)
    gw.topics["rooms"].window.drop_oldest(1)
    rooms, news = gw.dispatcher.topics()
    assert (rooms.name, rooms.audience, rooms.epoch, rooms.records) == ("rooms", "key", "e1", 1)
    assert rooms.partitions == {0: (0, 0, 0), 1: (1, 2, 2)}
    assert rooms.bytes == gw.topics["rooms"].window.bytes
    assert (rooms.subscribers, news.subscribers, news.records) == (3, 1, 0)


def test_a_topic_that_was_never_opened() -> None:
    gw = Gateway(Log(), topic("news"))
    (info,) = gw.dispatcher.topics()
    assert (info.epoch, info.partitions, info.records) == (None, {}, 0)


def test_counters() -> None:
    gw = serve(topic("mail", Audience.USER))
    clients = [connected(gw, "ann") for _ in range(2)]
    sent = gw.metrics.bytes_sent
    gw.log.append("mail", {"user_id": "ann", "type": "greeting"}, timestamp=1_699_999_999_000)
    gw.log.append("mail", {"user_id": "bob", "type": ["x"]})
    (event,) = gw.fetch("mail")
    assert isinstance(event, Fetched)
    gw.tell(event._replace(end=9))
    assert gw.metrics.messages_sent["MESSAGE"] == 2
    assert gw.metrics.bytes_sent - sent == 2 * len(clients[0].channel.last)
    assert gw.metrics.types.counts == {"greeting": 1, "other": 1}
    assert gw.metrics.topics["mail"].lag == {0: 7}
    assert sum(gw.metrics.message_latency.counts) == sum(gw.metrics.end_to_end_latency.counts) == 2
    assert gw.metrics.end_to_end_latency.sum == 2.0
    assert clients[0].session.records == 1


def test_users_are_counted_where_asked_for() -> None:
    gw = serve(topic("mail", Audience.USER), per_user=True)
    publish(gw, "mail", {"user_id": ["ann", "bob"]}, {"user_id": "ann"})
    assert gw.metrics.users is not None and gw.metrics.users.counts == {"ann": 2, "bob": 1}


def test_a_timestamp_in_the_future_or_missing_spoils_no_latency() -> None:
    gw = serve(topic("news"))
    connected(gw)
    for stamp in (None, 2**62):
        gw.log.append("news", timestamp=stamp)
        gw.read("news")
    assert gw.metrics.end_to_end_latency.sum == 0.0 and sum(gw.metrics.end_to_end_latency.counts) == 1
