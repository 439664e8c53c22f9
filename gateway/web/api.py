"""``/api``: what operators and back-end services ask of a gateway. Every call needs an API key, and is in the log.

=====  ====================  ===========================================================================
POST   /api/publish          ``{topic, key?, userId?, data}`` -> ``{partition, offset}``
POST   /api/disconnect       ``{userId}`` or ``{connectionId}``, ``reason?`` -> ``{disconnected}``
GET    /api/connections      ``?userId=`` -> ``{total, connections}``
GET    /api/topics           every topic with its window and partitions
GET    /api/info             version, uptime, what is in use, and every check with its reason
=====  ====================  ===========================================================================

Bodies are strict: one JSON object in UTF-8, no field twice, none that is not known. Errors are problem documents.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

from twisted.logger import Logger

from gateway.config import Config
from gateway.core import recipient
from gateway.core.content import MAX_DEPTH, Form, examine
from gateway.core.session import Session
from gateway.errors import Close, GatewayError, Kind, Refused
from gateway.model import Health
from gateway.ports import Clock, LogWriter
from gateway.services.dispatcher import TopicInfo
from gateway.web.bodies import json_object, parameter, text
from gateway.web.routes import Call, Handler, Reply, json_reply

MAX_LISTED = 1000  # connections in one answer
MAX_REASON = 123  # bytes: what a close frame has room for (RFC 6455 section 5.5)
RETRY_AFTER = 5.0  # seconds, where the log does not say

Done = tuple[dict[str, Any], dict[str, Any]]  # the answer, and what the log says of the call

_log = Logger()

Checks = Mapping[str, tuple[Health, str]]  # by name: how a part is, and why


class Sessions(Protocol):
    """Of ``services/sessions.py``."""

    def all(self) -> Collection[Session]:
        """Every session."""

    def of_user(self, user: str) -> Collection[Session]:
        """Those of one user."""

    def close(self, session: Session, code: Close, reason: str = "") -> None:
        """End it."""


class Topics(Protocol):
    """Of ``services/dispatcher.py``."""

    def topics(self) -> Sequence[TopicInfo]:
        """Every configured topic as it stands."""


class Api:
    """The handlers, and what they all need first: a key, and a process that is not about to end."""

    def __init__(
        self,
        config: Config,
        sessions: Sessions,
        topics: Topics,
        positioned: Callable[[], bool],
        health: Callable[[], Checks],
        writer: LogWriter,
        clock: Clock,
        draining: Callable[[], bool],
        version: str,
    ) -> None:
        self._keys = [_digest(key) for key in config.admin.api_keys]
        self._settings = {topic.name: topic for topic in config.kafka.topics}
        self._log_name = "kafka" if config.kafka.bootstrap_servers else "embedded"
        self._max_bytes = config.publish.max_bytes
        self._sessions = sessions
        self._topics = topics
        self._positioned = positioned
        self._health = health
        self._writer = writer
        self._clock = clock
        self._draining = draining
        self._version = version
        self._started = clock.seconds()

    def routes(self) -> dict[str, dict[str, Handler]]:
        """Path -> method -> handler."""
        return {
            "/api/publish": {"POST": self._guarded(self._publish)},
            "/api/disconnect": {"POST": self._guarded(self._disconnect)},
            "/api/connections": {"GET": self._guarded(self._list_connections)},
            "/api/topics": {"GET": self._guarded(self._list_topics)},
            "/api/info": {"GET": self._guarded(self._info)},
        }

    def _guarded(self, work: Callable[[Call], Awaitable[Done]]) -> Handler:
        async def guarded(call: Call) -> Reply:
            key = None
            try:
                key = self._authorize(call)
                if self._draining():
                    raise Refused("this process is about to end: ask another one", Kind.DRAINING, RETRY_AFTER)
                result, about = await work(call)
            except GatewayError as error:
                _log.warn("api call refused: {method} {path}", **_audit(call, key, error.kind.wire.status, error))
                raise
            _log.info("api call: {method} {path}", **_audit(call, key, 200), **about)
            return json_reply(result)

        return guarded

    def _authorize(self, call: Call) -> str:
        """Which key it is, as the beginning of its digest. The time it takes tells nothing about the keys."""
        scheme, _, given = call.header(b"authorization").partition(" ")
        digest = _digest(given.strip())
        found = [key for key in self._keys if hmac.compare_digest(key, digest)]
        if scheme.lower() != "bearer" or not found:
            raise Refused("send Authorization: Bearer with a key of admin.apiKeys", Kind.UNAUTHORIZED)
        return found[0].hex()[:8]

    async def _publish(self, call: Call) -> Done:
        body = json_object(call, {"topic", "key", "userId", "data"})
        topic = self._settings.get(text(body, "topic"))
        if topic is None:
            raise Refused(f"topic: not configured; there are {', '.join(sorted(self._settings))}", Kind.NOT_FOUND)
        if "data" not in body:
            raise Refused("data: is missing", Kind.BAD_REQUEST)
        key = text(body, "key").encode() if "key" in body else None
        data = body["data"]
        headers: recipient.Headers = ()
        if "userId" in body:
            try:
                key, data, headers = recipient.address(topic, text(body, "userId"), key, data)
            except Refused as refused:
                raise Refused(f"userId: {refused.message}", Kind.BAD_REQUEST) from None
        value = _value(data)
        if len(value) + len(key or b"") > self._max_bytes:
            raise Refused(f"key and data: more than {self._max_bytes} bytes (publish.maxBytes)", Kind.TOO_LARGE)
        try:
            written = await self._writer.publish(topic.name, key, value, headers)
        except GatewayError as error:
            if error.kind.wire.status == 503 and error.retry_after is None:
                error.retry_after = RETRY_AFTER
            raise
        result = {"partition": written.partition, "offset": written.offset}
        return result, {"topic": topic.name, **result}

    async def _disconnect(self, call: Call) -> Done:
        body = json_object(call, {"userId", "connectionId", "reason"})
        reason = text(body, "reason") if "reason" in body else ""
        if len(reason.encode()) > MAX_REASON:
            raise Refused(f"reason: has more than {MAX_REASON} bytes", Kind.BAD_REQUEST)
        if ("userId" in body) == ("connectionId" in body):
            raise Refused("give either userId or connectionId", Kind.BAD_REQUEST)
        if "userId" in body:
            about = {"user": text(body, "userId")}
            found = list(self._sessions.of_user(about["user"]))
        else:
            about = {"connection": text(body, "connectionId")}
            found = [session for session in self._sessions.all() if session.id == about["connection"]]
        for session in found:
            self._sessions.close(session, Close.OPERATOR, reason)
        return {"disconnected": len(found)}, {**about, "reason": reason, "disconnected": len(found)}

    async def _list_connections(self, call: Call) -> Done:
        user = parameter(call, "userId")
        found = list(self._sessions.of_user(user))
        now = self._clock.seconds()
        listed = [
            {
                "connectionId": session.id,
                "userId": session.principal.user,
                "address": session.address,
                "state": session.state.name.lower(),
                "seconds": round(now - session.opened_at, 3),
                "topics": sorted(session.subscriptions),
                "recordsSent": session.records,
                "messagesReceived": session.messages,
            }
            for session in found[:MAX_LISTED]
        ]
        return {"total": len(found), "connections": listed}, {"user": user}

    async def _list_topics(self, call: Call) -> Done:
        return {"topics": [_topic(info) for info in self._topics.topics()]}, {}

    async def _info(self, call: Call) -> Done:
        checks = {name: {"status": health.value, "reason": why} for name, (health, why) in self._health().items()}
        result = {
            "version": self._version,
            "uptimeSeconds": round(self._clock.seconds() - self._started, 3),
            "log": self._log_name,
            "registry": "embedded",
            "clients": len(self._sessions.all()),
            "topics": sorted(self._settings),
            "positioned": self._positioned(),
            "checks": checks,
        }
        return result, {}


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "replace")).digest()


def _audit(call: Call, key: str | None, status: int, error: GatewayError | None = None) -> dict[str, Any]:
    fields = {"method": call.method, "path": call.path, "address": call.address, "api_key": key, "status": status}
    return fields if error is None else fields | {"error": error.message}


def _value(data: object) -> bytes:
    """As it goes into the log: what reaches clients as JSON. Raises Refused."""
    try:
        value = json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        raise Refused("data: has half a surrogate pair", Kind.BAD_REQUEST) from None
    except RecursionError:
        value = b""
    if examine(value)[0] is not Form.JSON:
        raise Refused(f"data: is nested more than {MAX_DEPTH} deep", Kind.BAD_REQUEST)
    return value


def _topic(info: TopicInfo) -> dict[str, object]:
    partitions = {
        str(partition): {"first": first, "next": next_, "end": end}
        for partition, (first, next_, end) in info.partitions.items()
    }
    return {
        "name": info.name,
        "audience": info.audience,
        "epoch": info.epoch,
        "partitions": partitions,
        "window": {"records": info.records, "bytes": info.bytes},
        "subscribers": info.subscribers,
    }
