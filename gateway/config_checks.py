"""What one key alone cannot tell: rules between keys, and what an operator should know at every start."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import attrs

from gateway.config_kafka import Kafka, Security
from gateway.config_sections import Auth, Config, Limits, Publish, Server, Window
from gateway.config_values import Duration, Size
from gateway.model import Audience

# Keys that stand for one another: a variable that sets one puts those of the file out of force.
ALTERNATIVES = (
    ("auth.secret", "auth.secretFile", "auth.publicKeyFile", "auth.jwksUrl"),
    ("admin.apiKeys", "admin.apiKeysFile"),
    ("kafka.security.password", "kafka.security.passwordFile"),
)
_TOKEN_KEYS = ALTERNATIVES[0]
_OWN_PATHS = ("/health", "/healthz", "/readyz")

_duration = Duration(0, 0).show
_size = Size(0, 0).show


@attrs.frozen
class Problem:
    """A rule that does not hold, between these dotted keys; the first is the one to change."""

    keys: tuple[str, ...]
    text: str


def check(config: Config, given: Collection[str]) -> Iterator[Problem]:
    """Every rule between keys that the configuration breaks. ``given`` are the dotted keys that were set."""
    yield from _server(config.server)
    yield from _admin(config)
    yield from _paths(config)
    yield from _topics(config.kafka, given)
    yield from _security(config.kafka, given)
    yield from _auth(config.auth)
    yield from _insecure(config.auth, config.server)
    yield from _windows(config.window, config.kafka)
    yield from _bounds(config.limits, config.publish)


def notices(config: Config) -> list[str]:
    """What is allowed, and worth a line at every start."""
    found = []
    if config.auth.mode == "none":
        found.append("auth.mode: none: whoever reaches this port is let in, under any name; for development only")
    if config.auth.jwks_url is not None and not config.auth.audience:
        found.append(
            "auth.audience is not set: tokens that the issuer behind auth.jwksUrl made for any application are let in"
        )
    if config.redis.addr is not None:
        found.append(
            "redis.addr is set, and not used yet: the registry is embedded, each process knows its own connections only"
        )
    return found


def _server(server: Server) -> Iterator[Problem]:
    if server.drain.timeout <= server.write_timeout:
        yield Problem(
            ("server.drain.timeout", "server.writeTimeout"),
            f"{_duration(server.drain.timeout)}; allowed: longer than server.writeTimeout, "
            f"which is {_duration(server.write_timeout)}",
        )
    if "*" in server.origins and len(server.origins) > 1:
        yield Problem(("server.origins",), '"*" beside others; allowed: "*" alone, or a list of origins')


def _admin(config: Config) -> Iterator[Problem]:
    if config.admin.port and config.admin.port == config.server.port and not config.server.listen:
        yield Problem(("admin.port", "server.port"), f"{config.admin.port} is server.port too; allowed: another port")


def _paths(config: Config) -> Iterator[Problem]:
    paths = {"server.path": config.server.path, "metrics.path": config.metrics.path}
    for key, path in paths.items():
        if path in _OWN_PATHS or path == "/api" or path.startswith("/api/"):
            yield Problem((key,), f"{path} has another meaning; allowed: not {', '.join(_OWN_PATHS)}, nor below /api")
    if config.server.path == config.metrics.path:
        yield Problem(
            ("metrics.path", "server.path"), f"{config.metrics.path} is server.path too; allowed: another path"
        )


def _topics(kafka: Kafka, given: Collection[str]) -> Iterator[Problem]:
    if not kafka.topics:
        yield Problem(("kafka.topics",), "none; allowed: at least one topic, as [notifications]")
    names = [topic.name for topic in kafka.topics]
    for index, topic in enumerate(kafka.topics):
        path = f"kafka.topics[{index}]"
        if f"{path}.name" not in given:
            yield Problem((f"{path}.name", path), "missing; allowed: a Kafka topic name")
        elif topic.name in names[:index]:
            yield Problem((f"{path}.name",), f"{topic.name} is there twice; keep one")
        if f"{path}.userFrom" in given and topic.audience is not Audience.USER:
            yield Problem(
                (f"{path}.userFrom", f"{path}.audience"),
                f"the audience is {topic.audience.value}; allowed: only with audience user",
            )


def _security(kafka: Kafka, given: Collection[str]) -> Iterator[Problem]:
    security, section = kafka.security, "kafka.security."
    if security != Security() and not kafka.bootstrap_servers:
        used = [key for key in given if key.startswith(section)]
        yield Problem(
            ("kafka.bootstrapServers", *used), "missing, while kafka.security is set; allowed: a list of host:port"
        )
    sasl, tls = security.protocol.startswith("SASL"), security.protocol.endswith("SSL")
    for key, value in _sasl(security).items():
        if sasl and value is None:
            yield Problem((section + key, section + "protocol"), f"missing; needed with protocol {security.protocol}")
        elif not sasl and value is not None:
            yield Problem(
                (section + key, section + "protocol"),
                f"the protocol is {security.protocol}; allowed: only with SASL_PLAINTEXT or SASL_SSL",
            )
    if security.password is not None and security.password_file is not None:
        yield Problem((section + "passwordFile", section + "password"), "password is set too; keep one")
    files = {"caFile": security.ca_file, "certFile": security.cert_file, "keyFile": security.key_file}
    for key, file in files.items():
        if file is not None and not tls:
            yield Problem(
                (section + key, section + "protocol"),
                f"the protocol is {security.protocol}; allowed: only with SSL or SASL_SSL",
            )
        elif file is not None:
            yield from _readable(section + key, file)
    if (security.cert_file is None) != (security.key_file is None):
        missing = "certFile" if security.cert_file is None else "keyFile"
        yield Problem((section + missing,), "missing; a client certificate needs both certFile and keyFile")


def _sasl(security: Security) -> dict[str, object]:
    return {
        "saslMechanism": security.sasl_mechanism,
        "username": security.username,
        "passwordFile": security.password_file if security.password is None else security.password,
    }


def _readable(key: str, file: str) -> Iterator[Problem]:
    try:
        with Path(file).open("rb"):
            pass
    except OSError as error:
        yield Problem((key,), f"{file} cannot be read: {error.strerror} (working directory: {Path.cwd()})")


def _auth(auth: Auth) -> Iterator[Problem]:
    if auth.mode == "none":
        return
    values = (auth.secret, auth.secret_file, auth.public_key_file, auth.jwks_url)
    used = [key for key, value in zip(_TOKEN_KEYS, values, strict=True) if value is not None]
    if not used:
        yield Problem(
            (*_TOKEN_KEYS, "auth.mode"),
            "no key to check tokens with; allowed: one of auth.secret, auth.secretFile, auth.publicKeyFile, "
            "auth.jwksUrl (or auth.mode: none, for development on loopback)",
        )
    elif len(used) > 1:
        yield Problem(tuple(used), f"set beside {' and '.join(used[1:])}; keep one")
    if auth.jwks_url is not None and not auth.allow_insecure:
        url = urlsplit(auth.jwks_url)
        if url.scheme != "https" and not is_loopback(url.hostname or ""):
            yield Problem(
                ("auth.jwksUrl", "auth.allowInsecure"),
                "keys over http can be forged on the way; allowed: https, or auth.allowInsecure: true",
            )


def _insecure(auth: Auth, server: Server) -> Iterator[Problem]:
    if auth.mode != "none" or auth.allow_insecure:
        return
    advice = "allowed with auth.mode: none: loopback (127.0.0.1, ::1, localhost), or auth.allowInsecure: true"
    for endpoint in server.listen:
        if not _is_local(endpoint):
            yield Problem(("server.listen", "auth.mode", "auth.allowInsecure"), f'"{endpoint}"; {advice}, or unix:')
    if not server.listen and not is_loopback(server.host):
        yield Problem(("server.host", "auth.mode", "auth.allowInsecure"), f"{server.host}; {advice}")


def _is_local(endpoint: str) -> bool:
    """Twisted's endpoint strings escape a colon by a backslash."""
    interface = re.search(r":interface=((?:\\.|[^:\\])*)", endpoint)
    return endpoint.startswith("unix:") or (
        interface is not None and is_loopback(interface[1].replace("\\", "")) and endpoint.startswith(("tcp:", "tcp6:"))
    )


