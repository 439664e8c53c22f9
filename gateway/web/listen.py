"""The listening sockets: Twisted's endpoint strings, bound before privileges go, told plainly if that fails."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
import stat
from collections.abc import Sequence
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.endpoints import quoteStringArgument, serverFromString
from twisted.internet.error import CannotListenError
from twisted.logger import Logger

from gateway.errors import GatewayError, Kind

BACKLOG = (
    1024  # connections that wait for accept: a reconnect storm must not overflow it (the kernel caps it: somaxconn)
)

_UNIX = re.compile(r"unix:(?:address=)?((?:\\.|[^:\\])+)")
_log = Logger()


def tcp(host: str, port: int) -> str:
    """The endpoint string of a TCP port (``twisted.internet.endpoints``)."""
    return f"tcp:{port}:interface={quoteStringArgument(host)}:backlog={BACKLOG}"


class Listener(Service):
    """Listens on endpoints for one factory.

    ``setting`` is the configuration key to name where that fails. The strings are read at once, so that a socket handed
    over by systemd is found before the process forks; nothing is bound until ``privilegedStartService``. Both raise
    GatewayError.
    """

    def __init__(self, reactor: Any, endpoints: Sequence[str], factory: Any, setting: str) -> None:
        self._setting = setting
        self._factory = factory
        self._ports: list[Any] = []
        self._endpoints: list[tuple[str, Any]] = []
        for text in endpoints:
            try:
                self._endpoints.append((text, serverFromString(reactor, text)))
            except Exception as error:
                handed_over = text.startswith("systemd:") and isinstance(error, LookupError)
                why = "systemd has not handed over this socket" if handed_over else f"not an endpoint: {error}"
                raise self._error(text, why) from None

    def privilegedStartService(self) -> None:
        """Bind and listen."""
        super().privilegedStartService()
        for text, endpoint in self._endpoints:
            _remove_stale_socket(text)
            try:
                port = _now(endpoint.listen(self._factory))
            except CannotListenError as error:
                raise self._error(text, _reason(error.socketError)) from None
            except OSError as error:
                raise self._error(text, _reason(error)) from None
            self._ports.append(port)
            _log.info("listening on {address}", address=_spell(port.getHost()))

    def stopService(self) -> Deferred[Any]:
        """Stop to listen; connections are left alone."""
        super().stopService()
        return gatherResults([maybeDeferred(port.stopListening) for port in self._ports])

    def _error(self, endpoint: str, why: str) -> GatewayError:
        return GatewayError(f"cannot listen: {why}: {endpoint} ({self._setting})", Kind.UNAVAILABLE)


def _now(listening: Deferred[Any]) -> Any:
    """The result of a Deferred that has one: endpoints of servers bind at once. Raises its failure."""
    results: list[Any] = []
    failures: list[Any] = []
    listening.addCallbacks(results.append, failures.append)
    if failures:
        failures[0].raiseException()
    return results[0]


def _reason(error: object) -> str:
    number = getattr(error, "errno", None)
    if number == errno.EADDRINUSE:
        return "another process listens there"
    if number == errno.EACCES:
        return "not allowed; a port below 1024 needs root, which twistd gives up after binding (--uid, --gid)"
    if number == errno.EADDRNOTAVAIL:
        return "no interface of this machine has that address"
    return str(error)


def _spell(address: Any) -> str:
    name = getattr(address, "name", None)  # of a UNIX socket
    if name is not None:
        return os.fsdecode(name)
    return f"[{address.host}]:{address.port}" if ":" in address.host else f"{address.host}:{address.port}"


def _remove_stale_socket(endpoint: str) -> None:
    """A process that was killed leaves its UNIX socket behind; one that still answers keeps it."""
    match = _UNIX.match(endpoint)
    if match is None:
        return
    path = re.sub(r"\\(.)", r"\1", match[1])
    with contextlib.suppress(FileNotFoundError), socket.socket(socket.AF_UNIX) as probe:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
