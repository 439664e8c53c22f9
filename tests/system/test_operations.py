"""What operators see of a running daemon: its metrics, its log, and that neither can stop it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from websockets.sync.client import connect

from tests.support.daemon import DEADLINE, Daemon, until

DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    with Daemon({}, tmp_path) as started:
        yield started


def use(daemon: Daemon) -> None:
    """One client that gets one record, and goes."""
    before = daemon.metrics().get('ws_gateway_websocket_closes_total{code="1000"}', 0)
    with connect(daemon.url(user="alice", topics="notifications")) as client:
        client.recv(DEADLINE)
        daemon.publish("notifications", {"user_id": "alice", "type": "greeting"})
        client.recv(DEADLINE)
    until(
        lambda: daemon.metrics().get('ws_gateway_websocket_closes_total{code="1000"}', 0) > before,
        "the close is counted",
    )


def test_what_happened_is_counted(daemon: Daemon) -> None:
    """Numbers that nobody feeds look fine on a dashboard."""
    use(daemon)
    daemon.http("GET", "/nothing")
    shown = daemon.metrics()
    for name, value in {
        "websocket_active_connections": 0,
        "websocket_connections_total": 1,
        "websocket_connection_duration_seconds_count": 1,
        'websocket_messages_sent_total{type="CONNECTED"}': 1,
        'websocket_messages_sent_total{type="MESSAGE"}': 1,
        "websocket_message_latency_seconds_count": 1,
        "websocket_end_to_end_latency_seconds_count": 1,
        'kafka_messages_processed_total{topic="notifications"}': 1,
        'window_records{topic="notifications"}': 1,
        'business_messages_by_type_total{type="greeting"}': 1,
        'http_requests_total{method="GET",path="other"}': 1,
    }.items():
        assert shown[f"ws_gateway_{name}"] == value, name
    assert shown["ws_gateway_websocket_bytes_sent_total"] > 100
    until(lambda: daemon.metrics()["ws_gateway_reactor_lateness_seconds_count"] > 3, "lateness is measured")


def test_a_running_daemon_satisfies_promtool(daemon: Daemon) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        missing = "promtool is missing: apt-get install --no-install-recommends prometheus"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    use(daemon)
    _, text = daemon.http("GET", "/metrics")
    checked = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, timeout=30)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")


def test_every_name_that_is_served_is_documented(daemon: Daemon) -> None:
    use(daemon)
    _, text = daemon.http("GET", "/metrics")
    served = {
        line.split()[2].removeprefix("ws_gateway_") for line in text.decode().splitlines() if line[:7] == "# TYPE "
    }
    documented = DOCS.read_text()
    assert not {name for name in served if f"`{name}`" not in documented}


def test_fifty_scrapes_at_once_are_all_answered(daemon: Daemon) -> None:
    """I14: metrics stand on the public port, and whoever asks must not keep clients waiting."""
    with connect(daemon.url(user="alice", topics="")) as client, ThreadPoolExecutor(50) as pool:
        client.recv(DEADLINE)
        scrapes = [pool.submit(daemon.http, "GET", "/metrics") for _ in range(50)]
        client.send('{"type":"PING","id":"a"}')
        assert "PONG" in str(client.recv(DEADLINE))
        assert [scrape.result()[0] for scrape in scrapes] == [200] * 50


def test_a_connections_life_is_two_lines_without_its_token(daemon: Daemon) -> None:
    url = daemon.url(user="alice", topics="notifications")
    with connect(url) as client:
        client.recv(DEADLINE)
    until(lambda: "connection closed" in daemon.log(), "the close is logged")
    opened, closed = (line for line in daemon.log_lines() if line["logger"] == "gateway.connection")
    assert (opened["message"], closed["message"]) == ("connection opened", "connection closed")
    assert opened["connection"] == closed["connection"]
    assert (closed["user"], closed["address"], closed["code"]) == ("alice", "127.0.0.1", 1000)
    assert closed["seconds"] >= 0
    assert "eyJ" not in daemon.log()
    assert daemon.api_key not in daemon.log()


def test_the_level_and_the_format_are_as_configured(tmp_path: Path) -> None:
    with Daemon({"logger": {"level": "warn", "format": "text"}}, tmp_path) as daemon:
        use(daemon)
        lines = daemon.log().splitlines()
    assert lines
    assert all(line.split()[1] in ("WARN", "ERROR") for line in lines), lines


@contextmanager
def run(daemon: Daemon, stderr: int | None) -> Iterator[subprocess.Popen[bytes]]:
    """The daemon with its output going to a descriptor of the test's; None: started with it closed."""
    daemon.write_config()
    command = [sys.executable, "-m", "gateway", "-c", str(daemon.config_file)]
    if stderr is None:
        command = ["sh", "-c", 'exec "$@" >&- 2>&-', "sh", *command]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stderr, stderr=stderr)
    try:
        daemon.wait_ready()
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def served_and_ended(daemon: Daemon, process: subprocess.Popen[bytes]) -> None:
    use(daemon)
    process.send_signal(signal.SIGTERM)
    assert process.wait(DEADLINE) == 0


def test_a_full_disk_does_not_stop_the_service(tmp_path: Path) -> None:
    """I7: lines are lost, records are not; and what could not be written does not fail the exit."""
    daemon = Daemon({}, tmp_path)
    with open("/dev/full", "wb", buffering=0) as full, run(daemon, full.fileno()) as process:
        served_and_ended(daemon, process)


def test_a_reader_of_the_log_that_went_away_does_not_stop_the_service(tmp_path: Path) -> None:
    """I7: every line raises EPIPE."""
    daemon = Daemon({}, tmp_path)
    reading, writing = os.pipe()
    with run(daemon, writing) as process:
        os.close(reading)
        served_and_ended(daemon, process)
    os.close(writing)


def test_closed_streams_do_not_stop_the_service_and_no_client_gets_the_log(tmp_path: Path) -> None:
    """I7: descriptors 1 and 2 are free then, and the next socket would be given one of them."""
    daemon = Daemon({}, tmp_path)
    with run(daemon, None) as process, socket.create_connection((daemon.host, daemon.port)) as idle:
        served_and_ended(daemon, process)
        idle.settimeout(DEADLINE)
        assert idle.recv(4096) == b""
