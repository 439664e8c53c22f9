"""Apache Kafka for the tests: its jars by Maven, kept in a cache folder outside the checkout."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

POM = Path(__file__).with_name("pom.xml")


class KafkaMissingError(RuntimeError):
    """No broker can be had here. The text says what to install."""


def install() -> Path:
    """The folder of Kafka's jars: from the cache, else by Maven (which apt brings, for root)."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ws-gateway-tests"
    cache.mkdir(parents=True, exist_ok=True)
    jars = cache / "kafka-4.1.0"
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several test processes may start at once
        if not shutil.which("java"):
            _apt("openjdk-17-jre-headless")
        if not jars.exists():
            if not shutil.which("mvn"):
                _apt("maven")
            partial = jars.with_suffix(".partial")
            command = [
                "mvn",
                "-q",
                "-B",
                "-f",
                str(POM),
                "dependency:copy-dependencies",
                f"-DoutputDirectory={partial}",
            ]
            done = subprocess.run(command, capture_output=True, text=True, timeout=600, stdin=subprocess.DEVNULL)
            if done.returncode:
                raise KafkaMissingError(f"Maven cannot get Apache Kafka: {done.stdout[-2000:]}{done.stderr[-2000:]}")
            partial.rename(jars)
    return jars


def _apt(package: str) -> None:
    command = ["apt-get", "install", "-y", "--no-install-recommends", package]
    if os.geteuid() or not shutil.which("apt-get"):
        raise KafkaMissingError(f"Apache Kafka needs {package}: sudo {' '.join(command)}")
    for step in (["apt-get", "update"], command):
        done = subprocess.run(step, capture_output=True, text=True, timeout=900, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise KafkaMissingError(f"{' '.join(command)}: {done.stderr[-2000:]}")
