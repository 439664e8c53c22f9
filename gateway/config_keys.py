"""How keys are declared: as fields of frozen attrs classes, one class a section, with the kind, default and meaning."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Generic, TypeVar, cast

import attrs

from gateway.config_values import InvalidValueError, Kind

T = TypeVar("T")

_KEY = "gateway.config.key"  # attrs metadata: the Key of a field
_SECTION = "gateway.config.section"  # attrs metadata: the class of a field that is a section


@attrs.frozen
class Items(Generic[T]):
    """A list of objects, each a section of its own; text stands for an object that has only a ``name``."""

    cls: type[T]
    allowed: str

    def read(self, value: object) -> tuple[T, ...]:
        """The loader makes the objects: it knows the keys inside."""
        raise InvalidValueError

    def show(self, value: tuple[T, ...]) -> str:
        """Only the empty list is ever a default."""
        return "[]"


@attrs.frozen
class Key:
    """One declared key. ``path`` is relative to its section; ``like`` is the key whose value is the default here."""

    kind: Kind[Any]
    default: Any
    doc: str
    path: str | None = None
    secret: bool = False
    like: str | None = None


def key(
    kind: Kind[T], default: T, doc: str, *, path: str | None = None, secret: bool = False, like: str | None = None
) -> T:
    """Declare a key as a field of a section; a secret one stays out of ``repr``."""
    declared = Key(kind, default, doc, path, secret, like)
    return attrs.field(default=default, repr=not secret, metadata={_KEY: declared})


def section(cls: type[T]) -> T:
    """Declare a section within a section."""
    return attrs.field(factory=cls, metadata={_SECTION: cls})


def keys_of(cls: type) -> dict[str, Key]:
    """Every key declared in a section and the sections in it, by its dotted name."""
    return dict(_keys(cls, ""))


def _keys(cls: type, prefix: str) -> Iterator[tuple[str, Key]]:
    for field in attrs.fields(cls):
        if _KEY in field.metadata:
            yield prefix + _name(field), field.metadata[_KEY]
        elif _SECTION in field.metadata:
            yield from _keys(field.metadata[_SECTION], f"{prefix}{_name(field)}.")


def _name(field: attrs.Attribute[Any]) -> str:
    """The key of an attribute: its words in camelCase."""
    declared: Key | None = field.metadata.get(_KEY)
    if declared is not None and declared.path is not None:
        return declared.path
    first, *rest = field.name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def build(cls: type[T], values: Mapping[str, object], prefix: str = "") -> T:
    """A section, and the sections in it, of the values by dotted name; defaults for those that are not there."""
    arguments: dict[str, object] = {}
    for field in attrs.fields(cast("type[attrs.AttrsInstance]", cls)):
        name = prefix + _name(field)
        if _SECTION in field.metadata:
            arguments[field.name] = build(field.metadata[_SECTION], values, f"{name}.")
        elif name in values:
            arguments[field.name] = values[name]
    return cls(**arguments)
