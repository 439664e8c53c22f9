"""What the machine says: who it is, and what processes and cores have used (proc(5))."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path

import attrs

TICK = 1 / os.sysconf("SC_CLK_TCK")
GATEWAY_CORE, LOAD_CORE = 0, 1


def description() -> dict[str, str | int]:
    """The machine, as results and the table name it."""
    cpuinfo = Path("/proc/cpuinfo").read_text()
    models = [line.split(":", 1)[1].strip() for line in cpuinfo.splitlines() if line.startswith("model name")]
    meminfo = Path("/proc/meminfo").read_text().split()
    return {
        "cpu": models[0] if models else platform.machine(),
        "cores": os.cpu_count() or 1,
        "memory_gib": round(int(meminfo[1]) / 2**20),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def cpu(pid: int) -> float:
    """Seconds of CPU, user and system, that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) * TICK


def rss(pid: int) -> int:
    """Resident bytes of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@attrs.frozen
class Sample:
    """A process and the gateway's core at one moment, in seconds."""

    at: float
    used: float  # by the process
    busy: float  # the core, whoever used it
    stolen: float  # the core, by the hypervisor

    @classmethod
    def of(cls, pid: int) -> Sample:
        core = f"cpu{GATEWAY_CORE} "
        line = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith(core))
        user, nice, system, _, _, irq, softirq, steal, *_ = (int(field) * TICK for field in line.split()[1:])
        return cls(time.monotonic(), cpu(pid), user + nice + system + irq + softirq + steal, steal)


@attrs.frozen
class Use:
    """What was used between two samples."""

    seconds: float
    cpu: float
    noise: float  # share of the core's time that neither the process had nor was idle: other processes, the hypervisor

    @classmethod
    def between(cls, before: Sample, after: Sample) -> Use:
        seconds, used = after.at - before.at, after.used - before.used
        return cls(seconds, used, max(0.0, after.busy - before.busy - used) / seconds)
