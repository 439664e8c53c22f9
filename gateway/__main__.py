"""``python -m gateway -c FILE``: the gateway in the foreground."""

from __future__ import annotations

import argparse
import sys

from gateway.tap import run_foreground


def main(arguments: list[str]) -> int:
    """The exit code."""
    parser = argparse.ArgumentParser("python -m gateway", description="Pushes Kafka records to WebSocket clients.")
    parser.add_argument("-c", "--config", metavar="FILE", help="YAML file with the configuration")
    return run_foreground(parser.parse_args(arguments).config)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
