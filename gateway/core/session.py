"""One client: its state, what it holds of each topic, and from where it still reads.

A session is LIVE while it is pushed to. It is BEHIND while anything of it is read from a window: because its transport
has not taken what it was given, or because it came back with a cursor. The dispatcher moves it between the two.
"""

from __future__ import annotations

import enum
import math
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator

import attrs

from gateway.core.commands import Bad, Command
from gateway.core.feed import Feed
from gateway.core.limits import EventWindow, TokenBucket
from gateway.core.topic import Topic
from gateway.core.wire import Codec
from gateway.model import Name, Principal
from gateway.ports import Channel


class State(enum.Enum):
    """Where a session is in its life."""

    CONNECTING = enum.auto()
    LIVE = enum.auto()
    BEHIND = enum.auto()
    CLOSING = enum.auto()


@attrs.define(eq=False)
class Subscription:
    """What one session holds of one topic. Names that still recover are in ``recoveries`` only."""

    topic: Topic[Session]
    user: str
    whole: bool = False
    keys: set[str] = attrs.Factory(set)
    slow: Feed | None = None  # where ``whole`` and ``keys`` are read from while they are not pushed
    recoveries: list[Feed] = attrs.Factory(list)
    told: int = -1  # the window's version of the last position that was told

    def holds(self) -> bool:
        """Whether any name is past its recovery."""
        return self.whole or bool(self.keys)

    def addresses(self) -> frozenset[str] | None:
        """What is listened to; None: everything."""
        return self.topic.addresses(self.user, self.whole, self.keys)

    def has(self, key: str | None) -> bool:
        """Whether the name is held, on its own or within the whole topic, recovering or not."""
        if self.whole or any(feed.whole for feed in self.recoveries):
            return True
        return key is not None and (key in self.keys or any(key in feed.keys for feed in self.recoveries))

    def feeds(self) -> Iterator[Feed]:
        """All places that are read from."""
        if self.slow is not None:
            yield self.slow
        yield from self.recoveries

    def recovering_keys(self) -> frozenset[str]:
        """Keys that have a place of their own, within the whole topic or beside it."""
        return frozenset().union(*(feed.keys for feed in self.recoveries))

    def names(self) -> list[Name]:
        """Every name that is held on its own. A whole topic that is past its recovery has absorbed all of them."""
        if self.whole:
            return [Name(self.topic.name)]
        keys = self.keys.union(*(feed.keys for feed in self.recoveries))
        whole = any(feed.whole for feed in self.recoveries)
        return [Name(self.topic.name)] * whole + [Name(self.topic.name, key) for key in sorted(keys)]

    def position(self, names: Collection[Name] | None = None) -> dict[int, int]:
        """Of each partition the first offset that will be given to any of ``names``; without, or where these have
        none of their own: to the names that do not recover."""
        places = [
            feed.place()
            for feed in self.recoveries
            if names is not None and any(feed.whole or name.key in feed.keys for name in names)
        ]
        settled = self.holds() if names is None else any(self.whole or name.key in self.keys for name in names)
        if settled or not places:
            live = self.topic.window.position(self.topic.delivered)
            places.append(live if self.slow is None else self.slow.place())
        if len(places) == 1:
            return places[0]
        return {
            partition: min(place[partition] for place in places if partition in place)
            for partition in {partition for place in places for partition in place}
        }


@attrs.define(eq=False)
class Session:
    """One client that has been let in. ``push`` is its channel's, held here since every record goes through it."""

    id: str
    principal: Principal
    codec: Codec
    channel: Channel
    address: str
    opened_at: float  # monotonic seconds
    bucket: TokenBucket
    bytes_bucket: TokenBucket
    push: Callable[[bytes], bool] = attrs.field(init=False)
    state: State = State.CONNECTING
    stalled: bool = False  # something waits in the transport
    reading: deque[tuple[Subscription, Feed]] = attrs.Factory(deque)
    queued: bool = False  # its turn to read comes
    subscriptions: dict[str, Subscription] = attrs.Factory(dict)
    records: int = 0  # frames of records handed over
    messages: int = 0  # commands received
    waiting: deque[Command | Bad] | None = None  # commands behind a REFRESH that is not answered yet
    malformed: EventWindow | None = None
    overrun: EventWindow | None = None

    @push.default
    def _push(self) -> Callable[[bytes], bool]:
        return self.channel.push

    @property
    def slow_since(self) -> float | None:
        """Since when a topic has been behind because the client is slow, without once catching up."""
        return min((feed.since for _, feed in self.slow_feeds()), default=None)

    def slow_feeds(self) -> Iterable[tuple[Subscription, Feed]]:
        """The topics in which it is behind because it is slow."""
        subs = self.subscriptions.values()
        return [(sub, sub.slow) for sub in subs if sub.slow is not None and sub.slow.since < math.inf]
