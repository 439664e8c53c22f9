"""From outside, the whole way: token, subscription, record, client; each way to start the daemon, and to end it."""

from __future__ import annotations

import json
import os
import pwd
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.support.daemon import DEADLINE, Daemon, free_port, until
from tests.support.kafka import Cluster

BIN = Path(sys.executable).parent


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    with Daemon({}, tmp_path) as started:
        yield started


def receive(client: ClientConnection) -> dict[str, Any]:
    frame = json.loads(client.recv(DEADLINE))
    assert isinstance(frame, dict)
    return frame


def closed(client: ClientConnection) -> int | None:
    """The code with which the server closes the connection."""
    with pytest.raises(ConnectionClosed) as end:
        while True:
            client.recv(DEADLINE)
    return end.value.rcvd.code if end.value.rcvd else None


# The way of a record


@pytest.mark.parametrize("via", ["twistd", "module", "serve"])
def test_a_record_reaches_its_user_and_nobody_else(via: str, tmp_path: Path) -> None:
    """The one thing that the gateway is for, by each way to start it."""
    with Daemon({}, tmp_path, via=via) as daemon:
        alice_url, bob_url = (daemon.url(user=user, topics="notifications") for user in ("alice", "bob"))
        with connect(alice_url) as alice, connect(bob_url) as bob:
            hello = receive(alice)
            assert hello["type"] == "CONNECTED"
            assert hello["userId"] == "alice"
            assert [subscription["names"] for subscription in hello["subscriptions"]] == [["notifications"]]
            assert receive(bob)["userId"] == "bob"

            where = daemon.publish("notifications", {"user_id": "alice", "text": "hi"})
            daemon.publish("notifications", {"user_id": "bob", "text": "hello"})
            message = receive(alice)
            assert message["type"] == "MESSAGE"
            assert message["topic"] == "notifications"
            assert (message["partition"], message["offset"]) == where
            assert message["data"] == {"user_id": "alice", "text": "hi"}
            assert receive(bob)["data"]["text"] == "hello"


def test_a_record_from_kafka_reaches_its_user(kafka: Cluster, tmp_path: Path) -> None:
    """As above with the log that it is for, daemonised: a thread that starts before the fork is not in the child."""
    topic = kafka.fresh(partitions=2)
    daemon = Daemon({"kafka": {"bootstrapServers": kafka.bootstrap, "topics": [topic]}}, tmp_path)
    pid = started_by_twistd(daemon, "--logfile", tmp_path / "gateway.log")
    try:
        daemon.wait_ready()
        with connect(daemon.url(user="alice", topics=topic)) as alice:
            assert receive(alice)["subscriptions"][0]["position"] == {"0": 0, "1": 0}
            kafka.write(topic, [b'{"user_id":"bob"}', b'{"user_id":"alice","n":1}'], partition=1)
            message = receive(alice)
            assert (message["partition"], message["offset"], message["data"]["n"]) == (1, 1, 1)
            where = daemon.publish(topic, {"user_id": "alice", "n": 2})
            message = receive(alice)
            assert (message["partition"], message["offset"]) == where
    finally:
        ended(pid)


def test_without_a_token_nobody_comes_in(daemon: Daemon) -> None:
    """An authentication that is not wired in would let everybody read."""
    with pytest.raises(InvalidStatus) as refused, connect(daemon.url(topics="notifications")):
        pass
    assert refused.value.response.status_code == 401


def test_the_log_says_what_serves_and_what_it_cannot_do(daemon: Daemon) -> None:
    """Somebody who runs the embedded log by mistake must find that in the first lines of the log."""
    text = "\n".join(line["message"] for line in daemon.log_lines())
    assert "embedded log" in text
    assert "end with it" in text
    assert "embedded registry" in text
    assert f"listening on 127.0.0.1:{daemon.port}" in text
    assert str(daemon.config_file) in text
    assert daemon.secret not in daemon.log()


def test_a_redis_that_is_configured_is_said_not_to_be_used(tmp_path: Path) -> None:
    """The predecessor's configuration names a Redis; nobody may believe that it is asked."""
    with Daemon({"redis": {"addr": "localhost:6379"}}, tmp_path) as daemon:
        assert "redis.addr is set, and not used yet" in daemon.log()


def test_no_authentication_warns_at_every_start(tmp_path: Path) -> None:
    """A daemon that lets everybody in under any name has to say so."""
    with Daemon({"auth": {"mode": "none", "secretFile": None}}, tmp_path) as daemon:
        warnings = [line["message"] for line in daemon.log_lines() if line["level"] == "warn"]
        assert [text for text in warnings if "auth.mode" in text]


