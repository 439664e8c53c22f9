"""From the log to the sessions: a batch goes into the windows, and from there to all who listen in one pass.

What is live is pushed to here; who is behind is read for by ``services/catchup.py``. Nothing on this path is done for
a client that could be done once for the record or the batch: frames are made once, joined once for everybody who gets
the same, and handed over in one write a session.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from operator import attrgetter

import attrs
from twisted.logger import Logger

from gateway.core.feed import CHUNK
from gateway.core.session import Session
from gateway.core.topic import Topic
from gateway.core.window import Entry
from gateway.core.wire import Codec
from gateway.metrics import Metrics
from gateway.model import Deleted, Fetched, Gap, GapReason, LogEvent, Lost, Opened
from gateway.ports import Clock
from gateway.services.catchup import CatchUp
from gateway.services.changes import Changes

_log = Logger()
_seq = attrgetter("seq")


@attrs.frozen
class TopicInfo:
    """What operators are told of a topic."""

    name: str
    audience: str
    epoch: str | None
    partitions: dict[int, tuple[int, int, int]]  # window's first offset, next to be read, the log's end
    records: int
    bytes: int
    subscribers: int  # addresses listened to, and sessions that get everything


class Dispatcher:
    """Takes what a LogReader tells (``receive`` is its listener), and pushes it."""

    def __init__(
        self,
        topics: Iterable[Topic[Session]],
        codecs: Sequence[Codec],
        catch_up: CatchUp,
        changes: Changes,
        total_bytes: int,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self._topics = {topic.name: topic for topic in topics}
        self._codecs = codecs
        self._catch_up = catch_up
        self._changes = changes
        self._total_bytes = total_bytes
        self._metrics = metrics
        self._clock = clock

    def receive(self, batch: Sequence[LogEvent], arrived: float) -> None:
        """Take in one batch, in order, and push what is new."""
        touched: dict[Topic[Session], int] = {}
        oldest: int | None = None
        for event in batch:
            topic = self._topics[event.topic]
            if isinstance(event, Fetched):
                lost = topic.take(event, arrived)
                touched[topic] = touched.get(topic, 0) + lost
                if event.records and oldest is None:
                    oldest = event.records[0].timestamp
            else:
                if topic in touched:
                    self._deliver(topic)
                self._changed(topic, event, arrived)
        sent = sum([self._deliver(topic) for topic in touched])
        if sent:
            self._metrics.messages_sent["MESSAGE"] += sent
            self._metrics.message_latency.observe(self._clock.seconds() - arrived, sent)
            if oldest is not None:
                self._metrics.end_to_end_latency.observe(max(0.0, self._clock.wall() - oldest / 1000), sent)
        for topic, lost in touched.items():
            topic.trim(arrived)
            if lost:
                _log.warn(
                    "records without a user are given to nobody: see userFrom of the topic",
                    topic=topic.name,
                    records=lost,
                    next=str(topic.window.nexts),
                )
        self._bound_all()

    def tick(self, now: float) -> None:
        """Once a second: windows age although nothing comes, and cursors may turn out to be of another log."""
        for topic in self._topics.values():
            topic.trim(now)
        self._changes.tick(now)

    def topics(self) -> list[TopicInfo]:
        """Every configured topic as it stands."""
        return [
            TopicInfo(
                topic.name,
                topic.settings.audience.value,
                (window := topic.window).epoch,
                {p: (window.starts[p], window.nexts[p], window.ends[p]) for p in sorted(window.nexts)},
                len(window),
                window.bytes,
                len(topic.listeners),
            )
            for topic in self._topics.values()
        ]

    # --- pushing ---

    def _deliver(self, topic: Topic[Session]) -> int:
        """Push what the window has and was not pushed yet. How many records were handed over, times sessions."""
        window = topic.window
        entries = window.entries(topic.delivered, window.end)
        sent = 0
        if entries:
            for codec in self._codecs:
                group = topic.listeners.everyone[codec.slot]
                if group:
                    sent += self._send(topic, list(group), entries, codec)
            sent += self._deliver_addressed(topic, entries)
        topic.delivered = window.end
        self._catch_up.wake(topic)
        return sent

    def _deliver_addressed(self, topic: Topic[Session], entries: Sequence[Entry]) -> int:
        """Gather what is for one address, then by session; each session gets one write, in order."""
        at = topic.listeners.at
        runs: dict[str, list[Entry]] = {}
        for entry in entries:
            for address in entry.addresses or ():
                run = runs.get(address)
                if run is not None:
                    run.append(entry)
                elif at(address):
                    runs[address] = [entry]
        gathered: dict[Session, list[Entry]] = {}
        mixed: set[Session] = set()  # those who listen to several of these addresses: a run of their own
        for address, run in runs.items():
            for session in at(address):
                mine = gathered.get(session)
                if mine is None:
                    gathered[session] = run  # shared by all of this address
                elif session in mixed:
                    mine += run
                else:
                    mixed.add(session)
                    gathered[session] = mine + run
        for session in mixed:
            gathered[session].sort(key=_seq)
        return self._push_runs(topic, gathered)

    def _push_runs(self, topic: Topic[Session], gathered: dict[Session, list[Entry]]) -> int:
        view, sent, size = topic.window.view, 0, 0
        # By run and encoding: what several sessions share is joined once. With it, how many of the frames tell a gap.
        joined: dict[tuple[int, int], tuple[bytes, int]] = {}
        for session, run in gathered.items():
            codec, gaps = session.codec, 0
            if len(run) == 1 and run[0].gap is None:
                data = view(run[0], codec)
            else:
                shared = joined.get((id(run), codec.slot))
                if shared is None:
                    frames, gaps = [view(entry, codec) for entry in run], _gaps(run)
                    if sum(map(len, frames)) > CHUNK or (gaps and not codec.tells_gaps):
                        sent += self._send(topic, (session,), run, codec)
                        continue
                    shared = joined[id(run), codec.slot] = b"".join(frames), gaps
                data, gaps = shared
            if data:
                sent += len(run) - gaps
                size += len(data)
                if gaps:
                    self._catch_up.count_gaps(topic, gaps, gaps)
                session.records += len(run)
                if not session.push(data):
                    self._catch_up.stall(session, topic, run[-1].seq + 1)
        self._metrics.bytes_sent += size
        return sent

    def _send(
        self, topic: Topic[Session], sessions: Collection[Session], entries: Sequence[Entry], codec: Codec
    ) -> int:
        """Push the same entries to several sessions, at most CHUNK bytes at a time: what a session does not take of
        one piece is all that ever waits for it."""
        cut = None if codec.tells_gaps else next((i for i, entry in enumerate(entries) if entry.gap), None)
        sent = 0
        for data, count, gaps, seq in _pieces(topic, entries[:cut], codec):
            stalled = []
            for session in sessions:
                session.records += count
                if not session.push(data):
                    stalled.append(session)
            sent += (count - gaps) * len(sessions)
            if gaps:
                self._catch_up.count_gaps(topic, gaps * len(sessions), gaps * len(sessions))
            self._metrics.bytes_sent += len(data) * len(sessions)
            for session in stalled:
                self._catch_up.stall(session, topic, seq)
            if stalled:
                sessions = [session for session in sessions if not session.stalled]
        if cut is not None:
            for session in sessions:
                self._catch_up.cut(session)
        return sent

    def _bound_all(self) -> None:
        windows = [topic.window for topic in self._topics.values()]
        while (excess := sum([window.bytes for window in windows]) - self._total_bytes) > 0:
            oldest = min(windows, key=lambda window: window.oldest())
            if not len(oldest):
                return
            oldest.drop_oldest(min(excess, CHUNK))

    # --- what befalls topics ---

    def _changed(self, topic: Topic[Session], event: Opened | Lost | Deleted, arrived: float) -> None:
        if isinstance(event, Lost):
            gap = Gap(event.partition, event.first, event.next, GapReason.EXPIRED)
            _log.warn("retention overtook the reader", topic=topic.name, partition=gap.partition, next=gap.next)
            entry = topic.window.lose(gap, arrived)
            topic.delivered = topic.window.end
            self._changes.tell_all(topic, entry)
            self._catch_up.wake(topic)
        elif isinstance(event, Deleted):
            _log.warn("topic is deleted; its subscriptions stay", topic=topic.name)
        else:
            self._opened(topic, event)

    def _opened(self, topic: Topic[Session], event: Opened) -> None:
        before, old = topic.window.epoch, dict(topic.window.nexts)
        places = self._changes.places(topic) if before not in (None, event.epoch) else {}
        topic.window.open(event.epoch, event.partitions)
        topic.delivered = topic.window.end
        if before is not None and before != event.epoch:
            topic.warm_until.clear()
            topic.metrics.lag.clear()
            _log.warn("topic was made anew", topic=topic.name, epoch=event.epoch, was=before, read=str(old))
            self._changes.recreated(topic, places)
            return
        warm = {p: start.live for p, start in event.partitions.items() if start.first < start.live and p not in old}
        topic.warm_until.update(warm)
        self._changes.opened(topic, warm, first=before is None)


def _gaps(entries: Iterable[Entry]) -> int:
    return sum([entry.gap is not None for entry in entries])


def _pieces(topic: Topic[Session], entries: Sequence[Entry], codec: Codec) -> Iterator[tuple[bytes, int, int, int]]:
    """Frames joined up to CHUNK bytes, or one; how many, and how many of these tell a gap; the seq behind them."""
    frames: list[bytes] = []
    size = gaps = 0
    view = topic.window.view
    for entry in entries:
        frame = view(entry, codec)
        if frames and size + len(frame) > CHUNK:
            yield b"".join(frames), len(frames), gaps, entry.seq
            frames, size, gaps = [], 0, 0
        if frame:
            frames.append(frame)
            size += len(frame)
            if entry.gap is not None:
                gaps += 1
    if frames:
        yield b"".join(frames), len(frames), gaps, entries[-1].seq + 1
