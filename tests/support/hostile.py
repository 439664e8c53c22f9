"""What must hold whatever hostile clients do, looked at from outside around each test (``Target.guarded``).

- nobody else waits: a well-behaved client, connected all the while, has its PONGs and its records within a second;
- nothing of a token is anywhere: not in an answer, not in the log, not in the metrics;
- nothing went wrong inside: no exception was logged, no answer was a 500;
- it costs a bounded number of bytes: the process grows by less than ``ROW_BYTES`` at any moment of a test.
"""

from __future__ import annotations

import itertools
import json
import select
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.support import tokens
from tests.support.daemon import Config, Daemon, until
from tests.support.rawclient import PING, PONG, Answer, RawClient, frame, upgrade_request
from tests.support.tokens import SECRET

ROW_BYTES = 8 << 20  # the resident set may grow by so much during one test, its peak included
PACE = 0.04  # seconds between two PINGs of it: fewer than limits.messagesPerSecond
PATIENCE = 1.0  # seconds that a well-behaved client may have to wait
OLD_SECRET = b"the key before: it is valid while keys rotate"
EVENT_LOG = Path(__file__).with_name("event_log.py")


def now() -> int:
    """What the clocks of this machine say, in seconds since 1970."""
    return int(datetime.now(UTC).timestamp())


class Bystander:
    """A client that behaves: it sends a PING again and again, and reads what comes, in a thread of its own."""

    def __init__(self, daemon: Daemon, token: str) -> None:
        self.worst = 0.0  # seconds that a PONG took, less those in which the machine had no core for the two of us
        self._threads = f"/proc/{daemon.pid}/schedstat", "/proc/thread-self/schedstat"
        self.records: set[int] = set()
        self.problem: BaseException | None = None
        self._client = RawClient((daemon.host, daemon.port))
        assert self._client.upgrade(f"/ws?topics=news&token={token}").status == 101
        assert self._client.message()["type"] == "CONNECTED"
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Whether all went well is told by ``problem``."""
        self._over.set()
        self._thread.join()
        self._client.__exit__()

    def _run(self) -> None:
        try:
            for number in itertools.count():
                if self._over.is_set():
                    return
                self._ping(str(number))
        except BaseException as problem:
            self.problem = problem

    def _ping(self, number: str) -> None:
        """A PING and its PONG, and then, for a while, what comes."""
        sent, crowded = time.monotonic(), self._crowded()
        self._client.send_text({"type": "PING", "id": number})
        while self._read() != number:
            pass
        self.worst = max(self.worst, time.monotonic() - sent - (self._crowded() - crowded))
        while (left := sent + PACE - time.monotonic()) > 0:
            if select.select([self._client.sock], [], [], left)[0]:
                self._read()

    def _crowded(self) -> float:
        """Seconds that the daemon's main thread and this one were ready to run and did not: that is not its doing."""
        return sum(int(Path(thread).read_text().split()[1]) for thread in self._threads) / 1e9

    def _read(self) -> str | None:
        """One frame; the id if it is the answer to a PING. Never waits for more than there is: PINGs come, too."""
        got = self._client.frame()
        if got.opcode == PING:
            self._client.send(frame(PONG, got.payload))
            return None
        message = got.json()
        if message["type"] == "MESSAGE":
            self.records.add(message["data"]["n"])
        return str(message["id"]) if message["type"] == "PONG" else None


