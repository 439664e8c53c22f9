"""The processes of a run: the gateway on one core, and the broker, the load, the sink on another."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import jwt
import yaml

from bench.cases import Case
from bench.machine import GATEWAY_CORE, LOAD_CORE
from tests.support.daemon import free_port

HERE = Path(__file__).parent
TWISTD = Path(sys.executable).parent / "twistd"
SECRET = "the bench's own: its daemon listens on loopback and lives as long as a case"
GRACE = 3.0  # seconds between SIGTERM and SIGKILL
SOURCES = 4  # loopback addresses that clients come from
Answer = dict[str, Any]


class BenchError(Exception):
    """A run could not be made; the text says which program said what."""


@attrs.define
class Program:
    """A child process that says what it has to say in lines of JSON on stdout, each with an ``event``."""

    name: str
    process: subprocess.Popen[bytes]
    _rest: bytes = b""

    @classmethod
    @contextmanager
    def running(cls, name: str, core: int, words: Sequence[str], stderr: int | None = None) -> Iterator[Program]:
        """Runs on one core, and is ended with the block."""
        process = subprocess.Popen(
            ["taskset", "-c", str(core), *words], stdout=subprocess.PIPE, stderr=stderr, cwd=HERE.parent
        )
        try:
            yield cls(name, process)
        finally:
            end(process)

    def wait_for(self, event: str, seconds: float) -> Answer:
        """The next line with that event. Raises BenchError where it is late, or the program ends before."""
        assert self.process.stdout is not None
        deadline = time.monotonic() + seconds
        while True:
            line, found, rest = self._rest.partition(b"\n")
            if found:
                self._rest = rest
                answer: Answer = json.loads(line)
                if answer["event"] == event:
                    return answer
                continue
            if not select.select([self.process.stdout], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise BenchError(f"{self.name} said no {event!r} within {seconds:.0f} s")
            read = os.read(self.process.stdout.fileno(), 65536)
            if not read:
                raise BenchError(f"{self.name} ended ({self.process.wait()}) before it said {event!r}")
            self._rest += read


def end(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, and SIGKILL for what does not end by it."""
    process.terminate()
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


def build() -> None:
    """Compiles the C programs, where their source is newer. Raises BenchError without a compiler."""
    for name in ("sink", "limit"):
        source, binary = HERE / f"{name}.c", HERE / "bin" / name
        if binary.exists() and binary.stat().st_mtime >= source.stat().st_mtime:
            continue
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            raise BenchError("no C compiler: install gcc")
        binary.parent.mkdir(exist_ok=True)
        subprocess.run([compiler, "-O2", "-Wall", "-std=gnu11", "-o", str(binary), str(source)], check=True)


def target(case: Case, topic: str, client: int) -> str:
    """The request target of one client: its token, and the names that it subscribes to."""
    claims = {"sub": f"u{client}", "exp": int(time.time()) + 86400, "topics": [topic]}
    token = jwt.encode(claims, SECRET, algorithm="HS256")
    names = topic
    if case.audience == "key":  # client i is due record n where (n - i) mod addresses < take
        keys = ((client + k) % case.addresses for k in range(case.take))
        names = "%2C".join(f"{topic}%2Fk{key}" for key in keys)
    return f"/ws?token={token}&topics={names}"


def configuration(case: Case, bootstrap: str, topic: str, port: int) -> dict[str, Any]:
    """The daemon's configuration: defaults, but for the limits that a single machine full of clients runs into."""
    settings: dict[str, Any] = {
        "server": {"host": "127.0.0.1", "port": port},
        "kafka": {"bootstrapServers": bootstrap, "topics": [{"name": topic, "audience": case.audience}]},
        "auth": {"secret": SECRET},
        "limits": {
            "connections": 100000,
            "connectionsPerUser": 0,
            "connectionsPerAddress": 0,
            "handshakesPerSecond": 100000,
            "handshakesPending": 10000,
        },
    }
    if case.window is not None:
        settings["window"] = {"maxBytes": case.window}
    return settings


@attrs.define
class Setting:
    """What a case's programs share: the daemon, its port, its topic, and a folder that goes with it."""

    case: Case
    bootstrap: str
    topic: str
    folder: Path
    port: int
    pid: int = 0

    @property
    def watched(self) -> Path:
        return self.folder / "watched"


