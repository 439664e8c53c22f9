"""Writes the declared keys down as ``docs/configuration.md`` and ``etc/config.yaml`` have them.

``python -m tests.support.config_reference`` prints both; the test that compares says which part to paste where.
"""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from gateway.config import Config, TopicSettings
from gateway.config_keys import Items, Key, keys_of

REQUIRED = ("kafka.topics", "kafka.topics[].name")
DURATIONS = ", as 500ms, 10s, 1m30s, 24h"
SIZES = ", as 64KiB, 1MiB, 1GiB or plain bytes"
LATER = ("redis",)  # accepted for the sake of older files; nothing to show to anybody who writes a new one

# What etc/config.yaml sets; everything else is there as a comment.
SET = {
    "admin.apiKeysFile": "var/dev.apikey",
    "auth.secretFile": "var/dev.secret",
}
TOPICS = ("balance-updates", "user-blocks", "notifications")


def every_key() -> dict[str, Key]:
    """By dotted name; those of a topic follow ``kafka.topics`` as ``kafka.topics[].name``."""
    found: dict[str, Key] = {}
    for dotted, key in keys_of(Config).items():
        found[dotted] = key
        if isinstance(key.kind, Items):
            found |= {f"{dotted}[].{name}": inner for name, inner in keys_of(TopicSettings).items()}
    return found


def default(key: Key) -> str:
    """As a file would have it; empty where there is none, or where a list that is given must not be empty."""
    if key.default == () and getattr(key.kind, "least", 0) > 0:
        return ""
    return key.kind.show(key.default)


def rows() -> list[str]:
    """The table of ``docs/configuration.md``."""
    lines = ["| key | default | allowed | meaning |", "|---|---|---|---|"]
    for dotted, key in every_key().items():
        shown = f"that of `{key.like}`" if key.like else f"`{default(key)}`" if default(key) else ""
        if dotted in REQUIRED:
            shown = "required"
        allowed = key.kind.allowed.removesuffix(DURATIONS).removesuffix(SIZES)  # said once, above the table
        cells = (f"`{dotted}`", shown, allowed, key.doc)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return lines


def sample() -> str:
    """The body of ``etc/config.yaml``: each key with its meaning above it."""
    return "\n".join(_section(Config, "", 0)).strip() + "\n"


def _section(cls: type, prefix: str, depth: int) -> Iterator[str]:
    pad = "  " * depth
    sections = {dotted.split(".")[0] for dotted in keys_of(cls) if "." in dotted}
    for name in dict.fromkeys(dotted.split(".")[0] for dotted in keys_of(cls)):
        dotted = prefix + name
        if dotted in LATER:
            continue
        if name in sections:
            inner = _class_of(cls, name)
            if not depth:
                yield ""
            yield f"{pad}# {_first_line(inner)}"
            yield f"{pad}{name}:"
            yield from _section(inner, f"{dotted}.", depth + 1)
        else:
            key = keys_of(cls)[name]
            yield f"{pad}# {key.doc}"
            if isinstance(key.kind, Items):
                yield f"{pad}{name}:"
                yield from _topics(pad + "  ")
            elif dotted in SET:
                yield f"{pad}{name}: {SET[dotted]}"
            else:
                yield f"{pad}#{_line(name, key)}"


def _topics(pad: str) -> Iterator[str]:
    """The topics by name; what else a topic may say hangs, as comments, on the last one."""
    for name in TOPICS:
        yield f"{pad}- name: {name}"
    opened = ""
    for dotted, key in keys_of(TopicSettings).items():
        section, _, last = dotted.rpartition(".")
        if dotted == "name":
            continue
        yield f"{pad}  # {key.doc}"
        if section and section != opened:
            yield f"{pad}  #{section}:"
        yield f"{pad}  #{'  ' if section else ''}{_line(last, key)}"
        opened = section


def _line(name: str, key: Key) -> str:
    return f"{name}: {default(key)}".rstrip()


def _class_of(cls: type, name: str) -> type:
    for field in attrs.fields(cls):
        words = field.name.split("_")
        if words[0] + "".join(word.capitalize() for word in words[1:]) == name:
            return type(getattr(cls(), field.name))
    raise LookupError(name)


def _first_line(cls: type) -> str:
    return (cls.__doc__ or "").splitlines()[0]


if __name__ == "__main__":
    print("\n".join(rows()))
    print()
    print(sample())
