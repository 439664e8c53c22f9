"""Limits as values: a rate, a count of events in a span of time, a count of what is there at once.

Time is an argument, in monotonic seconds. A limit of 0 is none, as in the configuration.
"""

from __future__ import annotations

import attrs


@attrs.define
class TokenBucket:
    """``rate`` a second, and ``burst`` at once. An amount above ``burst`` takes the full bucket and leaves a debt, so
    that what is allowed by size is never refused for good by rate."""

    rate: float
    burst: float
    _tokens: float = attrs.field(init=False)
    _since: float = attrs.field(init=False, default=float("-inf"))

    @_tokens.default
    def _full(self) -> float:
        return self.burst

    def take(self, now: float, amount: float = 1.0) -> float:
        """0.0: granted. Else nothing is taken, and the answer is the seconds until it would be granted."""
        if self.rate <= 0:
            return 0.0
        if now > self._since:
            self._tokens = min(self.burst, self._tokens + (now - self._since) * self.rate)
            self._since = now
        missing = min(amount, self.burst) - self._tokens
        if missing > 1e-9:  # of what adding up fractions leaves behind
            return missing / self.rate
        self._tokens -= amount
        return 0.0


@attrs.define
class EventWindow:
    """Whether something has happened ``limit`` times within ``seconds``. Keeps at most ``limit`` times."""

    limit: int
    seconds: float
    _times: list[float] = attrs.field(init=False, factory=list)

    def hit(self, now: float) -> bool:
        """It happened. True: with this the limit is reached."""
        if self.limit <= 0:
            return False
        self._times.append(now)
        self._times = [time for time in self._times[-self.limit :] if time > now - self.seconds]
        return len(self._times) >= self.limit


@attrs.define
class Occupancy:
    """How many are there at once, by key (a user, an address). Keys without anybody are forgotten, so that it is never
    larger than the number of those who are there."""

    limit: int
    _counts: dict[str, int] = attrs.field(init=False, factory=dict)

    def enter(self, key: str) -> bool:
        """One more; False: there are ``limit`` already, and this one does not count."""
        count = self._counts.get(key, 0)
        if 0 < self.limit <= count:
            return False
        self._counts[key] = count + 1
        return True

    def leave(self, key: str) -> None:
        """One less. Raises KeyError for a key that nobody entered."""
        count = self._counts[key] - 1
        if count:
            self._counts[key] = count
        else:
            del self._counts[key]

    def count(self, key: str) -> int:
        """How many there are of ``key``."""
        return self._counts.get(key, 0)

    def __len__(self) -> int:
        return len(self._counts)
