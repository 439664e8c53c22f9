"""What tests of logs share: results of Deferreds that have fired, listeners that write down what they are told."""

from __future__ import annotations

from typing import TypeVar

from twisted.internet.defer import Deferred

T = TypeVar("T")


def values(deferred: Deferred[T]) -> T:
    """The result of a Deferred that has fired; raises its failure."""
    results: list[T] = []
    failures: list[BaseException] = []
    deferred.addCallbacks(results.append, lambda failure: failures.append(failure.value))
    if failures:
        raise failures[0]
    (result,) = results
    return result
