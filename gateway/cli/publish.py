"""``ws-gateway publish``: writes one record, straight to Kafka, or through the API where the log is embedded."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import Any

from gateway.cli import api
from gateway.cli.errors import CliError
from gateway.config import Config, load
from gateway.core.recipient import address

TIMEOUT = 15.0  # seconds that the command takes at most


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Declare the command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "publish",
        help="write a record to a topic",
        description="Write a record, and print where the log put it: straight to Kafka where the configuration names "
        "one, else through POST /api/publish of the daemon that runs with this configuration.",
    )
    parser.add_argument("topic", metavar="TOPIC", help="one of kafka.topics")
    parser.add_argument("data", metavar="JSON", help="the value; - reads it from standard input")
    parser.add_argument("--key", help="the record's key")
    parser.add_argument("--user", help="the user whom it is for: set where the topic's userFrom looks")
    parser.add_argument("--header", action="append", default=[], metavar="NAME=VALUE", help="a header (Kafka only)")
    parser.add_argument(
        "--raw", action="store_true", help="take the value as it stands, be it JSON or not (Kafka only)"
    )
    parser.add_argument("--url", help="where the daemon is (default: from the configuration)")
    return parser


def run(options: argparse.Namespace) -> int:
    """Write the record, and print partition and offset."""
    config = load(options.config, os.environ)
    names = [topic.name for topic in config.kafka.topics]
    if options.topic not in names:
        raise CliError(f"{options.topic} is not among kafka.topics; allowed: {', '.join(names)}")
    data = _data(options.data, config)
    if not options.raw:
        _check_json(data)
    if config.kafka.bootstrap_servers and options.url is None:
        partition, offset = _to_kafka(options, config, data)
    else:
        partition, offset = _to_daemon(options, config, data)
    print(f"{options.topic}: partition {partition}, offset {offset}")
    return 0


def _to_kafka(options: argparse.Namespace, config: Config, value: bytes) -> tuple[int, int]:
    from gateway.cli import kafka  # kafka-python takes a while to import

    key = None if options.key is None else options.key.encode()
    headers = tuple(_header(text) for text in options.header)
    if options.user is not None:
        if options.raw:
            raise CliError("--user and --raw: the user goes into JSON; leave one out")
        topic = next(topic for topic in config.kafka.topics if topic.name == options.topic)
        key, data, headers = address(topic, options.user, key, json.loads(value), headers)
        value = json.dumps(data, ensure_ascii=False).encode()
    return kafka.send(config.kafka, options.topic, key, value, headers, TIMEOUT)


def _to_daemon(options: argparse.Namespace, config: Config, data: bytes) -> tuple[int, int]:
    for option in ("header", "raw"):
        if getattr(options, option):
            raise CliError(f"--{option} works with Kafka only: the API of the gateway does not take it")
    fields = {"topic": options.topic, "key": options.key, "userId": options.user}
    body = json.dumps({name: value for name, value in fields.items() if value is not None})
    # The value goes in as it was written: parsed and written again, 1.0 or a large number might come out another.
    return api.publish(config, options.url, body[:-1].encode() + b', "data": ' + data + b"}", TIMEOUT)


def _data(text: str, config: Config) -> bytes:
    most = config.publish.max_bytes
    data = sys.stdin.buffer.read(most + 1) if text == "-" else os.fsencode(text)
    if len(data) > most:
        raise CliError(f"the value is larger than publish.maxBytes ({most} bytes)")
    return data


def _check_json(data: bytes) -> None:
    try:
        json.loads(data.decode(), parse_constant=_refuse)
    except UnicodeDecodeError:
        raise CliError("the value is not UTF-8; --raw sends it as it is (to Kafka only)") from None
    except (ValueError, RecursionError) as error:
        raise CliError(f"the value is not JSON ({error}); --raw sends it as it is (to Kafka only)") from None


def _refuse(constant: str) -> object:
    raise ValueError(f"{constant} is no JSON")


def _header(text: str) -> tuple[str, bytes]:
    name, separator, value = text.partition("=")
    if not name or not separator:
        raise CliError(f'--header "{text}"; allowed: name=value')
    return name, os.fsencode(value)
