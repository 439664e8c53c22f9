"""``/api``: keys, strict bodies, what each call does and what the log says of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.config import Admin, Publish
from gateway.errors import Close, Kind, PublishError
from gateway.model import Health, Written
from gateway.web.http import public_site
from tests.support.http import KEY, OTHER_KEY, Answer, Asked, World, ask, logged, request, session


def post(world: World, path: str, body: object, key: str | None = KEY, **more: str) -> Answer:
    """The answer to a POST that is refused, or answered at once."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return ask(public_site(world.parts), request("POST", path, raw, key, **more))


def get(world: World, target: str, key: str | None = KEY) -> Answer:
    """The answer to a GET."""
    return ask(public_site(world.parts), request("GET", target, key=key))


def publish(world: World, body: object) -> Answer:
    """The answer to a publish that the log takes at partition 2, offset 7."""
    raw = json.dumps(body).encode()
    asked = Asked(public_site(world.parts), request("POST", "/api/publish", raw, KEY))
    for published in world.writer.published:
        published.written.callback(Written(2, 7))
    answer = asked.answer()
    assert answer is not None
    return answer


CALLS = [
    ("POST", "/api/publish"),
    ("POST", "/api/disconnect"),
    ("GET", "/api/connections?userId=a"),
    ("GET", "/api/topics"),
    ("GET", "/api/info"),
]


# --- keys ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "target"), CALLS)
@pytest.mark.parametrize("key", [None, "", "wrong", KEY[:-1], KEY + "0", f"{KEY}, {OTHER_KEY}", "\xe9" * 16])
def test_no_call_without_a_key(method: str, target: str, key: str | None) -> None:
    world = World()
    with logged() as events:
        answer = ask(public_site(world.parts), request(method, target, b"{}" if method == "POST" else b"", key))
    assert (answer.status, answer.json["code"]) == (401, "unauthorized")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert [event["status"] for event in events] == [401]


@pytest.mark.parametrize(("method", "target"), CALLS)
def test_the_api_is_off_until_a_key_is_configured(method: str, target: str) -> None:
    world = World(admin=Admin())
    assert ask(public_site(world.parts), request(method, target, key=KEY)).status == 404


@pytest.mark.parametrize("key", [KEY, OTHER_KEY])
def test_every_key_opens(key: str) -> None:
    """Two keys let callers change from one to the next."""
    assert get(World(), "/api/topics", key).status == 200


def test_other_schemes_are_no_key() -> None:
    for header in (f"Basic {KEY}", KEY, f"Bearer{KEY}"):
        raw = f"GET /api/topics HTTP/1.1\r\nHost: g\r\nAuthorization: {header}\r\n\r\n".encode()
        assert ask(public_site(World().parts), raw).status == 401


def test_each_call_is_in_the_log_and_no_key_is() -> None:
    """Operators must be able to tell who did what; the log must not be a place to find keys in."""
    world = World()
    with logged() as events:
        publish(world, {"topic": "news", "data": {"text": "hi"}})
        get(world, "/api/info", OTHER_KEY)
        post(world, "/api/disconnect", {"userId": "alice", "reason": "spam"})
        get(world, "/api/topics", "0000wrong0000key")
    assert [(event["path"], event["status"]) for event in events] == [
        ("/api/publish", 200),
        ("/api/info", 200),
        ("/api/disconnect", 200),
        ("/api/topics", 401),
    ]
    assert (events[0]["topic"], events[0]["partition"], events[0]["offset"]) == ("news", 2, 7)
    assert (events[2]["user"], events[2]["reason"]) == ("alice", "spam")
    assert events[0]["api_key"] != events[1]["api_key"]
    assert not [secret for secret in (KEY, OTHER_KEY, "0000wrong0000key", "hi") if secret in repr(events)]


def test_while_draining_calls_are_sent_elsewhere() -> None:
    answer = get(World(draining=True), "/api/topics")
    assert (answer.status, answer.json["code"]) == (503, "draining")
    assert int(answer.headers["retry-after"]) > 0


@pytest.mark.parametrize(
    ("method", "target", "allow"), [("GET", "/api/publish", "POST"), ("PUT", "/api/info", "GET, HEAD")]
)
def test_wrong_methods_and_paths_are_problem_documents(method: str, target: str, allow: str) -> None:
    """RFC 9457."""
    answer = ask(public_site(World().parts), request(method, target, key=KEY))
    assert (answer.status, answer.headers["allow"]) == (405, allow)
    answer = get(World(), "/api/nothing")
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json == {
        "type": "about:blank",
        "title": "Not Found",
        "status": 404,
        "detail": "there is nothing at this path",
        "code": "not_found",
    }


