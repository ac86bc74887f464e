"""How often each may ask: a bucket of tokens for every name, filled at a steady rate."""

from collections.abc import Callable
from time import monotonic

BURST_S = 1.0
"""Seconds whose requests may come at once."""


class Rates:
    """Buckets by name, each full at first.

    per_second : tokens that flow into each bucket; 0: nothing is limited

    >>> rates = Rates(2, clock=iter([0.0, 0.0, 0.0, 0.25]).__next__)
    >>> [rates.wait_s("web") for _ in range(4)]
    [0.0, 0.0, 0.5, 0.25]
    """

    def __init__(self, per_second: float, clock: Callable[[], float] = monotonic) -> None:
        self._per_second = per_second
        self._most = max(1.0, per_second * BURST_S)
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}

    def wait_s(self, name: str) -> float:
        """Takes a token and returns 0.0, or takes none and returns the seconds until there will be one."""
        if not self._per_second:
            return 0.0
        now = self._clock()
        tokens, at = self._buckets.get(name, (self._most, now))
        tokens = min(self._most, tokens + (now - at) * self._per_second)
        wait_s = max(0.0, (1 - tokens) / self._per_second)
        self._buckets[name] = (tokens if wait_s else tokens - 1, now)
        return wait_s
