"""What an operator is told where the gateway cannot listen."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactor

from gateway.errors import GatewayError
from gateway.web.listen import BACKLOG, Listener, tcp


class FullReactor(MemoryReactor):
    """Every bind fails for one reason."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> Any:
        raise CannotListenError(interface, port, OSError(self.number, os.strerror(self.number)))


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (errno.EADDRINUSE, "another process listens there"),
        (errno.EACCES, "--uid"),
        (errno.EADDRNOTAVAIL, "no interface of this machine"),
        (errno.ENOBUFS, os.strerror(errno.ENOBUFS)),
    ],
)
def test_the_reason_is_told_with_what_to_do(number: int, told: str) -> None:
    """The number of an error helps nobody at night."""
    listener = Listener(FullReactor(number), [tcp("192.0.2.1", 80)], Factory(), "server.port")
    with pytest.raises(GatewayError) as error:
        listener.privilegedStartService()
    assert told in str(error.value)
    assert "server.port" in str(error.value)
    assert "192.0.2.1" in str(error.value)


@pytest.mark.parametrize("endpoint", ["tcp", "tcp:http", "nonsense:1", "", "unix"])
def test_what_is_no_endpoint_is_refused_before_anything_is_bound(endpoint: str) -> None:
    """A mistake in the second endpoint must not be found after the first has begun to take clients."""
    reactor = MemoryReactor()
    with pytest.raises(GatewayError, match=r"not an endpoint.*server\.listen"):
        Listener(reactor, [tcp("127.0.0.1", 0), endpoint], Factory(), "server.listen")
    assert not reactor.tcpServers


def test_a_unix_socket_in_a_folder_that_is_missing(tmp_path: Path) -> None:
    """The commonest mistake with /run after a reboot."""
    from twisted.internet import selectreactor  # a real reactor, that is not the global one

    reactor = selectreactor.SelectReactor()
    listener = Listener(reactor, [f"unix:{tmp_path}/missing/gateway.sock"], Factory(), "server.listen")
    with pytest.raises(GatewayError, match="No such file or directory"):
        listener.privilegedStartService()
    reactor.removeAll()


def test_a_storm_of_clients_finds_room_in_the_queue() -> None:
    """Twisted's own backlog is 50: the kernel would let the rest of a storm wait for seconds."""
    reactor = MemoryReactor()
    Listener(reactor, [tcp("::1", 8080)], Factory(), "server.port").privilegedStartService()
    ((port, _, backlog, interface),) = reactor.tcpServers
    assert (port, backlog, interface) == (8080, BACKLOG, "::1")
    assert BACKLOG >= 1000
