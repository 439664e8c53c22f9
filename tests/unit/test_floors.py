"""Imports go down the floors (``docs/design.md``). What breaks here is the property that a part can be read, tested and
replaced without what stands above it."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Bottom to top. A name stands for the module, what is in the package, and modules whose names go on with "_".
FLOORS = (
    ("gateway.errors", "gateway.model"),
    ("gateway.ports", "gateway.config", "gateway.metrics", "gateway.logs"),
    ("gateway.core",),
    ("gateway.services",),
    ("gateway.auth", "gateway.log", "gateway.web"),
    ("gateway.runtime", "gateway.app"),
    ("gateway.tap", "gateway.cli", "gateway.__main__"),
)

# What a part may import beside this project, the standard library and attrs.
TWISTED = {"twisted", "zope"}
VENDORS: Mapping[str, set[str]] = {
    "gateway.errors": set(),
    "gateway.model": set(),
    "gateway.ports": {"twisted"},
    "gateway.config": {"yaml"},
    "gateway.metrics": {"prometheus_client"},
    "gateway.logs": TWISTED,
    "gateway.core": set(),
    "gateway.services": TWISTED,
    "gateway.auth": {*TWISTED, "jwt", "cryptography", "treq"},
    "gateway.log": {*TWISTED, "kafka"},
    "gateway.web": {*TWISTED, "autobahn", "prometheus_client"},
    "gateway.runtime": TWISTED,
    "gateway.app": {*TWISTED, "prometheus_client"},
    "gateway.tap": TWISTED,
    "gateway.cli": {*TWISTED, "jwt", "kafka"},
    "gateway.__main__": set(),
}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def modules() -> Mapping[str, ast.Module]:
    """Every module of the gateway, parsed."""
    return {module_name(path): ast.parse(path.read_bytes()) for path in sorted((ROOT / "gateway").rglob("*.py"))}


def imported(name: str) -> Iterator[str]:
    """The full names of what a module imports, wherever in it; ``from a import b`` is ``a.b`` if that is a module."""
    for node in ast.walk(modules()[name]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: relative import"
            source = node.module or ""
            for alias in node.names:
                whole = f"{source}.{alias.name}"
                yield whole if whole in modules() or not source.startswith("gateway") else source


def part(module: str) -> str:
    """The name in FLOORS that a module belongs to."""
    for floor in FLOORS:
        for name in floor:
            if module == name or module.startswith((f"{name}.", f"{name}_")):
                return name
    pytest.fail(f"{module} is on no floor: give it one here and in docs/design.md")


def floor_of(module: str) -> int:
    return next(number for number, floor in enumerate(FLOORS) if part(module) in floor)


# The package itself (its version) is below all floors.
MODULES = [name for name in modules() if name != "gateway"]


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down(module: str) -> None:
    """An upward import would make the core know of sockets, or an adapter of the composition."""
    own = {name for name in imported(module) if name.startswith("gateway.")}
    upward = sorted(name for name in own if floor_of(name) > floor_of(module))
    assert not upward


def test_no_circles() -> None:
    """Two modules that need each other are one module in two files."""
    graph = {module: [name for name in imported(module) if name in modules()] for module in MODULES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize("module", MODULES)
def test_vendor_libraries_stay_in_their_adapters(module: str) -> None:
    """A library that spreads cannot be replaced; the core runs without any."""
    allowed = {"gateway", "attrs", "attr", *sys.stdlib_module_names, *VENDORS[part(module)]}
    foreign = sorted(name for name in imported(module) if name.partition(".")[0] not in allowed)
    assert not foreign


@pytest.mark.parametrize("module", [name for name in MODULES if part(name) != "gateway.tap"])
def test_the_reactor_is_an_argument(module: str) -> None:
    """A module that takes the global reactor installs it where it is imported, and cannot be tested with a Clock."""
    assert "twisted.internet.reactor" not in set(imported(module))


@pytest.mark.parametrize("adapter", FLOORS[4])
def test_adapters_do_not_know_each_other(adapter: str) -> None:
    """They meet in app.py only, through the ports."""
    others = {name for name in FLOORS[4] if name != adapter}
    met = sorted({name for module in MODULES if part(module) == adapter for name in imported(module)})
    assert not [name for name in met if name.startswith("gateway.") and part(name) in others]
