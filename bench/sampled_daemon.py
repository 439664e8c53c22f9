"""The installed daemon under a sampling profiler: ``python -m bench.sampled_daemon FILE <arguments of twistd>``.

SIGUSR1 begins, SIGUSR2 ends and writes FILE (bench/profile.py reads it). A sample of every thread is taken each
millisecond of the process's CPU, and weighs what that thread has used of its own since the last one. A profiler of
calls costs more than what it shows.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from collections import defaultdict
from pathlib import Path
from types import FrameType

PERIOD = 0.001  # seconds of CPU


class Sampler:
    """Where each thread was, in seconds of its CPU."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._threads: defaultdict[str, float] = defaultdict(float)
        self._lines: defaultdict[str, float] = defaultdict(float)
        self._own: defaultdict[str, float] = defaultdict(float)
        self._within: defaultdict[str, float] = defaultdict(float)
        self._last: dict[int, float] = {}

    def install(self) -> None:
        signal.signal(signal.SIGUSR1, self._begin)
        signal.signal(signal.SIGUSR2, self._end)
        signal.signal(signal.SIGPROF, self._sample)
        signal.siginterrupt(signal.SIGPROF, False)

    def _begin(self, *_: object) -> None:
        signal.set_wakeup_fd(-1)  # else each sample is a turn of the reactor
        self._began = time.process_time()
        self._last = {thread.ident: used(thread.ident) for thread in threading.enumerate() if thread.ident}
        signal.setitimer(signal.ITIMER_PROF, PERIOD, PERIOD)

    def _sample(self, _: int, interrupted: FrameType | None) -> None:
        frames = sys._current_frames()
        for thread in threading.enumerate():
            ident = thread.ident
            if ident is None or ident not in frames:
                continue
            now = used(ident)
            weight = now - self._last.get(ident, now)
            self._last[ident] = now
            self._threads[thread.name] += weight
            frame = interrupted if thread is threading.main_thread() else frames[ident]
            if weight and frame is not None:
                self._weigh(frame, weight)

    def _weigh(self, frame: FrameType, weight: float) -> None:
        self._lines[f"{function(frame)} line {frame.f_lineno}"] += weight
        self._own[function(frame)] += weight
        seen = set()
        above: FrameType | None = frame
        while above is not None:
            seen.add(function(above))
            above = above.f_back
        for name in seen:
            self._within[name] += weight

    def _end(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)
        whole = time.process_time() - self._began
        tables = {"threads": self._threads, "own": self._own, "lines": self._lines, "within": self._within}
        partial = self._file.with_suffix(".partial")
        partial.write_text(json.dumps({"process": whole, **tables}))
        partial.rename(self._file)


def used(ident: int) -> float:
    """Seconds of CPU of a thread."""
    return time.clock_gettime(time.pthread_getcpuclockid(ident))


def function(frame: FrameType) -> str:
    code = frame.f_code
    return f"{'/'.join(Path(code.co_filename).parts[-2:])}:{code.co_qualname}"


def main() -> None:
    from twisted.scripts.twistd import run

    Sampler(Path(sys.argv.pop(1))).install()
    run()


if __name__ == "__main__":
    main()
