"""Makes a record one user's: puts the user where the topic's ``userFrom`` will find it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gateway.config import TopicSettings
from gateway.core.content import user_finder
from gateway.errors import Kind, Refused
from gateway.model import Audience, Record

Headers = tuple[tuple[str, bytes], ...]


def address(
    topic: TopicSettings, user: str, key: bytes | None, data: Any, headers: Headers = ()
) -> tuple[bytes | None, Any, Headers]:
    """Key, data (a JSON value) and headers with the user where ``userFrom`` looks first, unless it is found already.
    Raises Refused where another user is, or where there is no place for one."""
    if topic.audience is not Audience.USER:
        raise Refused(f"{topic.name} has audience {topic.audience.value}, not user", Kind.BAD_REQUEST)
    if not user:
        raise Refused("the user is empty", Kind.BAD_REQUEST)
    found = user_finder(topic.user_from)(Record(topic.name, 0, 0, None, key, None, headers), data)
    if found is not None:
        if tuple(found) != (user,):
            raise Refused(f"the record names another user in {' or '.join(topic.user_from)}", Kind.BAD_REQUEST)
        return key, data, headers
    place, _, rest = topic.user_from[0].partition(".")
    if place == "key":
        return user.encode(), data, headers
    if place == "header":
        return key, data, (*headers, (rest, user.encode()))
    if not isinstance(data, dict):
        raise Refused(f"data is no object with {rest} in it", Kind.BAD_REQUEST)
    return key, _with_user(data, rest.split("."), user), headers


def _with_user(data: Mapping[str, Any], path: Sequence[str], user: str) -> dict[str, Any]:
    """``data`` with ``user`` at ``path``; objects on the way are made where there is nothing."""
    step, *rest = path
    if not rest:
        return {**data, step: user}
    inner = data.get(step)
    if inner is not None and not isinstance(inner, dict):
        raise Refused(f"data has something else at {step}", Kind.BAD_REQUEST)
    return {**data, step: _with_user(inner or {}, rest, user)}
