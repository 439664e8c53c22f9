"""``LogWriter`` on Kafka: ``acks=all``, idempotent, bounded, every record answered within ``publish.timeout``.

KafkaProducer blocks where it waits for metadata, has no bound, and its ``close`` fails while records are pending. So a
thread of its own feeds it, the bound is kept here, and so is the time. Whether a record may have been written follows
from one fact: was the batch that it went into ever taken out to be sent.
"""

from __future__ import annotations

import itertools
import queue
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import attrs
from kafka import KafkaProducer
from kafka.errors import (
    InvalidRecordError,
    InvalidTimestampError,
    InvalidTopicError,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
)
from kafka.producer.producer_batch import FinalState
from kafka.serializer import Serializer
from twisted.internet.defer import Deferred, fail

from gateway.config_kafka import Kafka
from gateway.config_sections import Publish
from gateway.errors import Kind, PublishError
from gateway.log.kafka_client import METADATA_AGE, Connecting, log, name_of, options
from gateway.metrics import Metrics
from gateway.model import Written
from gateway.ports import Clock

TICK = 0.5  # s between looks at what no record brings up
SILENCE = 5.0  # s without an answer to a question for metadata: make a new producer
BACK_OFF = (0.1, 2.0)  # s between attempts to reach Kafka, the first and the longest
STOP = 5.0  # s that stop() waits for what is pending
CLOSE = 2.0  # s for the producer's own thread to end
OVERHEAD = 100  # bytes that a record costs beside key, value and headers
TOO_LARGE = (MessageSizeTooLargeError, RecordListTooLargeError)
REFUSED = (*TOO_LARGE, TopicAuthorizationFailedError, InvalidTopicError, InvalidRecordError, InvalidTimestampError)
NO_VALUE = b"\0tombstone"  # by identity; KafkaProducer refuses a record with neither key nor value


class Value(Serializer):
    """Lets records through that have neither key nor value."""

    def serialize(self, topic: str, headers: object, data: bytes) -> bytes | None:
        """The bytes as they are."""
        return None if data is NO_VALUE else data


@attrs.define(eq=False)
class Entry:
    """A record on its way. ``began`` and ``until`` are ``Clock.seconds``."""

    number: int
    topic: str
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]
    size: int
    began: float
    until: float
    done: Deferred[Written]


