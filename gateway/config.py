"""The configuration: environment over the YAML file over the defaults, checked as a whole before anything starts.

``load`` is what others call; the sections are declared in ``config_sections.py``. Every problem is one line: where it
stands, the dotted key, what was found (never a secret), what is allowed. All of them are told at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gateway.config_checks import ALTERNATIVES, Problem, check, notices
from gateway.config_kafka import Kafka, Security, TopicSettings
from gateway.config_keys import Items, Key, build, keys_of
from gateway.config_nearest import nearest
from gateway.config_secrets import resolve
from gateway.config_sections import (
    Admin,
    Auth,
    Config,
    Connections,
    Drain,
    Limits,
    Logger,
    Metrics,
    Publish,
    Redis,
    Server,
    SlowClient,
    Window,
)
from gateway.config_source import Entry, clip, describe, escape, read_environment, read_file, variables
from gateway.config_values import InvalidValueError
from gateway.errors import ConfigError

__all__ = [
    "Admin",
    "Auth",
    "Config",
    "Connections",
    "Drain",
    "Kafka",
    "Limits",
    "Logger",
    "Metrics",
    "Publish",
    "Redis",
    "Security",
    "Server",
    "SlowClient",
    "TopicSettings",
    "Window",
    "load",
    "notices",
]

MAX_PROBLEMS = 100  # lines
MAX_ITEMS = 1000  # objects in a list


def load(path: str | None, environ: Mapping[str, str]) -> Config:
    """The configuration of a YAML file (None: none), with the variables of ``environ`` over it. Raises ConfigError."""
    loader = _Loader(path or "configuration")
    config = loader.read(path, environ)
    problems = [escape(problem) for problem in loader.problems]
    if problems:
        more = [f"and {len(problems) - MAX_PROBLEMS} more"] if len(problems) > MAX_PROBLEMS else []
        raise ConfigError(problems[:MAX_PROBLEMS] + more)
    return config


_KEYS = keys_of(Config)


class _Loader:
    """Turns entries into values by the declarations, and collects what is wrong."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._given: dict[str, Entry] = {}  # by dotted key, elements of lists as kafka.topics[0].name
        self._broken: set[str] = set()  # keys and sections that a problem was told of, or that a misspelt one meant
        self.problems: list[str] = []

    def read(self, path: str | None, environ: Mapping[str, str]) -> Config:
        """What the sources make of it; to be trusted only where there are no problems."""
        tree, problems = read_file(path) if path is not None else ({}, [])
        overrides, unknown, clashes = read_environment(environ, _KEYS)
        self.problems += problems
        entries = self._flatten(tree, _KEYS, "")
        self.problems += clashes
        for variable, where in unknown:
            self._unknown_variable(variable, where)
        for group in ALTERNATIVES:
            if any(key in overrides for key in group):
                entries = {key: entry for key, entry in entries.items() if key not in group}
        values = self._values({**entries, **overrides}, _KEYS, "")
        config = build(Config, values)
        for problem in check(config, self._given):
            self._tell(problem)
        config, unread = resolve(config)
        for key, text in unread:
            self._tell(Problem((key,), text))
        return config

    def _flatten(self, tree: Mapping[str, Entry], keys: Mapping[str, Key], path: str) -> dict[str, Entry]:
        """The entries of declared keys, by dotted name within ``path``."""
        return dict(self._leaves(tree, keys, path, ""))

    def _leaves(
        self, tree: Mapping[str, Entry], keys: Mapping[str, Key], path: str, prefix: str
    ) -> Iterator[tuple[str, Entry]]:
        for name, entry in tree.items():
            dotted = prefix + name
            if dotted in keys:
                yield dotted, entry
            elif not any(known.startswith(f"{dotted}.") for known in keys):
                self._unknown_key(entry, name, keys, path, prefix)
            elif isinstance(entry.value, Mapping):
                yield from self._leaves(entry.value, keys, path, f"{dotted}.")
            elif entry.value is not None:  # a section of which every key is a comment has no value
                self._broken.add(path + dotted)
                self._say(entry.where, path + dotted, f"found {describe(entry.value)}; allowed: a section with keys")

    def _values(self, entries: Mapping[str, Entry], keys: Mapping[str, Key], path: str) -> dict[str, object]:
        """The values that the entries give. Lists of objects come last: other values are the defaults in them."""
        found: dict[str, object] = {}
        for dotted, entry in sorted(entries.items(), key=lambda item: isinstance(keys[item[0]].kind, Items)):
            kind = keys[dotted].kind
            self._given[path + dotted] = entry
            try:
                found[dotted] = (
                    self._items(entry, path + dotted, kind, found)
                    if isinstance(kind, Items)
                    else kind.read(_plain(entry.value))
                )
            except InvalidValueError as wrong:
                self._wrong(entry, path + dotted, keys[dotted], wrong)
        return found

    def _items(self, entry: Entry, path: str, kind: Items[Any], around: Mapping[str, object]) -> tuple[object, ...]:
        """The objects of a list; where one says nothing, a key with ``like`` has the value from ``around``."""
        elements = entry.value
        if isinstance(elements, str):
            text = type(elements)
            elements = [Entry(text(name.strip()), entry.where) for name in elements.split(",") if elements]
        if not isinstance(elements, list) or not 1 <= len(elements) <= MAX_ITEMS:
            raise InvalidValueError(f"allowed: {kind.allowed}, from 1 to {MAX_ITEMS}")
        keys = keys_of(kind.cls)
        inherited = {name: around[key.like] for name, key in keys.items() if key.like and key.like in around}
        built = []
        for index, element in enumerate(elements):
            here = f"{path}[{index}]."
            self._given[f"{path}[{index}]"] = element
            tree = element.value if isinstance(element.value, Mapping) else {"name": element}
            values = self._values(self._flatten(tree, keys, here), keys, here)
            built.append(build(kind.cls, {**inherited, **values}))
        return tuple(built)

    def _unknown_key(self, entry: Entry, name: str, keys: Mapping[str, Key], path: str, prefix: str) -> None:
        here = dict.fromkeys(prefix + key.removeprefix(prefix).split(".")[0] for key in keys if key.startswith(prefix))
        meant = [prefix + right for right in nearest(name, [key.removeprefix(prefix) for key in here])]
        if not meant:  # perhaps the right name in the wrong section
            last = {key: key.rpartition(".")[2] for key in keys}
            close = nearest(name, last.values())
            meant = [key for key, end in last.items() if end in close][:3]
        self._broken.update(path + right for right in meant)
        right = f"did you mean {' or '.join(path + key for key in meant)}?" if meant else f"allowed: {', '.join(here)}"
        self._say(entry.where, path + prefix + name, f"unknown key; {right}")

    def _unknown_variable(self, variable: str, where: str) -> None:
        names = {name: dotted for dotted in _KEYS for name in variables(dotted)}
        meant = nearest(variable, names)
        self._broken.update(names[name] for name in meant)
        right = (
            f"did you mean {' or '.join(meant)}?"
            if meant
            else "allowed: WSGATEWAY_ and a key, as WSGATEWAY_SERVER_PORT"
        )
        self.problems.append(f"{where}: unknown variable; {right}")

    def _wrong(self, entry: Entry, path: str, declared: Key, wrong: InvalidValueError) -> None:
        self._broken.add(path)
        value = entry.value if wrong.index is None else wrong.found
        place = path if wrong.index is None else f"{path}[{wrong.index}]"
        found = "a value that is not shown" if declared.secret and value is not None else describe(value)
        self._say(entry.where, place, f"found {found}; {str(wrong) or f'allowed: {declared.kind.allowed}'}")

    def _tell(self, problem: Problem) -> None:
        """Unless it only follows from what has been told already."""
        if any(key == told or key.startswith(f"{told}.") for key in problem.keys for told in self._broken):
            return
        entry = next((self._given[key] for key in problem.keys if key in self._given), None)
        self._say(entry.where if entry else self._source, problem.keys[0], problem.text)

    def _say(self, where: str, key: str, text: str) -> None:
        self.problems.append(f"{where}: {clip(key)}: {text}")


def _plain(value: object) -> object:
    """A list of entries as a list of values, for the kinds."""
    return [_plain(item.value) for item in value] if isinstance(value, list) else value
