"""The clients of docs/examples, as people will copy them: each record printed once and in order, whatever is cut.

They are programs of their own, run by the interpreter that they are for, against the installed daemon.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from tests.support.daemon import Config, Daemon, until
from tests.support.node_install import NodeMissingError, install
from tests.support.proxy import Proxy

EXAMPLES = Path(__file__).parents[2] / "docs/examples"
TOPICS: Config = {"kafka": {"topics": ["notifications", {"name": "news", "audience": "everyone", "partitions": 3}]}}
WAIT = 40.0  # seconds; the clients' pauses between attempts grow while the line is cut

Line = tuple[str, int, int, Any]  # topic, partition, offset, data
pytestmark = pytest.mark.parametrize("language", ["python", "javascript"])


@pytest.fixture
def command(language: str, tmp_path: Path) -> list[str]:
    """Runs the example of a language."""
    if language == "python":
        return [sys.executable, str(EXAMPLES / "client.py")]
    try:
        modules = install()
    except NodeMissingError as missing:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(missing))
    # Node looks for a module's imports beside it.
    (tmp_path / "node_modules").symlink_to(modules)
    return ["node", str(shutil.copy(EXAMPLES / "client.mjs", tmp_path / "client.mjs"))]


class Client:
    """An example that runs; what it prints is collected. A context manager."""

    def __init__(self, command: list[str], port: int, token: str, names: str) -> None:
        self._command = [*command, f"ws://127.0.0.1:{port}/ws", token, names]
        self.lines: list[Line] = []
        self._reader = threading.Thread(target=self._read)

    def __enter__(self) -> Self:
        environ = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        self._process = subprocess.Popen(
            self._command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ
        )
        self._reader.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()
        assert self._process.stdout is not None and self._process.stderr is not None
        self._process.stdout.close()
        self.errors = self._process.stderr.read()
        self._process.stderr.close()

    def ended(self) -> bool:
        """Whether it has ended by itself."""
        return self._process.poll() is not None

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            topic, partition, offset, data = line.split(" ", 3)
            self.lines.append((topic, int(partition), int(offset), json.loads(data)))


class Writer:
    """Publishes numbered records, and knows what a client must have printed of them."""

    def __init__(self, daemon: Daemon, user: str) -> None:
        self._daemon = daemon
        self._user = user
        self.written: list[Line] = []

    def write(self, count: int) -> None:
        """So many records for everybody, on several partitions, and one in five for the user."""
        for _ in range(count):
            number = len(self.written)
            if number % 5:
                data: dict[str, Any] = {"number": number}
                where = self._daemon.publish("news", data, key=f"key-{number % 7}")
                self.written.append(("news", *where, data))
            else:
                data = {"number": number, "user_id": self._user}
                self.written.append(("notifications", *self._daemon.publish("notifications", data), data))

    def have_come(self, client: Client) -> bool:
        """Whether the client has printed as many lines as it should."""
        return len(client.lines) >= len(self.written)


def by_partition(lines: list[Line]) -> dict[tuple[str, int], list[Line]]:
    """In the order in which they are."""
    found: dict[tuple[str, int], list[Line]] = defaultdict(list)
    for line in lines:
        found[line[0], line[1]].append(line)
    return found


def connected(daemon: Daemon) -> int:
    """How many clients there are."""
    count: int = json.loads(daemon.http("GET", "/health")[1])["client_count"]
    return count


@contextmanager
def away(proxy: Proxy) -> Iterator[socket.socket]:
    """Cut what goes through the proxy, and lead new attempts to the socket that is given."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(WAIT)
        proxy.point_at(server.getsockname()[1])
        proxy.cut()
        yield server


def test_records_of_before_during_and_after_a_cut_are_printed_once_and_in_order(
    command: list[str], tmp_path: Path
) -> None:
    """What a client does not keep of its cursor is lost or comes twice here, for everybody who copied it."""
    with Daemon(TOPICS, tmp_path) as daemon, Proxy(daemon.port) as proxy:
        writer = Writer(daemon, "alice")
        with Client(command, proxy.port, daemon.token("alice"), "notifications,news") as client:
            until(lambda: connected(daemon) == 1, "the client comes", WAIT)
            writer.write(20)
            until(lambda: writer.have_come(client), "the records before the cut", WAIT)
            for _ in range(2):
                with away(proxy) as attempts:
                    until(lambda: connected(daemon) == 0, "the cut is seen", WAIT)
                    writer.write(20)
                    attempts.accept()[0].close()  # some libraries tell of attempts in vain otherwise than of cuts
                    proxy.point_at(daemon.port)
                writer.write(5)  # before, while or after it comes back
                until(lambda: writer.have_come(client), "the records of the cut", WAIT)
            writer.write(20)
            until(lambda: writer.have_come(client), "the records after the cut", WAIT)
    assert by_partition(client.lines) == by_partition(writer.written)
    assert client.errors == ""


def test_a_log_that_begins_anew_replaces_the_cursor(command: list[str], tmp_path: Path) -> None:
    """The embedded log has another epoch at each start: who keeps the old offsets then waits for them for ever, and who
    is not told of the gap believes that nothing is missing."""
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    with Daemon(TOPICS, first) as daemon:
        before = Writer(daemon, "alice")
        config = TOPICS | {"server": {"port": daemon.port}, "auth": daemon.config["auth"]}
        with Proxy(daemon.port) as proxy, Client(command, proxy.port, daemon.token("alice"), "news") as client:
            until(lambda: connected(daemon) == 1, "the client comes", WAIT)
            before.write(30)
            news = [line for line in before.written if line[0] == "news"]
            until(lambda: len(client.lines) == len(news), "the records before the end", WAIT)
            assert daemon.stop() == 0
            with Daemon(config, second) as anew:
                after = Writer(anew, "alice")
                after.write(10)
                until(lambda: connected(anew) == 1, "the client comes back", WAIT)
                after.write(5)
                with away(proxy) as attempts:
                    until(lambda: connected(anew) == 0, "the cut is seen", WAIT)
                    after.write(5)
                    attempts.accept()[0].close()
                    proxy.point_at(anew.port)
                news += [line for line in after.written if line[0] == "news"]
                until(lambda: len(client.lines) >= len(news), "the records of the new log", WAIT)
    assert by_partition(client.lines) == by_partition(news)
    assert re.findall(r"missing: news .*recreated", client.errors)


def test_what_is_final_is_not_tried_again(command: list[str], tmp_path: Path) -> None:
    """A client that comes back after an operator has sent it away makes the operator's work endless."""
    with Daemon(TOPICS, tmp_path) as daemon:
        with Client(command, daemon.port, daemon.token("alice"), "news") as client:
            until(lambda: connected(daemon) == 1, "the client comes", WAIT)
            assert daemon.api("POST", "/disconnect", {"userId": "alice", "reason": "enough"}) == (
                200,
                {"disconnected": 1},
            )
            until(client.ended, "the client ends by itself", WAIT)
        assert daemon.metrics()["ws_gateway_websocket_connections_total"] == 1
    assert "enough" in client.errors


def test_the_examples_are_short(language: str) -> None:
    """Forty lines of code, beside imports and comments: longer ones nobody reads before copying."""
    text = (EXAMPLES / {"python": "client.py", "javascript": "client.mjs"}[language]).read_text()
    code = [line for line in text.splitlines() if line.strip() and not re.match(r'#|//|"""|import |from ', line)]
    assert len(code) <= 40