class KafkaWriter:
    """Made on the reactor's thread, where all methods are called, and where all Deferreds fire."""

    def __init__(
        self, kafka: Kafka, publish: Publish, clock: Clock, call_from_thread: Callable[..., object], metrics: Metrics
    ) -> None:
        self._kafka, self._limits, self._clock, self._metrics = kafka, publish, clock, metrics
        self._call = call_from_thread
        self._grace = min(0.2, publish.timeout / 4)  # s between giving a record up and saying so
        self._numbers = itertools.count()
        self._pending: dict[int, Entry] = {}  # not answered yet, oldest first; the reactor's own
        self._pending_bytes = 0
        self._timer: Any = None
        self._stopped: list[Deferred[None]] = []
        self._ended = False
        # Shared: who pops an entry from ``_waiting`` decides over it, to send it or to say that it was not written.
        self._waiting: dict[int, Entry] = {}
        self._queue: queue.SimpleQueue[Entry | None] = queue.SimpleQueue()
        self._answers: deque[tuple[Entry, Written | PublishError]] = deque()
        self._called = False  # the reactor will look at them
        self._stopping = threading.Event()
        self._stop_at = 0.0
        self._overdue = False  # something was sent and is not answered in time
        self._connecting = Connecting()
        # The thread's own:
        self._thread = threading.Thread(target=self._run, name="kafka-writer", daemon=True)
        self._parked: deque[Entry] = deque()  # taken before, and to be tried again
        self._heard = 0.0
        self._failures = 0
        self._trouble = ""  # why nothing can be written, as far as is known
        self._last: tuple[object, tuple[bool, bool]] = (None, (True, True))

    # --- LogWriter, on the reactor's thread ---

    def start(self) -> None:
        """Begin; Kafka may be away."""
        self._thread.start()

    def stop(self) -> Deferred[None]:
        """Fires when all is answered and the producer is gone; what Kafka has not taken in ``STOP`` is an error."""
        done: Deferred[None] = Deferred()
        self._stop_at = time.monotonic() + STOP
        self._stopping.set()
        self._connecting.give_up()
        self._queue.put(None)
        self._stopped.append(done)
        if self._thread.is_alive() and not self._ended:
            self._clock.callLater(STOP + 2 * CLOSE, self._gone)
        else:
            self._gone()
        return done

    def publish(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes]] = ()
    ) -> Deferred[Written]:
        """See LogWriter. BUSY where more waits than ``publish.maxPending`` and ``publish.maxPendingBytes`` allow."""
        size = len(key or b"") + len(value or b"") + sum(len(name) + len(text) for name, text in headers) + OVERHEAD
        if self._stopping.is_set():
            return self._refuse("the gateway is stopping: nothing is written", Kind.UNAVAILABLE)
        if len(self._pending) >= self._limits.max_pending:
            return self._refuse(f"{len(self._pending)} records wait for Kafka (publish.maxPending)", Kind.BUSY)
        if self._pending and self._pending_bytes + size > self._limits.max_pending_bytes:
            return self._refuse(f"{self._pending_bytes} bytes wait for Kafka (publish.maxPendingBytes)", Kind.BUSY)
        now = self._clock.seconds()
        until = now + self._limits.timeout - 2 * self._grace
        entry = Entry(next(self._numbers), topic, key, value, headers, size, now, until, Deferred())
        self._pending[entry.number] = self._waiting[entry.number] = entry
        self._pending_bytes += size
        self._queue.put(entry)
        if self._timer is None:
            self._timer = self._clock.callLater(until - now, self._expire)
        return entry.done

    def _refuse(self, why: str, kind: Kind) -> Deferred[Written]:
        self._metrics.publish_errors[kind.wire.code] += 1
        return fail(PublishError(why, kind))

    def _expire(self) -> None:
        """Records whose time is over: not sent means not written; what was sent gets a moment more."""
        self._timer = None
        now = self._clock.seconds()
        late = list(itertools.takewhile(lambda entry: entry.until <= now, self._pending.values()))
        for entry in late:
            if self._waiting.pop(entry.number, None) is not None:
                self._finish(entry, _unavailable(self._trouble or f"Kafka has no topic {entry.topic!r}, or no leader"))
        sent = [entry for entry in late if entry.number in self._pending]
        if sent:
            self._overdue = True
            self._queue.put(None)
            self._clock.callLater(self._grace, self._give_up, sent)
        following = next((entry.until for entry in self._pending.values() if entry.until > now), None)
        if following is not None:
            self._timer = self._clock.callLater(following - now, self._expire)

    def _give_up(self, sent: list[Entry]) -> None:
        for entry in sent:
            self._finish(entry, _unknown("Kafka has not answered in time"))

    def _finish(self, entry: Entry, result: Written | PublishError) -> None:
        if self._pending.pop(entry.number, None) is None:
            return
        self._pending_bytes -= entry.size
        if isinstance(result, Written):
            self._metrics.publish_seconds.observe(self._clock.seconds() - entry.began)
            entry.done.callback(result)
        else:
            self._metrics.publish_errors[result.kind.wire.code] += 1
            entry.done.errback(result)

    def _take_answers(self) -> None:
        self._called = False  # before the last look, so that no answer is left behind
        while self._answers:
            self._finish(*self._answers.popleft())

    def _gone(self) -> None:
        self._ended = True
        for entry in list(self._pending.values()):
            waiting = self._waiting.pop(entry.number, None) is not None
            self._finish(entry, _unavailable("the gateway is stopping") if waiting else _unknown("the gateway stops"))
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        stopped, self._stopped = self._stopped, []
        for done in stopped:
            done.callback(None)

    # --- the thread ---

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._connecting, self._heard = Connecting(), time.monotonic()
                producer = self._connect()
                try:
                    self._write(producer)
                finally:
                    _close(producer)
            except Exception as error:
                self._away(error)
        self._call(self._take_answers)
        self._call(self._gone)

    def _connect(self) -> Any:
        def prepare(cluster: Any) -> None:
            cluster._topics.update(topic.name for topic in self._kafka.topics)
            cluster.add_listener(self._refreshed)

        found = options(self._kafka)
        timeout = int(self._limits.timeout * 1000)
        found["request_timeout_ms"] = min(found["request_timeout_ms"], timeout)
        producer = self._connecting.make(
            KafkaProducer,
            prepare,
            **found,
            acks="all",
            enable_idempotence=True,
            linger_ms=0,  # batches form from what comes while one is under way
            delivery_timeout_ms=timeout,
            max_request_size=self._limits.max_bytes + 1024 * 1024,  # a record's limit is Kafka's own
            value_serializer=Value(),
            metrics_enabled=False,
        )
        _go_on_after_refusals(producer._transaction_manager)
        return producer

    def _refreshed(self, _: object) -> None:
        self._heard = time.monotonic()

    def _write(self, producer: Any) -> None:
        if self._failures:
            log.info("Kafka takes records again")
        self._failures = 0
        while not (self._stopping.is_set() and (not self._pending or time.monotonic() > self._stop_at)):
            for _ in range(len(self._parked)):
                self._send(producer, self._parked.popleft())
            with suppress(queue.Empty):
                entry = self._queue.get(timeout=TICK if not self._stopping.is_set() else 0.05)
                if entry is not None:
                    self._send(producer, entry)
            if self._overdue:
                self._overdue = False
                producer._accumulator.abort_undrained_batches(KafkaTimeoutError("publish.timeout"))
            self._check_alive(producer)

    def _send(self, producer: Any, entry: Entry) -> None:
        if entry.number not in self._waiting:
            return
        if producer._metadata.partitions_for_topic(entry.topic) is None:  # ``send`` would block here
            self._parked.append(entry)
            return
        if self._waiting.pop(entry.number, None) is None:
            return
        try:
            value = NO_VALUE if entry.value is None else entry.value
            future = producer.send(entry.topic, value, entry.key, headers=list(entry.headers))
        except TOO_LARGE as error:
            self._answer(entry, PublishError(f"Kafka does not take it: {error}", Kind.TOO_LARGE))
        except (KafkaError, ValueError, TypeError) as error:
            self._answer(entry, _unavailable(f"{name_of(error)}: {error}"))
        else:
            future.add_callback(self._written, entry)
            future.add_errback(self._failed, producer, future, entry)

    def _written(self, entry: Entry, placed: Any) -> None:
        self._trouble = ""
        self._answer(entry, Written(placed.partition, placed.offset))

    def _failed(self, producer: Any, future: Any, entry: Entry, error: Exception) -> None:
        """In the producer's thread, or in the one that aborts."""
        sent, aborted = self._fate(producer, future)
        if not (self._trouble and isinstance(error, KafkaTimeoutError)):
            self._trouble = f"{name_of(error)}: {error}"
        if not sent and self._clock.seconds() < entry.until and not self._stopping.is_set():
            self._waiting[entry.number] = entry
            self._parked.append(entry)
            self._queue.put(None)
        elif not sent:
            self._answer(entry, _unavailable(self._trouble))
        elif aborted or not isinstance(error, REFUSED):
            self._answer(entry, _unknown(f"{name_of(error)}: {error}"))
        elif isinstance(error, TOO_LARGE):
            told = f"a record of {entry.size - OVERHEAD} bytes is more than topic {entry.topic!r} takes"
            self._answer(entry, PublishError(told, Kind.TOO_LARGE))
        else:
            self._answer(entry, _unavailable(f"Kafka refuses it ({name_of(error)})"))

    def _fate(self, producer: Any, future: Any) -> tuple[bool, bool]:
        """Of the batch of this record, asked while it fails: was it ever taken out to be sent, and was it given up
        because of something else than Kafka's answer to it?"""
        batch = future._produce_future
        if batch is not self._last[0]:
            incomplete = producer._accumulator._incomplete.all()
            found = next((known for known in incomplete if known.produce_future is batch), None)
            sent = found is None or found.drained is not None
            self._last = (batch, (sent, found is None or found.final_state is FinalState.ABORTED))
        return self._last[1]

    def _answer(self, entry: Entry, result: Written | PublishError) -> None:
        self._answers.append((entry, result))
        if not self._called:
            self._called = True
            self._call(self._take_answers)

    def _check_alive(self, producer: Any) -> None:
        """Raises KafkaError where this producer will not write any more; a new one asks the bootstrap addresses."""
        silent = time.monotonic() - self._heard
        if silent > (SILENCE if producer._metadata.need_update else METADATA_AGE + SILENCE):
            raise KafkaError(f"no broker has answered for {silent:.0f} s")
        if producer._transaction_manager.has_fatal_error():
            raise producer._transaction_manager.last_error
        if not producer._sender.is_alive():
            raise KafkaError("the producer's thread has ended")

    def _away(self, error: Exception) -> None:
        if self._stopping.is_set():
            return
        name = name_of(error)
        self._call(lambda: self._metrics.kafka_errors.__setitem__(name, self._metrics.kafka_errors[name] + 1))
        self._failures += 1
        self._trouble = f"{name}: {error}"
        say = log.warning if self._failures == 1 else log.debug
        say("Kafka takes no records: %s: %s", name, error)
        first, longest = BACK_OFF
        self._stopping.wait(min(longest, first * 2**self._failures) * random.uniform(0.5, 1.0))  # noqa: S311 - jitter


def _go_on_after_refusals(manager: Any) -> None:
    """A record that Kafka refuses (too large, not allowed) is an error of its own. kafka-python lets it end the whole
    idempotent producer, and whatever is under way with it; all that has to be done is to use its number again."""
    classify = manager.classify_batch_error

    def classify_batch_error(error: Exception, batch: Any, log_start_offset: int = -1) -> Any:
        if isinstance(error, REFUSED):
            manager.set_sequence_number(batch.topic_partition, batch.base_sequence)
            return manager.ERROR_CLASS_RETRIABLE  # which here means: fail this batch and change nothing else
        return classify(error, batch, log_start_offset=log_start_offset)

    manager.classify_batch_error = classify_batch_error


def _close(producer: Any) -> None:
    """``KafkaProducer.close`` waits for what is pending, and fails; this gives it up."""
    producer._sender.force_close()
    producer._sender.join(CLOSE)
    with suppress(KafkaError):
        producer.close(timeout=0)


def _unavailable(why: str) -> PublishError:
    return PublishError(f"nothing was written: {why}", Kind.UNAVAILABLE)


def _unknown(why: str) -> PublishError:
    return PublishError(f"the record may have been written: {why}", Kind.UNKNOWN_OUTCOME)
