"""The project installed as others install it: from a wheel, and editable with pip's defaults, each in an environment of
its own. What breaks here is that an installed gateway does not start, or that the wheel damages Twisted's."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support.daemon import Daemon

ROOT = Path(__file__).parents[2]


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """Its standard output; what it printed is shown if it fails."""
    done = subprocess.run(command, cwd=cwd, text=True, capture_output=True, timeout=300)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a build needs, copied, so that nothing left in the working tree gets into it."""
    folder = tmp_path_factory.mktemp("source")
    for name in ("gateway", "plugins"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "dropin.cache"))
    for name in ("pyproject.toml", "setup.cfg", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    return folder


@pytest.fixture(scope="session")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, source)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="session", params=["wheel", "editable"])
def python(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, source: Path) -> str:
    """The interpreter of a fresh environment with the gateway in it."""
    environment = tmp_path_factory.mktemp(request.param)
    run(sys.executable, "-m", "venv", environment)
    executable = environment / "bin" / "python"
    pip = (executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    run(*pip, "--require-hashes", "--requirement", ROOT / "requirements.lock")
    if request.param == "wheel":
        run(*pip, request.getfixturevalue("wheel"))
    else:
        run(*pip, "--editable", source)
    return str(executable)


def test_twistd_lists_the_gateway(python: str, tmp_path: Path) -> None:
    """setuptools' default editable install hides the plugin from twistd."""
    listed = run(Path(python).parent / "twistd", "--help", cwd=tmp_path)
    assert "ws-gateway" in listed
    assert "Pushes Kafka records" in listed


def test_twisteds_own_plugins_are_still_there(python: str, tmp_path: Path) -> None:
    """A plugins/__init__.py in the wheel would overwrite the one of Twisted, and with it every other plugin's path."""
    listed = run(Path(python).parent / "twistd", "--help", cwd=tmp_path)
    assert {"web", "dns", "conch"} <= {line.split()[0] for line in listed.splitlines() if line.startswith("    ")}


def test_requirements_fit_together(python: str) -> None:
    """The lock file and the bounds in pyproject.toml must not contradict each other."""
    run(python, "-m", "pip", "check")


@pytest.mark.parametrize("via", ["twistd", "module", "serve"])
def test_it_serves(python: str, via: str, tmp_path: Path) -> None:
    """Each of the three ways of starting that the README names must work from outside the source tree."""
    with Daemon({}, tmp_path, python=python, via=via) as daemon:
        assert daemon.http("GET", "/healthz")[0] == 200
        assert daemon.publish("news", {"text": "hi"}) == (0, 0)
        assert daemon.stop() == 0


def test_the_wheel_has_the_gateway_and_nothing_else(wheel: Path) -> None:
    """Tests or a second twisted/plugins/__init__.py would be installed over other people's."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    outside = [name for name in names if not name.startswith("gateway/") and ".dist-info/" not in name]
    assert outside == ["twisted/plugins/ws_gateway.py"]
    assert "gateway/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-dev.lock"])
def test_lock_files_are_pinned_and_name_no_registry(name: str) -> None:
    """An address in a lock file would send every machine to the registry of the one that wrote it."""
    lines = (ROOT / name).read_text().splitlines()
    pinned = [line for line in lines if line and not line.startswith((" ", "#"))]
    assert pinned
    assert all("==" in line for line in pinned), pinned
    assert not [line for line in lines if "://" in line or "index-url" in line or "find-links" in line]