def is_loopback(host: str) -> bool:
    """True for a host that only this machine reaches."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _windows(window: Window, kafka: Kafka) -> Iterator[Problem]:
    sizes = [("window.maxBytes", window.max_bytes)]
    sizes += [
        (f"kafka.topics[{index}].window.maxBytes", topic.window_max_bytes)
        for index, topic in enumerate(kafka.topics)
        if topic.window_max_bytes != window.max_bytes
    ]
    for key, size in sizes:
        if size > window.total_bytes:
            yield Problem(
                (key, "window.totalBytes"),
                f"{_size(size)}; allowed: at most window.totalBytes, which is {_size(window.total_bytes)}",
            )


def _bounds(limits: Limits, publish: Publish) -> Iterator[Problem]:
    if limits.bytes_per_second < limits.message_bytes:
        yield Problem(
            ("limits.bytesPerSecond", "limits.messageBytes"),
            f"{_size(limits.bytes_per_second)}; allowed: at least limits.messageBytes, "
            f"which is {_size(limits.message_bytes)}",
        )
    if publish.max_pending_bytes < publish.max_bytes:
        yield Problem(
            ("publish.maxPendingBytes", "publish.maxBytes"),
            f"{_size(publish.max_pending_bytes)}; allowed: at least publish.maxBytes, "
            f"which is {_size(publish.max_bytes)}",
        )
