"""Use case: process a stored event once more, because a person asked for it.

Each event of a replay is processed once, however often its message comes: its item says what became of it, and is
locked together with the event's row. What fails keeps the status that it had before; a replay never makes a processed
event a failed one, and its messages never become dead letters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any, Protocol
from uuid import UUID

from chalicelib.attempts import Attempt, Result, Runner, Status, Trigger, Work
from chalicelib.envelope import Replay
from chalicelib.errors import DatabaseUnavailable, StatementFailed, TransactionEnded
from chalicelib.limits import Budget
from chalicelib.order import Entity, Order
from chalicelib.process import Kind, Outcome

_UNSETTLED = ("waiting", "queued")


@dataclass(frozen=True)
class Item:
    """An event's part in a replay. `running` is False once the replay was cancelled."""

    state: str
    tries: int
    trigger: Trigger
    running: bool


@dataclass(frozen=True)
class Stored:
    """An event as it is stored."""

    work: Work
    status: Status
    attempts: int
    processed_at: datetime | None


class Transaction(Protocol):
    """The database's side of it; chalicelib.adapters.replay_store gives each method's promise."""

    def item(self, replay: Replay) -> Item | None: ...
    def stored(self, id: UUID) -> Stored | None: ...
    def settle(self, replay: Replay, state: str, tries: int, error: str | None) -> None: ...
    def update(self, results: Sequence[tuple[UUID, Result]]) -> None: ...
    def lock_entities(self, entities: Sequence[Entity]) -> dict[Entity, Decimal]: ...
    def advance(self, versions: Mapping[Entity, tuple[Decimal, UUID]]) -> None: ...
    def record(self, attempts: Sequence[Attempt]) -> None: ...
    def attempt(
        self, handlers: Callable[[Any], None], row: tuple[Work, Result] | None, *, seconds: float
    ) -> BaseException | None: ...


class Store(Protocol):
    def transaction(self) -> AbstractContextManager[Transaction]: ...


@dataclass(frozen=True)
class Replayer:
    store: Store
    runner: Runner

    def replay(self, replay: Replay, budget: Budget) -> Outcome:
        """Raises nothing that a database can cause."""
        failure: BaseException | None = None
        while True:
            try:
                return self._once(replay, budget, failure)
            except DatabaseUnavailable as exc:
                return Outcome(Kind.RETRY, reason=f"database: {exc}")
            except (StatementFailed, TransactionEnded) as exc:
                at_fault = isinstance(exc, TransactionEnded) or exc.bad_data
                if failure is not None or not at_fault:
                    # A lock that did not come, say.
                    return Outcome(Kind.RETRY, reason=str(exc))
                failure = exc

    def _once(self, replay: Replay, budget: Budget, failure: BaseException | None) -> Outcome:
        with self.store.transaction() as tx:
            item = tx.item(replay)
            if item is None or item.state not in _UNSETTLED:
                return Outcome(Kind.REPLAY_SKIPPED, reason=item.state if item else "no such replay")
            if not item.running:
                tx.settle(replay, "cancelled", item.tries, None)
                return Outcome(Kind.REPLAY_SKIPPED, reason="cancelled")
            stored = tx.stored(replay.id)
            if stored is None:
                tx.settle(replay, "gone", item.tries, "The event is no longer stored.")
                return Outcome(Kind.REPLAY_SKIPPED, reason="gone")
            # Its tries count for the replay; its attempts go on.
            work = replace(stored.work, attempts_before=stored.attempts - item.tries)
            one = self.runner.prepare(
                work, stored.attempts + 1, item.trigger, failure=failure, replay_id=replay.replay_id
            )
            order = Order(tx.lock_entities(one.entities))
            attempt = self.runner.run(one, tx, order, budget)
            if attempt is None:
                return Outcome(Kind.RETRY, reason="no time left in this invocation")
            result = attempt.result
            if attempt.failure is None:
                tx.update([(replay.id, result)])
                tx.advance(order.advanced)
                tx.settle(replay, result.status, item.tries + 1, None)
                tx.record([attempt])
                return Outcome(Kind.REPLAYED, result.attempts)
            kept = replace(result, status=stored.status, processed_at=stored.processed_at)
            tx.update([(replay.id, replace(kept, error=None) if stored.status.is_done else kept)])
            last = result.status is Status.DEAD
            reason = f"{attempt.failure.error_class}: {attempt.failure.message}"
            tx.settle(replay, "failed" if last else "queued", item.tries + 1, reason)
            tx.record([replace(attempt, result=replace(result, status=Status.FAILED))])
            return Outcome(Kind.REPLAY_FAILED if last else Kind.RETRY, item.tries + 1, reason)
