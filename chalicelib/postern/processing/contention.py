"""Handlers whose transactions are in each other's way: for a while one of them goes at a time.

A batch holds the rows of all its events until it commits. Two batches that meet at two rows from both sides are a
deadlock, which PostgreSQL takes a second to see; and where all events want the same few rows (a counter for each
branch, a balance), nearly every pair of batches is one. Who waits in line instead, before it holds anything, works as
fast as if there were one worker alone.

It is a courtesy, on which nothing relies: who has waited too long goes on without.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

# For how long after the last time that they met.
_REMEMBERED_SECONDS = 60.0


@dataclass
class Contention:
    """What one container has seen of it, by the names of handlers. `clock` counts seconds."""

    clock: Callable[[], float] = time.monotonic
    _until: dict[str, float] = field(default_factory=dict)

    def note(self, handlers: Collection[str]) -> bool:
        """These have met others. Whether that is new of any of them."""
        new = set(handlers) - set(self.among(handlers))
        self._until |= dict.fromkeys(handlers, self.clock() + _REMEMBERED_SECONDS)
        return bool(new)

    def among(self, handlers: Collection[str]) -> list[str]:
        """Those of these that have met others of late."""
        now = self.clock()
        return sorted(name for name in handlers if self._until.get(name, now) > now)
