"""Twisted's reactor for tests of adapters that own threads: it runs in a thread of its own, and tests call into it."""

from __future__ import annotations

import datetime
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.epollreactor import EPollReactor

T = TypeVar("T")


class ThreadedReactor:
    """A reactor of one test, and the ``Clock`` of what runs on it."""

    def __init__(self) -> None:
        self._reactor: Any = EPollReactor()
        self._thread = threading.Thread(target=self._reactor.run, kwargs={"installSignalHandlers": False}, daemon=True)
        self.call_from_thread = self._reactor.callFromThread
        self.seconds: Callable[[], float] = self._reactor.seconds
        self.callLater = self._reactor.callLater

    def wall(self) -> float:
        """As Clock's."""
        return datetime.datetime.now(datetime.UTC).timestamp()

    def __enter__(self) -> ThreadedReactor:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._reactor.callFromThread(self._reactor.stop)
        self._thread.join(10)

    def begin(self, function: Callable[..., Any], *args: Any) -> Future[Any]:
        """Call a function on the reactor's thread; its result, or that of its Deferred."""
        future: Future[Any] = Future()

        def run() -> None:
            done: Deferred[Any] = maybeDeferred(function, *args)
            done.addCallbacks(future.set_result, lambda failure: future.set_exception(failure.value))

        self._reactor.callFromThread(run)
        return future

    def run(self, function: Callable[..., Any], *args: Any, within: float = 30.0) -> Any:
        """As ``begin``, and wait."""
        return self.begin(function, *args).result(within)
