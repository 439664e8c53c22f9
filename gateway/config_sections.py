# ruff: noqa: RUF009 - key() and section() make attrs fields
"""Every key of the configuration, declared once: type, unit, default, and one line on what it means.

The loader (``config.py``), ``docs/configuration.md`` and the comments in ``etc/config.yaml`` stand on these.
An attribute is the snake_case of its camelCase key; durations are seconds, sizes bytes, what may be left out is None.
"""

from __future__ import annotations

from typing import Literal

import attrs

from gateway.config_formats import (
    API_KEY,
    BROKER,
    CLAIM,
    DAY,
    FILE,
    HOST,
    HOUR,
    LAG,
    NAMES,
    NETWORK,
    ORIGIN,
    PATH,
    PORT,
    PREFIX,
    RATE,
    TEXT,
    TIMEOUT,
    URL,
    WINDOW_AGE,
    WINDOW_BYTES,
    GiB,
    KiB,
    MiB,
)
from gateway.config_kafka import Kafka
from gateway.config_keys import key, section
from gateway.config_values import Choice, Duration, Flag, Many, Maybe, Network, Size, Text, Whole

AuthMode = Literal["jwt", "none"]
RejectWith = Literal["auto", "http", "close"]
Level = Literal["debug", "info", "warn", "error"]
LogFormat = Literal["json", "text"]


@attrs.frozen(kw_only=True)
class Drain:
    """How the process ends."""

    timeout: float = key(Duration(0.1, HOUR), 25.0, "how long an orderly end may take; longer than server.writeTimeout")
    pace: int = key(RATE, 500, "clients told to go away a second; faster where drain.timeout would not be enough")


@attrs.frozen(kw_only=True)
class Server:
    """The public port."""

    host: str = key(
        HOST,
        "0.0.0.0",  # noqa: S104 - the gateway is there for others
        "address to listen on; loopback with auth.mode none, unless auth.allowInsecure",
    )
    port: int = key(PORT, 8080, "port to listen on; 0 takes a free one")
    path: str = key(PATH, "/ws", "path of the WebSocket")
    listen: tuple[str, ...] = key(
        Many(Text("a Twisted endpoint string"), most=16),
        (),
        "Twisted endpoints instead of host and port, as unix:/run/ws-gateway.sock or systemd:domain=INET:index=0",
    )
    read_timeout: float = key(TIMEOUT, 10.0, "a request must be whole by then")
    write_timeout: float = key(TIMEOUT, 10.0, "handshake answers, HTTP answers and close frames must be taken by then")
    ping_interval: float = key(TIMEOUT, 25.0, "time between two PINGs to a client")
    ping_timeout: float = key(
        TIMEOUT, 10.0, "a PONG must come by then, with 1 s more for each KiB sent: close code 4502"
    )
    position_interval: float = key(
        Duration(0.05, HOUR, "never"), 30.0, "POSITION to sessions whose own records are rare; 0 is never"
    )
    origins: tuple[str, ...] = key(
        Many(ORIGIN), (), 'origins that browsers may come from, exactly; empty is the same host only, ["*"] is any'
    )
    trusted_proxies: tuple[Network, ...] = key(
        Many(NETWORK), (), "addresses or networks whose X-Forwarded-For tells the client's address"
    )
    compression: bool = key(Flag(), True, "accept permessage-deflate from clients; what goes out is not compressed")
    drain: Drain = section(Drain)


@attrs.frozen(kw_only=True)
class Admin:
    """A port of its own for /metrics and /api, and the keys of /api."""

    host: str = key(HOST, "127.0.0.1", "address of the admin port")
    port: int | None = key(
        Maybe(PORT), None, "serve /metrics and /api on this port instead of the public one; 0 takes a free one"
    )
    api_keys: tuple[str, ...] = key(
        Many(API_KEY, most=100),
        (),
        "keys for /api, which is off without one",
        secret=True,
    )
    api_keys_file: str | None = key(Maybe(FILE), None, "file with such keys, one a line")


@attrs.frozen(kw_only=True)
class Redis:
    """Read so that a configuration that names a Redis loads; the registry is the embedded one for now."""

    addr: str | None = key(Maybe(BROKER), None, "accepted, not used yet: the registry is embedded, as the start says")
    password: str | None = key(
        Maybe(Text(pattern=r"[^\x00-\x1f\x7f]{0,4096}")), None, "accepted, not used yet", secret=True
    )
    db: int = key(Whole(0, 1_000_000), 0, "accepted, not used yet")


