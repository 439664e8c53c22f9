"""What clients may subscribe to, and what becomes of it: the eight rules of ``docs/protocol.md``, *Subscriptions and
cursors, exactly*."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import attrs

from gateway.config import Limits
from gateway.core import access, events, names
from gateway.core.feed import Feed, Recovery
from gateway.core.session import Session, Subscription
from gateway.core.topic import Topic
from gateway.core.wire import Codec
from gateway.errors import Kind, Refused
from gateway.model import Cursor, Name, Principal
from gateway.ports import Clock
from gateway.services.catchup import CatchUp, spelt


@attrs.frozen
class Want:
    """Names of one topic that a client may have, and the cursor of each, or of none."""

    topic: Topic[Session]
    names: tuple[Name, ...]
    cursors: Mapping[Name, Cursor]


@attrs.frozen
class Plan:
    """What a client asked for and may have, checked as a whole."""

    wants: tuple[Want, ...]
    codec: Codec


class Subscriptions:
    """Checks what clients ask for, and carries it out."""

    def __init__(self, topics: Iterable[Topic[Session]], limits: Limits, catch_up: CatchUp, clock: Clock) -> None:
        self._topics = {topic.name: topic for topic in topics}
        self._keyed = {topic.name: topic.keyed for topic in self._topics.values()}
        self._limits = limits
        self._catch_up = catch_up
        self._clock = clock

    def plan(self, principal: Principal, topics: str | None, since: str | None, codec: Codec) -> Plan:
        """What the query of a handshake asks for. Raises Refused (INVALID_TOPICS, FORBIDDEN, LIMIT, BAD_SINCE)."""
        cursors = (names.parse_since(since) if since is not None else None) or {}
        if topics is None:
            asked = access.default_names(principal, self._keyed)
            cursors = {name: cursor for name, cursor in cursors.items() if _covers(name, asked)}
        else:
            asked = names.parse_list(topics)
        plan = Plan(self.check(principal, (), asked, cursors), codec)
        if not codec.tells_gaps:
            for want in plan.wants:
                if want.cursors and self._feed(want.topic, principal.user, codec, want, None).recovery_gaps():
                    raise Refused(f"the cursor of {want.topic.name} cannot be served whole", Kind.BAD_SINCE)
        return plan

    def check(
        self,
        principal: Principal,
        held: Iterable[Subscription],
        asked: Sequence[Name],
        cursors: Mapping[Name, Cursor],
    ) -> tuple[Want, ...]:
        """The names asked for by topic, all or none. Raises Refused."""
        subs = {sub.topic.name: sub for sub in held}
        for name in asked:
            topic = self._topics.get(name.topic)
            if topic is None or not access.may(principal.topics, name, topic.keyed):
                # One text for both: who may not have a topic is not told whether it exists.
                raise Refused(f"{names.spell(name)} is not allowed by the token, or does not exist", Kind.FORBIDDEN)
            if name.key is not None and not topic.keyed:
                raise Refused(f"{name.topic} has no keys to subscribe to: its audience is not key", Kind.INVALID_TOPICS)
        self._within_limits(subs.values(), asked)
        for name in cursors:
            if not _covers(name, asked):
                raise Refused(f"since has an entry for {names.spell(name)}, which is not asked for", Kind.BAD_SINCE)
        by_topic: dict[str, list[Name]] = {}
        for name in asked:
            by_topic.setdefault(name.topic, []).append(name)
        return tuple(self._want(topic, mine, cursors, subs.get(topic)) for topic, mine in by_topic.items())

    def subscribe(self, session: Session, want: Want, id: str | None) -> events.Body:
        """Carry out one topic of a plan; what the client is told: ``topic``, ``names``, ``epoch``, ``position``."""
        topic = want.topic
        sub = session.subscriptions.get(topic.name)
        if sub is None:
            sub = session.subscriptions[topic.name] = Subscription(topic, session.principal.user)
        new = [name for name in want.names if not sub.has(name.key)]
        if want.cursors:
            feed = self._feed(topic, session.principal.user, session.codec, want, id)
            sub.recoveries.append(feed)
            self._catch_up.read(session, sub, feed)
        elif new:
            self._take(session, sub, new)
        sub.told = -1 if any(sub.feeds()) else topic.window.version
        shown = [names.spell(name) for name in want.names]
        return events.subscription(topic.name, shown, topic.window.epoch, sub.position(want.names))

    def unsubscribe(self, session: Session, asked: Sequence[Name]) -> list[tuple[str, list[str]]]:
        """Give up names, all or none: by topic, the names that ended. Raises Refused (INVALID_TOPICS)."""
        held = {topic: frozenset(sub.names()) for topic, sub in session.subscriptions.items()}
        for name in asked:
            if name.topic not in held or (name.key is not None and name not in held[name.topic]):
                raise Refused(f"{names.spell(name)} is not subscribed to on its own", Kind.INVALID_TOPICS)
        by_topic: dict[str, list[Name]] = {}
        for name in asked:
            by_topic.setdefault(name.topic, []).append(name)
        return [(topic, self._leave(session, topic, mine)) for topic, mine in by_topic.items()]

    def forbidden(self, session: Session, principal: Principal) -> list[Name]:
        """The names that ``principal``, whose token is new, may not have any more."""
        return [
            name
            for sub in session.subscriptions.values()
            for name in sub.names()
            if not access.may(principal.topics, name, sub.topic.keyed)
        ]

    # --- checks ---

    def _within_limits(self, held: Iterable[Subscription], asked: Sequence[Name]) -> None:
        have = [name for sub in held for name in sub.names()]
        every = dict.fromkeys((*have, *asked))
        if len(every) > self._limits.subscriptions:
            raise Refused(f"more than {self._limits.subscriptions} names", Kind.LIMIT)
        if sum(len(names.spell(name)) for name in every) > self._limits.subscription_bytes:
            raise Refused(f"names of more than {self._limits.subscription_bytes} bytes", Kind.LIMIT)

    def _want(
        self, topic: str, asked: Sequence[Name], cursors: Mapping[Name, Cursor], sub: Subscription | None
    ) -> Want:
        whole = cursors.get(Name(topic))  # an entry of a topic holds for all its keys that have none of their own
        found = {name: cursor for name in asked if (cursor := cursors.get(name, whole)) is not None}
        if found and len(found) < len(asked):
            raise Refused(f"of the names of {topic} some have a cursor and some have none", Kind.BAD_SINCE)
        if found and sub is not None:
            for name in asked:
                if sub.has(name.key) or name.key is None:
                    raise Refused(
                        f"{names.spell(name)}, or keys of it, are subscribed to already: no cursor", Kind.BAD_SINCE
                    )
        return Want(self._topics[topic], tuple(asked), found)

    # --- carrying out ---

    def _feed(self, topic: Topic[Session], user: str, codec: Codec, want: Want, id: str | None) -> Feed:
        """A feed that begins at the cursors of ``want``."""
        whole = any(name.key is None for name in want.names)
        keys = {name.key for name in want.names if name.key is not None}
        recovery = Recovery({name.key: cursor for name, cursor in want.cursors.items()}, id)
        addresses = topic.addresses(user, whole, keys)
        feed = Feed(topic.window, codec, addresses, whole, keys, 0, {}, self._clock.seconds(), recovery)
        feed.begin()
        return feed

    def _take(self, session: Session, sub: Subscription, new: Sequence[Name]) -> None:
        """Names from now on, or from where the topic is for a session that is behind, or ahead of this process."""
        at = sub.slow.place() if sub.slow is not None and sub.slow.floors else {}
        for later in (sub.topic.warm_until, *(feed.ahead() for feed in sub.recoveries)):
            for partition, offset in later.items():
                at[partition] = max(at.get(partition, 0), offset)
        self._catch_up.hold(session, sub, dict.fromkeys([name.key for name in new], at))

    def _leave(self, session: Session, topic: str, asked: Sequence[Name]) -> list[str]:
        sub = session.subscriptions[topic]
        ended = sub.names() if Name(topic) in asked else list(asked)
        if set(ended).issuperset(sub.names()):
            self._catch_up.drop(session, sub)
            return [names.spell(name) for name in ended]
        gone = {name.key for name in ended if name.key is not None}
        self._catch_up.leave(session, sub, gone)
        return spelt(topic, False, gone)


def _covers(entry: Name, asked: Sequence[Name]) -> bool:
    """Whether an entry of ``since`` is for one of these names."""
    return entry in asked or (entry.key is None and any(name.topic == entry.topic for name in asked))
