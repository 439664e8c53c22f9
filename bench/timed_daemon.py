"""The installed daemon with a 5 ms timer in its reactor: ``python -m bench.timed_daemon FILE <arguments of twistd>``.

A line of JSON a second goes to FILE: ``at`` (time.monotonic), the worst of that second as ``late_ms``, the part of it
that is ``late_own_ms``, the longest run of the cyclic collector in CPU, ``gc_ms``, and the size, ``rss_mib``.

The daemon's own doing: a reactor is late because this process computes (or a thread of it holds the interpreter), or
because the machine gives the core to somebody else. In the interval that ends late the process used some CPU, all its
threads together; it cannot be more late by its own doing than that, so the smaller of the two counts. What is left is
the machine's.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from io import TextIOBase
from pathlib import Path
from typing import Any

from twisted.internet import reactor

from bench.machine import rss

PERIOD = 0.005


class Timer:
    """Fires each PERIOD after the last firing, and keeps how late it was."""

    def __init__(self, clock: Any, out: TextIOBase) -> None:
        self._clock = clock
        self._out = out
        self._late = self._own = self._collecting = self._collection_began = 0.0

    def start(self) -> None:
        gc.callbacks.append(self._collected)
        self._second = time.monotonic()
        self._again()

    def _again(self) -> None:
        self._due = time.monotonic() + PERIOD
        self._cpu = time.process_time()
        self._clock.callLater(PERIOD, self._fire)

    def _fire(self) -> None:
        now = time.monotonic()
        late = now - self._due
        self._late = max(self._late, late)
        self._own = max(self._own, min(late, time.process_time() - self._cpu))
        if now - self._second >= 1:
            self._tell(now)
        self._again()

    def _tell(self, now: float) -> None:
        row = {"at": now, "late_ms": self._late, "late_own_ms": self._own, "gc_ms": self._collecting}
        row = {name: value if name == "at" else round(1e3 * value, 3) for name, value in row.items()}
        row["rss_mib"] = round(rss(os.getpid()) / 2**20, 2)
        self._out.write(json.dumps(row) + "\n")
        self._out.flush()
        self._second = now
        self._late = self._own = self._collecting = 0.0

    def _collected(self, phase: str, _: dict[str, int]) -> None:
        if phase == "start":
            self._collection_began = time.thread_time()
        else:
            self._collecting = max(self._collecting, time.thread_time() - self._collection_began)


def main() -> None:
    from twisted.scripts.twistd import run

    file = Path(sys.argv.pop(1))
    with file.open("w") as out:
        reactor.callWhenRunning(Timer(reactor, out).start)
        run()


if __name__ == "__main__":
    main()