@contextmanager
def gateway(case: Case, bootstrap: str, topic: str, watcher: str | None = None) -> Iterator[Setting]:
    """The installed daemon, ready, on its core. ``watcher``: a module of the bench that runs twistd and writes what it
    sees to ``Setting.watched``."""
    with tempfile.TemporaryDirectory(prefix="ws-gateway-bench-") as name:
        folder, port = Path(name), free_port()
        file, log = folder / "config.yaml", folder / "log"
        file.write_text(yaml.safe_dump(configuration(case, bootstrap, topic, port)))
        setting = Setting(case, bootstrap, topic, folder, port)
        daemon = [sys.executable, "-m", watcher, str(setting.watched)] if watcher else [str(TWISTD)]
        words = [*daemon, "--nodaemon", "--pidfile=", f"--logfile={log}", "ws-gateway", "-c", str(file)]
        with Program.running("the gateway", GATEWAY_CORE, words) as program:
            try:
                wait_until_ready(port, program.process)
            except BenchError as error:
                tail = log.read_text(errors="replace")[-2000:] if log.exists() else ""
                raise BenchError(f"{error}\n{tail}") from None
            setting.pid = program.process.pid
            yield setting


def wait_until_ready(port: int, process: subprocess.Popen[bytes], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise BenchError(f"the gateway ended with {process.returncode} at start")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise BenchError(f"the gateway was not ready within {seconds:.0f} s")


def sink_words(case: Case, port: int, path: str, seconds: float, records: int) -> list[str]:
    deliveries = case.rate * case.clients * case.take / case.addresses
    return [
        *(str(HERE / "bin" / "sink"), "--port", str(port), "--path", path, "--clients", str(case.clients)),
        *("--seconds", str(seconds), "--records", str(records), "--sources", str(SOURCES)),
        *("--every", str(case.addresses), "--take", str(case.take)),
        *("--churn", str(case.churn), "--churners", str(case.churners)),
        *("--sample", "8" if deliveries > 200_000 else "1"),  # it must not become what is measured
    ]


@contextmanager
def sink(setting: Setting, seconds: float, records: int = 0) -> Iterator[Program]:
    """The clients, whose ``end`` comes ``seconds`` after their ``up``, or as soon as all of ``records`` are had."""
    case, file = setting.case, setting.folder / "targets"
    file.write_text("".join(target(case, setting.topic, client) + "\n" for client in range(case.clients)))
    with Program.running(
        "the sink", LOAD_CORE, sink_words(case, setting.port, f"@{file}", seconds, records)
    ) as program:
        yield program


@contextmanager
def load(setting: Setting, records: int) -> Iterator[Program]:
    """The records, from Kafka's other side."""
    case = setting.case
    words = [
        *(sys.executable, "-m", "bench.load", "--bootstrap", setting.bootstrap, "--topic", setting.topic),
        *("--rate", str(case.rate), "--records", str(records)),
        *("--audience", case.audience, "--addresses", str(case.addresses)),
    ]
    with Program.running("the load", LOAD_CORE, words) as program:
        yield program


def limit(case: Case, batch: int, size: int, seconds: float) -> tuple[Answer, Answer]:
    """The C loop at the case's rate to as many clients: what it used, and what its clients saw."""
    port = free_port()
    words = [
        *(str(HERE / "bin" / "limit"), "--port", str(port), "--clients", str(case.clients)),
        *("--rate", str(case.rate), "--batch", str(batch), "--size", str(size), "--seconds", str(seconds)),
        *("--every", str(case.addresses), "--take", str(case.take)),
    ]
    calm = attrs.evolve(case, churn=0, churners=0)
    with Program.running("the C loop", GATEWAY_CORE, words) as loop:
        loop.wait_for("listening", 10)
        words = sink_words(calm, port, "/%d", seconds + 30, 0)
        with Program.running("its sink", LOAD_CORE, words, stderr=subprocess.DEVNULL) as clients:
            clients.wait_for("up", 60)
            used = loop.wait_for("end", seconds + 30)
            return used, clients.wait_for("end", 30)
