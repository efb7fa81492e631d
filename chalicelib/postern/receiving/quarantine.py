"""Which refused deliveries are kept to be explained: few, small ones, whoever floods us."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

# Of strangers. What was verified is kept if it fits a message of the queue.
MAX_KEPT_BYTES = 65_536

# So many a minute of each source in one container: of strangers, and of those who signed.
MAX_OF_STRANGERS, MAX_VERIFIED = 10, 300


@dataclass
class RateCap:
    """A bucket of `most` tokens for each name, filled anew within `seconds`; one container's own."""

    clock: Callable[[], float]
    most: int = MAX_OF_STRANGERS
    seconds: float = 60.0
    _left: dict[str, tuple[float, float]] = field(default_factory=dict)

    def allows(self, name: str) -> bool:
        """Takes a token, if there is one."""
        now = self.clock()
        tokens, at = self._left.get(name, (float(self.most), now))
        tokens = min(self.most, tokens + (now - at) * self.most / self.seconds)
        allowed = tokens >= 1
        self._left[name] = (tokens - 1 if allowed else tokens, now)
        return allowed
