"""Finds the right spelling of a misspelt name."""

from __future__ import annotations

from collections.abc import Iterable

_LONGEST = 80  # characters that are compared


def nearest(wrong: str, right: Iterable[str]) -> list[str]:
    """The names that ``wrong`` most likely stands for: those the fewest edits away, at most a third of its letters, and
    one always. Case, dots, dashes and underscores do not count. No more than three are told."""
    letters = _letters(wrong)
    most = max(1, len(letters) // 3)
    distances = [(_distance(letters, _letters(name)), name) for name in right]
    least = min((distance for distance, _ in distances), default=most + 1)
    return sorted(name for distance, name in distances if distance == least <= most)[:3]


def _letters(name: str) -> str:
    return "".join(char for char in name.lower() if char not in "._-")[:_LONGEST]


def _distance(one: str, other: str) -> int:
    """Insertions, deletions, substitutions and swaps of neighbours (optimal string alignment)."""
    before: list[int] = []
    last = list(range(len(other) + 1))
    for row, char in enumerate(one, 1):
        line = [row]
        for column, against in enumerate(other, 1):
            best = min(last[column] + 1, line[-1] + 1, last[column - 1] + (char != against))
            if row > 1 and column > 1 and char == other[column - 2] and one[row - 2] == against:
                best = min(best, before[column - 2] + 1)
            line.append(best)
        before, last = last, line
    return last[-1]
