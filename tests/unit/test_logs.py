"""The log: one line an event whatever is in it, no token, no flood, and never an exception."""

from __future__ import annotations

import io
import json
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.logger import Logger, LogLevel, globalLogPublisher

from gateway import logs

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl"
HOSTILE = "a\r\nb\x1b[31mred\x00\u202egnp.exe\u2028\x85\ud800\u200b"


class Out:
    """An observer of ours on a stream in memory, with a Logger that writes to it alone."""

    def __init__(self, level: str = "info", style: str = "json") -> None:
        self.stream = io.BytesIO()
        self.observer = logs.Observer(level, style, self.stream)
        self.log = Logger(namespace="gateway.test", observer=self.observer)  # type: ignore[arg-type]

    def library(self, namespace: str) -> Logger:
        return Logger(namespace=namespace, observer=self.observer)  # type: ignore[arg-type]

    def emit(self, at: float, **event: Any) -> None:
        self.observer({"log_namespace": "gateway.test", "log_time": at, "log_level": LogLevel.warn, **event})

    @property
    def text(self) -> str:
        return self.stream.getvalue().decode()

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.splitlines()]


def test_a_json_line_has_time_level_logger_message_and_the_fields() -> None:
    out = Out()
    out.emit(1700000000.5, log_format="hello", user="alice", n=3, ok=True, none=None, ratio=0.5, odd=float("nan"))
    assert out.lines == [
        {
            "time": "2023-11-14T22:13:20.500Z",
            "level": "warn",
            "logger": "gateway.test",
            "message": "hello",
            "user": "alice",
            "n": 3,
            "ok": True,
            "none": None,
            "ratio": 0.5,
            "odd": "nan",
        }
    ]


def test_a_text_line_is_for_people() -> None:
    out = Out(style="text")
    out.emit(1700000000.5, log_format="{count} closed", count=3, user="alice", reason="too slow")
    assert out.text == '2023-11-14T22:13:20.500Z WARN  gateway.test 3 closed user=alice reason="too slow"\n'


@pytest.mark.parametrize("style", ["json", "text"])
def test_values_from_outside_cannot_end_a_line_or_steer_a_terminal(style: str) -> None:
    """A field with a newline would forge a line; escape sequences and bidi would act on the reader's terminal."""
    out = Out(style=style)
    out.log.info("said {said}", said=HOSTILE, name=HOSTILE)
    out.log.info(HOSTILE.replace("{", ""))
    assert len(out.stream.getvalue().split(b"\n")) == 3
    assert all(char.isprintable() for line in out.text.split("\n") for char in line)


@pytest.mark.parametrize("style", ["json", "text"])
def test_a_traceback_cannot_forge_a_line(style: str) -> None:
    out = Out(style=style)
    try:
        raise ValueError("x\n2023-11-14T22:13:20.500Z INFO  forged")
    except ValueError:
        out.log.failure("it failed")
    assert "it failed" in out.text
    assert "ValueError" in out.text
    assert not any(line.startswith("2023-11-14T22:13:20.500Z") for line in out.text.splitlines())


@pytest.mark.parametrize("style", ["json", "text"])
@pytest.mark.parametrize(
    "said", [JWT, f"/ws?a=1&token={JWT}&b", "Bearer abc.def-0123", f"%22{JWT}", "access_token=s3cret"]
)
def test_what_looks_like_a_token_is_taken_out(said: str, style: str) -> None:
    """Tokens are not logged anywhere; here is the last place where one can be stopped."""
    out = Out(style=style)
    out.log.info("got {said}", said=said, again=said)
    try:
        raise ValueError(said)
    except ValueError:
        out.log.failure("it failed")
    assert "[removed]" in out.text
    for part in (JWT, "c2lnbmF0dXJl", "abc.def", "s3cret"):
        assert part not in out.text


def test_taking_tokens_out_takes_linear_time() -> None:
    """Quadratic search in a text that a client chose would stop the reactor: at this size for minutes."""
    text = "eyJ" * 300_000
    before = time.perf_counter()
    logs._TOKENS.sub("", text)
    assert time.perf_counter() - before < 2


def test_lines_are_bounded() -> None:
    out = Out()
    out.log.info("x" * 1_000_000, field="y" * 1_000_000)
    assert len(out.text) < 20_000


@pytest.mark.parametrize(("level", "shown"), [("debug", 4), ("info", 3), ("warn", 2), ("error", 1)])
def test_levels(level: str, shown: int) -> None:
    out = Out(level)
    for method in (out.log.debug, out.log.info, out.log.warn, out.log.error):
        method("line")
    assert len(out.lines) == shown


def test_libraries_speak_one_level_lower() -> None:
    """ "Starting factory" and "Timing out client" are noise; Autobahn's debug lines hold whole requests."""
    for namespace in ("twisted.web.server.Site", "autobahn.websocket", "kafka.conn"):
        quiet, loud = Out("info"), Out("debug")
        for out in (quiet, loud):
            out.library(namespace).debug("request with a token")
            out.library(namespace).info("Starting factory {factory!r}", factory=object())
            out.library(namespace).warn("trouble")
        assert [line["message"] for line in quiet.lines] == ["trouble"]
        assert [line["level"] for line in loud.lines] == ["debug", "warn"]


