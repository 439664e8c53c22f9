"""What is declared, what ``docs/configuration.md`` says and what ``etc/config.yaml`` shows are one and the same."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.config import load
from gateway.config_values import Duration, Size, Text
from tests.support.config_reference import every_key, rows, sample

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs/configuration.md"
SAMPLE = ROOT / "etc/config.yaml"
PASTE = "\n\npaste this into {}:\n\n{}"


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder in which ``make run`` starts: its development keys are there."""
    (tmp_path / "var").mkdir()
    (tmp_path / "var/dev.secret").write_text("0" * 64 + "\n")
    (tmp_path / "var/dev.apikey").write_text("1" * 64 + "\n")
    monkeypatch.chdir(tmp_path)


def test_the_table_of_the_docs_has_each_key_as_it_is_declared() -> None:
    lines = DOCS.read_text().splitlines()
    missing = [row for row in rows() if row not in lines]
    assert not missing, PASTE.format(DOCS.name, "\n".join(missing))


def test_the_table_of_the_docs_has_no_key_that_does_not_exist() -> None:
    shown = re.findall(r"^\| `([^`]+)` \|", DOCS.read_text().partition("## Every key")[2], re.MULTILINE)
    assert shown == list(every_key())


def test_what_the_docs_name_in_their_text_exists() -> None:
    """A key that was renamed leaves its old name behind in prose."""
    sections = {key.split(".")[0] for key in every_key()}
    named = set(re.findall(r"`([a-z]\w*(?:\.\w+)+)`", DOCS.read_text()))
    known = {*every_key(), *(key.replace("[]", "") for key in every_key())}
    wrong = {name for name in named if name.split(".")[0] in sections and name not in known}
    assert wrong - {"kafka.security"} == set()


def test_the_sample_shows_each_key_with_its_meaning_and_default() -> None:
    assert SAMPLE.read_text().endswith(sample()), PASTE.format(SAMPLE.name, sample())


@pytest.mark.usefixtures("keys")
def test_the_sample_starts_on_a_fresh_machine() -> None:
    """What the quick start of the README stands on: embedded log, three topics, tokens that are checked."""
    config = load(str(SAMPLE), {})
    assert config.kafka.bootstrap_servers == ()
    assert [topic.name for topic in config.kafka.topics] == ["balance-updates", "user-blocks", "notifications"]
    assert config.auth.secrets == (b"0" * 64,)
    assert config.admin.api_keys == ("1" * 64,)


@pytest.mark.usefixtures("keys")
def test_the_comments_of_the_sample_are_the_defaults(tmp_path: Path) -> None:
    """Each commented key may be uncommented as it stands, and then changes nothing."""
    text = re.sub(r"^( *)#((?:  )?\w+:( .*)?)$", r"\1\2", SAMPLE.read_text(), flags=re.MULTILINE)
    file = tmp_path / "all.yaml"
    file.write_text(yaml.safe_dump(_given(yaml.safe_load(text))))
    assert "  port: 8080\n" in text
    assert "      window:\n        maxBytes: 32MiB\n" in re.sub(" *# .*\n", "", text)
    assert load(str(file), {}) == load(str(SAMPLE), {})


def _given(tree: Any) -> Any:
    """Without the keys that have no default."""
    if isinstance(tree, dict):
        return {key: _given(value) for key, value in tree.items() if value is not None}
    return [_given(element) for element in tree] if isinstance(tree, list) else tree


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        (Duration(0, 1e9), 0.0, "0s"),
        (Duration(0, 1e9), 0.003, "3ms"),
        (Duration(0, 1e9), 90.0, "1m30s"),
        (Duration(0, 1e9), 3661.0, "1h1m1s"),
        (Duration(0, 1e9), 1.5, "1.5s"),
        (Duration(0, 1e9), 61.25, "1m1.25s"),
        (Size(0, 2**50), 1000, "1000"),
        (Size(0, 2**50), 64 * 1024, "64KiB"),
        (Size(0, 2**50), 2**30, "1GiB"),
        (Size(0, 2**50), 0, "0"),
        (Text(), "a b", '"a b"'),
        (Text(), 'a"b\\c', '"a\\"b\\\\c"'),
        (Text(), "127.0.0.1", "127.0.0.1"),
        (Text(), "true", '"true"'),
    ],
)
def test_a_value_is_shown_as_a_file_would_have_it(kind: Duration | Size | Text, value: float | str, text: str) -> None:
    assert kind.show(value) == text  # type: ignore[arg-type]
