"""The documents say what the code does: codes, frames, keys, metrics and messages that they name exist, and the other
way round. What is not held here goes out of date unseen."""

from __future__ import annotations

import ast
import io
import json
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from twisted.logger import ILogObserver, globalLogPublisher

from gateway.core import commands, events, names
from gateway.core.content import examine
from gateway.core.window import Entry
from gateway.core.wire import Envelope
from gateway.errors import Close, Kind, Refused
from gateway.logs import Observer, connection_closed, connection_opened
from gateway.model import Gap, GapReason, Record
from gateway.web.routes import error_reply
from tests.support.config_reference import every_key

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [*sorted(DOCS.glob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
PROTOCOL = (DOCS / "protocol.md").read_text()

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def section(title: str, text: str = PROTOCOL) -> str:
    """What stands under a heading, up to the next one of its level or above."""
    found = re.search(rf"^(#+) {re.escape(title)}\n(.*?)(?=^#{{1,2}} |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, title
    level = len(found[1])
    return re.split(rf"^#{{1,{level}}} ", found[2], flags=re.MULTILINE)[0]


def rows(text: str) -> list[list[str]]:
    """The cells of a table's rows, its head left out."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def json_blocks(text: str) -> list[dict[str, Any]]:
    return [json.loads(block) for block in re.findall(r"```json\n(.*?)```", text, re.DOTALL)]


# protocol.md


def test_every_close_code_has_its_row_and_no_other_has() -> None:
    """A client that does not find its code here cannot know whether to come back."""
    table = rows(section("Close codes"))
    assert [int(row[0]) for row in table] == sorted(map(int, Close))


def test_whether_to_come_back_follows_from_the_rule() -> None:
    """The table and the rule under it are read by different people."""
    for code, _, back in rows(section("Close codes")):
        final = code in ("1000", "1002", "1007", "1009") or 4400 <= int(code) <= 4499
        assert back == ("no" if final else "yes"), code


def test_every_error_code_has_its_row_with_its_statuses_and_close_codes() -> None:
    """What a client does on ERROR and on a refusal hangs on these."""
    told: dict[str, tuple[set[int], set[int]]] = defaultdict(lambda: (set(), set()))
    for kind in Kind:
        statuses, closes = told[kind.wire.code]
        statuses.add(kind.wire.status)
        if kind.wire.close is not None:
            closes.add(kind.wire.close)
    shown = {
        row[0].strip("`"): (set(map(int, re.findall(r"\d+", row[1]))), set(map(int, re.findall(r"\d+", row[2]))))
        for row in rows(section("Errors"))
    }
    assert shown == dict(told)


def test_every_reason_of_a_gap_has_its_row_and_no_other_has() -> None:
    """`recreated` asks for another treatment of the cursor than the rest; an unknown one would ask for what?"""
    assert [row[0].strip("`") for row in rows(section("GAP"))] == [reason.value for reason in GapReason]


GAPS = [Gap(0, 1, 2, GapReason.WINDOW)]
SUBSCRIPTION = events.subscription("t", ["t"], "e", {0: 1})


def record(key: bytes | None, value: bytes | None) -> dict[str, Any]:
    """The frame of a record, as clients see it."""
    entry = Entry(0, Record("t", 0, 0, 0, key, value), None, examine(value)[0], 0.0)
    sent = Envelope().record("t", entry)
    frame: dict[str, Any] = json.loads(sent[sent.index(b"{") :])
    return frame


FRAMES = [
    events.connected("u", "c", [SUBSCRIPTION], None, 1, 1, "now"),
    events.subscribed(SUBSCRIPTION, "1"),
    record(None, b"{}"),
    record(b"k", b"text"),
    record(b"\xff", b"\xff"),
    record(b"k", None),
    events.recovered("t", ["t"], 1, GAPS, "e", {0: 1}, "1"),
    events.gap("t", GAPS, "e", {0: 1}),
    events.position("t", "e", {0: 1}),
    events.unsubscribed("t", ["t"], "asked", "1"),
    events.ack("REFRESH", "1", "now", expiresAt=None),
    events.error("c", "m", "PING", "1", "now", 1.0),
    events.token_expiring(None),
    events.pong("1"),
]


def shape(value: object, free: tuple[str, ...] = ("data", "position")) -> object:
    """A frame's fields, and those of what is in it; not of what is different in each frame."""
    if isinstance(value, dict):
        return {name: None if name in free else shape(inner) for name, inner in value.items()}
    return [shape(value[0])] if isinstance(value, list) and value else None


def test_the_frames_shown_are_the_frames_sent() -> None:
    """Fields are read off the examples by everybody who writes a client."""
    shown = json_blocks(section("Server to client"))
    assert [frame["type"] for frame in shown] == [frame["type"] for frame in FRAMES]
    assert [shape(frame) for frame in shown] == [shape(frame) for frame in FRAMES]


def test_every_frame_that_is_made_is_shown() -> None:
    """A frame that events.py learns must come into the document."""
    made = {node.value for node in constants(ROOT / "gateway/core/events.py") if node.value.isupper()}
    assert {frame["type"] for frame in FRAMES} == (made - {"REFRESH"}) | {"MESSAGE"}
    assert set(re.findall(r"^### ([A-Z_]+)$", section("Server to client"), re.MULTILINE)) == {
        frame["type"] for frame in FRAMES
    }


def test_the_commands_shown_are_the_commands_taken() -> None:
    """An example that is answered by ERROR is worse than none."""
    text = section("Client to server")
    shown = json_blocks(text)
    for message in shown:
        command = commands.read(json.dumps(message).encode())
        assert not isinstance(command, commands.Bad), message
        assert (command.type, command.id) == (message["type"], message.get("id"))
    refusal = commands.read(b'{"type":"?"}')
    assert isinstance(refusal, commands.Bad)
    known = set(re.findall(r"[A-Z]{2,}", refusal.error.message))
    assert {message["type"] for message in shown} == known
    assert set(re.findall(r"^### ([A-Z_]+)$", text, re.MULTILINE)) == known


def test_the_names_and_cursors_shown_are_taken() -> None:
    """One spelling each: a document that shows another one sends people into `invalid_topics`."""
    for name in ("notifications", "prices/AAPL", "rooms/42"):
        assert f"`{name}`" in PROTOCOL
        assert names.spell(names.parse(name)) == name
    assert "the key `a/b c` is `a%2Fb%20c`" in " ".join(PROTOCOL.split())
    assert names.spell_key("a/b c") == "a%2Fb%20c"
    for wrong in ("prices/%41APL", "prices/a%2fb", "prices/~"):
        assert f"`{wrong}`" in PROTOCOL
        with pytest.raises(Refused):
            names.parse(wrong)
    cursors = re.findall(r"`(\w+~\S+@[\d:,]+)`", PROTOCOL)
    assert cursors
    assert all(names.parse_since(cursor) for cursor in cursors)


def test_refusals_are_shown_as_they_are_sent() -> None:
    """The one frame that a client without a WebSocket gets, and what callers of the API get instead."""
    refused = Refused("why", Kind.FORBIDDEN)
    (frame,) = json_blocks(section("Refusals"))
    assert frame.keys() == json.loads(error_reply(refused, "/ws").body).keys()
    problem, record = json_blocks(section("HTTP"))
    assert problem.keys() == json.loads(error_reply(refused, "/api/publish").body).keys()
    assert record.keys() == {"topic", "userId", "data"}


def test_every_path_has_its_row_and_no_other_has() -> None:
    """Probes and scripts are written from this table."""
    shown = {row[0].strip("`").split()[1].partition("?")[0] for row in rows(section("HTTP"))}
    served = {
        said
        for file in ROOT.glob("gateway/web/*.py")
        for said in texts(file)
        if re.fullmatch(r"/(api/|health|readyz)\S*", said)
    }
    assert shown == {path for path in served if path != "/api/"} | {"/metrics"}


def test_all_json_of_the_documents_can_be_read() -> None:
    """A block that was edited by hand soon misses a bracket."""
    for page in PAGES:
        json_blocks(page.read_text())


# Every page


def slug(heading: str) -> str:
    """The anchor of a heading, as forges make it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pages
def test_links_lead_somewhere(page: Path) -> None:
    """Files are renamed, headings reworded; links stay behind."""
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if re.match(r"https?:", target):
            continue
        file, _, anchor = target.partition("#")
        found = (page.parent / file).resolve() if file else page
        assert found.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", found.read_text(), re.MULTILINE)
            assert anchor in map(slug, headings), target


@pages
def test_keys_that_are_named_exist(page: Path) -> None:
    """A key that was renamed leaves its old name behind in prose, and whoever follows it gets an error at the start."""
    known = {*every_key(), *(key.replace("[]", "") for key in every_key())}
    sections = {key.split(".")[0] for key in known}
    groups = {group for key in known for group in ancestors(key)}
    named = set(re.findall(r"`([a-z]\w*(?:\[\])?(?:\.[a-zA-Z]\w*)+)`", page.read_text()))
    wrong = {name for name in named if name.split(".")[0] in sections and name not in known | groups}
    assert wrong - OTHER_DOTTED == set()


OTHER_DOTTED = {"auth.py", "config.py", "metrics.py", "metrics.md", "configuration.md", "logger.py"}


def ancestors(key: str) -> Iterator[str]:
    """The sections that a key is in."""
    while "." in key:
        key = key.rpartition(".")[0]
        yield key


@pages
def test_variables_that_are_named_exist(page: Path) -> None:
    """The gateway refuses to start with a variable that it does not know."""
    plain = {key.replace(".", "").replace("[]", "").upper() for key in every_key()}
    plain |= {"SERVICEHOST", ""}  # Kubernetes' own, as the document says; and the prefix alone
    for name in re.findall(r"\bWSGATEWAY_([A-Z_]*)", page.read_text()):
        assert name.replace("_", "") in plain | {"LIMITSCONECTIONS"}, name


@pages
def test_metrics_that_are_named_exist(page: Path) -> None:
    """An alert on a name that nobody exposes never fires."""
    known = set(re.findall(r"`([a-z][a-z0-9_]+)`", (DOCS / "metrics.md").read_text()))
    for name in re.findall(r"\bws_gateway_([a-z0-9_]+)", page.read_text()):
        assert {name, re.sub(r"_(bucket|sum|count)$", "", name)} & known, name


# operations.md


def test_messages_that_operators_are_told_of_are_logged() -> None:
    """Whoever searches the table for a line of the log must find it as it was written."""
    logged = [said for file in ROOT.glob("gateway/**/*.py") for said in texts(file)]
    text = section("What a line of the log means", (DOCS / "operations.md").read_text())
    messages = [message for row in rows(text) for message in re.findall(r"`([^`]+)`", row[0])]
    assert len(messages) > 30
    for message in messages:
        pattern = ".*".join(re.escape(part) for part in message.split("..."))
        assert any(re.search(pattern, said) for said in logged), message


def texts(file: Path) -> Iterator[str]:
    """Every text in a module, with dots for what is filled in."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "..." for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield re.sub(r"\{\w+\}|%[sd]", "...", node.value)


def test_what_the_log_is_said_to_hold_is_what_it_holds() -> None:
    """Dashboards and alerts are made of these fields."""
    opened, closed = json_blocks(section("The log", (DOCS / "operations.md").read_text()))
    stream = io.BytesIO()
    observer = cast("ILogObserver", Observer("info", "json", stream))
    globalLogPublisher.addObserver(observer)
    try:
        connection_opened("c", "u", "a")
        connection_closed("c", "u", "a", code=1000, seconds=1.0, records=1, messages=1)
    finally:
        globalLogPublisher.removeObserver(observer)
    written = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [list(line) for line in (opened, closed)] == [list(line) for line in written]


# design.md


def test_every_module_is_on_the_map() -> None:
    """Whoever looks for the place of something finds it there, or adds it."""
    named = set(re.findall(r"`([\w/]+\.py)`", section("The floors", (DOCS / "design.md").read_text())))
    there = {str(file.relative_to(ROOT / "gateway")) for file in ROOT.glob("gateway/**/*.py")}
    assert named - {"tests/unit/test_floors.py"} == {file for file in there if not file.endswith("__init__.py")}


# What the code says of the documents


def test_documents_and_sections_that_the_code_names_exist() -> None:
    """A comment that sends its reader to a section must not send him into the void."""
    for file in sorted(ROOT.glob("gateway/**/*.py")):
        text = " ".join(file.read_text().split())
        for name, named in re.findall(r"``docs/(\w+\.md)``(?:,? \(?\*?([A-Z][A-Za-z, ]*[a-z])\*?\)?)?", text):
            assert (DOCS / name).exists(), (file, name)
            headings = re.findall(r"^#+ (.*)$", (DOCS / name).read_text(), re.MULTILINE)
            sections = [named] if named in headings else named.removesuffix(" and").split(", ")
            assert {*sections} - {""} <= {*headings}, (file, named)


def constants(file: Path) -> Iterator[Any]:
    """Every text in a module."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node
