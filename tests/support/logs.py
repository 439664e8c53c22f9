"""What tests of logs share: results of Deferreds that have fired, listeners that write down what they are told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import attrs
from twisted.internet.defer import Deferred

from gateway.model import Deleted, Fetched, LogEvent, Lost, Opened, Record
from tests.support.kafka import until

T = TypeVar("T")
Place = tuple[str, int]  # topic, partition


def values(deferred: Deferred[T]) -> T:
    """The result of a Deferred that has fired; raises its failure."""
    results: list[T] = []
    failures: list[BaseException] = []
    deferred.addCallbacks(results.append, lambda failure: failures.append(failure.value))
    if failures:
        raise failures[0]
    (result,) = results
    return result


@attrs.define
class Listener:
    """Writes down what a reader tells, and holds it to the contract of ``LogReader`` with each event."""

    events: list[LogEvent] = attrs.Factory(list)
    calls: list[int] = attrs.Factory(list)  # events of each call
    problems: list[str] = attrs.Factory(list)
    next: dict[Place, int] = attrs.Factory(dict)
    epochs: dict[str, str] = attrs.Factory(dict)
    during: Callable[[], object] = lambda: None  # runs in each call: a busy reactor

    def __call__(self, events: Sequence[LogEvent], arrived: float) -> None:
        """As LogListener."""
        self.calls.append(len(events))
        for event in events:
            self._check(event)
            self.events.append(event)
        self.during()

    def records(self, topic: str) -> list[Record]:
        """All records of a topic, in the order of arrival."""
        return [
            record
            for event in list(self.events)
            if isinstance(event, Fetched) and event.topic == topic
            for record in event.records
        ]

    def values(self, topic: str) -> list[bytes | None]:
        """Their values."""
        return [record.value for record in self.records(topic)]

    def opened(self, topic: str) -> list[Opened]:
        """How the topic was opened, each time."""
        return [event for event in list(self.events) if isinstance(event, Opened) and event.topic == topic]

    def lost(self, topic: str) -> list[Lost]:
        """What it lost."""
        return [event for event in list(self.events) if isinstance(event, Lost) and event.topic == topic]

    def deleted(self, topic: str) -> bool:
        """Was it told as deleted?"""
        return Deleted(topic) in list(self.events)

    def wait(self, topic: str, count: int, seconds: float = 30.0) -> list[Record]:
        """Wait for so many records in all, and return them; more than these is a failure."""
        try:
            until(lambda: len(self.records(topic)) >= count, "", seconds)
        except TimeoutError:
            raise AssertionError(f"{len(self.records(topic))} of {count} records in {seconds} s") from None
        assert not self.problems, self.problems
        found = self.records(topic)
        assert len(found) == count
        return found

    def _check(self, event: LogEvent) -> None:
        if isinstance(event, Opened):
            if self.epochs.get(event.topic) != event.epoch:
                self.next = {place: at for place, at in self.next.items() if place[0] != event.topic}
            self.epochs[event.topic] = event.epoch
            for partition, start in event.partitions.items():
                expected = self.next.get((event.topic, partition), start.first)
                if start.first > start.live or start.first != expected:
                    self.problems.append(f"{event} where {expected} is next")
                self.next[event.topic, partition] = start.first
        elif isinstance(event, Fetched | Lost):
            place = event.topic, event.partition
            if place not in self.next:
                self.problems.append(f"{event} of a partition that is not open")
            at = self.next.get(place, 0)
            if isinstance(event, Lost):
                if not at == event.first < event.next:
                    self.problems.append(f"{event} where {at} is next")
            else:
                offsets = [record.offset for record in event.records]
                inside = all(at <= offset < event.next for offset in offsets)
                if not (inside and offsets == sorted(set(offsets)) and at <= event.next <= event.end):
                    self.problems.append(f"{event.topic} {offsets} next {event.next} end {event.end}, {at} was next")
            self.next[place] = event.next
