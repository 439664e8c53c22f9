"""A session from its first frame to its last: every row of *Client to server*, every code of ERROR there is by now."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs

from gateway.config import Limits
from gateway.core.session import State
from gateway.errors import AuthError, Close, GatewayError, Kind
from gateway.model import Audience, Encoding
from tests.support.harness import Client, Gateway, principal, serve, topic

NOW = "2023-11-14T22:13:20.000Z"  # the harness' wall clock at 0
LIMITS = Limits(messages_per_second=0, malformed=0)


def connected(gw: Gateway | None = None, topics: str = "", **more: Any) -> Client:
    """A client that has read CONNECTED."""
    client = (gw or serve(topic("news"), topic("rooms", Audience.KEY))).connect("ann", topics, **more)
    client.take()
    return client


# --- the first frame ---


def test_connected() -> None:
    gw = serve(topic("news"), topic("rooms", Audience.KEY), topic("mail", Audience.USER), limits=LIMITS)
    gw.log.append("rooms", key="1")
    gw.read("rooms")
    client = gw.connect("ann", "rooms/1,news,rooms/%7E", expires_at=1_700_000_060.5)
    message = client.one()
    assert message == {
        "type": "CONNECTED",
        "userId": "ann",
        "connectionId": client.session.id,
        "subscriptions": [
            {"topic": "rooms", "names": ["rooms/1", "rooms/%7E"], "epoch": "e3", "position": {"0": 1}}
            | {"epoch": gw.log.epochs["rooms"]},
            {"topic": "news", "names": ["news"], "epoch": gw.log.epochs["news"], "position": {"0": 0}},
        ],
        "expiresAt": "2023-11-14T22:14:20.500Z",
        "limits": {"messageBytes": 65536, "messagesPerSecond": 0},
        "timestamp": NOW,
    }


def test_connected_without_an_expiry_or_names() -> None:
    message = serve(topic("news")).connect(topics="").one()
    assert message["expiresAt"] is None and message["subscriptions"] == []


def test_without_topics_every_topic_that_the_token_allows_but_no_whole_keyed_one() -> None:
    gw = serve(topic("news"), topic("mail", Audience.USER), topic("rooms", Audience.KEY), topic("other"))
    told = gw.connect(grants=["news", "mail", "rooms/7", "rooms/a*"]).one()["subscriptions"]
    assert [sub["names"] for sub in told] == [["news"], ["mail"], ["rooms/7"]]


def test_connected_is_the_first_frame_also_with_a_cursor() -> None:
    gw = serve(topic("news"))
    gw.log.append("news")
    gw.read("news")
    client = gw.connect(topics="news", since="news@0:0")
    assert client.types() == ["CONNECTED"]
    gw.run()
    assert client.types() == ["MESSAGE", "RECOVERED"]


def test_sessions_are_found_by_id_and_by_user() -> None:
    gw = serve(topic("news"))
    ann, bob = connected(gw), gw.connect("bob")
    assert list(gw.sessions.all()) == [ann.session, bob.session]
    assert gw.sessions.get(bob.session.id) is bob.session and gw.sessions.get("nobody") is None
    assert list(gw.sessions.of_user("ann")) == [ann.session] and list(gw.sessions.of_user("eve")) == []
    assert ann.session.id != bob.session.id
    ann.hang_up()
    assert list(gw.sessions.of_user("ann")) == [] and gw.sessions.get(ann.session.id) is None


# --- PING, DISCONNECT ---


@pytest.mark.parametrize("id", [None, "", "x", "\u00e9" * 32, "\ud800", '"\\\n'])
def test_ping(id: str | None) -> None:
    client = connected()
    client.send({"type": "PING", "timestamp": 5, "unknown": [1]} | ({} if id is None else {"id": id}))
    assert client.one() == {"type": "PONG"} | ({} if id is None else {"id": id})


def test_disconnect() -> None:
    """Nothing that comes behind it is looked at."""
    client = connected(topics="news")
    client.send({"type": "DISCONNECT"})
    client.send({"type": "PING"})
    assert client.closed() == (1000, "") and client.take() == []
    assert client.session.state is State.CLOSING and len(client.gateway.topics["news"].listeners) == 0


# --- messages that are no command ---

BAD = [
    (b"", "bad_json", None),
    (b"{", "bad_json", None),
    (b"\xff", "bad_json", None),
    (b"[" * 60_000, "bad_json", None),
    (b"[]", "bad_message", None),
    (b"{}", "unknown_type", None),
    (b'{"type":"send_me","id":"i"}', "unknown_type", "send_me"),
    (b'{"type":"PING","id":5}', "bad_message", "PING"),
    (b'{"type":"SUBSCRIBE","id":"i"}', "bad_message", "SUBSCRIBE"),
    (b'{"type":"SUBSCRIBE","topics":"news"}', "bad_message", "SUBSCRIBE"),
    (b'{"type":"SUBSCRIBE","topics":[]}', "invalid_topics", "SUBSCRIBE"),
    (b'{"type":"SUBSCRIBE","topics":["*"]}', "invalid_topics", "SUBSCRIBE"),
    (b'{"type":"SUBSCRIBE","topics":["news/1"]}', "invalid_topics", "SUBSCRIBE"),
    (b'{"type":"SUBSCRIBE","topics":["nowhere"]}', "forbidden", "SUBSCRIBE"),
    (b'{"type":"SUBSCRIBE","topics":["news"],"since":"earliest"}', "bad_since", "SUBSCRIBE"),
    (b'{"type":"SUBSCRIBE","topics":["news"],"since":"rooms@0:1"}', "bad_since", "SUBSCRIBE"),
    (b'{"type":"UNSUBSCRIBE","topics":["news"]}', "invalid_topics", "UNSUBSCRIBE"),
    (b'{"type":"REFRESH"}', "bad_message", "REFRESH"),
]


@pytest.mark.parametrize(("payload", "code", "original"), BAD)
def test_a_command_that_is_refused_leaves_the_connection(payload: bytes, code: str, original: str | None) -> None:
    client = connected(serve(topic("news"), topic("rooms", Audience.KEY), limits=LIMITS))
    client.send(payload)
    error = client.one()
    assert (error["type"], error["code"], error.get("originalType")) == ("ERROR", code, original)
    assert error["timestamp"] == NOW and error["message"]
    assert client.session.subscriptions == {}
    client.send({"type": "PING"})
    assert client.types() == ["PONG"]


def test_an_error_repeats_the_id() -> None:
    client = connected()
    client.send({"type": "SUBSCRIBE", "topics": ["nowhere"], "id": "q"})
    assert client.one()["id"] == "q"


def test_a_binary_message() -> None:
    client = connected()
    client.send(b'{"type":"PING"}', binary=True)
    assert client.one()["code"] == "binary_not_supported"


def test_a_topic_that_does_not_exist_answers_like_one_that_is_not_allowed() -> None:
    gw = serve(topic("news"), topic("other"))
    client = connected(gw, grants=["news", "ghost"])
    answers = []
    for name in ("other", "ghost"):
        client.subscribe(name)
        error = client.one()
        answers.append((error["code"], error["message"].replace(name, "?")))
    assert answers[0] == answers[1]


def test_a_request_with_one_forbidden_name_is_refused_whole() -> None:
    gw = serve(topic("news"), topic("other"))
    client = connected(gw, grants=["news"])
    client.subscribe("news", "other")
    assert client.one()["code"] == "forbidden" and client.session.subscriptions == {}


@pytest.mark.parametrize("payload", [b"{", b"[]", b"{}"])
def test_the_twentieth_malformed_message_within_a_minute_ends_it(payload: bytes) -> None:
    client = connected(serve(topic("news"), limits=Limits(messages_per_second=0)))
    for _ in range(19):
        client.send(payload)
    assert client.closed() is None
    client.send(payload)
    assert client.closed() == (4400, "too many malformed messages")
    assert client.types() == ["ERROR"] * 20


def test_malformed_messages_further_apart_do_not() -> None:
    gw = serve(topic("news"))
    client = connected(gw)
    for _ in range(50):
        client.send(b"{")
        gw.clock.advance(4)
    assert client.closed() is None


def test_refusals_that_are_no_malformed_messages_do_not_count() -> None:
    client = connected(serve(topic("news"), limits=Limits(messages_per_second=0)))
    for _ in range(50):
        client.subscribe("nowhere")
    assert client.closed() is None


# --- rates ---


def test_more_messages_a_second_than_allowed() -> None:
    gw = serve(topic("news"), limits=Limits(messages_per_second=2))
    client = connected(gw)
    for _ in range(3):
        client.send({"type": "PING", "id": "p"})
    assert client.types() == ["PONG", "PONG", "ERROR"]
    error = client.all()[-1]
    assert (error["code"], error["retryAfter"], error["originalType"], error["id"]) == (
        "rate_limited",
        0.5,
        "PING",
        "p",
    )
    gw.clock.advance(0.5)
    client.send({"type": "PING"})
    assert client.types() == ["PONG"]


def test_more_bytes_a_second_than_allowed() -> None:
    gw = serve(topic("news"), limits=Limits(bytes_per_second=1000, message_bytes=1000))
    client = connected(gw)
    client.send({"type": "PING", "x": "y" * 900})
    client.send({"type": "PING", "x": "y" * 900})
    assert client.types() == ["PONG", "ERROR"]


def test_twenty_times_rate_limited_within_a_minute_ends_it() -> None:
    client = connected(serve(topic("news"), limits=Limits(messages_per_second=1)))
    for _ in range(21):
        client.send({"type": "PING"})
    assert client.closed() == (4503, "rate limit")
    assert client.types() == ["PONG", *["ERROR"] * 20]


def test_disconnect_is_never_too_much() -> None:
    client = connected(serve(topic("news"), limits=Limits(messages_per_second=1)))
    client.send({"type": "PING"})
    client.send({"type": "DISCONNECT"})
    assert client.closed() == (1000, "")


# --- REFRESH ---


def test_refresh_takes_what_is_no_longer_allowed_and_adds_nothing() -> None:
    gw = serve(topic("news"), topic("other"), topic("rooms", Audience.KEY))
    client = connected(gw, "news,other,rooms/1,rooms/2", expires_at=1_700_000_010)
    gw.authenticator.principals["t"] = principal("ann", ["news", "rooms/2", "rooms/3"], 1_700_000_100)
    client.send({"type": "REFRESH", "token": "t", "id": "r"})
    assert client.take() == [
        {"type": "UNSUBSCRIBED", "topic": "other", "names": ["other"], "reason": "forbidden", "id": "r"},
        {"type": "UNSUBSCRIBED", "topic": "rooms", "names": ["rooms/1"], "reason": "forbidden", "id": "r"},
        {
            "type": "ACK",
            "originalType": "REFRESH",
            "id": "r",
            "expiresAt": "2023-11-14T22:15:00.000Z",
            "timestamp": NOW,
        },
    ]
    assert client.session.principal.expires_at == 1_700_000_100
    for name, key in (("other", None), ("rooms", "1"), ("rooms", "2"), ("rooms", "3"), ("news", None)):
        gw.log.append(name, key=key)
        gw.read(name)
    assert [(m["topic"], m["key"]) for m in client.take()] == [("rooms", "2"), ("news", None)]
    client.subscribe("rooms/3")
    assert client.types() == ["SUBSCRIBED"], "the new claim holds"
    client.subscribe("other")
    assert client.one()["code"] == "forbidden"


def test_refresh_with_another_users_token() -> None:
    gw = serve(topic("news"))
    client = connected(gw, "news")
    before = client.session.principal
    gw.authenticator.principals["t"] = principal("bob", [])
    client.send({"type": "REFRESH", "token": "t", "id": "r"})
    error = client.one()
    assert (error["code"], error["originalType"], error["id"]) == ("unauthorized", "REFRESH", "r")
    assert client.session.principal is before and "news" in client.session.subscriptions


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (AuthError("the token is not valid", "signature"), "unauthorized"),
        (GatewayError("keys cannot be had just now", Kind.UNAVAILABLE), "unavailable"),
    ],
)
def test_refresh_that_fails_leaves_everything(error: Exception, code: str) -> None:
    gw = serve(topic("news"))
    client = connected(gw, "news")
    gw.authenticator.principals["t"] = error
    client.send({"type": "REFRESH", "token": "t"})
    assert client.one()["code"] == code
    gw.log.append("news")
    gw.read("news")
    assert client.offsets() == [0]


def test_refresh_that_fails_by_a_fault_of_ours_is_internal_and_logged_without_the_token() -> None:
    gw = serve(topic("news"))
    client = connected(gw)
    gw.authenticator.principals["secret-token"] = RuntimeError("disk on fire")
    with capturedLogs() as lines:
        client.send({"type": "REFRESH", "token": "secret-token", "id": "r"})
    error = client.one()
    assert (error["code"], error["id"]) == ("internal", "r") and "fire" not in error["message"]
    assert [line["log_failure"].type for line in lines if "log_failure" in line] == [RuntimeError]
    assert "secret-token" not in repr(lines)
    client.send({"type": "PING"})
    assert client.types() == ["PONG"]


def held(gw: Gateway) -> list[Deferred[None]]:
    """From here on the authenticator answers when it is told to."""
    gw.authenticator.held = []
    return gw.authenticator.held


def test_commands_behind_refresh_wait_for_its_answer() -> None:
    """In order, another REFRESH among them."""
    gw = serve(topic("news"), topic("other"))
    client = connected(gw)
    gw.authenticator.principals |= {"one": principal("ann", ["news"]), "two": principal("ann", ["other"])}
    gates = held(gw)
    client.send({"type": "REFRESH", "token": "one", "id": "1"})
    client.subscribe("other", id="2")
    client.send({"type": "REFRESH", "token": "two", "id": "3"})
    client.subscribe("other", id="4")
    assert client.take() == []
    gates[0].callback(None)
    assert [(m["type"], m["id"]) for m in client.take()] == [("ACK", "1"), ("ERROR", "2")]
    gates[1].callback(None)
    assert [(m["type"], m["id"]) for m in client.take()] == [("ACK", "3"), ("SUBSCRIBED", "4")]


def test_records_do_not_wait_for_refresh() -> None:
    gw = serve(topic("news"))
    client = connected(gw, "news")
    held(gw)
    client.send({"type": "REFRESH", "token": "t"})
    gw.log.append("news")
    gw.read("news")
    assert client.offsets() == [0]


def test_what_waits_behind_refresh_is_bounded() -> None:
    gw = serve(topic("news"), limits=LIMITS)
    client = connected(gw)
    gates = held(gw)
    gw.authenticator.principals["t"] = principal("ann")
    client.send({"type": "REFRESH", "token": "t"})
    for _ in range(102):
        client.send({"type": "PING"})
    assert [m["code"] for m in client.take()] == ["busy"] * 2
    gates[0].callback(None)
    assert client.types() == ["ACK", *["PONG"] * 100]


def test_commands_that_wait_are_counted_when_they_come_not_when_they_are_carried_out() -> None:
    """A client within its rate is not punished for the time that its token takes to be checked."""
    gw = serve(topic("news"), limits=Limits(messages_per_second=2))
    client = connected(gw)
    gates = held(gw)
    gw.authenticator.principals["t"] = principal("ann")
    client.send({"type": "REFRESH", "token": "t"})
    for _ in range(20):
        gw.clock.advance(0.5)
        client.send({"type": "PING"})
    gates[0].callback(None)
    assert client.types() == ["ACK", *["PONG"] * 20]


def test_messages_behind_refresh_are_rate_limited_at_once() -> None:
    gw = serve(topic("news"), limits=Limits(messages_per_second=2))
    client = connected(gw)
    held(gw)
    client.send({"type": "REFRESH", "token": "t"})
    for _ in range(30):
        client.send({"type": "PING"})
    assert client.closed() == (4503, "rate limit")


@pytest.mark.parametrize("known", [True, False])
def test_an_answer_to_refresh_that_comes_after_the_end(known: bool) -> None:
    """Nothing is sent behind a close (the channel of these tests would say so), and nothing is carried out."""
    gw = serve(topic("news"))
    client = connected(gw, "news")
    gates = held(gw)
    if known:
        gw.authenticator.principals["t"] = principal("ann", [])
    client.send({"type": "REFRESH", "token": "t"})
    client.subscribe("news")
    gw.sessions.close(client.session, Close.OPERATOR, "bye")
    client.hang_up()
    gates[0].callback(None)
    assert client.take() == [] and client.closed() == (4411, "bye")


# --- format=raw ---


@pytest.mark.parametrize(("payload", "binary"), [(b'{"type":"PING"}', False), (b"{", False), (b"", True)])
def test_raw_only_receives(payload: bytes, binary: bool) -> None:
    client = serve(topic("news")).connect(topics="news", encoding=Encoding.RAW)
    client.send(payload, binary)
    assert client.closed() == (4400, "format=raw only receives") and client.raw() == []


def test_raw_may_disconnect() -> None:
    client = serve(topic("news")).connect(topics="news", encoding=Encoding.RAW)
    client.send({"type": "DISCONNECT"})
    assert client.closed() == (1000, "")


# --- TOKEN_EXPIRING, POSITION ---


def test_token_expiring() -> None:
    gw = serve(topic("news"))
    client = connected(gw, expires_at=1_700_000_060)
    gw.sessions.expiring(client.session)
    assert client.one() == {"type": "TOKEN_EXPIRING", "expiresAt": "2023-11-14T22:14:20.000Z"}


def test_nothing_is_told_to_who_is_closing() -> None:
    gw = serve(topic("mail", Audience.USER))
    client = connected(gw, "mail")
    gw.sessions.close(client.session, Close.NORMAL)
    gw.sessions.expiring(client.session)
    gw.sessions.position_due(client.session, 0)
    gw.sessions.drained(client.session)
    assert client.take() == []


def due(client: Client) -> None:
    client.gateway.sessions.position_due(client.session, client.gateway.clock.seconds())


def test_position_where_records_are_rare_and_only_if_it_moved() -> None:
    gw = serve(topic("mail", Audience.USER), topic("rooms", Audience.KEY), topic("news"))
    client = connected(gw, "mail,rooms/1,news")
    due(client)
    assert client.take() == []
    for name in ("mail", "rooms", "news"):
        gw.log.append(name, {"user_id": "bob"}, key="2")
        gw.read(name)
    client.take()
    due(client)
    assert client.take() == [
        {"type": "POSITION", "topic": "mail", "epoch": gw.log.epochs["mail"], "position": {"0": 1}},
        {"type": "POSITION", "topic": "rooms", "epoch": gw.log.epochs["rooms"], "position": {"0": 1}},
    ]
    due(client)
    assert client.take() == []


def test_position_is_not_for_a_whole_topic() -> None:
    gw = serve(topic("rooms", Audience.KEY))
    client = connected(gw, "rooms")
    gw.log.append("rooms")
    gw.read("rooms")
    client.take()
    due(client)
    assert client.take() == []


def test_position_counts_offsets_without_a_record() -> None:
    gw = serve(topic("mail", Audience.USER))
    client = connected(gw, "mail")
    gw.log.hole("mail", size=3)
    gw.read("mail")
    due(client)
    assert client.one()["position"] == {"0": 3}


def test_no_position_while_a_name_of_the_topic_recovers() -> None:
    gw = serve(topic("rooms", Audience.KEY))
    gw.log.append("rooms", key="2")
    gw.read("rooms")
    client = connected(gw, "rooms/1")
    client.subscribe("rooms/2", since="rooms/2@0:0")
    gw.log.append("rooms", key="3")
    gw.read("rooms")
    client.take()
    due(client)
    assert client.take() == []
    gw.run()
    client.take()
    gw.log.append("rooms", key="3")
    gw.read("rooms")
    due(client)
    assert client.types() == ["POSITION"]


def test_a_position_that_was_told_while_behind_is_told_again_when_caught_up() -> None:
    """Else a quiet topic's cursor would stay where the session was, and grow older than the window."""
    gw = serve(topic("rooms", Audience.KEY))
    client = connected(gw, "rooms/1")
    client.stall()
    gw.log.append("rooms", key="1")
    gw.read("rooms")
    gw.log.append("rooms", key="2")
    gw.read("rooms")
    due(client)
    client.channel.flow()
    assert client.types() == ["MESSAGE"], "nothing while something waits"
    client.subscribe("rooms/3")
    client.drain()
    due(client)
    told = client.take()
    assert [m["type"] for m in told] == ["SUBSCRIBED", "POSITION"]
    assert [m["position"] for m in told] == [{"0": 1}, {"0": 2}]


