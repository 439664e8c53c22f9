"""A KafkaConsumer without a group, driven by the thread that polls it.

kafka-python's own ``poll`` leaves the sockets to a second thread; each call crosses between the two four times and
costs about 0.8 ms of CPU. Its loop also runs in the caller's thread where that second one is not started, and then a
poll costs half. What is used of the library's inner parts for this stands in this module; the contract tests hold it.
"""

from __future__ import annotations

import selectors
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from kafka import KafkaConsumer
from kafka.errors import KafkaError
from kafka.structs import TopicPartition

from gateway.config_kafka import Kafka
from gateway.log.kafka_client import Connecting, options
from gateway.log.kafka_records import Decoder
from gateway.model import Record

BATCH = 500  # records that one poll gives at most
FETCH = 8 * 1024 * 1024  # bytes of one fetch answer, about
LOOK_UP = 3_000  # ms for a question about offsets or metadata

Offsets = dict[TopicPartition, int]


class Consumer:
    """Reads partitions that are assigned to it. Connects when made (``Connecting``), or raises KafkaError or OSError.

    ``refreshed`` is called with the ClusterMetadata in ``poll`` and the like, after each look at these topics.
    """

    def __init__(
        self, kafka: Kafka, connecting: Connecting, topics: Collection[str], refreshed: Callable[[Any], None]
    ) -> None:
        self.unreadable: dict[TopicPartition, list[tuple[int, int]]] = {}  # offsets that could not be decoded

        def prepare(cluster: Any) -> None:  # before the first question for metadata: all answers speak of all topics
            cluster._topics.update(topics)
            cluster.add_listener(refreshed)

        self._consumer = connecting.make(
            KafkaConsumer,
            prepare,
            **options(kafka),
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="none",  # a reset would be a gap that nobody is told
            isolation_level=kafka.isolation,
            fetch_max_bytes=FETCH,
            metrics_enabled=False,
            selector=Selector,
        )
        self._fetcher, self._net = self._consumer._fetcher, self._consumer._net
        self._cluster = self._consumer._cluster
        # The coordinator, which nobody needs without a group, raises before others are called if a topic is hidden.
        self._cluster._listeners.intersection_update((refreshed,))
        self._states = self._consumer._subscription.assignment
        self._answers: dict[Any, tuple[Collection[TopicPartition], Any]] = {}  # by node, since confirmed() was asked
        self._handle = self._fetcher._handle_fetch_response
        self._fetcher._handle_fetch_response = self._answered
        self._fetcher.PartitionRecords = lambda *args, **kwargs: Decoder(self.unreadable, *args, **kwargs)

    def poll(self, seconds: float, most: int = BATCH) -> Mapping[TopicPartition, list[Record]]:
        """Records as they come; waits where there are none. Raises OffsetOutOfRangeError, LogTruncationError and
        TopicAuthorizationFailedError for the partitions that they name; the others can be polled on."""
        records, more = self._fetcher.fetched_records(most)
        if not more:
            _run(self._fetcher._send_fetches_async())
        if not records:
            deadline = time.monotonic() + seconds
            while not self._fetcher._completed_fetches and (left := deadline - time.monotonic()) > 0:
                self._net.poll(timeout_ms=left * 1000)
            records, _ = self._fetcher.fetched_records(most)
        found: Mapping[TopicPartition, list[Record]] = records
        return found

    def validate(self) -> None:
        """See to it that what was read is still in the log where the leader has changed (KIP-320)."""
        self._fetcher.maybe_validate_positions()
        self._fetcher.validate_offsets_if_needed()

    def assign(self, partitions: Collection[TopicPartition]) -> None:
        """Read these and no others. Those that were read before keep their place, new ones need a ``seek``."""
        if partitions or self._states:
            self._consumer.assign(list(partitions))

    def assigned(self) -> set[TopicPartition]:
        """What is read."""
        return set(self._states)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Go on at this offset."""
        self.unreadable.pop(partition, None)
        self._consumer.seek(partition, offset)

    def place(self, partition: TopicPartition) -> tuple[int, int]:
        """The next offset to be read, and the log's end as the last fetch answer told it."""
        state = self._states[partition]
        after: int = state.position.offset
        return after, max(after, state.highwater or 0)

    def confirmed(self) -> set[TopicPartition]:
        """Partitions of which a broker has said, since the last call, that there is nothing new."""
        found: set[TopicPartition] = set()
        for asked, response in self._answers.values():
            found.update(asked)
            found.difference_update(
                TopicPartition(topic.topic, partition.partition_index)
                for topic in response.responses
                for partition in topic.partitions
            )
        self._answers.clear()
        return found

    def _answered(self, node: Any, offsets: Mapping[TopicPartition, int], sent: float, response: Any) -> None:
        self._handle(node, offsets, sent, response)
        if not response.error_code:
            self._answers[node] = offsets, response

    def pause(self, topic: str) -> None:
        """Do not fetch from this topic."""
        self._consumer.pause(*(tp for tp in self._states if tp.topic == topic))

    def resume(self, topic: str) -> None:
        """Fetch from it again."""
        self._consumer.resume(*(tp for tp in self._states if tp.topic == topic))

    def firsts(self, partitions: Iterable[TopicPartition]) -> Offsets:
        """The earliest offset of each. Raises KafkaTimeoutError, TopicAuthorizationFailedError; as do the next two."""
        found: Offsets = self._consumer.beginning_offsets(list(partitions), LOOK_UP)
        return found

    def ends(self, partitions: Iterable[TopicPartition]) -> Offsets:
        """The offset behind the last (committed) record of each."""
        found: Offsets = self._consumer.end_offsets(list(partitions), LOOK_UP)
        return found

    def since(self, partitions: Iterable[TopicPartition], timestamp: int) -> dict[TopicPartition, int | None]:
        """The first offset of each whose record is not older (ms since 1970); None where none is."""
        found = self._consumer.offsets_for_times(dict.fromkeys(partitions, timestamp), LOOK_UP)
        return {tp: None if at is None else at.offset for tp, at in found.items()}

    def must_refresh(self) -> bool:
        """Metadata are wanted at once: a connection was lost, a leader has moved, a topic is missing."""
        return bool(self._cluster.need_update)

    def refresh(self) -> None:
        """Look at the metadata now. Raises KafkaError where nobody answers."""
        manager = self._consumer._manager
        self._net.run(manager.wait_for, self._cluster.request_update(), LOOK_UP)

    def ask(self) -> None:
        """Look at the metadata soon."""
        self._cluster.request_update()

    def close(self) -> None:
        """End the connections. Never raises."""
        try:
            self._consumer.close(autocommit=False, timeout_ms=1000)
        except (KafkaError, RuntimeError, OSError):
            self._net.close()


class Selector(selectors.DefaultSelector):
    """As the default one, which names the socket in the KeyError for one that it does not have: four system calls a
    request, for a text that nobody reads."""

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        """As the base class."""
        found: selectors.SelectorKey = self._fd_to_key[self._fileobj_lookup(fileobj)]  # type: ignore[attr-defined]
        return found


def _run(step: Any) -> None:
    """Run a coroutine of kafka-python's that never waits."""
    try:
        step.send(None)
    except StopIteration:
        return
    raise RuntimeError("kafka-python's fetcher waits where it did not in the version that this was written for")
