"""Addressing a record to a user: the dispatcher must find exactly that user in it, or the caller is told why not."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from gateway.config import TopicSettings
from gateway.core.content import user_finder
from gateway.core.recipient import address
from gateway.errors import Refused
from gateway.model import Audience, Record


def topic(*user_from: str, audience: Audience = Audience.USER) -> TopicSettings:
    return TopicSettings(name="t", audience=audience, user_from=user_from)


@pytest.mark.parametrize(
    ("user_from", "key", "data"),
    [
        (("value.user_id",), None, {}),
        (("value.user_id",), b"k", {"text": "hi"}),
        (("value.user_id",), None, {"user_id": "alice"}),
        (("value.user_id",), None, {"user_id": ["alice"]}),
        (("value.a.b.c",), None, {"a": {"x": 1}}),
        (("value.a.b",), None, {"a": None}),
        (("key",), None, "anything"),
        (("key",), b"alice", [1]),
        (("header.user",), b"k", None),
        (("value.after.id", "value.before.id"), None, {"before": {"id": "alice"}}),
        (("value.after.id", "value.before.id"), None, {}),
    ],
)
def test_the_user_is_found_where_the_topic_looks(user_from: tuple[str, ...], key: bytes | None, data: Any) -> None:
    before = copy.deepcopy(data)
    key_, data_, headers = address(topic(*user_from), "alice", key, data)
    assert list(user_finder(user_from)(Record("t", 0, 0, None, key_, None, headers), data_) or ()) == ["alice"]
    assert data == before  # what the caller holds is not changed
    if isinstance(data, dict):
        assert {name for name in data if name != "a"} <= set(data_)


@pytest.mark.parametrize(
    ("settings", "user", "key", "data", "told"),
    [
        (topic("key", audience=Audience.KEY), "alice", None, {}, "t has audience key, not user"),
        (topic("key", audience=Audience.EVERYONE), "alice", None, {}, "t has audience everyone, not user"),
        (topic("key"), "", None, {}, "the user is empty"),
        (topic("key"), "alice", b"bob", {}, "the record names another user in key"),
        (topic("value.id"), "alice", None, {"id": "bob"}, "the record names another user in value.id"),
        (topic("value.id"), "alice", None, {"id": ["alice", "bob"]}, "the record names another user in value.id"),
        (topic("value.id"), "alice", None, [], "data is no object with id in it"),
        (topic("value.a.id"), "alice", None, {"a": 7}, "data has something else at a"),
    ],
)
def test_where_there_is_no_place_for_the_user_nothing_is_guessed(
    settings: TopicSettings, user: str, key: bytes | None, data: Any, told: str
) -> None:
    with pytest.raises(Refused) as caught:
        address(settings, user, key, data)
    assert str(caught.value) == told
    assert caught.value.kind.wire.status == 400
