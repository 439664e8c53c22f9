"""Node.js and its package ``ws`` for the tests, the package kept in a cache folder outside the checkout."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

WS = "ws@8"


class NodeMissingError(RuntimeError):
    """Node.js cannot be had here. The text says what to install."""


def install() -> Path:
    """The folder ``node_modules`` with ``ws`` in it: from the cache, else by npm."""
    for program, package in (("node", "nodejs"), ("npm", "npm")):
        if not shutil.which(program):
            raise NodeMissingError(f"there is no {program}: apt-get install {package}")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ws-gateway-tests" / "node"
    cache.mkdir(parents=True, exist_ok=True)
    modules = cache / "node_modules"
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several test processes may start at once
        if not (modules / "ws").exists():
            command = ["npm", "install", "--prefix", str(cache), "--no-audit", "--no-fund", WS]
            done = subprocess.run(command, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL)
            if done.returncode:
                raise NodeMissingError(f"npm cannot get {WS}: {done.stderr[-2000:]}")
    return modules
