"""Who is connected to this process."""

from __future__ import annotations

from collections.abc import Collection

from gateway.core.session import Session
from gateway.core.subscribers import Subscribers


class Roster:
    """Every session, by its id and by its user."""

    def __init__(self) -> None:
        self.by_id: dict[str, Session] = {}
        self._by_user: Subscribers[Session] = Subscribers(0)

    def add(self, session: Session) -> None:
        self.by_id[session.id] = session
        self._by_user.add(session, (session.principal.user,))

    def remove(self, session: Session) -> bool:
        """Whether it was there."""
        self._by_user.remove(session, (session.principal.user,))
        return self.by_id.pop(session.id, None) is not None

    def of_user(self, user: str) -> Collection[Session]:
        return self._by_user.at(user)

    def __len__(self) -> int:
        return len(self.by_id)