@attrs.frozen(kw_only=True)
class Auth:
    """Who may connect.

    ``secrets`` and ``public_keys`` are no keys: they are what the loader found in text and files.
    """

    mode: AuthMode = key(
        Choice[AuthMode](("jwt", "none")), "jwt", "none lets everybody in under any name: for development, on loopback"
    )
    secret: str | None = key(
        Maybe(TEXT), None, "key of HS256, HS384, HS512 tokens, 32 bytes or more; better from secretFile", secret=True
    )
    secret_file: str | None = key(Maybe(FILE), None, "file with such a key; two lines are two keys, while they rotate")
    public_key_file: str | None = key(
        Maybe(FILE), None, "PEM file with a public key, or two, for RS, PS, ES and EdDSA tokens"
    )
    jwks_url: str | None = key(Maybe(URL), None, "where the token issuer publishes its keys")
    jwks_refresh: float = key(Duration(0.1, DAY), 300.0, "how old those keys may be before they are fetched again")
    audience: tuple[str, ...] = key(Many(TEXT), (), "aud that a token must have one of")
    issuer: tuple[str, ...] = key(Many(TEXT), (), "iss that a token must have one of")
    leeway: float = key(Duration(0, 60), 30.0, "how far the issuer's clock may be off")
    max_lifetime: float | None = key(
        Maybe(Duration(1, 3650 * DAY)), None, "tokens that are valid for longer than this are refused"
    )
    user_claim: str = key(CLAIM, "sub", "claim, or path with dots, of the user")
    topics_claim: str = key(CLAIM, "topics", "claim, or path with dots, of the names a token may subscribe to")
    publish_claim: str = key(CLAIM, "publish", "claim, or path with dots, of the names a token may publish to")
    default_topics: tuple[str, ...] = key(
        NAMES, ("*",), "for tokens without that claim; names with * and {sub}; a * here never reaches a keyed topic"
    )
    default_publish: tuple[str, ...] = key(NAMES, ("*",), "for tokens without that claim, likewise")
    token_in_query: bool = key(Flag(), True, "take a token from the URL's query as well")
    expiry_warning: float = key(Duration(0, DAY), 60.0, "TOKEN_EXPIRING so long before a token runs out")
    reject_with: RejectWith = key(
        Choice[RejectWith](("auto", "http", "close")),
        "auto",
        "tell a refusal for good by HTTP status, by a close code after the upgrade, or (auto) the latter to browsers",
    )
    allow_insecure: bool = key(Flag(), False, "let auth.mode none listen on any address, and auth.jwksUrl be http")
    secrets: tuple[bytes, ...] = attrs.field(default=(), repr=False)
    public_keys: tuple[bytes, ...] = attrs.field(default=(), repr=False)


@attrs.frozen(kw_only=True)
class Limits:
    """What one client, or all together, may take."""

    connections: int = key(Whole(0, 10_000_000), 100_000, "connections in all; 0 is no limit")
    connections_per_user: int = key(Whole(0, 10_000_000), 100, "connections of one user; 0 is no limit")
    connections_per_address: int = key(
        Whole(0, 10_000_000), 1000, "connections from one address (see server.trustedProxies); 0 is no limit"
    )
    handshakes_per_second: int = key(RATE, 1000, "handshakes a second; more are told to come back later")
    handshakes_pending: int = key(RATE, 1000, "connections whose handshake is not over")
    message_bytes: int = key(Size(128, 16 * MiB), 64 * KiB, "one message of a client, inflated")
    messages_per_second: int = key(RATE, 50, "messages a second of one connection")
    bytes_per_second: int = key(Size(128, GiB), 256 * KiB, "bytes a second of one connection; at least messageBytes")
    subscriptions: int = key(RATE, 1000, "names that one connection is subscribed to")
    subscription_bytes: int = key(Size(256, 16 * MiB), 32 * KiB, "bytes of these names")
    malformed: int = key(RATE, 20, "bad commands within 60 s, then close code 4400")


@attrs.frozen(kw_only=True)
class Window:
    """How much of each topic stays in memory, for clients that are slow or come back."""

    max_bytes: int = key(WINDOW_BYTES, 32 * MiB, "a topic's records in memory")
    max_age: float = key(WINDOW_AGE, 300.0, "age of a topic's records in memory")
    total_bytes: int = key(
        Size(KiB, 1024 * GiB), GiB, "all windows together: the oldest records go first; at least window.maxBytes"
    )


@attrs.frozen(kw_only=True)
class Connections:
    """What holds for every connection."""

    max_age: float | None = key(
        Maybe(Duration(0.1, 365 * DAY)),
        None,
        "connections older than this, give or take 20 %, are closed with 1001, so that new processes get their share",
    )


@attrs.frozen(kw_only=True)
class SlowClient:
    """When a client is too slow."""

    max_lag: float = key(LAG, 60.0, "behind, or taking nothing, for so long: close code 4501")


@attrs.frozen(kw_only=True)
class Publish:
    """What is on its way into the log."""

    max_bytes: int = key(Size(KiB, 64 * MiB), 64 * KiB, "one record's key and value")
    max_pending: int = key(Whole(1, 10_000_000), 10_000, "records that wait for the log")
    max_pending_bytes: int = key(
        Size(KiB, 64 * GiB), 16 * MiB, "bytes that wait for the log; at least publish.maxBytes"
    )
    timeout: float = key(Duration(0.1, 600), 30.0, "an answer comes by then, whatever the log does")


@attrs.frozen(kw_only=True)
class Logger:
    """What the log on stderr shows."""

    level: Level = key(
        Choice[Level](("debug", "info", "warn", "error")), "info", "the least severe lines that are written"
    )
    format: LogFormat = key(Choice[LogFormat](("json", "text")), "json", "one JSON object a line, or text for people")


@attrs.frozen(kw_only=True)
class Metrics:
    """Prometheus."""

    enabled: bool = key(Flag(), True, "serve metrics")
    namespace: str = key(PREFIX, "ws_gateway", "prefix of every metric's name")
    path: str = key(PATH, "/metrics", "where they are served")
    per_user: bool = key(Flag(), False, "one more counter with a label for each user: for few users only")


@attrs.frozen(kw_only=True)
class Config:
    """The whole configuration."""

    server: Server = section(Server)
    admin: Admin = section(Admin)
    kafka: Kafka = section(Kafka)
    redis: Redis = section(Redis)
    auth: Auth = section(Auth)
    limits: Limits = section(Limits)
    window: Window = section(Window)
    connections: Connections = section(Connections)
    slow_client: SlowClient = section(SlowClient)
    publish: Publish = section(Publish)
    logger: Logger = section(Logger)
    metrics: Metrics = section(Metrics)
