"""Outages of the database that one container has lived through: what came in them is no suspect.

An event that was received before without a verdict may have ended the function, and is tried in a process of its own.
After an outage that is said of every event that waited, and one at a time they would take many times as long as
together. Whoever told the outage himself knows better: he was there, and nothing ended him. An event that does end the
function ends this memory with it; it costs each container once, and the next one singles it out.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

# After the last sign of one: longer than a message waits for its next try.
_REMEMBERED_SECONDS = 1_800.0


@dataclass
class Outages:
    """What one container has seen of them. `clock` counts seconds."""

    clock: Callable[[], float] = time.monotonic
    _until: float = float("-inf")

    def note(self) -> None:
        """There is one now."""
        self._until = self.clock() + _REMEMBERED_SECONDS

    @property
    def are_recent(self) -> bool:
        return self.clock() < self._until
