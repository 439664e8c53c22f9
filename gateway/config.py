"""The configuration: environment over the YAML file over the defaults, checked as a whole before anything starts.

``load`` is what others call; the sections are declared in ``config_sections.py``. Every problem is one line: where it
stands, the dotted key, what was found (never a secret), what is allowed. All of them are told at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

import attrs

from gateway.config_sections import (
    Admin,
    Auth,
    Config,
    Connections,
    Drain,
    Kafka,
    Limits,
    Logger,
    Metrics,
    Publish,
    Redis,
    Security,
    Server,
    SlowClient,
    TopicSettings,
    Window,
)
from gateway.config_source import Entry, clip, describe, read_environment, read_file
from gateway.config_values import KEY, SECTION, EnvText, InvalidValueError, Items, Key
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
    "keys_of",
    "load",
]


def load(path: str | None, environ: Mapping[str, str]) -> Config:
    """The configuration of a YAML file (None: none), with the variables of ``environ`` over it. Raises ConfigError."""
    tree, problems = read_file(path) if path is not None else ({}, [])
    loader = _Loader(path or "configuration")
    loader.problems.extend(problems)
    entries = loader.flatten(tree, _KEYS, "")
    variables, unknown, problems = read_environment(environ, _KEYS)
    loader.problems.extend(problems)
    loader.problems.extend(f"{where}: unknown variable" for name, where in unknown)
    values = loader.values({**entries, **variables}, _KEYS, "")
    config = cast("Config", _build(Config, values, ""))
    if loader.problems:
        raise ConfigError(loader.problems)
    return config


def keys_of(cls: type) -> dict[str, Key]:
    """Every key declared in a section and the sections in it, by its dotted name."""
    return dict(_keys(cls, ""))


def _keys(cls: type, prefix: str) -> Iterator[tuple[str, Key]]:
    for field in attrs.fields(cls):
        if KEY in field.metadata:
            yield prefix + _name(field), field.metadata[KEY]
        elif SECTION in field.metadata:
            yield from _keys(field.metadata[SECTION], f"{prefix}{_name(field)}.")


def _name(field: attrs.Attribute[Any]) -> str:
    """The key of an attribute: its words in camelCase."""
    declared: Key | None = field.metadata.get(KEY)
    if declared is not None and declared.path is not None:
        return declared.path
    first, *rest = field.name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _build(cls: type, values: Mapping[str, object], prefix: str) -> object:
    arguments: dict[str, object] = {}
    for field in attrs.fields(cls):
        name = prefix + _name(field)
        if SECTION in field.metadata:
            arguments[field.name] = _build(field.metadata[SECTION], values, f"{name}.")
        elif name in values:
            arguments[field.name] = values[name]
    return cls(**arguments)


_KEYS = keys_of(Config)
_TOPIC_KEYS = keys_of(TopicSettings)


class _Loader:
    """Turns entries into values by the declarations, and collects what is wrong."""

    def __init__(self, source: str) -> None:
        self._source = source
        self.problems: list[str] = []

    def flatten(self, tree: Mapping[str, Entry], keys: Mapping[str, Key], path: str) -> dict[str, Entry]:
        """The entries of declared keys, by dotted name within ``path``."""
        return dict(self._flatten(tree, keys, path, ""))

    def _flatten(
        self, tree: Mapping[str, Entry], keys: Mapping[str, Key], path: str, prefix: str
    ) -> Iterator[tuple[str, Entry]]:
        for name, entry in tree.items():
            dotted = prefix + name
            if dotted in keys:
                yield dotted, entry
            elif not any(known.startswith(f"{dotted}.") for known in keys):
                self.problems.append(f"{entry.where}: {clip(path + dotted)}: unknown key")
            elif isinstance(entry.value, Mapping):
                yield from self._flatten(entry.value, keys, path, f"{dotted}.")
            elif entry.value is not None:
                self.problems.append(
                    f"{entry.where}: {path}{dotted}: found {describe(entry.value)}; allowed: a section"
                )

    def values(self, entries: Mapping[str, Entry], keys: Mapping[str, Key], path: str) -> dict[str, object]:
        """The values that the entries give; keys with ``like`` are left to the caller."""
        found: dict[str, object] = {}
        for dotted, entry in entries.items():
            declared = keys[dotted]
            if isinstance(declared.kind, Items):
                continue
            try:
                found[dotted] = declared.kind.read(_plain(entry.value))
            except InvalidValueError as wrong:
                self._wrong(entry, path + dotted, declared, wrong)
        for dotted, entry in entries.items():
            kind = keys[dotted].kind
            if isinstance(kind, Items):
                found[dotted] = self._items(entry, path + dotted, kind, found)
        return found

    def _items(self, entry: Entry, path: str, kind: Items[Any], around: Mapping[str, object]) -> tuple[object, ...]:
        """The objects of a list; where one says nothing, a key with ``like`` has the value from ``around``."""
        elements = entry.value
        if isinstance(elements, EnvText):
            elements = [Entry(EnvText(name.strip()), entry.where) for name in elements.split(",")]
        if not isinstance(elements, list) or not elements:
            self.problems.append(f"{entry.where}: {path}: found {describe(entry.value)}; allowed: {kind.allowed}")
            return ()
        keys = keys_of(kind.cls)
        inherited = {name: around[key.like] for name, key in keys.items() if key.like and key.like in around}
        built = []
        for index, element in enumerate(elements):
            here = f"{path}[{index}]."
            tree = element.value if isinstance(element.value, Mapping) else {"name": element}
            values = self.values(self.flatten(tree, keys, here), keys, here)
            built.append(_build(kind.cls, {**inherited, **values}, ""))
        return tuple(built)

    def _wrong(self, entry: Entry, path: str, declared: Key, wrong: InvalidValueError) -> None:
        value = entry.value if wrong.index is None else wrong.found
        place = path if wrong.index is None else f"{path}[{wrong.index}]"
        found = "a value (not shown)" if declared.secret else describe(value)
        self.problems.append(f"{entry.where}: {place}: found {found}; allowed: {str(wrong) or declared.kind.allowed}")


def _plain(value: object) -> object:
    """A list of entries as a list of values, for the kinds."""
    return [_plain(item.value) for item in value] if isinstance(value, list) else value