def test_repeats_are_counted_not_written() -> None:
    """kafka-python writes hundreds of warnings in an outage."""
    out = Out()
    for n in range(100):
        out.emit(1000.0 + n / 10, log_format="broker {n} is away", n=n)
    out.emit(1011.0, log_format="another")
    assert len(out.lines) == 11
    out.emit(1061.0, log_format="broker {n} is away", n=1)
    assert [line["message"] for line in out.lines[11:]] == [
        "repeated 90 more times: broker 99 is away",
        "broker 1 is away",
    ]


def test_information_is_never_left_out() -> None:
    """Lines of connections' lives are as many as there are connections."""
    out = Out()
    for n in range(50):
        out.emit(1000.0, log_level=LogLevel.info, log_format="connection opened", connection=n)
    assert len(out.lines) == 50


def test_counting_repeats_is_bounded_and_survives_a_clock_that_jumps_back() -> None:
    out = Out()
    for n in range(3 * logs.MAX_TEMPLATES):
        out.emit(1000.0, log_format=f"text {n}")
    assert len(out.observer._repeats._seen) <= logs.MAX_TEMPLATES
    for _ in range(20):
        out.emit(500.0, log_format="late")
    for _ in range(20):
        out.emit(100.0, log_format="late")
    assert [line["message"] for line in out.lines].count("late") == 20


class _Evil:
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __format__ = __str__  # type: ignore[assignment]


@pytest.mark.parametrize("style", ["json", "text"])
def test_values_that_have_no_text_do_not_lose_the_line(style: str) -> None:
    out = Out(style=style)
    out.log.info("with {evil}", evil=_Evil())
    out.log.info("beside", evil=_Evil())
    assert len(out.text.splitlines()) >= 2


class _Full:
    def write(self, data: bytes, /) -> object:
        raise OSError(28, "No space left on device")

    def flush(self) -> object:
        return None


def test_a_full_disk_costs_lines_only() -> None:
    closed = io.BytesIO()
    closed.close()
    for stream in (_Full(), closed):
        Logger(namespace="gateway", observer=logs.Observer("info", "json", stream)).info("line")  # type: ignore[arg-type]


def test_a_line_is_there_at_once() -> None:
    """Lines that wait in a buffer are not there when somebody looks why the process ended."""
    raw = io.BytesIO()
    observer = logs.Observer("info", "json", io.BufferedWriter(raw))
    Logger(namespace="gateway", observer=observer).info("line")  # type: ignore[arg-type]
    assert b"line" in raw.getvalue()


def test_unhandled_errors_of_twisted_are_errors() -> None:
    """The legacy interface has no levels, and its errors must not pass for a library's information."""
    out = Out()
    out.observer({"log_namespace": "log_legacy", "log_time": 1.0, "isError": 1, "log_format": "Unhandled"})
    assert out.lines[0]["level"] == "error"


@pytest.fixture
def stdlib() -> Iterator[Callable[[str], Out]]:
    """``logging`` led into Twisted's log, and from there into an Out; as it was, afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    added: list[Out] = []

    def adopt(at: str) -> Out:
        out = Out(at)
        logs.adopt_stdlib()
        globalLogPublisher.addObserver(out.observer)  # type: ignore[arg-type]
        added.append(out)
        return out

    yield adopt
    root.handlers = handlers
    root.setLevel(level)
    for out in added:
        globalLogPublisher.removeObserver(out.observer)  # type: ignore[arg-type]


def test_the_standard_library_ends_in_the_same_place(stdlib: Callable[[str], Out]) -> None:
    out = stdlib("info")
    logging.getLogger("some.module").info("100%% {of} %s", "it")
    try:
        raise KeyError("lost")
    except KeyError:
        logging.getLogger("some.module").exception("failed")
    logging.getLogger("some.module").error("bad %d", "arguments")
    first, second, third = out.lines
    assert (first["level"], first["logger"], first["message"]) == ("info", "some.module", "100% {of} it")
    assert "KeyError" in second["traceback"]
    assert third["message"] == "bad %d"


def test_kafka_pythons_debug_is_never_made(stdlib: Callable[[str], Out]) -> None:
    """Its debug lines hold the values of records."""
    out = stdlib("debug")
    logging.getLogger("kafka.consumer.fetcher").debug("value: secret")
    logging.getLogger("kafka.cluster").info("Group coordinator is away")
    assert [line["message"] for line in out.lines] == ["Group coordinator is away"]
    assert not logging.getLogger("kafka").isEnabledFor(logging.DEBUG)


def test_kafka_pythons_warnings_are_counted_by_template(stdlib: Callable[[str], Out]) -> None:
    out = stdlib("info")
    for n in range(100):
        logging.getLogger("kafka.conn").warning("broker %s is away", n)
    assert len(out.lines) == logs.REPEATS


def test_the_two_lines_of_a_connection() -> None:
    out = Out()
    globalLogPublisher.addObserver(out.observer)  # type: ignore[arg-type]
    try:
        logs.connection_opened("c1", "alice", "192.0.2.1", topics=3)
        logs.connection_closed("c1", "alice", "192.0.2.1", code=4502, seconds=12.34567, messages=7)
    finally:
        globalLogPublisher.removeObserver(out.observer)  # type: ignore[arg-type]
    opened, closed = out.lines
    assert opened["message"] == "connection opened"
    assert (closed["code"], closed["seconds"], closed["messages"]) == (4502, 12.346, 7)
    assert (closed["connection"], closed["user"], closed["address"]) == ("c1", "alice", "192.0.2.1")
