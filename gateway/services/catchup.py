"""Sessions that are behind: whoever cannot be pushed to, and whoever comes back with a cursor.

Both read from the windows, a chunk of each topic in turn, for as long as their transport takes it; sessions take turns
too. Who has caught up is pushed to again. No session has a queue: what it waits for stays in the window, and where the
window has moved on it is told so with GAP.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from twisted.logger import Logger

from gateway.core import events, names
from gateway.core.feed import Feed, Recovery, distinct, merged
from gateway.core.session import Session, State, Subscription
from gateway.core.topic import Topic
from gateway.errors import Close
from gateway.metrics import Metrics
from gateway.model import Gap
from gateway.ports import Clock
from gateway.services.turns import Turns

_log = Logger()

Place = Mapping[int, int]


class CatchUp:
    """Reads for sessions that are behind, and moves sessions between being pushed to and reading."""

    def __init__(self, metrics: Metrics, clock: Clock) -> None:
        self._metrics = metrics
        self._clock = clock
        self._turns = Turns(clock, self._read_some)
        # Feeds that have read all there is and wait for partitions in which their client is ahead of this process.
        self._parked: dict[Topic[Session], dict[Feed, tuple[Session, Subscription]]] = {}
        self._stalled: set[Session] = set()  # something waits in their transports
        self.behind = 0  # sessions in state BEHIND

    # --- being pushed to ---

    def listen(self, session: Session, sub: Subscription) -> None:
        """Push to this session from now on what it holds of the topic."""
        addresses = sub.addresses()
        if addresses is None:
            sub.topic.listeners.everyone[session.codec.slot][session] = None
        else:
            sub.topic.listeners.add(session, addresses)

    def unlisten(self, session: Session, sub: Subscription) -> None:
        """The opposite."""
        addresses = sub.addresses()
        if addresses is None:
            sub.topic.listeners.everyone[session.codec.slot].pop(session, None)
        else:
            sub.topic.listeners.remove(session, addresses)

    def send(self, session: Session, data: bytes) -> None:
        """Push frames, and see to it if they are not taken at once."""
        if data and not session.push(data):
            self.stall(session)

    def stall(self, session: Session, topic: Topic[Session] | None = None, seq: int = 0) -> None:
        """Something waits in the transport, so nothing more is pushed. Of ``topic`` the session was given everything
        below ``seq``, of others everything that was delivered."""
        if session.state is State.CLOSING:
            return
        session.stalled = True
        self._stalled.add(session)
        for sub in session.subscriptions.values():
            if sub.slow is None and sub.holds():
                self.unlisten(session, sub)
                at = seq if sub.topic is topic else sub.topic.delivered
                self._slow(session, sub, at, self._clock.seconds())
        if session.state is State.LIVE:
            self._metrics.overflows += 1
            self._behind(session)

    def drained(self, session: Session) -> None:
        """Nothing waits any more: read on."""
        session.stalled = False
        self._stalled.discard(session)
        self._settle(session)
        self._schedule(session)

    def waiting(self) -> int:
        """Bytes that wait in transports. Asks each session that is stalled: for a scrape."""
        return sum(session.channel.progress().waiting for session in self._stalled)

    # --- reading ---

    def read(self, session: Session, sub: Subscription, feed: Feed) -> None:
        """Give this feed its turns."""
        if (sub, feed) not in session.reading:
            session.reading.append((sub, feed))
        self._behind(session)
        self._schedule(session)

    def hold(self, session: Session, sub: Subscription, added: Mapping[str | None, dict[int, int]]) -> None:
        """These names are held from now on: pushed, or read from the topic's position where that is behind. By key
        (None: the topic itself, which absorbs its keys), with the offsets below which it is given nothing."""
        nexts, feed = sub.topic.window.nexts, sub.slow
        ahead = any(
            floor > nexts.get(partition, 0) for floors in distinct(added) for partition, floor in floors.items()
        )
        if feed is None and sub.holds():
            self.unlisten(session, sub)
        if feed is None and (ahead or session.stalled or (None in added and sub.recoveries)):
            since = self._clock.seconds() if session.stalled else math.inf
            feed = self._slow(session, sub, sub.topic.delivered, since)
        sub.whole = sub.whole or None in added
        sub.keys = set() if sub.whole else sub.keys | {key for key in added if key is not None}
        if feed is None:
            self.listen(session, sub)
        else:
            feed.add(added, sub.addresses())
            self._schedule(session)

    def wake(self, topic: Topic[Session]) -> None:
        """The topic has moved: those who wait for that look again."""
        for feed, (session, sub) in self._parked.pop(topic, {}).items():
            session.reading.append((sub, feed))
            self._schedule(session)

    def leave(self, session: Session, sub: Subscription, keys: set[str]) -> None:
        """Single keys, but not all that is held, go to this session no more."""
        if sub.slow is None:
            sub.topic.listeners.remove(session, sub.keys & keys)
        sub.keys = sub.keys - keys
        if sub.slow is not None:
            sub.slow.forget(keys, sub.addresses())
            if not sub.holds():
                self._done(session, sub, sub.slow)
                sub.slow = None
        for feed in list(sub.recoveries):
            rest = feed.keys - keys
            feed.forget(keys, sub.topic.addresses(sub.user, feed.whole, rest))
            if not feed.whole and not rest:
                self._done(session, sub, feed)
                sub.recoveries.remove(feed)
        self._look_again(session, sub)
        self._settle(session)

    def drop(self, session: Session, sub: Subscription) -> None:
        """Nothing of the topic goes to this session any more."""
        if sub.slow is None and sub.holds():
            self.unlisten(session, sub)
        for feed in sub.feeds():
            self._done(session, sub, feed)
        sub.slow, sub.recoveries, sub.whole, sub.keys = None, [], False, set()
        session.subscriptions.pop(sub.topic.name, None)
        self._settle(session)

    def end(self, session: Session, code: Close, reason: str = "") -> None:
        """Deliver nothing more, and close the connection."""
        if session.state is not State.CLOSING:
            self.detach(session)
            session.channel.close(code, reason)

    def detach(self, session: Session) -> None:
        """Deliver nothing more."""
        for sub in list(session.subscriptions.values()):
            self.drop(session, sub)
        session.push = _swallow
        self._stalled.discard(session)
        if session.state is State.BEHIND:
            self.behind -= 1
        session.state = State.CLOSING

    def cut(self, session: Session) -> None:
        """A gap came up that a client of this encoding cannot be told of."""
        self.end(session, Close.TOO_SLOW, "records are missing; come back at latest")

    def gap(self, session: Session, sub: Subscription, gaps: Sequence[Gap]) -> bytes:
        """The frame that tells this session of gaps."""
        body = events.gap(sub.topic.name, merged(gaps), sub.topic.window.epoch, sub.position())
        return session.codec.event(body)

    def tell_gaps(self, session: Session, sub: Subscription, frame: bytes, gaps: int) -> None:
        """Send such a frame; ``gaps``: how many it tells of."""
        if session.codec.tells_gaps:
            self.count_gaps(sub.topic, gaps, 1)
            self.send(session, frame)
        else:
            self.cut(session)

    def count_gaps(self, topic: Topic[Session], gaps: int, frames: int) -> None:
        """So many gaps of the topic are told to clients, by so many GAPs."""
        topic.metrics.gaps += gaps
        self._metrics.messages_sent["GAP"] += frames

    def parked(self) -> list[tuple[Topic[Session], Feed, Session, Subscription]]:
        """Feeds whose client is ahead of this process."""
        return [(topic, feed, *of) for topic, feeds in self._parked.items() for feed, of in feeds.items()]

    def unpark(self, session: Session, sub: Subscription, feed: Feed) -> None:
        """Let it look again now."""
        self._parked.get(sub.topic, {}).pop(feed, None)
        self.read(session, sub, feed)

    # --- inside ---

    def _slow(self, session: Session, sub: Subscription, seq: int, since: float) -> Feed:
        """Read from here on what was pushed."""
        window = sub.topic.window
        sub.slow = Feed(window, session.codec, sub.addresses(), sub.whole, sub.keys, seq, window.position(seq), since)
        session.reading.append((sub, sub.slow))
        return sub.slow

    def skip(self, session: Session, sub: Subscription, floors: Place) -> None:
        """Do not give records below ``floors`` to names that have asked for no past."""
        if not sub.holds():
            return
        feed = sub.slow
        if feed is None:
            self.unlisten(session, sub)
            feed = self._slow(session, sub, sub.topic.delivered, math.inf)
        feed.skip(floors)
        self._schedule(session)

    def _behind(self, session: Session) -> None:
        if session.state is State.LIVE:
            session.state = State.BEHIND
            self.behind += 1

    def _settle(self, session: Session) -> None:
        """LIVE again, once nothing waits and nothing is read."""
        if session.state is State.BEHIND and not session.stalled and not session.reading:
            session.state = State.LIVE
            self.behind -= 1

    def _schedule(self, session: Session) -> None:
        if session.reading and not session.stalled:
            self._turns.add(session)

    def _read_some(self, session: Session) -> None:
        if session.stalled or not session.reading:
            return
        try:
            self._advance(session, *session.reading.popleft())
        except Exception:  # a fault of ours ends one connection, not the turns of all the others
            _log.failure("reading for a session failed")
            self.end(session, Close.INTERNAL)
        self._schedule(session)
        self._settle(session)

    def _advance(self, session: Session, sub: Subscription, feed: Feed) -> None:
        """Read one chunk for one topic of one session, and send it."""
        recovery, out = feed.recovery, []
        lost = feed.overtaken()
        gaps = lost if recovery is None else recovery.gaps + lost
        if gaps and not session.codec.tells_gaps:
            self.cut(session)
            return
        if recovery is not None:
            recovery.gaps = gaps
        elif lost:
            self.count_gaps(sub.topic, len(lost), 1)
            out.append(self.gap(session, sub, lost))
        stop = max(feed.seq, sub.topic.delivered if feed is sub.slow or sub.slow is None else sub.slow.seq)
        frames = feed.read(stop, sub.recovering_keys() if feed is sub.slow else ())
        self._count(session, frames, feed.told)
        if feed.told:
            self.count_gaps(sub.topic, feed.told, feed.told)
        out += frames
        if feed.cut:
            session.push(b"".join(out))
            self.cut(session)
            return
        if feed.seq < stop:
            session.reading.append((sub, feed))
        elif recovery is None:
            self._caught_up(session, sub, feed)
        else:
            out += self._recovered(session, sub, feed, recovery)
        if recovery is None:
            self._look_again(session, sub)
        self.send(session, b"".join(out))

    def _caught_up(self, session: Session, sub: Subscription, feed: Feed) -> None:
        """A topic that was behind has been read up to its end: it is pushed to again, unless the client is ahead of
        this process, or keys of the whole topic still recover."""
        if feed.ahead() or (sub.whole and sub.recoveries):
            feed.since = math.inf  # what it waits for is not the client
            self._park(session, sub, feed)
        else:
            sub.slow = None
            self.listen(session, sub)

    def _recovered(self, session: Session, sub: Subscription, feed: Feed, recovery: Recovery) -> list[bytes]:
        """Names that recover have been read for up to the topic's position. They are held like others from now on and
        told RECOVERED, once they all are at one place, and that is the topic's: its position holds for all of them."""
        topic = sub.topic
        apart = not feed.together() or (sub.holds() and feed.place() != sub.position())
        if topic.window.epoch is None or apart:
            self._park(session, sub, feed)
            return []
        sub.recoveries.remove(feed)
        self.hold(session, sub, feed.all_floors())
        if sub.slow is not None:
            self.unpark(session, sub, sub.slow)
        gaps = merged(recovery.gaps)
        topic.metrics.gaps += len(gaps)
        self._metrics.messages_sent["RECOVERED"] += 1
        told, at = spelt(topic.name, feed.whole, feed.keys), sub.position()
        return [
            session.codec.event(
                events.recovered(topic.name, told, recovery.count, gaps, topic.window.epoch, at, recovery.id)
            )
        ]

    def _look_again(self, session: Session, sub: Subscription) -> None:
        """The topic's position is another one: names that wait to join it there may go on."""
        for feed in sub.recoveries:
            self.unpark(session, sub, feed)

    def _done(self, session: Session, sub: Subscription, feed: Feed) -> None:
        """Nothing reads from here any more."""
        self._parked.get(sub.topic, {}).pop(feed, None)
        if (sub, feed) in session.reading:
            session.reading.remove((sub, feed))

    def _park(self, session: Session, sub: Subscription, feed: Feed) -> None:
        self._parked.setdefault(sub.topic, {})[feed] = (session, sub)

    def _count(self, session: Session, frames: Sequence[bytes], gaps: int) -> None:
        session.records += len(frames)
        self._metrics.messages_sent["MESSAGE"] += len(frames) - gaps
        self._metrics.bytes_sent += sum(map(len, frames))


def _swallow(data: bytes) -> bool:
    """What stands in for the channel's ``push`` once nothing more is to be delivered."""
    return True


def spelt(topic: str, whole: bool, keys: Iterable[str]) -> list[str]:
    """The names of one topic as clients see them."""
    return [topic] * whole + sorted(f"{topic}/{names.spell_key(key)}" for key in keys)
