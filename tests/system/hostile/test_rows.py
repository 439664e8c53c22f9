"""Every row has a test, or a reason for having none: a list longer than its tests promises what nobody holds."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.hostile.rows import LATER, PARTLY_LATER, ROWS

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def tested() -> set[str]:
    """The rows of the tests beside this one, as pytest collects them: the beginning of an id, or of a test's name."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", str(HERE)]
    command += ["--ignore", __file__]
    done = subprocess.run(command, cwd=HERE.parents[2], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    ids = re.findall(r"\[([A-Z]\d+)(?:-.*)?\]$", done.stdout, re.MULTILINE)
    names = re.findall(r"::test_([a-z]\d+)_", done.stdout)
    return {*ids, *(name.upper() for name in names)}


@pytest.mark.parametrize("row", ROWS)
def test_a_row_has_a_test_or_a_reason(row: str, tested: set[str]) -> None:
    assert (row in tested) != (row in LATER), ROWS[row]


def test_every_test_and_every_reason_is_of_a_row(tested: set[str]) -> None:
    """A typing error in an id would make a row look tested, or a test belong to nothing."""
    assert (tested | LATER.keys() | PARTLY_LATER.keys()) <= ROWS.keys()
