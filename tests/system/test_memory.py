"""What connections leave behind when they are gone: nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path

from websockets.asyncio.client import connect

from tests.support.daemon import Daemon, until

CHURN = 1500  # connections
AT_ONCE = 50


def churn(daemon: Daemon, connections: int) -> None:
    """Clients that come, subscribe to what their token allows, and go; then wait until the daemon has none."""

    async def one(number: int) -> None:
        async with connect(daemon.url(user=f"user-{number}"), compression=None) as client:
            await client.recv()
            if number % 3 == 0:  # not all say good-bye
                client.transport.abort()

    async def all_of_them() -> None:
        for first in range(0, connections, AT_ONCE):
            await asyncio.gather(*[one(first + i) for i in range(AT_ONCE)])

    asyncio.run(all_of_them())
    until(lambda: daemon.metrics()["ws_gateway_websocket_active_connections"] == 0, "all connections are gone")


def test_closed_connections_leave_no_circles_and_no_memory(tmp_path: Path) -> None:
    """What a closed connection leaves in a circle costs a collection, which stops the reactor, or, once frozen, stays
    for ever: 26 objects each with Autobahn as it comes."""
    limits = {"connectionsPerAddress": 0, "handshakesPerSecond": 100_000}
    with Daemon({"limits": limits}, tmp_path) as daemon:
        churn(daemon, CHURN)  # caches fill, arenas are taken
        before = daemon.metrics()
        churn(daemon, CHURN)
        after = daemon.metrics()
    collected = sum(
        after[name] - before[name] for name in after if name.startswith("python_gc_objects_collected_total")
    )
    assert collected < CHURN  # HTTP requests leave some, each connection would leave many
    grown = after["process_resident_memory_bytes"] - before["process_resident_memory_bytes"]
    assert grown < 1000 * CHURN  # bytes: 26 objects are more than 2 KiB
