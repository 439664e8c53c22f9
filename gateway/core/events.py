"""The bodies of all frames to clients but records: what ``docs/protocol.md`` lists under *Server to client*."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gateway.model import Gap

Body = dict[str, Any]


def _with_id(body: Body, id: str | None) -> Body:
    if id is not None:
        body["id"] = id
    return body


def _position(position: Mapping[int, int]) -> dict[str, int]:
    return {str(partition): position[partition] for partition in sorted(position)}


def _gaps(gaps: Iterable[Gap]) -> list[Body]:
    return [{"partition": g.partition, "from": g.first, "to": g.next, "reason": g.reason.value} for g in gaps]


def subscription(topic: str, names: Sequence[str], epoch: str | None, position: Mapping[int, int]) -> Body:
    """One topic of CONNECTED, and what SUBSCRIBED says."""
    return {"topic": topic, "names": list(names), "epoch": epoch, "position": _position(position)}


def connected(
    user: str,
    connection: str,
    subscriptions: list[Body],
    expires_at: str | None,
    message_bytes: int,
    messages_per_second: float,
    timestamp: str,
) -> Body:
    return {
        "type": "CONNECTED",
        "userId": user,
        "connectionId": connection,
        "subscriptions": subscriptions,
        "expiresAt": expires_at,
        "limits": {"messageBytes": message_bytes, "messagesPerSecond": messages_per_second},
        "timestamp": timestamp,
    }


def subscribed(subscription: Body, id: str | None) -> Body:
    return _with_id({"type": "SUBSCRIBED", **subscription}, id)


def unsubscribed(topic: str, names: Sequence[str], reason: str, id: str | None) -> Body:
    return _with_id({"type": "UNSUBSCRIBED", "topic": topic, "names": list(names), "reason": reason}, id)


def recovered(
    topic: str,
    names: Sequence[str],
    count: int,
    gaps: Iterable[Gap],
    epoch: str | None,
    position: Mapping[int, int],
    id: str | None,
) -> Body:
    body: Body = {"type": "RECOVERED", "topic": topic, "names": list(names), "count": count, "gaps": _gaps(gaps)}
    body |= {"epoch": epoch, "position": _position(position)}
    return _with_id(body, id)


def gap(topic: str, gaps: Iterable[Gap], epoch: str | None, position: Mapping[int, int]) -> Body:
    return {"type": "GAP", "topic": topic, "gaps": _gaps(gaps), "epoch": epoch, "position": _position(position)}


def position(topic: str, epoch: str | None, at: Mapping[int, int]) -> Body:
    return {"type": "POSITION", "topic": topic, "epoch": epoch, "position": _position(at)}


def ack(original: str, id: str | None, timestamp: str, **more: object) -> Body:
    return _with_id({"type": "ACK", "originalType": original, **more, "timestamp": timestamp}, id)


def error(
    code: str, message: str, original: str | None, id: str | None, timestamp: str, retry_after: float | None = None
) -> Body:
    body: Body = {"type": "ERROR", "code": code, "message": message}
    if original is not None:
        body["originalType"] = original
    if retry_after is not None:
        body["retryAfter"] = retry_after
    return _with_id(body | {"timestamp": timestamp}, id)


def token_expiring(expires_at: str | None) -> Body:
    return {"type": "TOKEN_EXPIRING", "expiresAt": expires_at}


def pong(id: str | None) -> Body:
    return _with_id({"type": "PONG"}, id)
