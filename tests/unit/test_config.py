"""The configuration as a whole: where values come from, and every line that an operator can be told."""

from __future__ import annotations

import copy
import ipaddress
import string
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from gateway.config import MAX_PROBLEMS, Config, TopicSettings, load, notices
from gateway.config_keys import keys_of
from gateway.config_source import variables
from gateway.errors import ConfigError
from gateway.model import Audience

SECRET = "correct-horse-battery-staple-0123456789"
GOOD: dict[str, Any] = {"kafka": {"topics": ["news"]}, "auth": {"secret": SECRET}}

PREDECESSOR = """
server:
  port: 8080
  readTimeout: 10s
  writeTimeout: 10s
kafka:
  bootstrapServers: localhost:9092
  groupId: ws-gateway
  topics: [balance-updates, user-blocks, notifications]
redis:
  addr: localhost:6379
  password: ""
  db: 0
logger:
  level: info
  format: json
metrics:
  enabled: true
  namespace: ws_gateway
  path: /metrics
"""

NO_TOKEN_KEY = (
    "no key to check tokens with; allowed: one of auth.secret, auth.secretFile, auth.publicKeyFile, auth.jwksUrl "
    "(or auth.mode: none, for development on loopback)"
)
LOOPBACK = "allowed with auth.mode: none: loopback (127.0.0.1, ::1, localhost), or auth.allowInsecure: true"
TOPIC = "a Kafka topic name: 1 to 249 of A-Z a-z 0-9 . _ -"
DURATION = "a duration from 50ms to 1h, as 500ms, 10s, 1m30s, 24h"
PUBLIC = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA\n-----END PUBLIC KEY-----\n"