def test_positions_are_made_once_for_all_who_are_live() -> None:
    """Ten thousand sessions an interval: one frame a topic."""
    gw = serve(topic("mail", Audience.USER))
    clients = [connected(gw, "mail") for _ in range(2)]
    gw.log.append("mail", {"user_id": "bob"})
    gw.read("mail")
    for client in clients:
        due(client)
        assert client.types() == ["POSITION"]
    assert clients[0].channel.last is clients[1].channel.last
    assert gw.metrics.messages_sent["POSITION"] == 2


# --- too slow ---


def test_too_slow_is_behind_by_slowness_without_once_catching_up() -> None:
    gw = serve(topic("news", max_lag=10.0))
    client = connected(gw, "news")

    def too_slow() -> bool:
        return gw.sessions.too_slow(client.session, gw.clock.seconds())

    client.stall()
    gw.log.append("news")
    gw.read("news")
    gw.clock.advance(10)
    assert not too_slow()
    gw.clock.advance(0.1)
    assert too_slow()
    client.drain()
    assert not too_slow()
    assert client.session.slow_since is None


def test_behind_by_a_cursor_is_not_too_slow() -> None:
    gw = serve(topic("news", max_lag=10.0))
    for _ in range(20):
        gw.log.append("news", {"x": "y" * 20_000})
    gw.read("news")
    client = gw.connect(topics="news", since="news@0:0")
    client.stall()
    gw.run()
    gw.clock.advance(100)
    assert client.behind() and not gw.sessions.too_slow(client.session, gw.clock.seconds())


