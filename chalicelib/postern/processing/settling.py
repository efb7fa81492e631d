"""The retry policy: when an event is dead, how long it waits, and how it goes on with its message.

An event is charged an attempt for what is its own fault, and is dead after `max_attempts`. What is nobody's fault, a
lock that did not come or an invocation that ran out of time, is not charged; but after `max_uncharged` of those it is.
An absent database alone is never charged, however long it lasts. Whose fault a failure is, `engine` finds out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

# Of a message that is sent (SQS's SendMessage).
_MAX_SEND_DELAY = 900


class Kind(StrEnum):
    PROCESSED = "processed"
    STALE = "stale"
    DUPLICATE = "duplicate"
    ALREADY_PROCESSED = "already_processed"
    REPLAYED = "replayed"
    REPLAY_FAILED = "replay_failed"  # after its last try; its row is as it was
    REPLAY_SKIPPED = "replay_skipped"  # cancelled, done before, or its event is gone
    KEPT = "kept"  # no event: a refused delivery
    RETRY = "retry"
    DEAD = "dead"


@dataclass(frozen=True)
class Outcome:
    """What became of an event. `attempts` are those it is charged with; none for what is not its fault. `delay`: after
    how many seconds its handler wants it again.
    """

    kind: Kind
    attempts: int = 0
    reason: str = ""
    delay: int | None = None


@dataclass(frozen=True)
class RetryPolicy:
    """`max_attempts` tries an event; waits double from `base_seconds` up to `max_seconds`.

    `max_uncharged`: how often an event may come to nothing without being charged for it.
    `max_receives`: after how many receives SQS gives up on a message by itself.
    `max_later_seconds`: for how long its handlers may put an event off.
    """

    max_attempts: int
    base_seconds: int
    max_seconds: int
    max_uncharged: int = 5
    max_receives: int = 100
    max_later_seconds: int = 86_400

    def is_last(self, attempts: int) -> bool:
        return attempts >= self.max_attempts

    def gives_up(self, attempts: int, *, permanent: bool) -> bool:
        """Whether an event is dead that has failed so often. `permanent`: another try would fail as well."""
        return permanent or self.is_last(attempts)

    def is_patient_with(self, receives: int) -> bool:
        """Whether something that is nobody's fault may still go uncharged on this receive."""
        return receives <= self.max_attempts + self.max_uncharged

    @property
    def renewed_after(self) -> int:
        """Receives after which a message is sent anew. A tenth is left for what ends the function, which counts as a
        receive as well."""
        return max(1, self.max_receives - max(1, self.max_receives // 10))

    def delay(self, failures: int, random: Callable[[], float]) -> int:
        """Whole seconds to wait after the nth failure: the last quarter of it is chance.

        What failed together (a database that was away) must not come back together.
        """
        # Bounded before it is raised: a message may have been received a thousand times.
        doubled: int = self.base_seconds * 2 ** min(max(failures, 1) - 1, 16)
        whole = min(doubled, self.max_seconds)
        return max(1, round(whole * (0.75 + 0.25 * random())))


@dataclass(frozen=True)
class Done:
    """The message is deleted."""


@dataclass(frozen=True)
class Again:
    """The message comes again after `delay` seconds."""

    delay: int


@dataclass(frozen=True)
class Renew:
    """A new message takes its place after `delay` seconds, before SQS takes this one for dead."""

    delay: int


@dataclass(frozen=True)
class Bury:
    """The message goes to the dead letters. `attempts`: how often it was tried, which a redrive does not count."""

    attempts: int
    reason: str


Decision = Done | Again | Renew | Bury


def settle(
    outcome: Outcome, receives: int, policy: RetryPolicy, random: Callable[[], float], *, is_event: bool = True
) -> Decision:
    """`receives`: how often the message was received. `is_event`: whether it could be read at all."""
    if outcome.kind is Kind.DEAD:
        return Bury(outcome.attempts, outcome.reason)
    if outcome.kind is not Kind.RETRY:
        return Done()
    delay = policy.delay(outcome.attempts or receives, random) if outcome.delay is None else outcome.delay
    if is_event and not outcome.attempts and receives >= policy.renewed_after:
        return Renew(min(delay, _MAX_SEND_DELAY))
    return Again(delay)


def charged_by_receives(receives: int, reason: str, policy: RetryPolicy) -> Outcome:
    """For what has no row in which attempts could be counted: its receives are."""
    if policy.is_last(receives):
        return Outcome(Kind.DEAD, reason=reason)
    return Outcome(Kind.RETRY, receives, reason)
