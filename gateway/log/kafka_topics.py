"""What is known of each topic that is read, and what a look at Kafka's metadata changes in it. No I/O.

kafka-python fetches by name: a topic deleted and made anew is read on at the old offset as if nothing had happened.
The topic's id tells; it is the ``epoch`` of cursors.
"""

from __future__ import annotations

import base64
import enum
import uuid
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import attrs

from gateway.config_kafka import TopicSettings
from gateway.model import Deleted, LogEvent, Opened, Start

NO_ID = "0"  # the epoch where brokers have no topic ids (before 2.8)


class From(enum.Enum):
    """Where reading of a partition begins."""

    FIRST = "the earliest record there is"
    WARM = "some way before the end"
    END = "the end"


class Seen(NamedTuple):
    """A topic as the metadata shows it."""

    id: str
    partitions: frozenset[int] = frozenset()
    led: frozenset[int] = frozenset()  # those that have a leader
    hidden: bool = False  # the gateway may not even describe it


def snapshot(cluster: Any, names: Iterable[str]) -> dict[str, Seen]:
    """The topics that are there, from kafka-python's ``ClusterMetadata``."""
    found = {}
    for name in names:
        if name in cluster.unauthorized_topics:
            found[name] = Seen(NO_ID, hidden=True)
        elif (partitions := cluster.partitions_for_topic(name)) is not None:
            led = cluster.available_partitions_for_topic(name) or ()
            found[name] = Seen(short(cluster.topic_id(name)), frozenset(partitions), frozenset(led))
    return found


def short(topic_id: uuid.UUID | None) -> str:
    """An id as an epoch: Kafka's own spelling of it, cut to what tells topics apart."""
    return base64.urlsafe_b64encode(topic_id.bytes).decode()[:11] if topic_id else NO_ID


@attrs.define(eq=False)
class Topic:
    """One configured topic, as far as it was read."""

    settings: TopicSettings
    epoch: str | None = None  # None: was never readable
    next: dict[int, int] = attrs.Factory(dict)  # partition -> next offset to be read
    gone: bool = False  # told as Deleted
    hidden: bool = False  # may not be described
    denied: bool = False  # may not be read
    retry_at: float = 0.0  # when reading a denied topic is tried again, or counts as allowed
    trying: bool = False
    _id: str | None = None
    _cuts: int = 0  # how often its log lost records that had been read
    _older: frozenset[int] | None = None  # partitions that were there before anything could be read

    @property
    def name(self) -> str:
        """Kafka's name of it."""
        return self.settings.name

    def look(self, seen: Seen | None) -> list[LogEvent]:
        """Take in what the metadata shows; Deleted where the topic is no longer there."""
        self.hidden = seen is not None and seen.hidden
        if seen is not None:
            if self._older is None and not seen.hidden:
                self._older = seen.partitions
            return []
        if self._older is None:
            self._older = frozenset()  # not there at the first look: all that it will hold is new
        if self.epoch is None or self.gone:
            return []
        self.gone = True
        return [Deleted(self.name)]

    def wanted(self, seen: Seen | None, *, start: bool) -> dict[int, From]:
        """The partitions that can be opened now. ``start``: at the process's first look, which warms up."""
        if seen is None or seen.hidden:
            return {}
        if self._anew(seen):
            return dict.fromkeys(seen.led, From.FIRST)
        older = From.WARM if start else From.END
        return {p: older if p in (self._older or ()) else From.FIRST for p in seen.led if p not in self.next}

    def open(self, seen: Seen, starts: Mapping[int, Start]) -> list[LogEvent]:
        """Read these from here on."""
        if self._anew(seen):
            self.next.clear()
            self._older, self._cuts = frozenset(), 0
        if self.gone and not self._anew(seen):  # it was only out of sight
            starts = {p: Start(at, at) for p, at in self.next.items()} | dict(starts)
        if not starts:
            return []
        self.gone = False
        if self._id != seen.id:
            self._id = self.epoch = seen.id
        return [self._opened(starts)]

    def cut(self, places: Mapping[int, int]) -> LogEvent:
        """The log lost records that had been read (an unclean election): its offsets begin to mean something else."""
        self._cuts += 1
        self.epoch = f"{self._id}.{self._cuts}"
        return self._opened({p: Start(at, at) for p, at in (self.next | dict(places)).items()})

    def is_same(self, seen: Seen | None) -> bool:
        """Is what is there now what was read so far?"""
        return seen is not None and not self._anew(seen)

    def _anew(self, seen: Seen) -> bool:
        return self._id is not None and seen.id != self._id

    def _opened(self, starts: Mapping[int, Start]) -> Opened:
        assert self.epoch is not None
        self.next.update({p: start.first for p, start in starts.items()})
        return Opened(self.name, self.epoch, dict(starts))