# --- publish ---------------------------------------------------------------------------------------------------------


def test_publish_writes_what_is_given_and_tells_where_it_is() -> None:
    world = World()
    answer = publish(world, {"topic": "news", "key": "k\u00e4", "data": {"b": 1, "a": [1.5, "\u00e9", None, True]}})
    assert (answer.status, answer.json) == (200, {"partition": 2, "offset": 7})
    (published,) = world.writer.published
    assert (published.topic, published.key, published.headers) == ("news", "k\u00e4".encode(), ())
    assert published.value == '{"b":1,"a":[1.5,"\u00e9",null,true]}'.encode()


@pytest.mark.parametrize("data", [None, 0, "", [], {}, False, 2**70, 1e300])
def test_data_is_any_json(data: object) -> None:
    world = World()
    assert publish(world, {"topic": "news", "data": data}).status == 200
    value = world.writer.published[0].value
    assert value is not None
    assert json.loads(value) == data


def test_an_unknown_topic_never_reaches_the_log() -> None:
    """It could be made there by asking; callers of the API may know which there are."""
    world = World()
    answer = post(world, "/api/publish", {"topic": "__consumer_offsets", "data": 1})
    assert (answer.status, answer.json["code"]) == (404, "not_found")
    assert "news, notifications" in answer.json["detail"]
    assert world.writer.published == []


def test_an_answer_waits_for_the_log() -> None:
    world = World()
    asked = Asked(public_site(world.parts), request("POST", "/api/publish", b'{"topic":"news","data":1}', KEY))
    world.clock.advance(60.0)  # the time limit is publish.timeout, which is the writer's
    assert asked.answer() is None
    world.writer.published[0].written.callback(Written(0, 3))
    answer = asked.answer()
    assert answer is not None
    assert answer.json == {"partition": 0, "offset": 3}
    assert world.metrics.http_seconds["/api/publish"].sum == 60.0


@pytest.mark.parametrize(
    ("kind", "status", "retry"),
    [
        (Kind.UNAVAILABLE, 503, True),
        (Kind.BUSY, 503, True),
        (Kind.TOO_LARGE, 413, False),
        (Kind.UNKNOWN_OUTCOME, 504, False),
    ],
)
def test_what_the_log_refuses_is_told(kind: Kind, status: int, retry: bool) -> None:
    world = World()
    asked = Asked(public_site(world.parts), request("POST", "/api/publish", b'{"topic":"news","data":1}', KEY))
    world.writer.published[0].written.errback(PublishError("the log says no", kind))
    answer = asked.answer()
    assert answer is not None
    assert (answer.status, answer.json["code"]) == (status, kind.wire.code)
    assert answer.json["detail"] == "the log says no"
    assert ("retry-after" in answer.headers) is retry


def test_key_and_data_are_bounded() -> None:
    world = World(publish=Publish(max_bytes=1024))
    assert publish(world, {"topic": "news", "key": "k" * 22, "data": "x" * 1000}).status == 200
    answer = post(world, "/api/publish", {"topic": "news", "key": "k" * 23, "data": "x" * 1000})
    assert (answer.status, answer.json["code"]) == (413, "too_large")
    assert len(world.writer.published) == 1


