"""A machine of its own, as far as TCP can tell: a network namespace, joined by a virtual cable, that can vanish."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any, Self

import pytest

CLONE_NEWNET = 0x40000000  # sched.h


class Host:
    """A context. ``ours`` is our address on the cable, to be listened on; ``run`` calls something over there, such as
    opening a socket, which stays there; after ``vanish`` nothing comes from there any more, not even an
    acknowledgement or a reset.
    """

    def __init__(self) -> None:
        if os.getuid() != 0 or shutil.which("ip") is None:
            reason = "a network namespace needs root and iproute2: apt-get install iproute2"
            assert os.environ.get("CI") != "true", reason
            pytest.skip(reason)
        number = os.getpid() % 0x4000  # a network of our own in 10.64.0.0/10: 198.18.0.0/15 may be somebody's
        base = (10 << 24) + (64 << 16) + number * 4
        self.ours, self.theirs = (".".join(str(base + i >> shift & 255) for shift in (24, 16, 8, 0)) for i in (1, 2))
        self._name = f"wsgw{os.getpid()}"

    def __enter__(self) -> Self:
        name = self._name
        self._ip("netns", "add", name)
        try:
            self._ip("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
            self._ip("addr", "add", f"{self.ours}/30", "dev", name)
            self._ip("link", "set", name, "up")
            self._ip("-n", name, "addr", "add", f"{self.theirs}/30", "dev", "eth0")
            self._ip("-n", name, "link", "set", "eth0", "up")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(["ip", "link", "del", self._name], check=False, timeout=10)  # with its other end
        self._ip("netns", "del", self._name)

    def run(self, make: Any, *args: Any, **options: Any) -> Any:
        """What ``make`` returns, called over there: in a thread, which alone changes over."""
        results: list[Any] = []

        def there() -> None:
            with Path(f"/run/netns/{self._name}").open() as namespace:
                if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), "setns")
            results.append(make(*args, **options))

        thread = threading.Thread(target=there)
        thread.start()
        thread.join()
        (result,) = results
        return result

    def vanish(self) -> None:
        """It has its address no more: what comes for it is dropped without a word."""
        self._ip("-n", self._name, "addr", "flush", "dev", "eth0")

    def _ip(self, *arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True, timeout=10)