# Starts that fail


def failed_start(daemon: Daemon) -> str:
    """What it printed; it must end by itself, not with 0, at the cost of no more CPU than 2 s, without a stack."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    daemon.launch()
    assert daemon.wait(DEADLINE) not in (0, None)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2
    assert "Traceback" not in daemon.log()
    return daemon.log()


@pytest.mark.parametrize("via", ["twistd", "module", "serve"])
def test_a_bad_configuration_is_told_in_plain_lines(via: str, tmp_path: Path) -> None:
    """Every mistake at once, by its key: a stack trace helps nobody who edits YAML."""
    daemon = Daemon({"server": {"prot": 1}, "limits": {"connections": -5}}, tmp_path, via=via)
    printed = failed_start(daemon)
    assert "server.prot" in printed
    assert "server.port" in printed  # the nearest right one
    assert "limits.connections" in printed


@pytest.mark.parametrize("via", ["twistd", "module", "serve"])
def test_a_port_in_use_is_told_plainly(via: str, daemon: Daemon, tmp_path: Path) -> None:
    """Two daemons on one port is the most common mistake of an operator."""
    folder = tmp_path / "second"
    folder.mkdir()
    printed = failed_start(Daemon({"server": {"port": daemon.port}}, folder, via=via))
    assert f"{daemon.port}" in printed
    assert "another process listens there" in printed
    assert "server.port" in printed


def test_a_port_in_use_is_told_by_the_daemonised_start(daemon: Daemon, tmp_path: Path) -> None:
    """After the fork nobody sees stderr: the parent must not say that all went well, and the log has the reason."""
    folder = tmp_path / "second"
    folder.mkdir()
    second = Daemon({"server": {"port": daemon.port}}, folder)
    second.write_config()
    command = [str(BIN / "twistd"), "--pidfile=twistd.pid", "--logfile=twistd.log", "ws-gateway", "-c", "config.yaml"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=DEADLINE)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert "cannot listen" in done.stderr
    log = folder / "twistd.log"
    until(lambda: "another process listens there" in log.read_text(), "the log says why")
    assert not (folder / "twistd.pid").exists()


# Ends


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("via", ["twistd", "module"])
def test_a_signal_ends_in_order(via: str, number: signal.Signals, tmp_path: Path) -> None:
    """Clients that are cut off without 1001 take it for a network fault; supervisors take another code for a crash."""
    with Daemon({}, tmp_path, via=via) as daemon, ExitStack() as stack:
        clients = [stack.enter_context(connect(daemon.url(user=f"user-{i}"))) for i in range(5)]
        for client in clients:
            receive(client)
        daemon.signal(number)
        assert [closed(client) for client in clients] == [1001] * 5
        assert daemon.wait() == 0


def test_while_it_drains_newcomers_are_told_to_come_back(tmp_path: Path) -> None:
    """A load balancer that still sends clients here must get an answer, not a reset."""
    with Daemon({"server": {"drain": {"pace": 1, "timeout": "30s"}}}, tmp_path) as daemon, ExitStack() as stack:
        for i in range(10):
            stack.enter_context(connect(daemon.url(user=f"user-{i}")))
        daemon.signal(signal.SIGTERM)

        def refused() -> InvalidStatus | None:
            try:
                with connect(daemon.url(user="late")):
                    return None
            except InvalidStatus as error:
                return error

        error = until(refused, "newcomers are refused")
        assert error.response.status_code == 503
        assert int(error.response.headers["Retry-After"]) > 0
        assert json.loads(error.response.body or b"")["code"] == "draining"
        assert daemon.http("GET", "/readyz")[0] == 503
        assert daemon.http("GET", "/healthz")[0] == 200

        daemon.signal(signal.SIGTERM)  # the second one: at once, though clients are left
        assert daemon.wait(5) == 0


# twistd's own options


def started_by_twistd(daemon: Daemon, *arguments: str | Path) -> int:
    """The process id of a daemon that twistd has put into the background."""
    daemon.write_config()
    pidfile = daemon.folder / "gateway.pid"
    command = [BIN / "twistd", "--pidfile", pidfile, *arguments, "ws-gateway", "-c", daemon.config_file]
    done = subprocess.run(command, cwd=daemon.folder, capture_output=True, text=True, timeout=DEADLINE)
    assert done.returncode == 0, done.stderr
    return int(pidfile.read_text())


def ended(pid: int, number: signal.Signals = signal.SIGTERM) -> None:
    """End a process that is not our child, and wait until it is gone."""
    os.kill(pid, number)
    stat = Path(f"/proc/{pid}/stat")
    until(lambda: not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z", f"{pid} is gone")


def test_twistd_daemonises_it_with_a_pidfile_and_a_log(tmp_path: Path) -> None:
    """A socket or a thread that is opened before the fork is lost in the child."""
    daemon = Daemon({}, tmp_path)
    pid = started_by_twistd(daemon, "--logfile", tmp_path / "gateway.log")
    try:
        daemon.wait_ready()
        with connect(daemon.url(user="alice", topics="notifications")) as client:
            receive(client)
            daemon.publish("notifications", {"user_id": "alice"})
            assert receive(client)["type"] == "MESSAGE"
    finally:
        ended(pid)
    assert not (tmp_path / "gateway.pid").exists()
    lines = [json.loads(line) for line in (tmp_path / "gateway.log").read_text().splitlines()]
    assert [line for line in lines if "listening on" in line["message"]]


def test_a_logger_of_the_operators_own_gets_the_events(tmp_path: Path) -> None:
    """``twistd --logger`` names a factory of an observer; the gateway must not take its place."""
    (tmp_path / "own_logger.py").write_text(
        "from zope.interface import provider\n"
        "from twisted.logger import ILogObserver, formatEvent\n"
        "def observer():\n"
        "    file = open('own.log', 'a', buffering=1)\n"
        "    return provider(ILogObserver)(lambda event: file.write('own: ' + formatEvent(event) + '\\n'))\n"
    )
    arguments = ["--logger", "own_logger.observer"]
    with Daemon({}, tmp_path, arguments=arguments, environ={"PYTHONPATH": str(tmp_path)}) as daemon:
        assert f"own: listening on 127.0.0.1:{daemon.port}" in (tmp_path / "own.log").read_text()
        assert "listening" not in daemon.log()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can bind port 80 and give its rights up")
def test_port_80_is_bound_before_rights_are_given_up(tmp_path: Path) -> None:
    """A listener that binds in startService runs as the unprivileged user, and cannot."""
    nobody = pwd.getpwnam("nobody")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.80", 80))  # an address of its own, so that nothing else of this machine is in the way
    daemon = Daemon({"server": {"host": "127.0.0.80", "port": 80}}, tmp_path)
    pid = started_by_twistd(
        daemon, "--uid", str(nobody.pw_uid), "--gid", str(nobody.pw_gid), "--logfile", tmp_path / "gateway.log"
    )
    try:
        daemon.wait_ready()
        owner = Path(f"/proc/{pid}").stat()
        assert (owner.st_uid, owner.st_gid) == (nobody.pw_uid, nobody.pw_gid)
        with connect(daemon.url(user="alice")) as client:
            assert receive(client)["type"] == "CONNECTED"
    finally:
        ended(pid)


# What the README says


def test_the_three_lines_of_the_readme(tmp_path: Path) -> None:
    """Nobody reads on after a first line that does not work. Only the port is another one here."""
    root = Path(__file__).parents[2]
    block = (root / "README.md").read_text().partition("## In five minutes")[2].partition("```sh\n")[2]
    start, listen, publish = [line for line in block.partition("```")[0].splitlines() if line.strip()]
    port = str(free_port())
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    environ |= {"WSGATEWAY_SERVER_PORT": port, "PYTHONUNBUFFERED": "1"}
    log = (tmp_path / "make.log").open("w+b")

    def shell(line: str, **pipes: Any) -> subprocess.Popen[bytes]:
        command = ["bash", "-c", line.replace("8080", port)]
        return subprocess.Popen(command, cwd=root, env=environ, start_new_session=True, **pipes)

    gateway = shell(start, stdout=log, stderr=log)
    client = None
    try:
        until(lambda: listens(int(port)), "make run listens", 120)
        client = shell(listen, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        stdout = client.stdout
        assert stdout is not None
        os.set_blocking(stdout.fileno(), False)
        seen = bytearray()

        def shows(text: bytes) -> bool:
            seen.extend(stdout.read() or b"")
            return text in seen

        until(lambda: shows(b'"CONNECTED"'), "the client is connected")
        done = shell(publish, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        printed, _ = done.communicate(timeout=DEADLINE)
        assert done.returncode == 0, printed
        until(lambda: shows(b'"text":"hi"'), "the client shows the record")
    finally:
        for process in (client, gateway):
            if process is not None:
                os.killpg(process.pid, signal.SIGTERM)
                process.communicate(timeout=DEADLINE)
        log.close()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