@pytest.mark.parametrize(
    ("topic", "given", "written"),
    [
        ("notifications", {"data": {}}, {"value": {"user_id": "alice"}}),
        ("notifications", {"data": {"user_id": "alice"}}, {"value": {"user_id": "alice"}}),
        ("notifications", {"data": {"user_id": ["alice"]}}, {"value": {"user_id": ["alice"]}}),
        ("notifications", {"data": {"user_id": None, "a": 1}}, {"value": {"user_id": "alice", "a": 1}}),
        ("deep", {"data": {"x": 1}}, {"value": {"x": 1, "after": {"user_id": "alice"}}}),
        ("deep", {"data": {"after": {"b": 2}}}, {"value": {"after": {"b": 2, "user_id": "alice"}}}),
        ("deep", {"data": {"after": None}}, {"value": {"after": {"user_id": "alice"}}}),
        ("deep", {"data": {"before": {"user_id": "alice"}}}, {"value": {"before": {"user_id": "alice"}}}),
        ("keyed", {"data": 1}, {"value": 1, "key": b"alice"}),
        ("keyed", {"data": 1, "key": "alice"}, {"value": 1, "key": b"alice"}),
        ("headed", {"data": 1}, {"value": 1, "headers": (("user", b"alice"),)}),
        ("headed", {"data": 1, "key": "alice"}, {"value": 1, "key": b"alice"}),
    ],
)
def test_user_id_sets_what_user_from_reads(topic: str, given: dict[str, Any], written: dict[str, Any]) -> None:
    """A record that names its user elsewhere than where the gateway looks would reach nobody."""
    world = World()
    assert publish(world, {"topic": topic, "userId": "alice", **given}).status == 200
    (published,) = world.writer.published
    assert json.loads(published.value or b"") == written["value"]
    assert (published.key, published.headers) == (written.get("key"), written.get("headers", ()))


@pytest.mark.parametrize(
    ("topic", "given"),
    [
        ("notifications", {"data": {"user_id": "bob"}}),
        ("notifications", {"data": {"user_id": ["alice", "bob"]}}),
        ("notifications", {"data": {"user_id": {}}}),
        ("notifications", {"data": {"user_id": ""}}),
        ("notifications", {"data": "text"}),
        ("notifications", {"data": None}),
        ("notifications", {"data": {}, "userId": ""}),
        ("deep", {"data": {"after": "text"}}),
        ("deep", {"data": {"before": {"user_id": "bob"}}}),
        ("keyed", {"data": 1, "key": "bob"}),
        ("headed", {"data": 1, "key": "bob"}),
        ("news", {"data": {}}),
        ("rooms", {"data": {}, "key": "42"}),
    ],
)
def test_a_user_id_that_does_not_fit_is_refused(topic: str, given: dict[str, Any]) -> None:
    world = World()
    answer = post(world, "/api/publish", {"topic": topic, "userId": "alice", **given})
    assert (answer.status, answer.json["code"]) == (400, "bad_request")
    assert answer.json["detail"].startswith("userId: ")
    assert world.writer.published == []


DEEP = b"[" * 50_000 + b"]" * 50_000


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"not json", "bad_json"),
        (b"{", "bad_json"),
        (b'{"topic":"news","data":1}{}', "bad_json"),
        (b'{"topic":"news","data":1,}', "bad_json"),
        (b'\xef\xbb\xbf{"topic":"news","data":1}', "bad_json"),
        ('{"topic":"news","data":1}'.encode("utf-16"), "bad_json"),
        (b'{"topic":"news","data":"\xff"}', "bad_json"),
        (b'{"topic":"news","data":NaN}', "bad_json"),
        (b'{"topic":"news","data":[-Infinity]}', "bad_json"),
        (b'{"topic":"news","data":1e400}', "bad_json"),
        (b'{"topic":"news","data":' + b"9" * 5000 + b"}", "bad_json"),
        (b'{"topic":"news","data":' + DEEP + b"}", "bad_json"),
        (b'{"topic":"news","data":' + b"[" * 65 + b"]" * 65 + b"}", "bad_request"),
        (b'{"topic":"news","topic":"news","data":1}', "bad_json"),
        (b'{"topic":"news","data":{"a":1,"a":1}}', "bad_json"),
        (b'{"topic":"news","data":"\\ud800"}', "bad_request"),
        (b'{"topic":"news","data":1,"key":"\\ud800"}', "bad_request"),
        (b'{"topic":"news","data":1,"kye":"k"}', "bad_request"),
        (b'{"topic":"news","data":1,"\\u001b[31m\\ud800":"k"}', "bad_request"),
        (b'{"topic":"news"}', "bad_request"),
        (b'{"data":1}', "bad_request"),
        (b'{"topic":["news"],"data":1}', "bad_request"),
        (b'{"topic":"news","data":1,"key":null}', "bad_request"),
        (b'{"topic":"news","data":1,"userId":7}', "bad_request"),
        (b"[]", "bad_request"),
        (b"null", "bad_request"),
    ],
)
def test_bodies_are_strict(body: bytes, code: str) -> None:
    """What JSON readers disagree about, and what is not known here, is refused instead of guessed at."""
    world = World(publish=Publish(max_bytes=1024 * 1024))
    answer = post(world, "/api/publish", body)
    assert (answer.status, answer.json["code"]) == (400, code)
    assert world.writer.published == []


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""]
)
def test_a_browsers_form_is_not_a_call(kind: str) -> None:
    """A page elsewhere can send these without asking first (CORS); JSON it cannot."""
    answer = post(World(), "/api/publish", {"topic": "news", "data": 1}, content_type=kind)
    assert (answer.status, answer.json["code"]) == (415, "unsupported_media_type")


