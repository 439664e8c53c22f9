"""Where configuration comes from: the YAML file and the environment, as entries that know their line or variable.

The file is read by its nodes, not by ``yaml.load``: so keys that stand twice are seen, errors have lines, and a file
that was made to hurt (aliases of aliases, endless nesting) costs no more than the bounds below.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import attrs
import yaml

from gateway.config_values import EnvText, Odd
from gateway.errors import ConfigError

PREFIX = "WSGATEWAY_"
MAX_FILE = 256 * 1024  # bytes
MAX_NODES = 20_000  # after aliases are followed
MAX_DEPTH = 20

# What Kubernetes tells every pod of a Service called "wsgateway"; not meant for the configuration.
_SERVICE_LINK = re.compile(r"SERVICE_(HOST|PORT(_[A-Z0-9_]+)?)|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?")
_DECIMAL = re.compile(r"[-+]?(0|[1-9][0-9]{0,18})")


@attrs.frozen
class Entry:
    """One value and where it stands: a scalar, a list of entries, or a mapping of keys to entries."""

    value: object
    where: str


def read_file(path: str) -> tuple[Mapping[str, Entry], list[str]]:
    """The file's top mapping and what is wrong with it. Raises ConfigError where it cannot be read at all."""
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_FILE + 1)
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read: {error.strerror}"]) from None
    if len(data) > MAX_FILE:
        raise ConfigError([f"{path}: larger than {MAX_FILE // 1024}KiB; a configuration is a small YAML file"])
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError([f"{path}:{line}: not UTF-8; write the file in that encoding"]) from None
    return _Reader(path).read(text)


class _Reader:
    """Turns YAML nodes into entries, and collects what is wrong."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._left = MAX_NODES
        self._problems: list[str] = []

    def read(self, text: str) -> tuple[Mapping[str, Entry], list[str]]:
        """Raises ConfigError where the text is no YAML or no mapping."""
        try:
            root = yaml.compose(text, Loader=yaml.SafeLoader)
            entry = Entry(None, self._path) if root is None else self._entry(root, "", 0)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = f":{mark.line + 1}" if mark else ""
            raise ConfigError([f"{self._path}{line}: not YAML: {_harmless(error.problem or '')}"]) from None
        except yaml.YAMLError:
            raise ConfigError([f"{self._path}: not YAML: it holds characters that YAML does not allow"]) from None
        except RecursionError:
            raise ConfigError([f"{self._path}: nested deeper than {MAX_DEPTH} levels"]) from None
        if entry.value is None:
            return {}, self._problems
        if not isinstance(entry.value, Mapping):
            raise ConfigError(
                [f"{entry.where}: found {describe(entry.value)}; allowed: sections, as server: and kafka:"]
            )
        return entry.value, self._problems

    def _entry(self, node: yaml.Node, path: str, depth: int) -> Entry:
        where = f"{self._path}:{node.start_mark.line + 1}"
        self._left -= 1
        if self._left < 0:
            raise ConfigError([f"{where}: more than {MAX_NODES} values, aliases counted each time"])
        if depth > MAX_DEPTH:
            raise ConfigError([f"{where}: nested deeper than {MAX_DEPTH} levels"])
        if isinstance(node, yaml.MappingNode):
            return Entry(self._mapping(node, path, depth), where)
        if isinstance(node, yaml.SequenceNode):
            items = (self._entry(child, f"{path}[{index}]", depth + 1) for index, child in enumerate(node.value))
            return Entry(list(items), where)
        return Entry(_scalar(node), where)

    def _mapping(self, node: yaml.MappingNode, path: str, depth: int) -> dict[str, Entry]:
        found: dict[str, Entry] = {}
        for name, child in node.value:
            where = f"{self._path}:{name.start_mark.line + 1}"
            if not isinstance(name, yaml.ScalarNode) or name.tag not in _NAMES or not name.value:
                self._problems.append(
                    f"{where}: {path or 'top level'}: a key that is no text; allowed: the names of keys"
                )
                continue
            below = f"{path}.{name.value}" if path else str(name.value)
            if name.value in found:
                first = found[name.value].where.rpartition(":")[2]
                self._problems.append(f"{where}: {clip(below)}: there twice, first in line {first}; keep one")
                continue
            value = self._entry(child, below, depth + 1)
            found[name.value] = attrs.evolve(value, where=where)
        return found


_TAG = "tag:yaml.org,2002:"
_NAMES = (_TAG + "str", _TAG + "merge", _TAG + "bool")  # a key called "on" is YAML 1.1's true


def _scalar(node: yaml.Node) -> object:
    text: str = node.value
    kind = node.tag.removeprefix(_TAG)
    if kind == "str":
        return text
    if kind == "null":
        return None
    if kind == "bool" and text.lower() in ("true", "false", "yes", "no", "on", "off"):
        return text.lower() in ("true", "yes", "on")
    if kind == "int" and _DECIMAL.fullmatch(text):
        return int(text)
    if kind == "float" and re.fullmatch(r"[-+]?[0-9]{1,18}\.[0-9]{1,18}", text):
        return float(text)
    return Odd(text)


def read_environment(
    environ: Mapping[str, str], keys: Iterable[str]
) -> tuple[dict[str, Entry], list[tuple[str, str]], list[str]]:
    """What the variables set, by dotted key; variables that mean nothing, as (name, where); and what is wrong."""
    names: dict[str, str] = {}
    for dotted in keys:
        names.update(dict.fromkeys(variables(dotted), dotted))
    found: dict[str, Entry] = {}
    unknown: list[tuple[str, str]] = []
    problems: list[str] = []
    for variable, text in sorted(environ.items()):
        if not variable.startswith(PREFIX) or _is_service_link(variable.removeprefix(PREFIX), text):
            continue
        where = f"environment {clip(variable)}"
        target = names.get(variable)
        if target is None:
            unknown.append((variable, where))
        elif target in found:
            problems.append(f"{where}: {target}: set twice, also by {found[target].where.split()[-1]}; keep one")
        else:
            found[target] = Entry(EnvText(text), where)
    return found, unknown, problems


def variables(dotted: str) -> list[str]:
    """The variables that set a key, the plain one first: its words joined, or with underscores between them."""
    segments = []
    for segment in dotted.split("."):
        words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", segment).upper()
        segments.append(dict.fromkeys((words.replace("_", ""), words)))
    return [PREFIX + "_".join(parts) for parts in itertools.product(*segments)]


def _is_service_link(name: str, text: str) -> bool:
    return bool(_SERVICE_LINK.fullmatch(name)) or (name == "PORT" and "://" in text)


def describe(value: object) -> str:
    """What was found, in a few words: for values that are no secret."""
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Odd):
        return clip(value.text)
    if isinstance(value, str):
        return f'"{clip(value)}"'
    return clip(str(value))


def clip(text: str) -> str:
    """Text from outside, fit for a line of a log: escaped, without a password in a URL, 80 characters at most."""
    text = escape(re.sub(r"//[^/@\s]*@", "//***@", text[:1000]))
    return text if len(text) <= 80 else text[:77] + "..."


def escape(text: str) -> str:
    """Without what would break a line, or a terminal."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _harmless(problem: str) -> str:
    """The parser's words without what it quotes of the file, which may be a secret; its usual cases in plain words."""
    if "'\\t'" in problem:
        return "a tab; indent with blanks"
    return re.sub(r"(['\"]).{3,}\1", "...", clip(problem))
