"""The command line of ``ws-gateway``: which commands there are, what they take, and what their end tells the shell.

Exit codes: 0 done; 1 refused, with one line a problem on stderr; 2 wrong usage; 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from gateway import __version__
from gateway.cli import publish, token
from gateway.cli.errors import CliError
from gateway.config import load, notices
from gateway.errors import ConfigError, GatewayError

DEFAULT_CONFIG = "etc/config.yaml"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code. ``arguments``: without the program's name, those of the process by default."""
    options = _parser().parse_args(arguments)
    try:
        code: int = options.run(options)
    except ConfigError as error:
        return _fail(error.problems)
    except (CliError, GatewayError) as error:
        return _fail([f"ws-gateway {options.command}: {error}"])
    except KeyboardInterrupt:
        return 130
    return code


def _fail(lines: Sequence[str]) -> int:
    for line in lines:
        print(line, file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("ws-gateway", description="Pushes Kafka records to very many WebSocket clients.")
    parser.add_argument("--version", action="version", version=f"ws-gateway {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    serve = commands.add_parser("serve", help="run the gateway in the foreground", description="Run the gateway.")
    serve.add_argument("-c", "--config", metavar="FILE", help="YAML file; without: defaults and the environment")
    serve.set_defaults(run=_serve)

    check = commands.add_parser(
        "check-config",
        help="say what is wrong with a configuration",
        description="Read the configuration as a start would, and print every problem; exit code 0 if there is none.",
    )
    check.add_argument("-c", "--config", metavar="FILE", help="YAML file; without: defaults and the environment")
    check.set_defaults(run=_check)

    for module in (token, publish):
        command = module.add_parser(commands)
        command.add_argument(
            "-c", "--config", metavar="FILE", default=DEFAULT_CONFIG, help=f"YAML file (default: {DEFAULT_CONFIG})"
        )
        command.set_defaults(run=module.run)
    return parser


def _serve(options: argparse.Namespace) -> int:
    from gateway.tap import run_foreground  # imports the reactor, which the other commands do without

    return run_foreground(options.config)


def _check(options: argparse.Namespace) -> int:
    config = load(options.config, os.environ)
    for notice in notices(config):
        print(f"note: {notice}", file=sys.stderr)
    print(f"{options.config or 'configuration'}: ok")
    return 0
