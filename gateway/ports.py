"""What the services need of the outside world. Adapters implement these; ``app.py`` brings both together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from twisted.internet.defer import Deferred

from gateway.errors import Close
from gateway.model import Health, LogEvent, Principal, Written

# Called on the reactor thread with what one poll brought; ``arrived`` is Clock.seconds() at the hand-over.
LogListener = Callable[[Sequence[LogEvent], float], None]


class LogReader(Protocol):
    """Reads every partition of the configured topics, without a consumer group.

    Contract (``tests/contract/test_log.py``): for one topic ``Opened`` comes first; the ``Fetched`` of a partition are
    contiguous (each begins where the last ended, or a ``Lost`` stands between); ``read_committed``.
    """

    def start(self, listener: LogListener) -> None:
        """Begin to read; never blocks, never raises for a log that is away."""

    def stop(self) -> Deferred[None]:
        """End; fires when the thread and its sockets are gone. Bounded in time."""

    def positioned(self) -> bool:
        """True, and for good, once every partition that has a leader and may be read has a first position."""

    def heard(self, topic: str, partition: int) -> float:
        """Clock.seconds() of the last time that the log told how far this partition reaches, or that the topic has no
        such partition; all of what it told until then has been handed over. Before the first time: -infinity."""

    def health(self) -> Mapping[str, tuple[Health, str]]:
        """Check name (``kafka``, ``topic:<name>``) -> how it is, and why in one line."""


class LogWriter(Protocol):
    """Writes records, acknowledged by all in-sync replicas, idempotent."""

    def start(self) -> None:
        """Begin; never blocks."""

    def stop(self) -> Deferred[None]:
        """What is pending is answered first, in bounded time."""

    def publish(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes]] = ()
    ) -> Deferred[Written]:
        """Fires once the log has the record; errback is always a PublishError, within ``publish.timeout``."""


class Authenticator(Protocol):
    """Tells who a token speaks for."""

    def authenticate(self, token: str) -> Deferred[Principal]:
        """Errback is always an AuthError, or a GatewayError ``UNAVAILABLE`` where keys cannot be had just now."""


class Progress(NamedTuple):
    """How far a client's connection has come, in bytes."""

    waiting: int  # accepted by push, not yet taken by the kernel
    acked: int  # acknowledged by the peer's kernel so far (TCP_INFO tcpi_bytes_acked)
    in_flight: int  # packets sent and not acknowledged (TCP_INFO tcpi_unacked); 0 for a closed window
    paused: bool = False  # nothing is read from the client while its answers pile up
    sent: int = 0  # accepted by push so far


class Channel(Protocol):
    """One client's connection. Bytes are finished frames, opcode and all (``core/wire.py`` makes them)."""

    def push(self, data: bytes) -> bool:
        """Send. True: the kernel took everything; False: something waits, and ``Sessions.drained`` will be called once
        nothing does. Never raises; a lost connection swallows it."""

    def answer(self, data: bytes) -> bool:
        """As ``push``, for answers to the client's own input: while more than 64 KiB of these wait, reading pauses."""

    def close(self, code: Close, reason: str = "") -> None:
        """Send a close frame behind what waits, then end, within ``server.writeTimeout``. Twice is once."""

    def abort(self) -> None:
        """End at once, without a close frame."""

    def progress(self) -> Progress:
        """Costs one ``getsockopt``: for the timer wheel, not for the path of a record."""


class Clock(Protocol):
    """The reactor's clock and the wall clock."""

    def seconds(self) -> float:
        """Monotonic seconds."""

    def wall(self) -> float:
        """Seconds since 1970: for tokens and timestamps only."""

    def callLater(self, delay: float, call: Callable[..., object], /, *args: Any) -> Any:
        """As IReactorTime's."""
