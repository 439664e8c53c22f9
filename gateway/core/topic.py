"""One configured topic: what comes of it, whose it is, and who listens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar

from gateway.config import TopicSettings
from gateway.core.content import Form, examine, user_finder
from gateway.core.subscribers import Subscribers
from gateway.core.window import Window
from gateway.core.wire import Codec
from gateway.metrics import Bounded, TopicMetrics
from gateway.model import Audience, Fetched, Gap, GapReason, Record

MAX_KEY = 255  # bytes of a key that can be subscribed to
NOBODY: tuple[str, ...] = ()

S = TypeVar("S")


class Topic(Generic[S]):
    """The window of a topic, the sessions that listen, and how far these have been pushed (``delivered``, a seq)."""

    def __init__(
        self,
        settings: TopicSettings,
        codecs: Sequence[Codec],
        metrics: TopicMetrics,
        types: Bounded,
        users: Bounded | None,
    ) -> None:
        self.name = settings.name
        self.settings = settings
        self.keyed = settings.audience is Audience.KEY
        self.window = Window(settings.name, settings.window_max_bytes, settings.window_max_age)
        self.listeners: Subscribers[S] = Subscribers(len(codecs))
        self.delivered = 0
        self.warm_until: dict[int, int] = {}  # records below these offsets are for those only who ask for the past
        self.metrics = metrics
        self._codec = codecs[0]  # whose frames ``maxFrameBytes`` is about
        self._types = types
        self._users = users
        self._find = user_finder(settings.user_from)
        self._by_value = any(place.startswith("value.") for place in settings.user_from)

    def take(self, fetched: Fetched, arrived: float) -> int:
        """Take in what was read of a partition. How many records had no user and go to nobody."""
        lost = 0
        metrics, window, known = self.metrics, self.window, self.window.nexts.get(fetched.partition, 0)
        for record in fetched.records:
            if record.offset < known:
                continue  # never twice
            form, value = examine(record.value)
            self._types.add(value.get("type") if isinstance(value, dict) else None)
            addresses = self._addresses(record, form, value)
            if addresses == NOBODY and not self.keyed:
                lost += 1
                continue
            entry = window.append(record, addresses, form, arrived)
            # The frame of a value is at most 6 times as long (a text of control characters), and its head below 4 KiB.
            if entry.size * 6 + 4096 > self.settings.max_frame_bytes and self._too_large(entry.seq):
                window.replace(entry, Gap(record.partition, record.offset, record.offset + 1, GapReason.TOO_LARGE))
        metrics.processed += len(fetched.records)
        metrics.without_user += lost
        metrics.lag[fetched.partition] = max(0, fetched.end - fetched.next)
        window.advance(fetched.partition, fetched.next, fetched.end)
        if self.warm_until and fetched.next >= self.warm_until.get(fetched.partition, 0):
            self.warm_until.pop(fetched.partition, None)
        return lost

    def trim(self, now: float) -> None:
        """Let go of what is too old or too much, and show what is left."""
        self.window.trim(now)
        self.metrics.window_records = len(self.window)
        self.metrics.window_bytes = self.window.bytes

    def addresses(self, user: str, whole: bool, keys: set[str]) -> frozenset[str] | None:
        """What a session listens to that holds the topic (``whole``) or ``keys`` of it; None: everything."""
        if self.settings.audience is Audience.USER:
            return frozenset((user,))
        return None if whole else frozenset(keys)

    def _too_large(self, seq: int) -> bool:
        (entry,) = self.window.entries(seq, seq + 1)
        return len(self.window.view(entry, self._codec)) > self.settings.max_frame_bytes

    def _addresses(self, record: Record, form: Form, value: object) -> Sequence[str] | None:
        audience = self.settings.audience
        if audience is Audience.EVERYONE:
            return None
        if audience is Audience.KEY:
            return _key(record.key)
        users = self._find(record, value) or NOBODY
        if not users and self._by_value and form is not Form.JSON:
            self.metrics.deserialize_errors += 1
        if self._users is not None:
            for user in users:
                self._users.add(user)
        return users


def _key(key: bytes | None) -> Sequence[str]:
    if key is None or len(key) > MAX_KEY:
        return NOBODY
    try:
        return (key.decode(),)
    except UnicodeDecodeError:
        return NOBODY
