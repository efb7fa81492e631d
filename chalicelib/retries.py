"""Pure: how a failed attempt goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class RetryPolicy:
    """`max_attempts` tries an event; waits double from `base_seconds` up to `max_seconds`."""

    max_attempts: int
    base_seconds: int
    max_seconds: int

    def is_last(self, attempts: int) -> bool:
        return attempts >= self.max_attempts

    def delay(self, failures: int, random: Callable[[], float]) -> int:
        """Whole seconds to wait after the nth failure: the last quarter of it is chance.

        What failed together (a database that was away) must not come back together.
        """
        # Bounded before it is raised: a message may have been received a thousand times.
        doubled: int = self.base_seconds * 2 ** min(max(failures, 1) - 1, 16)
        whole = min(doubled, self.max_seconds)
        return max(1, round(whole * (0.75 + 0.25 * random())))
