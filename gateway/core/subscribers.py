"""Who listens to one topic: those who get all of it, and by address those who get the records of a user or a key.

Only who is pushed to stands here: a session that has fallen behind is taken out until it has caught up.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Generic, TypeVar

S = TypeVar("S")


class Subscribers(Generic[S]):
    """An index from address to sessions. A record costs one look-up an address, however many sessions there are."""

    def __init__(self, slots: int) -> None:
        # Of those who get everything, one group for each encoding, so that a batch is joined once for each.
        self.everyone: tuple[dict[S, None], ...] = tuple({} for _ in range(slots))
        # Most addresses have one session; a tuple of it takes a quarter of a dict's memory.
        self._by_address: dict[str, tuple[S] | dict[S, None]] = {}

    def at(self, address: str) -> Collection[S]:
        """The sessions that listen to ``address``."""
        return self._by_address.get(address, ())

    def add(self, session: S, addresses: Iterable[str]) -> None:
        for address in addresses:
            found = self._by_address.get(address)
            if found is None:
                self._by_address[address] = (session,)
            elif isinstance(found, dict):
                found[session] = None
            elif found[0] is not session:
                self._by_address[address] = {found[0]: None, session: None}

    def remove(self, session: S, addresses: Iterable[str]) -> None:
        for address in addresses:
            found = self._by_address.get(address)
            if isinstance(found, dict):
                found.pop(session, None)
                if len(found) == 1:
                    self._by_address[address] = (next(iter(found)),)
            elif found is not None and found[0] is session:
                del self._by_address[address]

    def __len__(self) -> int:
        """Addresses that somebody listens to, and sessions that get everything."""
        return len(self._by_address) + sum(map(len, self.everyone))