def test_a_charset_does_no_harm() -> None:
    body = {"userId": "nobody"}
    assert post(World(), "/api/disconnect", body, content_type="application/JSON; charset=utf-8").status == 200


# --- connections -----------------------------------------------------------------------------------------------------


def test_connections_of_a_user() -> None:
    world = World()
    world.clock.advance(100.0)
    world.sessions.there = [session("a", "ali\u00e7e", 90.0), session("b", "bob", 95.0)]
    world.sessions.there[0].records = 4
    answer = get(world, "/api/connections?userId=ali%C3%A7e")
    assert answer.json == {
        "total": 1,
        "connections": [
            {
                "connectionId": "a",
                "userId": "ali\u00e7e",
                "address": "192.0.2.7",
                "state": "live",
                "seconds": 10.0,
                "topics": [],
                "recordsSent": 4,
                "messagesReceived": 0,
            }
        ],
    }


def test_a_list_of_connections_is_bounded() -> None:
    world = World()
    world.sessions.there = [session(str(n), "alice") for n in range(1200)]
    answer = get(world, "/api/connections?userId=alice")
    assert (answer.json["total"], len(answer.json["connections"])) == (1200, 1000)


@pytest.mark.parametrize("query", ["", "?userId=a&userId=b", "?userid=a", "?userId=%FF"])
def test_connections_are_asked_for_by_one_user(query: str) -> None:
    answer = get(World(), f"/api/connections{query}")
    assert (answer.status, answer.json["code"]) == (400, "bad_request")


@pytest.mark.parametrize(
    ("body", "gone"),
    [
        ({"userId": "alice", "reason": "spam"}, ["a", "c"]),
        ({"connectionId": "b"}, ["b"]),
        ({"userId": "nobody"}, []),
        ({"connectionId": "alice"}, []),
    ],
)
def test_disconnect(body: dict[str, str], gone: list[str]) -> None:
    """4411 tells the client not to come back; asking for who is gone already is no error."""
    world = World()
    world.sessions.there = [session("a", "alice"), session("b", "bob"), session("c", "alice")]
    answer = post(world, "/api/disconnect", body)
    assert (answer.status, answer.json) == (200, {"disconnected": len(gone)})
    assert world.sessions.told == [(id, Close.OPERATOR, body.get("reason", "")) for id in gone]


@pytest.mark.parametrize(
    "body", [{}, {"userId": "a", "connectionId": "b"}, {"userId": 7}, {"userId": "a", "reason": "\u00e9" * 62}]
)
def test_disconnect_is_told_whom_exactly(body: dict[str, object]) -> None:
    """A close frame has room for 123 bytes: a longer reason would make it one that clients reject."""
    world = World()
    world.sessions.there = [session("a", "a")]
    assert post(world, "/api/disconnect", body).status == 400
    assert world.sessions.told == []


# --- what there is ---------------------------------------------------------------------------------------------------


def test_topics() -> None:
    assert get(World(), "/api/topics").json == {
        "topics": [
            {
                "name": "news",
                "audience": "everyone",
                "epoch": "e1",
                "partitions": {"0": {"first": 1, "next": 5, "end": 5}, "1": {"first": 0, "next": 2, "end": 9}},
                "window": {"records": 7, "bytes": 700},
                "subscribers": 3,
            }
        ]
    }


def test_info_gives_the_reasons_that_readyz_keeps_to_itself() -> None:
    world = World()
    site = public_site(world.parts)
    world.clock.advance(12.0)
    world.reader.checks = {"kafka": (Health.DEGRADED, "broker.internal:9092 is away")}
    answer = ask(site, request("GET", "/api/info", key=KEY)).json
    assert (answer["version"], answer["uptimeSeconds"], answer["log"]) == ("1.2.3", 12.0, "embedded")
    assert answer["checks"] == {"kafka": {"status": "degraded", "reason": "broker.internal:9092 is away"}}
    assert b"broker.internal" not in ask(site, request("GET", "/readyz")).body