# --- the end ---


def test_closed_is_idempotent_and_counted_once() -> None:
    gw = serve(topic("news"))
    client = connected(gw, "news")
    gw.clock.advance(3)
    client.hang_up(1001)
    client.hang_up(1006)
    assert dict(gw.metrics.closes) == {"1001": 1} and gw.metrics.connections == 1
    assert gw.metrics.connection_seconds.sum == 3.0
    gw.log.append("news")
    gw.read("news")
    assert client.take() == []


def test_close_stops_delivery_at_once_and_is_done_once() -> None:
    gw = serve(topic("news"))
    client = connected(gw, "news")
    gw.sessions.close(client.session, Close.GOING_AWAY, "draining")
    gw.sessions.close(client.session, Close.INTERNAL, "no")
    gw.log.append("news")
    gw.read("news")
    client.send({"type": "PING"})
    assert client.closed() == (1001, "draining") and client.take() == []
    client.hang_up(1001)
    assert len(gw.roster) == 0


@pytest.mark.parametrize("how", ["close", "hang up"])
def test_nothing_is_left_of_a_client_that_ends_in_any_state(how: str) -> None:
    """Live, slow, recovering, ahead of this process."""
    gw = serve(topic("news"), topic("rooms", Audience.KEY))
    for name in ("news", "rooms"):
        for key in "12":
            gw.log.append(name, {"x": "y" * 40_000}, key=key)
        gw.read(name)
    live, slow = connected(gw, "news,rooms/1"), connected(gw, "news,rooms/1,rooms/2")
    back, ahead = gw.connect(topics="rooms", since="rooms@0:0"), gw.connect(topics="rooms/1", since="rooms/1@0:9")
    slow.stall()
    gw.log.append("news")
    gw.read("news")
    ahead.drain()
    assert gw.catch_up.parked() and gw.catch_up.behind >= 1
    back.session.stalled = True
    for client in (live, slow, back, ahead):
        if how == "close":
            gw.sessions.close(client.session, Close.NORMAL)
        client.hang_up()
    gw.run()
    assert gw.catch_up.behind == 0 and gw.catch_up.parked() == []
    assert all(len(topic.listeners) == 0 for topic in gw.topics.values())


def test_messages_are_counted_by_type_and_bytes() -> None:
    client = connected()
    for payload in (b'{"type":"PING"}', b'{"type":"nonsense"}', b"{"):
        client.send(payload)
    metrics = client.gateway.metrics
    assert dict(metrics.messages_received) == {"PING": 1, "other": 2}
    assert metrics.bytes_received == 15 + 19 + 1
    assert dict(metrics.messages_sent) == {"CONNECTED": 1, "PONG": 1, "ERROR": 2}
    assert client.session.messages == 3