class Target:
    """A daemon to be attacked, with a bystander. SECRET and OLD_SECRET are its keys; where ``config`` names others,
    ``sign`` makes a token of claims."""

    def __init__(self, config: Config, folder: Path, sign: Callable[[dict[str, Any]], str] | None = None) -> None:
        self._sign = sign or tokens.token
        self.events_file = folder / "events.log"
        self.daemon = Daemon(
            config,
            folder,
            arguments=["--logger", "event_log.EventLog"],
            environ={"EVENT_LOG": str(self.events_file), "PYTHONPATH": str(folder)},
        )
        shutil.copy(EVENT_LOG, folder)  # alone: the gateway is the installed one, not the one beside the tests
        (folder / "token.secret").write_bytes(SECRET + b"\n" + OLD_SECRET + b"\n")
        self.tokens: set[str] = set()
        self._numbers = itertools.count()
        self._seen = 0  # bytes of the events' file

    def __enter__(self) -> Target:
        self.daemon.start()
        self._invite()
        return self

    def __exit__(self, *_: object) -> None:
        self.bystander.stop()
        self.daemon.stop()

    def _invite(self) -> None:
        self.bystander = Bystander(self.daemon, self.token("bystander", lifetime=86400))

    # What tests do with it

    def connect(self, timeout: float = 10.0) -> RawClient:
        """A connection."""
        return RawClient((self.daemon.host, self.daemon.port), timeout)

    def known(self, token: str) -> str:
        """``token``, which nobody may find anywhere from now on."""
        self.tokens.add(token)
        return token

    def token(self, sub: str = "mallory", lifetime: float = 3600, **claims: Any) -> str:
        """A good one."""
        return self.known(self._sign({"sub": sub, "exp": now() + lifetime, **claims}))

    @staticmethod
    def target(token: str | None = None, **query: str) -> str:
        """``/ws`` with a token and other parameters, everything escaped."""
        parameters = {**({"token": token} if token is not None else {}), **query}
        return "/ws?" + "&".join(f"{name}={quote(value, safe='')}" for name, value in parameters.items())

    def upgrade(self, target: str, **options: Any) -> Answer:
        """The answer to an opening handshake; a refusal is checked as ``refused`` does."""
        with self.connect() as client:
            client.send(upgrade_request(target, **options))
            answer = client.answer()
            if answer.status != 101:
                self.check(answer, client.ended())
            return answer

    def refused(self, data: bytes) -> Answer:
        """The answer to a request that is refused: one, in the form of all refusals, and the end of the connection."""
        with self.connect() as client:
            client.send(data)
            answer = client.answer()
            self.check(answer, client.ended())
            return answer

    def check(self, answer: Answer, rest: bytes) -> None:
        """R1: a 4xx (501, 503, 505) in the gateway's own words, and nothing behind it."""
        assert answer.status in range(400, 432) or answer.status in (501, 503, 505), answer
        assert answer.headers["connection"] == "close"
        assert rest == b""
        assert len(answer.body) < 600, "a refusal is a short text, whatever was sent"
        told = answer.json()
        if answer.headers["content-type"] == "application/problem+json":  # RFC 9457, under /api
            assert told["status"] == answer.status
        else:
            assert answer.headers["content-type"] == "application/json"
            assert told["type"] == "ERROR"
        assert told["code"]
        assert told.get("message") or told["detail"]
        assert not any(word in answer.body for word in (b"Error(", b"Traceback", b"gateway.", b"twisted", b"autobahn"))
        assert "server" not in answer.headers, "what runs here is nobody's business"
        self._without_tokens(str(answer), "the answer")

    def open(self, client: RawClient, **query: str) -> Any:
        """A session on ``client``; its CONNECTED."""
        answer = client.upgrade(self.target(**{"token": self.token(), **query}))
        assert answer.status == 101, answer
        return client.message()

    def connection(self, hello: Any) -> Any:
        """What /api/connections says of the session whose CONNECTED this is."""
        listed = self.daemon.api("GET", f"/connections?userId={quote(hello['userId'])}")[1]["connections"]
        (found,) = [entry for entry in listed if entry["connectionId"] == hello["connectionId"]]
        return found

    def events(self) -> list[dict[str, Any]]:
        """Everything that was logged since the last look of ``guarded``."""
        with self.events_file.open("rb") as file:
            file.seek(self._seen)
            data = file.read()
        return [json.loads(line) for line in data.splitlines()]

    # What must hold

    @contextmanager
    def guarded(self) -> Iterator[Target]:
        """Around one test."""
        self.bystander.worst = 0.0
        self._seen = self.events_file.stat().st_size
        before = self._memory("VmRSS")
        Path(f"/proc/{self.daemon.pid}/clear_refs").write_text("5")  # the peak begins here (proc(5))
        yield self
        grown = self._memory("VmHWM") - before
        assert grown < ROW_BYTES, f"the process grew by {grown} bytes"
        self._serves_others()
        for event in self.events():
            assert "traceback" not in event, event["traceback"]
            assert event["level"] not in ("error", "critical"), event
            self._without_tokens(json.dumps(event), "the log")

    def found_nowhere(self) -> None:
        """R4, in the end: no token is in the metrics, the log, the list of processes, or a health answer."""
        daemon = self.daemon
        places = {
            "/metrics": daemon.http("GET", "/metrics")[1].decode(),
            "the log": daemon.log() + self.events_file.read_text(),
            "/healthz": str(daemon.http("GET", "/healthz") + daemon.http("GET", "/readyz")),
            "the command line": Path(f"/proc/{daemon.pid}/cmdline").read_bytes().decode(),
            "/api/info": str(daemon.api("GET", "/info") + daemon.api("GET", "/topics")),
        }
        for place, text in places.items():
            self._without_tokens(text, place)

    def _serves_others(self) -> None:
        number = next(self._numbers)
        self.daemon.publish("news", {"n": number})
        until(lambda: number in self.bystander.records or self.bystander.problem, "others have their records")
        if problem := self.bystander.problem:
            self.bystander.stop()
            self._invite()  # what befell this one must not fail every test that follows
            raise AssertionError(f"a client that behaves was lost: {problem!r}")
        assert self.bystander.worst < PATIENCE, "a client that behaves had to wait"

    def _without_tokens(self, text: str, place: str) -> None:
        for token in self.tokens:
            for part in (token, *token.split(".")):
                assert len(part) < 16 or part[:400] not in text, f"a token is in {place}"

    def _memory(self, name: str) -> int:
        status = Path(f"/proc/{self.daemon.pid}/status").read_text()
        (line,) = [line for line in status.splitlines() if line.startswith(name + ":")]
        return int(line.split()[1]) << 10
