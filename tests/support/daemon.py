"""The installed daemon in a process of its own, as an operator starts it, for tests that look at it from outside."""

from __future__ import annotations

import contextlib
import json
import os
import random
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.parse import quote, urlencode

import jwt
import yaml

DEADLINE = 20.0  # seconds that any one thing awaited here may take on a busy machine

Config = dict[str, Any]
T = TypeVar("T")


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on, outside of the range from which outgoing connections take theirs."""
    while True:
        port = random.randrange(10_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def until(condition: Callable[[], T | None], what: str, deadline: float = DEADLINE, interval: float = 0.02) -> T:
    """Poll until ``condition`` gives something true, and return that; AssertionError with ``what`` otherwise."""
    end = time.monotonic() + deadline
    while True:
        if found := condition():
            return found
        if time.monotonic() > end:
            raise AssertionError(f"not within {deadline} s: {what}")
        time.sleep(interval)


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> Config:
    """``over`` laid over ``base``, section by section; None takes a key away."""
    result = dict(base)
    for key, value in over.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(result.get(key), Mapping):
            result[key] = merged(result[key], value)
        else:
            result[key] = value
    return result


class Daemon:
    """One gateway; its files go into ``folder`` (tmp_path). ``config`` is laid over a small default: loopback, a free
    port, HS256 tokens, an API key, the embedded log with the topics ``notifications`` (for a user), ``prices`` (by key)
    and ``news`` (for everyone).

    ``via``: ``twistd`` (``twistd -n ws-gateway -c``), ``module`` (``python -m gateway -c``) or ``serve``
    (``ws-gateway serve -c``). ``python``: of the environment in which the gateway is installed. ``arguments`` are
    twistd's own. Use it as a context manager, or ``start`` and ``stop`` it; ``start`` waits until it is ready.
    """

    def __init__(
        self,
        config: Config,
        folder: Path,
        *,
        python: str = sys.executable,
        via: str = "twistd",
        arguments: Sequence[str] = (),
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.secret = secrets.token_hex(32)
        self.api_key = secrets.token_hex(16)
        self.config = merged(
            {
                "server": {"host": "127.0.0.1", "port": free_port()},
                "auth": {"secretFile": self._write("token.secret", self.secret)},
                "admin": {"apiKeysFile": self._write("api.keys", self.api_key)},
                "kafka": {
                    "topics": [
                        "notifications",
                        {"name": "prices", "audience": "key"},
                        {"name": "news", "audience": "everyone"},
                    ]
                },
            },
            config,
        )
        self.config_file = folder / "config.yaml"
        self._log_file = folder / "daemon.log"
        self._environ = {**os.environ, "PYTHONUNBUFFERED": "1", **(environ or {})}
        bin_folder = Path(python).parent
        self._command = {
            "twistd": [str(bin_folder / "twistd"), "--nodaemon", "--pidfile", "", *arguments, "ws-gateway"],
            "module": [python, "-m", "gateway"],
            "serve": [str(bin_folder / "ws-gateway"), "serve"],
        }[via] + ["-c", str(self.config_file)]
        self._process: subprocess.Popen[bytes] | None = None

    # The process

    def start(self, *, ready: bool = True) -> Self:
        """Write the configuration and start; ``ready=False`` waits only until the port answers."""
        self.launch()
        try:
            if ready:
                self.wait_ready()
            else:
                self.wait_listening()
        except BaseException:
            self.kill()
            raise
        return self

    def launch(self) -> None:
        """Start without waiting for anything: for starts that are meant to fail."""
        self.write_config()
        with self._log_file.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, cwd=self.folder, env=self._environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def behind(self, *command: str) -> Self:
        """To be started by another program that ends in executing it."""
        self._command = [*command, *self._command]
        return self

    def write_config(self) -> None:
        """For those who start it in a way of their own."""
        self.config_file.write_text(yaml.safe_dump(self.config, sort_keys=False))

    def wait_listening(self) -> None:
        """Until the public port takes a connection."""

        def listening() -> bool:
            self._still_running()
            with contextlib.suppress(OSError), socket.create_connection((self.host, self.port), 1):
                return True
            return False

        until(listening, "the daemon listens")

    def wait_ready(self) -> None:
        """Until ``/readyz`` says 200."""

        def ready() -> bool:
            if self._process is not None:
                self._still_running()
            with contextlib.suppress(OSError):
                return self.http("GET", "/readyz", port=self.admin_port)[0] == 200
            return False

        try:
            until(ready, "the daemon is ready")
        except AssertionError as error:
            raise AssertionError(f"{error}; its log:\n{self.log()}") from None

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self, deadline: float = 40.0) -> int:
        """Its exit code (negative: the signal that ended it)."""
        return self._running().wait(deadline)

    def stop(self, deadline: float = 40.0) -> int:
        """SIGTERM, and the exit code once it is gone."""
        if self._running().poll() is None:
            self.signal(signal.SIGTERM)
        return self.wait(deadline)

    def kill(self) -> None:
        """SIGKILL, and wait."""
        process = self._running()
        process.kill()
        process.wait()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self._process.poll() is None:
            try:
                self.stop()
            except subprocess.TimeoutExpired:
                self.kill()
                raise

    @property
    def pid(self) -> int:
        return self._running().pid

    def log(self) -> str:
        """All that it wrote to stdout and stderr so far."""
        return self._log_file.read_text(errors="backslashreplace") if self._log_file.exists() else ""

    def log_lines(self) -> list[dict[str, Any]]:
        """The JSON lines of the log."""
        return [json.loads(line) for line in self.log().splitlines() if line.startswith("{")]

    # What it serves

    @property
    def host(self) -> str:
        return str(self.config["server"]["host"])

    @property
    def port(self) -> int:
        return int(self.config["server"]["port"])

    @property
    def admin_port(self) -> int:
        """Where ``/api`` and ``/metrics`` are: ``admin.port``, or else the public port."""
        return int(self.config["admin"].get("port", self.port))

    def url(self, *, token: str | None = None, user: str | None = None, **query: str) -> str:
        """The WebSocket URL with a token (of ``user``, or as given) and other query parameters."""
        if user is not None:
            token = self.token(user)
        parameters = {**({"token": token} if token else {}), **query}
        path = self.config["server"].get("path", "/ws")
        return f"ws://{self._authority(self.port)}{path}?{urlencode(parameters, quote_via=quote)}"

    def token(self, sub: str, *, lifetime: float = 3600, **claims: Any) -> str:
        """An HS256 token; a claim given as None is left out."""
        now = int(datetime.now(UTC).timestamp())
        payload = {"sub": sub, "iat": now, "exp": now + lifetime, **claims}
        return jwt.encode({k: v for k, v in payload.items() if v is not None}, self.secret, algorithm="HS256")

    def http(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        port: int | None = None,
    ) -> tuple[int, bytes]:
        """Status and body of one HTTP request (JSON where there is a ``body``)."""
        request = urllib.request.Request(
            f"http://{self._authority(port or self.port)}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json", **(headers or {})},
        )
        try:
            with urllib.request.urlopen(request, timeout=DEADLINE) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as refusal:
            with refusal:
                return refusal.code, refusal.read()

    def api(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Status and decoded JSON of one request to ``/api``, with the key."""
        status, answer = self.http(
            method, f"/api{path}", body, {"Authorization": f"Bearer {self.api_key}"}, self.admin_port
        )
        return status, json.loads(answer) if answer else None

    def publish(self, topic: str, data: Any, **fields: Any) -> tuple[int, int]:
        """Partition and offset of one record, written through the API; ``fields``: key, userId."""
        status, answer = self.api("POST", "/publish", {"topic": topic, "data": data, **fields})
        assert status == 200, (status, answer)
        return answer["partition"], answer["offset"]

    def metrics(self) -> dict[str, float]:
        """Every sample of ``/metrics``, by its name with labels."""
        status, text = self.http("GET", "/metrics", port=self.admin_port)
        assert status == 200, (status, text)
        lines = [line for line in text.decode().splitlines() if line and not line.startswith("#")]
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}

    # Inside

    def _authority(self, port: int) -> str:
        admin = self.config["admin"]
        host = admin.get("host", "127.0.0.1") if port == admin.get("port") else self.host
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def _write(self, name: str, text: str) -> str:
        path = self.folder / name
        path.write_text(text + "\n")
        path.chmod(0o600)
        return str(path)

    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "not started"
        return self._process

    def _still_running(self) -> None:
        code = self._running().poll()
        assert code is None, f"the daemon ended with {code}; its log:\n{self.log()}"