class Place:
    """A folder with a configuration file, and what loading it says with the folder's name left out."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "gateway.yaml"

    def write(self, name: str, content: str | bytes) -> str:
        (self.folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
        return str(self.folder / name)

    def load(self, content: str | bytes | Mapping[str, Any], **environ: str) -> Config:
        text = yaml.safe_dump(content) if isinstance(content, Mapping) else content
        return load(self.write(self.file.name, text), {f"WSGATEWAY_{name}": value for name, value in environ.items()})

    def problems(self, content: str | bytes | Mapping[str, Any], **environ: str) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            self.load(content, **environ)
        return [line.replace(f"{self.folder}/", "") for line in caught.value.problems]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def over(changes: Mapping[str, Any]) -> dict[str, Any]:
    """GOOD with keys by their dotted names changed; None takes one away."""
    tree = copy.deepcopy(GOOD)
    for dotted, value in changes.items():
        *sections, last = dotted.split(".")
        at = tree
        for section in sections:
            at = at.setdefault(section, {})
        if value is None:
            del at[last]
        else:
            at[last] = value
    return tree


# Where values come from


def test_the_file_of_the_system_before_loads_unchanged(place: Place) -> None:
    config = place.load(PREDECESSOR, AUTH_SECRET=SECRET)
    assert config.server.port == 8080
    assert config.server.read_timeout == config.server.write_timeout == 10.0
    assert config.kafka.bootstrap_servers == ("localhost:9092",)
    assert [topic.name for topic in config.kafka.topics] == ["balance-updates", "user-blocks", "notifications"]
    assert all(topic.audience is Audience.USER for topic in config.kafka.topics)
    assert (config.redis.addr, config.redis.password, config.redis.db) == ("localhost:6379", "", 0)
    assert (config.metrics.namespace, config.metrics.path) == ("ws_gateway", "/metrics")


def test_every_default_is_a_value_that_its_own_kind_takes() -> None:
    """A default that a file could not say could not be documented either."""
    for cls in (Config, TopicSettings):
        for dotted, key in keys_of(cls).items():
            if key.default in (None, (), "") or dotted == "topics":
                continue
            written = yaml.safe_load(key.kind.show(key.default))
            assert key.kind.read(written) == key.default, dotted


def test_the_environment_goes_before_the_file_before_the_defaults(place: Place) -> None:
    file = over({"server.port": 1111, "server.path": "/file", "limits.malformed": 7})
    config = place.load(file, SERVER_PORT="2222")
    assert (config.server.port, config.server.path, config.limits.malformed) == (2222, "/file", 7)
    assert config.server.read_timeout == 10.0


def test_without_a_file_the_environment_is_enough() -> None:
    config = load(None, {"WSGATEWAY_AUTH_SECRET": SECRET, "WSGATEWAY_KAFKA_TOPICS": "a, b"})
    assert [topic.name for topic in config.kafka.topics] == ["a", "b"]


def test_without_anything_both_things_that_are_needed_are_told() -> None:
    with pytest.raises(ConfigError) as caught:
        load(None, {})
    assert caught.value.problems == [
        "configuration: kafka.topics: none; allowed: at least one topic, as [notifications]",
        f"configuration: auth.secret: {NO_TOKEN_KEY}",
    ]


@pytest.mark.parametrize(
    ("variable", "text", "path", "value"),
    [
        ("KAFKA_BOOTSTRAPSERVERS", "a:1,b:2", "kafka.bootstrap_servers", ("a:1", "b:2")),
        ("KAFKA_BOOTSTRAP_SERVERS", "a:1, b:2", "kafka.bootstrap_servers", ("a:1", "b:2")),
        ("SLOW_CLIENT_MAX_LAG", "2m", "slow_client.max_lag", 120.0),
        ("SLOWCLIENT_MAXLAG", "500ms", "slow_client.max_lag", 0.5),
        ("SLOW_CLIENT_MAXLAG", "1m30s", "slow_client.max_lag", 90.0),
        ("SERVER_DRAIN_PACE", "7", "server.drain.pace", 7),
        ("SERVER_COMPRESSION", "False", "server.compression", False),
        ("SERVER_POSITION_INTERVAL", "0", "server.position_interval", 0.0),
        ("WINDOW_MAX_BYTES", "1048576", "window.max_bytes", 1048576),
        ("WINDOW_MAX_BYTES", "1MiB", "window.max_bytes", 1048576),
        ("AUTH_DEFAULT_TOPICS", "", "auth.default_topics", ()),
        ("LOGGER_LEVEL", "debug", "logger.level", "debug"),
    ],
)
def test_a_variable_is_read_by_the_kind_of_its_key(
    place: Place, variable: str, text: str, path: str, value: object
) -> None:
    found: Any = place.load(GOOD, **{variable: text})
    for name in path.split("."):
        found = getattr(found, name)
    assert found == value


def test_no_two_keys_share_a_variable() -> None:
    """Else one of them could not be set."""
    names = [name for dotted in keys_of(Config) for name in variables(dotted)]
    assert len(names) == len(set(names))


def test_other_variables_are_nobodys_business(place: Place) -> None:
    place.load(GOOD)
    load(str(place.file), {"PATH": "/bin", "WS_GATEWAY_TEST_KAFKA": "x:1", "wsgateway_server_port": "x"})


def test_what_kubernetes_sets_for_a_service_called_wsgateway_is_passed_over(place: Place) -> None:
    """Else a Service of that name would keep the gateway behind it from starting."""
    place.load(
        GOOD,
        SERVICE_HOST="10.0.0.1",
        SERVICE_PORT="8080",
        SERVICE_PORT_HTTP="8080",
        PORT="tcp://10.0.0.1:8080",
        PORT_8080_TCP="tcp://10.0.0.1:8080",
        PORT_8080_TCP_PROTO="tcp",
    )
    assert place.problems(GOOD, PORT="8080") == [
        "environment WSGATEWAY_PORT: unknown variable; allowed: WSGATEWAY_ and a key, as WSGATEWAY_SERVER_PORT"
    ]


@pytest.mark.parametrize(
    ("file", "environ"),
    [
        ({"auth.secret": None, "auth.secretFile": "gone"}, {"AUTH_SECRET": SECRET}),
        ({"auth.secret": None, "auth.publicKeyFile": "gone"}, {"AUTH_JWKS_URL": "https://issuer.example/keys"}),
        ({"admin.apiKeysFile": "gone"}, {"ADMIN_API_KEYS": "0123456789abcdef"}),
    ],
)
def test_a_variable_puts_the_alternatives_of_its_key_in_the_file_out_of_force(
    place: Place, file: dict[str, Any], environ: dict[str, str]
) -> None:
    """A variable cannot take a key away: without this, a file that names one way could not be overridden."""
    place.load(over(file), **environ)


def test_a_topic_takes_what_it_leaves_out_from_the_sections(place: Place) -> None:
    config = place.load(
        """
        auth: {secret: correct-horse-battery-staple-0123456789}
        kafka:
          topics:
            - plain
            - {name: own, window: {maxBytes: 1MiB, maxAge: 1m}, slowClient: {maxLag: 5s}}
            - {name: half, window: {maxAge: 2m}}
        window: {maxBytes: 2MiB, maxAge: 3m}
        slowClient: {maxLag: 7s}
        """
    )
    assert [(t.name, t.window_max_bytes, t.window_max_age, t.max_lag) for t in config.kafka.topics] == [
        ("plain", 2 * 1024**2, 180.0, 7.0),
        ("own", 1024**2, 60.0, 5.0),
        ("half", 2 * 1024**2, 120.0, 7.0),
    ]


def test_a_topic_takes_them_from_the_environment_too(place: Place) -> None:
    config = place.load(GOOD, WINDOW_MAX_AGE="1m")
    assert config.kafka.topics[0].window_max_age == 60.0


def test_a_topic_as_an_object(place: Place) -> None:
    config = place.load(
        over(
            {
                "kafka.topics": [
                    {
                        "name": "orders",
                        "userFrom": ["value.after.user_id", "key", "header.user"],
                        "maxFrameBytes": "1MiB",
                        "partitions": 3,
                        "retention": "2h",
                    },
                    {"name": "prices", "audience": "key"},
                    {"name": "news", "audience": "everyone"},
                    {"name": "one", "userFrom": "key"},
                ]
            }
        )
    )
    orders, prices, news, one = config.kafka.topics
    assert orders.user_from == ("value.after.user_id", "key", "header.user")
    assert (orders.max_frame_bytes, orders.partitions, orders.retention) == (1024**2, 3, 7200.0)
    assert (prices.audience, news.audience) == (Audience.KEY, Audience.EVERYONE)
    assert one.user_from == ("key",)


def test_a_section_of_which_every_key_is_a_comment_is_no_mistake(place: Place) -> None:
    assert place.load(f"server:\nkafka: {{topics: [a]}}\nauth:\n  secret: {SECRET}\n").server.port == 8080


def test_networks_are_networks(place: Place) -> None:
    config = place.load(over({"server.trustedProxies": ["10.0.0.0/8", "::1"]}))
    assert config.server.trusted_proxies == (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("::1/128"))


# Secrets


def test_secrets_are_not_in_the_repr(place: Place) -> None:
    """The repr of a configuration ends up in tracebacks and debug logs."""
    shown = repr(
        place.load(
            over(
                {
                    "admin.apiKeys": ["api-key-0123456789"],
                    "redis.password": "redis-pass-0123",
                    "kafka.bootstrapServers": "a:1",
                    "kafka.security": {
                        "protocol": "SASL_PLAINTEXT",
                        "saslMechanism": "PLAIN",
                        "username": "bob",
                        "password": "sasl-pass-0123",
                    },
                }
            )
        )
    )
    for secret in (SECRET, "api-key-0123456789", "redis-pass-0123", "sasl-pass-0123"):
        assert secret not in shown


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (SECRET, (SECRET,)),
        (f"{SECRET}\n", (SECRET,)),
        (f"{SECRET}\r\n", (SECRET,)),
        (f"{SECRET}\n\n", (SECRET,)),
        (f"{SECRET}\n{SECRET}2\n", (SECRET, f"{SECRET}2")),
        (f"  {SECRET}  \n", (f"  {SECRET}  ",)),
    ],
)
def test_a_secret_file_holds_one_secret_or_two(place: Place, content: str, expected: tuple[str, ...]) -> None:
    config = place.load(over({"auth.secret": None, "auth.secretFile": place.write("key", content)}))
    assert config.auth.secrets == tuple(secret.encode() for secret in expected)


def test_a_secret_as_text_is_bytes_where_it_is_used(place: Place) -> None:
    assert place.load(GOOD).auth.secrets == (SECRET.encode(),)


def test_public_keys_are_pem_blocks(place: Place) -> None:
    file = place.write("keys.pem", f"a comment\n{PUBLIC}{PUBLIC.replace('MCow', 'MCox')}")
    config = place.load(over({"auth.secret": None, "auth.publicKeyFile": file}))
    assert config.auth.public_keys == (PUBLIC.strip().encode(), PUBLIC.strip().replace("MCow", "MCox").encode())


def test_api_keys_of_text_and_file_are_one_list(place: Place) -> None:
    file = place.write("keys", "second-0123456789\nfirst-0123456789\n")
    config = place.load(over({"admin.apiKeys": ["first-0123456789"], "admin.apiKeysFile": file}))
    assert config.admin.api_keys == ("first-0123456789", "second-0123456789")


def test_the_password_of_kafka_comes_from_its_file(place: Place) -> None:
    security = {"protocol": "SASL_PLAINTEXT", "saslMechanism": "PLAIN", "username": "bob"}
    file = {"kafka.bootstrapServers": "a:1", "kafka.security": security}
    config = place.load(over(file), KAFKA_SECURITY_PASSWORD_FILE=place.write("pw", "pässword\n"))
    assert config.kafka.security.password == "pässword"


def test_with_mode_none_no_key_is_read(place: Place) -> None:
    """A developer sets auth.mode by a variable, over a file whose key is not on this machine."""
    changes = {"auth.secret": None, "auth.secretFile": "gone", "server.host": "127.0.0.1"}
    assert place.load(over(changes), AUTH_MODE="none").auth.secrets == ()


SECRET_PROBLEMS: list[tuple[str, str, str | bytes, str]] = [
    (
        "auth.secretFile",
        "short",
        "0123456789",
        "a secret of 10 bytes; allowed: 32 bytes or more, as `openssl rand -hex 32` prints",
    ),
    ("auth.secretFile", "three lines", f"{SECRET}\n" * 3, "3 lines; allowed: one secret, or two while they rotate"),
    ("auth.secretFile", "empty", "\n", "the file is empty"),
    (
        "auth.secretFile",
        "byte order mark",
        b"\xef\xbb\xbf" + SECRET.encode(),
        "it begins with a byte order mark, which would be part of the secret; write it without",
    ),
    ("auth.publicKeyFile", "no PEM", "hello", "0 PEM blocks; allowed: one public key, or two while they rotate"),
    ("auth.publicKeyFile", "three", PUBLIC * 3, "3 PEM blocks; allowed: one public key, or two while they rotate"),
    (
        "auth.publicKeyFile",
        "private",
        PUBLIC.replace("PUBLIC", "PRIVATE"),
        "it holds a private key; the gateway only ever needs the public one",
    ),
    (
        "auth.publicKeyFile",
        "certificate",
        PUBLIC.replace("PUBLIC KEY", "CERTIFICATE"),
        "it holds CERTIFICATE; allowed: PUBLIC KEY (`openssl x509 -pubkey -noout` takes the key out of a certificate)",
    ),
    ("admin.apiKeysFile", "bad key", "has a blank in it\n", "key 1; allowed: a key of 16 to 256 visible characters"),
    ("kafka.security.passwordFile", "two lines", "a\nb\n", "2 lines; allowed: one password"),
    ("kafka.security.passwordFile", "not UTF-8", b"\xff\xf0\n", "not UTF-8"),
]


@pytest.mark.parametrize(
    ("key", "what", "content", "text"), SECRET_PROBLEMS, ids=[f"{p[0]}-{p[1]}" for p in SECRET_PROBLEMS]
)
def test_what_is_wrong_with_a_file_of_secrets_is_told_without_showing_it(
    place: Place, key: str, what: str, content: str | bytes, text: str
) -> None:
    changes: dict[str, Any] = {key: place.write("file", content)}
    if key.startswith("auth"):
        changes["auth.secret"] = None
    if key.startswith("kafka"):
        changes["kafka.bootstrapServers"] = "a:1"
        changes["kafka.security.protocol"] = "SASL_SSL"
        changes["kafka.security.saslMechanism"] = "PLAIN"
        changes["kafka.security.username"] = "bob"
    problems = place.problems(over(changes))
    assert problems[0].split(": ", 2)[1:] == [key, text]
    assert not any(SECRET in problem for problem in problems)


@pytest.mark.parametrize("make", ["missing", "folder", "huge"])
def test_a_file_of_secrets_that_cannot_be_read(place: Place, make: str) -> None:
    file = place.folder / "key"
    if make == "folder":
        file.mkdir()
    if make == "huge":
        file.write_bytes(b"x" * 70_000)
    reason = {
        "missing": f"key cannot be read: No such file or directory (working directory: {Path.cwd()})",
        "folder": f"key cannot be read: Is a directory (working directory: {Path.cwd()})",
        "huge": "key is larger than 64KiB",
    }[make]
    assert place.problems(over({"auth.secret": None, "auth.secretFile": str(file)})) == [
        f"gateway.yaml:1: auth.secretFile: {reason}".replace("yaml:1", "yaml:2")
    ]


# What each key may hold: the line that is told

VALUES: list[tuple[str, object, str]] = [
    ("server.port", True, "found true; allowed: a whole number from 0 to 65535"),
    ("server.port", "10", 'found "10"; allowed: a whole number from 0 to 65535'),
    ("server.port", 65536, "found 65536; allowed: a whole number from 0 to 65535"),
    ("server.port", -1, "found -1; allowed: a whole number from 0 to 65535"),
    ("server.port", 80.5, "found 80.5; allowed: a whole number from 0 to 65535"),
    ("server.port", [80], "found a list; allowed: a whole number from 0 to 65535"),
    ("server.port", {"a": 1}, "found an object; allowed: a whole number from 0 to 65535"),
    ("server.host", 1, "found 1; allowed: a host name or an IP address, in quotes where it looks like something else"),
    ("server.host", "a b", 'found "a b"; allowed: a host name or an IP address'),
    ("server.host", "", 'found ""; allowed: a host name or an IP address'),
    ("server.compression", "yes", 'found "yes"; allowed: true or false'),
    ("server.compression", 1, "found 1; allowed: true or false"),
    (
        "server.readTimeout",
        10,
        "found 10; a unit is missing; allowed: a duration from 50ms to 1h, as 500ms, 10s, 1m30s, 24h",
    ),
    ("server.readTimeout", "10", 'found "10"; allowed: a duration from 50ms to 1h, as 500ms, 10s, 1m30s, 24h'),
    ("server.readTimeout", "-1s", 'found "-1s"; allowed: a duration from 50ms to 1h, as 500ms, 10s, 1m30s, 24h'),
    ("server.readTimeout", "0s", 'found "0s"; allowed: a duration from 50ms to 1h, as 500ms, 10s, 1m30s, 24h'),
    ("server.readTimeout", "2h", 'found "2h"; allowed: a duration from 50ms to 1h, as 500ms, 10s, 1m30s, 24h'),
    ("server.readTimeout", "", 'found ""; allowed: a duration from 50ms to 1h, as 500ms, 10s, 1m30s, 24h'),
    ("window.maxBytes", "1MB", 'found "1MB"; allowed: a size from 1KiB to 64GiB, as 64KiB, 1MiB, 1GiB or plain bytes'),
    (
        "window.maxBytes",
        "4096",
        'found "4096"; allowed: a size from 1KiB to 64GiB, as 64KiB, 1MiB, 1GiB or plain bytes',
    ),
    ("window.maxBytes", 1, "found 1; allowed: a size from 1KiB to 64GiB, as 64KiB, 1MiB, 1GiB or plain bytes"),
    ("auth.mode", "JWT", 'found "JWT"; allowed: jwt or none'),
    ("auth.rejectWith", "code", 'found "code"; allowed: auto, http or close'),
    ("logger.level", "trace", 'found "trace"; allowed: debug, info, warn or error'),
    (
        "metrics.namespace",
        "ws-gateway",
        'found "ws-gateway"; allowed: a metric prefix: a letter or _, then A-Z a-z 0-9 _',
    ),
    (
        "server.path",
        "ws",
        'found "ws"; allowed: a path: / and then A-Z a-z 0-9 . _ ~ - /, without empty segments or dots alone',
    ),
    (
        "server.path",
        "/a/../b",
        'found "/a/../b"; allowed: a path: / and then A-Z a-z 0-9 . _ ~ - /, without empty segments or dots alone',
    ),
    ("auth.userClaim", "a..b", 'found "a..b"; allowed: a claim, or a path of claims with dots'),
    ("auth.jwksUrl", "ftp://x/y", 'found "ftp://x/y"; allowed: an absolute URL with https (or http)'),
    ("auth.jwksUrl", "https://[::1", 'found "https://[::1"; allowed: an absolute URL with https (or http)'),
    ("auth.jwksUrl", "https://me:pw@x/", 'found "https://***@x/"; allowed: a URL without user and password'),
    (
        "auth.secret",
        123,
        "found a value that is not shown; allowed: text, in quotes where it looks like something else",
    ),
    ("redis.addr", "redis://localhost", 'found "redis://localhost"; allowed: host:port, without a scheme'),
    ("kafka.bootstrapServers", "", 'found ""; allowed: from 1 to 1000 elements'),
    ("kafka.bootstrapServers", 9092, "found 9092; allowed: a list (or text with commas), each host:port"),
]


@pytest.mark.parametrize(("key", "value", "text"), VALUES, ids=[f"{key}={value!r}" for key, value, _ in VALUES])
def test_a_value_of_the_wrong_kind(place: Place, key: str, value: object, text: str) -> None:
    problems = place.problems(over({key: value}))
    assert [problem.split(": ", 1)[1] for problem in problems] == [f"{key}: {text}"]


ELEMENTS: list[tuple[str, object, str, str]] = [
    ("kafka.bootstrapServers", "a:1,b", "[1]", 'found "b"; allowed: host:port, without a scheme'),
    (
        "kafka.bootstrapServers",
        ["a:1", "kafka://b:2"],
        "[1]",
        'found "kafka://b:2"; allowed: host:port, without a scheme',
    ),
    ("kafka.bootstrapServers", ["a:70000"], "[0]", 'found "a:70000"; allowed: host:port, without a scheme'),
    ("kafka.bootstrapServers", ["a:1", "a:1"], "[1]", 'found "a:1"; allowed: each element once'),
    ("auth.defaultTopics", ["a b"], "[0]", 'found "a b"; allowed: a name, perhaps with * and {sub}'),
    (
        "admin.apiKeys",
        ["short"],
        "[0]",
        "found a value that is not shown; allowed: a key of 16 to 256 visible characters",
    ),
    (
        "server.origins",
        ["https://a.example/"],
        "[0]",
        'found "https://a.example/"; write it as browsers send it: https://a.example',
    ),
    (
        "server.origins",
        ["https://a.example/app?x#y"],
        "[0]",
        'found "https://a.example/app?x#y"; write it as browsers send it: https://a.example',
    ),
    (
        "server.origins",
        ["HTTPS://A.example:443"],
        "[0]",
        'found "HTTPS://A.example:443"; write it as browsers send it: https://a.example',
    ),
    (
        "server.origins",
        ["http://bücher.example:8080"],
        "[0]",
        'found "http://bücher.example:8080"; write it as browsers send it: http://xn--bcher-kva.example:8080',
    ),
    ("server.origins", [f"https://{'ü' * 70}.example"], "[0]", f'found "https://{"ü" * 69}..."; allowed: a host name'),
    (
        "server.origins",
        ["a.example"],
        "[0]",
        'found "a.example"; allowed: scheme://host or scheme://host:port, as https://app.example.com',
    ),
    (
        "server.origins",
        ["null"],
        "[0]",
        'found "null"; allowed: scheme://host or scheme://host:port, as https://app.example.com',
    ),
    (
        "server.origins",
        ["https://*.example"],
        "[0]",
        'found "https://*.example"; allowed: one host each, without patterns',
    ),
    (
        "server.trustedProxies",
        ["10.0.0.1/8"],
        "[0]",
        'found "10.0.0.1/8"; bits are set behind the prefix; write 10.0.0.0/8',
    ),
    (
        "server.trustedProxies",
        ["proxy.local"],
        "[0]",
        'found "proxy.local"; allowed: an IP address or a network, as 10.0.0.0/8 or 2001:db8::/32',
    ),
    ("kafka.topics", ["a/b"], "[0].name", 'found "a/b"; allowed: a Kafka topic name: 1 to 249 of A-Z a-z 0-9 . _ -'),
    (
        "kafka.topics",
        ["x" * 250],
        "[0].name",
        f'found "{"x" * 77}..."; allowed: a Kafka topic name: 1 to 249 of A-Z a-z 0-9 . _ -',
    ),
    ("kafka.topics", [".."], "[0].name", 'found ".."; allowed: a Kafka topic name, and . and .. are none'),
    (
        "kafka.topics",
        ["__consumer_offsets"],
        "[0].name",
        'found "__consumer_offsets"; allowed: a topic that is not internal to Kafka and its tools (__..., _schemas)',
    ),
    (
        "kafka.topics",
        [7],
        "[0].name",
        f"found 7; allowed: {TOPIC}, in quotes where it looks like something else",
    ),
    ("kafka.topics", ["a", "a"], "[1].name", "a is there twice; keep one"),
    ("kafka.topics", [{"audience": "key"}], "[0].name", "missing; allowed: a Kafka topic name"),
    ("kafka.topics", [{"name": "a", "audience": "all"}], "[0].audience", 'found "all"; allowed: user, key or everyone'),
    (
        "kafka.topics",
        [{"name": "a", "audience": "key", "userFrom": "key"}],
        "[0].userFrom",
        "the audience is key; allowed: only with audience user",
    ),
    (
        "kafka.topics",
        [{"name": "a", "userFrom": ["value"]}],
        "[0].userFrom[0]",
        'found "value"; allowed: value.<field> (value.a.b for a path), key, or header.<name>',
    ),
    (
        "kafka.topics",
        [{"name": "a", "window": {"maxBytes": "2GiB"}}],
        "[0].window.maxBytes",
        "2GiB; allowed: at most window.totalBytes, which is 1GiB",
    ),
    (
        "kafka.topics",
        [],
        "",
        "found an empty list; allowed: a list of topics, each a name or an object, from 1 to 1000",
    ),
    ("kafka.topics", "", "", 'found ""; allowed: a list of topics, each a name or an object, from 1 to 1000'),
    ("kafka.topics", 3, "", "found 3; allowed: a list of topics, each a name or an object, from 1 to 1000"),
]


@pytest.mark.parametrize(
    ("key", "value", "place_", "text"), ELEMENTS, ids=[f"{e[0]}={str(e[1])[:40]}" for e in ELEMENTS]
)
def test_a_wrong_element_of_a_list_is_named_by_its_place(
    place: Place, key: str, value: object, place_: str, text: str
) -> None:
    problems = place.problems(over({key: value}))
    assert [problem.split(": ", 1)[1] for problem in problems] == [f"{key}{place_}: {text}"]


@pytest.mark.parametrize(
    "origin", ["https://a.example", "http://localhost:3000", "capacitor://localhost", "http://[::1]:8080", "*"]
)
def test_origins_in_the_right_spelling(place: Place, origin: str) -> None:
    assert place.load(over({"server.origins": [origin]})).server.origins == (origin,)


# Rules between keys

SASL = {"kafka.bootstrapServers": "a:1", "kafka.security.protocol": "SASL_SSL"}
RULES: list[tuple[dict[str, Any], list[str]]] = [
    (
        {"server.drain.timeout": "10s"},
        ["server.drain.timeout: 10s; allowed: longer than server.writeTimeout, which is 10s"],
    ),
    (
        {"server.writeTimeout": "30s"},
        ["server.drain.timeout: 25s; allowed: longer than server.writeTimeout, which is 30s"],
    ),
    (
        {"server.origins": ["*", "https://a.b"]},
        ['server.origins: "*" beside others; allowed: "*" alone, or a list of origins'],
    ),
    ({"admin.port": 8080}, ["admin.port: 8080 is server.port too; allowed: another port"]),
    (
        {"metrics.path": "/healthz"},
        ["metrics.path: /healthz has another meaning; allowed: not /health, /healthz, /readyz, nor below /api"],
    ),
    (
        {"server.path": "/api/x"},
        ["server.path: /api/x has another meaning; allowed: not /health, /healthz, /readyz, nor below /api"],
    ),
    ({"server.path": "/metrics"}, ["metrics.path: /metrics is server.path too; allowed: another path"]),
    ({"window.totalBytes": "1MiB"}, ["window.maxBytes: 32MiB; allowed: at most window.totalBytes, which is 1MiB"]),
    (
        {"limits.bytesPerSecond": "1KiB"},
        ["limits.bytesPerSecond: 1KiB; allowed: at least limits.messageBytes, which is 64KiB"],
    ),
    (
        {"publish.maxPendingBytes": "1KiB"},
        ["publish.maxPendingBytes: 1KiB; allowed: at least publish.maxBytes, which is 64KiB"],
    ),
    (
        {"auth.secret": "short"},
        ["auth.secret: a secret of 5 bytes; allowed: 32 bytes or more, as `openssl rand -hex 32` prints"],
    ),
    ({"auth.secretFile": __file__}, ["auth.secret: set beside auth.secretFile; keep one"]),
    ({"auth.jwksUrl": "https://issuer.example/keys"}, ["auth.secret: set beside auth.jwksUrl; keep one"]),
    (
        {"auth.secret": None, "auth.jwksUrl": "http://issuer.example/keys"},
        [
            "auth.jwksUrl: keys over http can be forged on the way; allowed: https, or auth.allowInsecure: true",
        ],
    ),
    (
        {"auth.mode": "none"},
        [f"server.host: 0.0.0.0; {LOOPBACK}"],
    ),
    (
        {"auth.mode": "none", "server.listen": ["tcp:80:interface=127.0.0.1", "tcp:80"]},
        [f'server.listen: "tcp:80"; {LOOPBACK}, or unix:'],
    ),
    (
        {"kafka.security.protocol": "SSL"},
        ["kafka.bootstrapServers: missing, while kafka.security is set; allowed: a list of host:port"],
    ),
    (
        SASL,
        [
            "kafka.security.saslMechanism: missing; needed with protocol SASL_SSL",
            "kafka.security.username: missing; needed with protocol SASL_SSL",
            "kafka.security.passwordFile: missing; needed with protocol SASL_SSL",
        ],
    ),
    (
        {"kafka.bootstrapServers": "a:1", "kafka.security.username": "bob", "kafka.security.caFile": "x"},
        [
            "kafka.security.username: the protocol is PLAINTEXT; allowed: only with SASL_PLAINTEXT or SASL_SSL",
            "kafka.security.caFile: the protocol is PLAINTEXT; allowed: only with SSL or SASL_SSL",
        ],
    ),
    (
        {"kafka.bootstrapServers": "a:1", "kafka.security.protocol": "SSL", "kafka.security.certFile": __file__},
        ["kafka.security.keyFile: missing; a client certificate needs both certFile and keyFile"],
    ),
    (
        {"kafka.bootstrapServers": "a:1", "kafka.security.protocol": "SSL", "kafka.security.caFile": "/gone"},
        [f"kafka.security.caFile: /gone cannot be read: No such file or directory (working directory: {Path.cwd()})"],
    ),
    (
        {
            **SASL,
            "kafka.security.saslMechanism": "SCRAM-SHA-512",
            "kafka.security.username": "bob",
            "kafka.security.password": "x",
            "kafka.security.passwordFile": __file__,
        },
        ["kafka.security.passwordFile: password is set too; keep one"],
    ),
]


@pytest.mark.parametrize(("changes", "texts"), RULES, ids=[str(sorted(changes.items()))[:80] for changes, _ in RULES])
def test_a_rule_between_keys(place: Place, changes: dict[str, Any], texts: list[str]) -> None:
    problems = place.problems(over(changes))
    assert [problem.split(": ", 1)[1] for problem in problems] == texts


@pytest.mark.parametrize(
    "changes",
    [
        {"auth.mode": "none", "server.host": "127.0.0.1"},
        {"auth.mode": "none", "server.host": "127.8.9.1"},
        {"auth.mode": "none", "server.host": "::1"},
        {"auth.mode": "none", "server.host": "localhost"},
        {"auth.mode": "none", "auth.allowInsecure": True},
        {"auth.mode": "none", "server.listen": ["unix:/run/x.sock", "tcp6:80:interface=\\:\\:1"]},
        {"auth.secret": None, "auth.jwksUrl": "http://127.0.0.1:9000/keys"},
        {"auth.secret": None, "auth.jwksUrl": "http://keycloak.svc/keys", "auth.allowInsecure": True},
        {"admin.port": 0, "server.port": 0},
        {"admin.port": 8080, "server.listen": ["unix:/run/x.sock"]},
        {"server.positionInterval": 0},
        {"limits.connections": 0},
        {"kafka.topics": [{"name": "a", "userFrom": ["header.x-user", "value.a-b.c_d"]}]},
    ],
    ids=str,
)
def test_what_is_allowed(place: Place, changes: dict[str, Any]) -> None:
    place.load(over(changes))


def test_what_a_start_should_say(place: Place) -> None:
    assert notices(place.load(GOOD)) == []
    config = place.load(
        over({"auth.secret": None, "auth.jwksUrl": "https://issuer.example/keys", "redis.addr": "localhost:6379"})
    )
    assert notices(config) == [
        "auth.audience is not set: tokens that the issuer behind auth.jwksUrl made for any application are let in",
        "redis.addr is set, and not used yet: the registry is embedded, each process knows its own connections only",
    ]
    config = place.load(over({"auth.mode": "none", "server.host": "127.0.0.1"}))
    assert notices(config) == [
        "auth.mode: none: whoever reaches this port is let in, under any name; for development only"
    ]


# Misspelt keys


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("server: {prot: 1}", "server.prot: unknown key; did you mean server.port?"),
        ("server: {readtimeout: 1s}", "server.readtimeout: unknown key; did you mean server.readTimeout?"),
        ("server: {read_timeout: 1s}", "server.read_timeout: unknown key; did you mean server.readTimeout?"),
        ("sevrer: {port: 1}", "sevrer: unknown key; did you mean server?"),
        ("server: {bootstrapServers: x}", "server.bootstrapServers: unknown key; did you mean kafka.bootstrapServers?"),
        ("kafka: {maxAge: 1m}", "kafka.maxAge: unknown key; did you mean window.maxAge or connections.maxAge?"),
        ("port: 80", "port: unknown key; did you mean server.port or admin.port?"),
        ("server: {drain: {timout: 1s}}", "server.drain.timout: unknown key; did you mean server.drain.timeout?"),
        ("logger: {colour: red}", "logger.colour: unknown key; allowed: logger.level, logger.format"),
        (
            "kafka: {topics: [{name: a, window: {maxByte: 1}}]}",
            "kafka.topics[0].window.maxByte: unknown key; did you mean kafka.topics[0].window.maxBytes?",
        ),
        (
            "kafka: {topics: [{nmae: a}]}",
            "kafka.topics[0].nmae: unknown key; did you mean kafka.topics[0].name?",
        ),
    ],
)
def test_an_unknown_key_names_the_nearest_right_one(place: Place, text: str, problem: str) -> None:
    """And nothing that only follows from it is told: the last one has no name, but that is not the news."""
    problems = (
        place.problems(text, AUTH_SECRET=SECRET, KAFKA_TOPICS="a")
        if "topics" not in text
        else place.problems(text, AUTH_SECRET=SECRET)
    )
    assert problems == [f"gateway.yaml:1: {problem}"]


@pytest.mark.parametrize(
    "key",
    [
        "presence.grace",
        "presence.maxUsers",
        "connections.policy",
        "blocks.topic",
        "server.workers",
        "server.proxyProtocol",
        "server.tls.certFile",
        "slowClient.policy",
        "slowClient.maxLagBytes",
        "replay.readers",
        "publish.defaultTopic",
        "redis.onFailure",
        "redis.keyPrefix",
        "redis.tls",
    ],
)
def test_keys_of_parts_that_do_not_exist_are_refused(place: Place, key: str) -> None:
    """Accepted and ignored, they would promise what does not happen."""
    problems = place.problems(over({key: 1}))
    assert len(problems) == 1
    assert "unknown key" in problems[0]


@pytest.mark.parametrize("key", ["presence", "publish", "state", "compress", "trustEvents"])
def test_so_are_those_of_a_topic(place: Place, key: str) -> None:
    problems = place.problems(over({"kafka.topics": [{"name": "a", key: True}]}))
    assert len(problems) == 1
    assert f"kafka.topics[0].{key}: unknown key" in problems[0]


@st.composite
def misspelt(draw: st.DrawFn) -> tuple[str, str]:
    """A key, and the same with one letter left out, put in, changed, or swapped with its neighbour."""
    right = draw(st.sampled_from(sorted(keys_of(Config))))
    at = draw(st.integers(0, len(right) - 1))
    assume(right[at] != ".")
    letter = draw(st.sampled_from(string.ascii_lowercase))
    swapped = right[:at] + right[at + 1 : at + 2] + right[at] + right[at + 2 :]
    wrong = draw(
        st.sampled_from(
            [
                right[:at] + right[at + 1 :],
                right[:at] + letter + right[at:],
                right[:at] + letter + right[at + 1 :],
                swapped,
            ]
        )
    )
    known = {*keys_of(Config), *(key.rpartition(".")[0] for key in keys_of(Config))}
    assume(wrong not in known and all(wrong.split(".")) and wrong.count(".") == right.count("."))
    return right, wrong


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(misspelt())
def test_any_key_with_one_wrong_letter_is_told_the_right_one(place: Place, keys: tuple[str, str]) -> None:
    right, wrong = keys
    tree: Any = None
    for part in reversed(wrong.split(".")):
        tree = {part: tree}
    told = [problem for problem in place.problems(tree) if "unknown key" in problem]
    assert len(told) == 1
    meant = told[0].partition("did you mean ")[2].rstrip("?").split(" or ")
    assert any(right == key or right.startswith(f"{key}.") for key in meant), (told, right)


KNOWN_VARIABLES = frozenset(name for key in keys_of(Config) for name in variables(key))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(misspelt())
def test_so_is_any_variable(place: Place, keys: tuple[str, str]) -> None:
    right, wrong = (variables(key)[0] for key in keys)
    assume(wrong not in KNOWN_VARIABLES)
    told = [line for line in place.problems(GOOD, **{wrong.removeprefix("WSGATEWAY_"): "x"}) if "unknown" in line]
    assert len(told) == 1
    assert right in told[0].partition("did you mean ")[2].rstrip("?").split(" or ")


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(sorted(keys_of(Config))),
    st.text(max_size=60)
    | st.sampled_from(["0", "-1", "9" * 40, "1" * 30 + "h", "9" * 14 + "GiB", ",", "a,,b", "\udcff"]),
)
def test_any_text_of_any_variable_is_a_value_or_a_problem(place: Place, key: str, text: str) -> None:
    """Never another exception: the environment has whatever it has, bytes that are no UTF-8 too."""
    told = []
    try:
        place.load(GOOD, **{variables(key)[0].removeprefix("WSGATEWAY_"): text})
    except ConfigError as error:
        told = error.problems
    assert [problem for problem in told if not problem.isprintable() or len(problem) > 600] == []


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(sorted(keys_of(Config))), anything)
def test_anything_under_any_key_is_a_value_or_a_problem(place: Place, key: str, value: object) -> None:
    told = []
    try:
        place.load(over({key: value}) if value is not None else GOOD)
    except ConfigError as error:
        told = error.problems
    assert [problem for problem in told if not problem.isprintable() or len(problem) > 600] == []


@pytest.mark.parametrize("text", ["\ud800" * 40, '"\\ud800' + "x" * 40 + '"'])
def test_half_a_surrogate_pair_is_no_text(place: Place, text: str) -> None:
    """It could not be written as bytes, where a secret is used."""
    if text.startswith('"'):
        problems = place.problems(f"kafka: {{topics: [a]}}\nauth:\n  secret: {text}\n")
    else:
        problems = place.problems("kafka: {topics: [a]}\n", AUTH_SECRET=text)
    assert [problem.partition(": auth.secret: ")[2] for problem in problems] == [
        "found a value that is not shown; allowed: text"
    ]


# All at once, and in bounds


def test_all_problems_are_told_at_once_each_with_its_place(place: Place) -> None:
    problems = place.problems(
        textwrap.dedent(
            """\
            server:
              prot: 8080
              readTimeout: 10
            kafka:
              topics: [a, a]
            auth:
              mode: jtw
            window: {maxBytes: 2GiB}
            """
        ),
        LOGGER_LEVEL="loud",
        LIMITS_CONECTIONS="5",
    )
    assert problems == [
        "gateway.yaml:2: server.prot: unknown key; did you mean server.port?",
        "environment WSGATEWAY_LIMITS_CONECTIONS: unknown variable; did you mean WSGATEWAY_LIMITS_CONNECTIONS?",
        f"gateway.yaml:3: server.readTimeout: found 10; a unit is missing; allowed: {DURATION}",
        'gateway.yaml:7: auth.mode: found "jtw"; allowed: jwt or none',
        'environment WSGATEWAY_LOGGER_LEVEL: logger.level: found "loud"; allowed: debug, info, warn or error',
        "gateway.yaml:5: kafka.topics[1].name: a is there twice; keep one",
        "gateway.yaml:8: window.maxBytes: 2GiB; allowed: at most window.totalBytes, which is 1GiB",
    ]


def test_a_thousand_problems_are_not_a_thousand_lines(place: Place) -> None:
    problems = place.problems({f"x{number}": 1 for number in range(1000)})
    assert len(problems) == MAX_PROBLEMS + 1
    assert problems[-1].startswith("and ")


def test_two_variables_for_one_key(place: Place) -> None:
    assert place.problems(GOOD, KAFKA_GROUPID="a", KAFKA_GROUP_ID="b") == [
        "environment WSGATEWAY_KAFKA_GROUP_ID: kafka.groupId: set twice, also by WSGATEWAY_KAFKA_GROUPID; keep one"
    ]


# Nasty files

LETTERS = list(zip("abcdefgh", "bcdefghi", strict=True))
ALIASES = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n" for old, new in LETTERS
)
MERGES = "a: &a {x: 1}\n" + "".join(f"{new}: &{new} {{<<: [{', '.join([f'*{old}'] * 10)}]}}\n" for old, new in LETTERS)
TOO_MANY = ":1: more than 20000 values, aliases counted each time"
TOO_DEEP = ":1: nested deeper than 20 levels"
NO_KEY = "a key that is no text; allowed: the names of keys"
FILES: list[tuple[str, str | bytes, str]] = [
    ("duplicate key", "server:\n  port: 1\n  port: 2\n", ":3: server.port: there twice, first in line 2; keep one"),
    ("duplicate section", "logger: {}\nlogger: {}\n", ":2: logger: there twice, first in line 1; keep one"),
    ("tab", "server:\n\tport: 1\n", ":2: not YAML: a tab; indent with blanks"),
    ("not UTF-8", b"server:\n  host: \xff\n", ":2: not UTF-8; write the file in that encoding"),
    ("UTF-16", "server: {}\n".encode("utf-16"), ":1: not UTF-8; write the file in that encoding"),
    ("list at the top", "- server\n", ":1: found a list; allowed: sections, as server: and kafka:"),
    ("text at the top", "server\n", ':1: found "server"; allowed: sections, as server: and kafka:'),
    ("two documents", "server: {}\n---\nserver: {}\n", ":2: not YAML: but found another document"),
    ("NUL", "server: {}\n\0", ": not YAML: it holds characters that YAML does not allow"),
    ("aliases of aliases", ALIASES, TOO_MANY),
    ("merges of merges", MERGES, TOO_MANY),
    ("alias of itself", "server: &a\n  x: *a\n", TOO_DEEP),
    ("deep", "server: " + "[" * 30 + "]" * 30, TOO_DEEP),
    ("very deep", "server: " + "[" * 50_000 + "]" * 50_000, ": nested deeper than 20 levels"),
    ("cut short", "[" * 30, ":1: not YAML: expected the node content, but found ..."),
    ("huge", "#" * 300_000, ": larger than 256KiB; a configuration is a small YAML file"),
    ("key that is a list", "? [a]\n: 1\n", f":1: top level: {NO_KEY}"),
    ("key that is a number", "server: {1: 2}", f":1: server: {NO_KEY}"),
    ("section that is text", "server: 8080", ":1: server: found 8080; allowed: a section with keys"),
    (
        "control characters",
        'logger: {"\\e[31m": 1}',
        ":1: logger.\\x1b[31m: unknown key; allowed: logger.level, logger.format",
    ),
]
SCALARS: list[tuple[str, str]] = [
    ("010", "010"),  # eight, or ten, or text
    ("0x50", "0x50"),
    ("1:30", "1:30"),  # ninety, to YAML 1.1
    ("8_080", "8_080"),
    ("9" * 5000, "9" * 77 + "..."),
    (".nan", ".nan"),
    ("1e3", '"1e3"'),
    ("2020-01-01", "2020-01-01"),
    ("!!python/object/apply:os.system [ls]", "a list"),
    ("!!binary aGk=", "aGk="),
    ("!secret x", "x"),
    ("", "nothing"),
    ("~", "nothing"),
    ("yes", "true"),
]


@pytest.mark.parametrize(("text", "found"), SCALARS, ids=[text[:30] or "empty" for text, _ in SCALARS])
def test_scalars_that_yaml_versions_and_tags_read_differently_are_no_numbers(
    place: Place, text: str, found: str
) -> None:
    assert place.problems(f"server:\n  port: {text}\n", AUTH_SECRET=SECRET, KAFKA_TOPICS="a") == [
        f"gateway.yaml:2: server.port: found {found}; allowed: a whole number from 0 to 65535"
    ]


@pytest.mark.parametrize(("what", "content", "expected"), FILES, ids=[file[0] for file in FILES])
def test_a_nasty_file_costs_lines_and_nothing_else(
    place: Place, what: str, content: str | bytes, expected: str
) -> None:
    assert place.problems(content, AUTH_SECRET=SECRET, KAFKA_TOPICS="a") == [f"gateway.yaml{expected}"]


def test_aliases_within_bounds_work(place: Place) -> None:
    text = "auth: {secret: &s correct-horse-battery-staple-0123456789}\nkafka: {topics: [&t a], clientId: *t}\n"
    assert place.load(text).kafka.client_id == "a"


def test_an_empty_file_is_a_file_without_keys(place: Place) -> None:
    for text in ("", "\n# nothing\n", "---\n", "\ufeff"):
        assert place.load(text, AUTH_SECRET=SECRET, KAFKA_TOPICS="a").server.port == 8080


def test_a_file_that_is_not_there_or_a_folder(place: Place) -> None:
    for path, reason in ((place.folder / "gone.yaml", "No such file or directory"), (place.folder, "Is a directory")):
        with pytest.raises(ConfigError) as caught:
            load(str(path), {})
        assert caught.value.problems == [f"{path}: cannot be read: {reason}"]


@pytest.mark.parametrize(
    "text",
    [
        "auth:\n  secret: *hunter2-0123456789-0123456789\n",
        "auth:\n  secret: !hunter2!x y\n",
        "auth:\n  secret: %hunter2-0123456789\n",
        'auth:\n  secret: "hunter2-0123456789\n',
        "auth:\n  secret: hunter2: x: y\n",
        "auth:\n  secret: [hunter2-0123456789]\n",
        "auth:\n  secret: {hunter2: 0123456789}\n",
        "kafka:\n  security: {password: 2020-01-01hunter2: x}\n",
    ],
)
def test_a_secret_that_is_bad_yaml_is_not_shown(place: Place, text: str) -> None:
    """A password may begin with any character, and some of these mean something to YAML."""
    assert "hunter2" not in "\n".join(place.problems(text))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(alphabet=st.sampled_from("server:port kafka{}[]&*!|>'\"%@`#-?,\n\t 0189.~\x00\ud7ff"), max_size=200))
def test_any_text_is_a_configuration_or_a_problem(place: Place, text: str) -> None:
    """Never another exception."""
    try:
        place.load(text, AUTH_SECRET=SECRET, KAFKA_TOPICS="a")
    except ConfigError as error:
        bad = [problem for problem in error.problems if "\n" in problem or len(problem) > 600]
    else:
        bad = []
    assert bad == []
