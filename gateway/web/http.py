"""What is asked by HTTP: health, metrics, the API; on the public port, or on an admin port of its own.

The health paths answer on both. With ``admin.port`` set, metrics and API are on that port only.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from gateway.config import Config
from gateway.metrics import Metrics
from gateway.model import Health
from gateway.ports import Clock, LogWriter
from gateway.web.api import Api, Checks, Sessions, Topics
from gateway.web.routes import Call, Handler, Reply, Routes, Site, json_reply

_BODY_SLACK = 16 * 1024  # bytes of a request's body above publish.maxBytes: its other fields, and escapes


@attrs.frozen
class HttpParts:
    """What the answers are made of."""

    config: Config
    sessions: Sessions
    dispatcher: Topics
    positioned: Callable[[], bool]
    health: Callable[[], Checks]
    writer: LogWriter
    metrics: Metrics
    registry: CollectorRegistry
    clock: Clock
    draining: Callable[[], bool]
    version: str


def public_site(parts: HttpParts) -> Site:
    """What ``server.port`` answers beside the WebSocket."""
    routes = _health(parts)
    if parts.config.admin.port is None:
        routes |= _operations(parts)
    auth = parts.config.auth
    return _site(parts, routes, loopback_only=auth.mode == "none" and not auth.allow_insecure)


def admin_site(parts: HttpParts) -> Site:
    """What ``admin.port`` answers."""
    return _site(parts, _health(parts) | _operations(parts))


def _site(parts: HttpParts, routes: Routes, loopback_only: bool = False) -> Site:
    config = parts.config
    return Site(
        routes,
        parts.metrics,
        parts.clock,
        max_body=config.publish.max_bytes + _BODY_SLACK,
        read_timeout=config.server.read_timeout,
        write_timeout=config.server.write_timeout,
        loopback_only=loopback_only,
    )


def _health(parts: HttpParts) -> dict[str, dict[str, Handler]]:
    async def health(call: Call) -> Reply:
        return json_reply({"status": "ok", "client_count": len(parts.sessions.all())})

    async def alive(call: Call) -> Reply:
        return json_reply({"status": "ok"})

    async def ready(call: Call) -> Reply:
        # Why a check is not ok is told by /api/info: it names brokers, and these paths are everybody's.
        checks = {name: health for name, (health, _) in parts.health().items()}
        checks["positioned"] = Health.OK if parts.positioned() else Health.FAILED
        checks["draining"] = Health.FAILED if parts.draining() else Health.OK
        # An outage of Kafka must not make every process unready while its windows can serve.
        serves = checks["positioned"] is checks["draining"] is Health.OK
        worst = Health.FAILED if not serves else Health.OK if set(checks.values()) == {Health.OK} else Health.DEGRADED
        named = {name: health.value for name, health in checks.items()}
        return json_reply({"status": worst.value, "checks": named}, 200 if serves else 503)

    return {"/health": {"GET": health}, "/healthz": {"GET": alive}, "/readyz": {"GET": ready}}


def _operations(parts: HttpParts) -> dict[str, dict[str, Handler]]:
    async def metrics(call: Call) -> Reply:
        return Reply(200, generate_latest(parts.registry), CONTENT_TYPE_PLAIN_0_0_4)

    config = parts.config
    routes: dict[str, dict[str, Handler]] = {}
    if config.metrics.enabled:
        routes[config.metrics.path] = {"GET": metrics}
    if config.admin.api_keys:
        api = Api(
            config,
            parts.sessions,
            parts.dispatcher,
            parts.positioned,
            parts.health,
            parts.writer,
            parts.clock,
            parts.draining,
            parts.version,
        )
        routes |= api.routes()
    return routes
