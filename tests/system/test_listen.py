"""Where the daemon listens: IPv6, UNIX sockets, a socket that systemd hands over, a port of its own for operators."""

from __future__ import annotations

import json
import socket
import stat
import sys
import textwrap
from pathlib import Path

from websockets.sync.client import ClientConnection, connect, unix_connect

from tests.support.daemon import DEADLINE, Config, Daemon, free_port


def with_admin_port(**server: object) -> Config:
    """On which the tests see whether it is ready."""
    return {"server": server, "admin": {"port": free_port()}}


def connected(client: ClientConnection) -> bool:
    return bool(json.loads(client.recv(DEADLINE))["type"] == "CONNECTED")


def test_ipv6(tmp_path: Path) -> None:
    """An address with colons must get through the endpoint string, the log and the client's address."""
    with Daemon(with_admin_port(host="::1"), tmp_path) as daemon:
        with connect(daemon.url(user="alice")) as client:
            assert connected(client)
        assert f"listening on [::1]:{daemon.port}" in daemon.log()
        opened = [line for line in daemon.log_lines() if line["message"] == "connection opened"]
        assert [line["address"] for line in opened] == ["::1"]


def test_a_unix_socket_even_if_a_killed_process_left_one(tmp_path: Path) -> None:
    """After SIGKILL the socket's file stays; a daemon that then refuses to start needs an operator at night."""
    path = tmp_path / "gateway.sock"
    config = with_admin_port(listen=[f"unix:{path}:mode=660"])
    with Daemon(config, tmp_path) as daemon:
        url = f"ws://gateway.example/ws?token={daemon.token('alice')}"
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        with unix_connect(str(path), url) as client:
            assert connected(client)
        daemon.kill()
        assert path.is_socket()
        daemon.start()
        with unix_connect(str(path), url) as client:
            assert connected(client)
        assert daemon.stop() == 0
        assert not path.exists()


def test_a_unix_socket_of_a_living_process_is_left_alone(tmp_path: Path) -> None:
    """A second start must not take the first one's clients away."""
    path = tmp_path / "gateway.sock"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        second = Daemon(with_admin_port(listen=[f"unix:{path}"]), tmp_path)
        second.launch()
        assert second.wait() not in (0, None)
        assert "another process listens there" in second.log()
        assert "server.listen" in second.log()
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(path))


def test_a_file_in_the_place_of_a_unix_socket_is_not_deleted(tmp_path: Path) -> None:
    """A mistyped path must not cost anybody a file."""
    path = tmp_path / "precious.txt"
    path.write_text("precious")
    daemon = Daemon(with_admin_port(listen=[f"unix:{path}"]), tmp_path)
    daemon.launch()
    assert daemon.wait() not in (0, None)
    assert path.read_text() == "precious"


def test_several_endpoints(tmp_path: Path) -> None:
    """A proxy on this machine by a UNIX socket, and the network beside it."""
    path, port = tmp_path / "gateway.sock", free_port()
    config = with_admin_port(listen=[f"unix:{path}", f"tcp:{port}:interface=127.0.0.1"])
    with Daemon(config, tmp_path) as daemon:
        token = daemon.token("alice")
        with unix_connect(str(path), f"ws://localhost/ws?token={token}") as client:
            assert connected(client)
        with connect(f"ws://127.0.0.1:{port}/ws?token={token}") as client:
            assert connected(client)


def test_a_socket_that_systemd_hands_over(tmp_path: Path) -> None:
    """Socket activation: descriptor 3 and LISTEN_FDS (sd_listen_fds(3)), here played by a parent of a few lines."""
    port = free_port()
    daemon = Daemon(with_admin_port(listen=["systemd:domain=INET:index=0"]), tmp_path)
    parent = tmp_path / "systemd.py"
    parent.write_text(
        textwrap.dedent(
            f"""\
            import os, socket, sys
            listening = socket.create_server(("127.0.0.1", {port}))
            os.dup2(os.dup(listening.fileno()), 3)
            os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES="gateway.socket")
            os.execv(sys.argv[1], sys.argv[1:])
            """
        )
    )
    with (
        daemon.behind(sys.executable, str(parent)),
        connect(f"ws://127.0.0.1:{port}/ws?token={daemon.token('alice')}") as client,
    ):
        assert connected(client)


def test_a_socket_that_systemd_does_not_hand_over(tmp_path: Path) -> None:
    """Started by hand with the unit's configuration: the reason must be said, not an index out of range."""
    daemon = Daemon(with_admin_port(listen=["systemd:domain=INET:index=0"]), tmp_path)
    daemon.launch()
    assert daemon.wait() not in (0, None)
    assert "systemd has not handed over this socket" in daemon.log()


def test_an_admin_port_of_its_own(tmp_path: Path) -> None:
    """With admin.port, metrics and API must not be found on the public port."""
    with Daemon(with_admin_port(host="127.0.0.1"), tmp_path) as daemon:
        assert daemon.admin_port != daemon.port
        assert daemon.http("GET", "/metrics")[0] == 404
        assert daemon.http("GET", "/metrics", port=daemon.admin_port)[0] == 200
        assert daemon.http("GET", "/api/info")[0] == 404
        assert daemon.api("GET", "/info")[0] == 200
        for port in (daemon.port, daemon.admin_port):
            assert [daemon.http("GET", path, port=port)[0] for path in ("/health", "/healthz", "/readyz")] == [200] * 3


def test_an_admin_port_in_use_stops_the_start(tmp_path: Path) -> None:
    """Half a daemon, with clients and without metrics, would be worse than none."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        daemon = Daemon({"admin": {"port": taken.getsockname()[1]}}, tmp_path)
        daemon.launch()
        assert daemon.wait() not in (0, None)
        assert "admin.port" in daemon.log()
