"""The installed daemon under a sampling profiler: ``python -m bench.sampled_daemon FILE <arguments of twistd>``.

SIGUSR1 begins, SIGUSR2 ends and writes FILE (bench/profile.py reads it). A sample is taken each millisecond of the
process's CPU, in the reactor's thread, and weighs what that thread has used of its own since the last one, so that the
Kafka reader's share is not put on the reactor; it is told as a sum. A profiler of calls costs more than what it shows.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from types import FrameType

PERIOD = 0.001  # seconds of CPU


class Sampler:
    """Where the reactor's thread was, in seconds of its CPU."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lines: Counter[str] = Counter()
        self._own: Counter[str] = Counter()
        self._within: Counter[str] = Counter()

    def install(self) -> None:
        signal.signal(signal.SIGUSR1, self._begin)
        signal.signal(signal.SIGUSR2, self._end)
        signal.signal(signal.SIGPROF, self._sample)
        signal.siginterrupt(signal.SIGPROF, False)

    def _begin(self, *_: object) -> None:
        signal.set_wakeup_fd(-1)  # else each sample is a turn of the reactor
        self._began = time.process_time(), time.thread_time()
        self._last = self._began[1]
        signal.setitimer(signal.ITIMER_PROF, PERIOD, PERIOD)

    def _sample(self, _: int, frame: FrameType | None) -> None:
        now = time.thread_time()
        weight, self._last = now - self._last, now
        if frame is None:
            return
        self._lines[f"{function(frame)} line {frame.f_lineno}"] += weight  # type: ignore[assignment]
        self._own[function(frame)] += weight  # type: ignore[assignment]
        seen = set()
        while frame is not None:
            seen.add(function(frame))
            frame = frame.f_back
        for name in seen:
            self._within[name] += weight  # type: ignore[assignment]

    def _end(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)
        whole, reactor = time.process_time() - self._began[0], time.thread_time() - self._began[1]
        tables = {"own": self._own, "lines": self._lines, "within": self._within}
        found = {"process": whole, "reactor": reactor, **{name: dict(table) for name, table in tables.items()}}
        partial = self._file.with_suffix(".partial")
        partial.write_text(json.dumps(found))
        partial.rename(self._file)


def function(frame: FrameType) -> str:
    code = frame.f_code
    return f"{'/'.join(Path(code.co_filename).parts[-2:])}:{code.co_qualname}"


def main() -> None:
    from twisted.scripts.twistd import run

    Sampler(Path(sys.argv.pop(1))).install()
    run()


if __name__ == "__main__":
    main()
