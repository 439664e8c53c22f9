"""What befalls a topic while clients hold names of it: it is opened, made anew, or its oldest records are gone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from gateway.core import events
from gateway.core.feed import Feed
from gateway.core.roster import Roster
from gateway.core.session import Session, Subscription
from gateway.core.topic import Topic
from gateway.core.window import Entry
from gateway.model import Gap, GapReason
from gateway.services.catchup import CatchUp, Place

DOUBT = 5.0  # seconds that the log's end may stay below a cursor before the cursor is taken to be of another log

Heard = Callable[[str, int], float]  # LogReader.heard


class Changes:
    """Tells everybody concerned, and sees to it that they go on from the right place."""

    def __init__(self, roster: Roster, catch_up: CatchUp, heard: Heard) -> None:
        self._roster = roster
        self._catch_up = catch_up
        self._heard = heard

    def tell_all(self, topic: Topic[Session], entry: Entry) -> None:
        """Push an entry to everybody who listens, whatever the address: a gap of the log's own."""
        for session, sub in self._holding(topic):
            if sub.holds() and sub.slow is None:
                self._catch_up.tell_gaps(session, sub, topic.window.view(entry, session.codec), 1)

    def places(self, topic: Topic[Session]) -> dict[Session, dict[int, int]]:
        """Where everybody is who has names of the topic that do not recover."""
        return {session: sub.position() for session, sub in self._holding(topic)}

    def recreated(self, topic: Topic[Session], places: Mapping[Session, Place]) -> None:
        """The topic was made anew: everybody goes on at its start, and is told what that costs."""
        frames: dict[tuple[tuple[int, int], ...], bytes] = {}  # most are at the same place
        for session, sub in self._holding(topic):
            for feed in sub.feeds():
                feed.restart(_recreated(topic, feed.place()))
                self._catch_up.unpark(session, sub, feed)
            if not sub.holds():
                continue  # told by RECOVERED
            gaps = _recreated(topic, places[session])
            key = tuple(sorted(places[session].items()))
            if key not in frames and session.codec.tells_gaps:
                frames[key] = self._catch_up.gap(session, sub, gaps)
            self._catch_up.tell_gaps(session, sub, frames.get(key, b""), len(gaps))

    def opened(self, topic: Topic[Session], warm: Place, first: bool) -> None:
        """The topic, or partitions of it, can be read. Records below ``warm`` are for those who ask for the past."""
        for session, sub in self._holding(topic):
            if warm:
                self._catch_up.skip(session, sub, warm)
            if not first:
                continue
            for feed in sub.recoveries:
                feed.begin()
                self._catch_up.unpark(session, sub, feed)
            if sub.holds():
                body = events.position(topic.name, topic.window.epoch, sub.position())
                self._catch_up.send(session, session.codec.event(body))
        self._catch_up.wake(topic)

    def tick(self, now: float) -> None:
        """Once a second: a cursor above the log's end, for long, belongs to a log that is no more. Silence of the log
        says nothing: the client may come from a process that has heard more."""
        for topic, feed, session, sub in self._catch_up.parked():
            if topic.window.epoch is not None:
                self._doubt(topic, feed, session, sub, now)

    def _holding(self, topic: Topic[Session]) -> Iterator[tuple[Session, Subscription]]:
        for session in list(self._roster.by_id.values()):
            sub = session.subscriptions.get(topic.name)
            if sub is not None:
                yield session, sub

    def _doubt(self, topic: Topic[Session], feed: Feed, session: Session, sub: Subscription, now: float) -> None:
        window = topic.window
        ahead = feed.ahead()
        ends = {p: window.ends.get(p, 0) for p, floor in ahead.items() if window.ends.get(p, 0) < floor}
        feed.doubts = {p: feed.doubts.get(p, now) for p in ends}
        sure = {p: ends[p] for p, since in feed.doubts.items() if self._heard(topic.name, p) - since >= DOUBT}
        if not sure:
            return
        gaps = [Gap(p, ahead[p], end, GapReason.RECREATED) for p, end in sorted(sure.items())]
        feed.cap(sure)
        self._catch_up.unpark(session, sub, feed)
        if feed.recovery is not None:
            feed.recovery.gaps += gaps
        else:
            self._catch_up.tell_gaps(session, sub, self._catch_up.gap(session, sub, gaps), len(gaps))


def _recreated(topic: Topic[Session], place: Place) -> list[Gap]:
    starts = topic.window.starts
    return [Gap(p, offset, starts.get(p, 0), GapReason.RECREATED) for p, offset in sorted(place.items())]
