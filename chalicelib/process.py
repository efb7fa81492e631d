"""Use case: process a batch. One transaction writes it: keys, events and all that the handlers wrote, or nothing.

What fails alone fails alone: when the database refuses the whole, every event gets a transaction of its own.
What the database's absence causes is nobody's fault: nothing is charged, and all of it comes back later.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from decimal import Decimal
from enum import StrEnum
from math import inf
from typing import Any, Protocol
from uuid import UUID

from chalicelib.attempts import Attempt, Result, Runner, Status, Trigger, Work
from chalicelib.envelope import Accepted
from chalicelib.errors import DatabaseUnavailable, StatementFailed, TransactionEnded
from chalicelib.limits import Budget
from chalicelib.order import Entity, Order

# Each of them waited for as long as a lock may take: the rest would only use up the function's time.
_MOST_BLOCKED = 2

# Partitions are made and dropped a few at a time, and each may come between.
_MOST_CHANGES = 10


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
    """What became of an event. `attempts` are those it is charged with; none for what is not its fault."""

    kind: Kind
    attempts: int = 0
    reason: str = ""


class Transaction(Protocol):
    """The database's side of it; chalicelib.adapters.event_store gives each method's promise."""

    def keep_deliveries(self, events: Sequence[Accepted]) -> None: ...
    def claim(self, events: Sequence[Accepted]) -> set[UUID]: ...
    def owners(self, events: Sequence[Accepted]) -> dict[UUID, UUID]: ...
    def lock(self, ids: Sequence[UUID]) -> dict[UUID, tuple[str, int]]: ...
    def insert(self, rows: Sequence[tuple[Work, Result]]) -> None: ...
    def update(self, results: Sequence[tuple[UUID, Result]]) -> None: ...
    def record_duplicates(self, repeats: Sequence[tuple[Accepted, UUID]]) -> None: ...
    def lock_entities(self, entities: Sequence[Entity]) -> dict[Entity, Decimal]: ...
    def advance(self, versions: Mapping[Entity, tuple[Decimal, UUID]]) -> None: ...
    def record(self, attempts: Sequence[Attempt]) -> None: ...
    def attempt(
        self, handlers: Callable[[Any], None], row: tuple[Work, Result] | None, *, seconds: float
    ) -> BaseException | None: ...


class Store(Protocol):
    def transaction(self) -> AbstractContextManager[Transaction]: ...


@dataclass(frozen=True)
class Processor:
    """Processes batches."""

    store: Store
    runner: Runner

    def process(self, batch: Sequence[Work], time_left: Callable[[], float] = lambda: inf) -> dict[UUID, Outcome]:
        """The outcome of every event of the batch, by its id. Raises nothing that a database can cause.

        `time_left` is the seconds that the invocation has left.
        """
        # SQS may put two copies of one message into one batch; they are one event. It keeps no order, either.
        works = sorted({work.event.id: work for work in batch}.values(), key=lambda work: work.event.received_at)
        if not works:
            return {}
        budget = Budget(time_left)
        try:
            return self._together(works, budget)
        except DatabaseUnavailable as exc:
            return _all_later(works, f"database: {exc}")
        except (StatementFailed, TransactionEnded):
            return self._one_by_one(works, budget)

    def _one_by_one(self, works: Sequence[Work], budget: Budget) -> dict[UUID, Outcome]:
        outcomes: dict[UUID, Outcome] = {}
        blocked = 0
        reason = ""
        for at, work in enumerate(works):
            if blocked == _MOST_BLOCKED:
                return outcomes | _all_later(works[at:], reason)
            try:
                outcome = self._alone(work, budget)
            except DatabaseUnavailable as exc:
                return outcomes | _all_later(works[at:], f"database: {exc}")
            outcomes[work.event.id] = outcome
            if outcome.kind is Kind.RETRY and not outcome.attempts:
                blocked, reason = blocked + 1, outcome.reason
        return outcomes

    def _alone(self, work: Work, budget: Budget) -> Outcome:
        """As it is; without its payload, if that is what the database refuses (the bytes are kept, and handlers read
        those); and as failed, if its handlers left something that the commit refuses, or ended the transaction.
        """
        failure: BaseException | None = None
        changes = 0
        while True:
            try:
                return self._together([work], budget, failure)[work.event.id]
            except TransactionEnded as exc:
                failure = exc
            except StatementFailed as exc:
                if exc.partition_changed and changes < _MOST_CHANGES:
                    changes += 1
                elif exc.row_refused and work.payload_fits:
                    work = replace(work, payload_fits=False)
                elif exc.bad_data and failure is None:
                    failure = exc
                else:
                    # A lock that did not come, say: nobody's fault, and gone the next time.
                    return Outcome(Kind.RETRY, reason=str(exc))

    def _together(
        self, works: Sequence[Work], budget: Budget, failure: BaseException | None = None
    ) -> dict[UUID, Outcome]:
        """One transaction. With `failure`, handlers are not run: it is what came of them."""
        with self.store.transaction() as tx:
            outcomes, new, again = self._sort(works, tx)
            tries = [self.runner.prepare(work, 1, Trigger.FIRST, failure=failure) for work in new]
            tries += [
                self.runner.prepare(
                    work,
                    number,
                    Trigger.RETRY if work.attempts_before is None else Trigger.REDRIVE,
                    failure=failure,
                )
                for work, number in again
            ]
            order = Order(tx.lock_entities([entity for one in tries for entity in one.entities]))
            # A row whose handlers succeeded is in already, together with what they wrote; the others follow at once.
            rows: list[tuple[Work, Result]] = []
            made: list[Attempt] = []
            for one in tries:
                attempt = self.runner.run(one, tx, order, budget)
                if attempt is None:
                    outcomes[one.work.event.id] = Outcome(Kind.RETRY, reason="no time left in this invocation")
                    continue
                made.append(attempt)
                if one.number == 1 and (attempt.failure or not one.handlers):
                    rows.append((one.work, attempt.result))
            tx.insert(rows)
            tx.update([(attempt.event.id, attempt.result) for attempt in made if attempt.result.attempts > 1])
            tx.advance(order.advanced)
            tx.record(made)
        return outcomes | {attempt.event.id: _outcome(attempt) for attempt in made}

    def _sort(
        self, works: Sequence[Work], tx: Transaction
    ) -> tuple[dict[UUID, Outcome], list[Work], list[tuple[Work, int]]]:
        """Which events have their outcome already, which are new, and which run again, with the attempt's number."""
        outcomes: dict[UUID, Outcome] = {}
        tx.keep_deliveries([work.event for work in works if work.event.delivery_body is not None])
        first = tx.claim([work.event for work in works])
        new = [work for work in works if work.event.id in first]
        known: list[Work] = []
        if seen := [work for work in works if work.event.id not in first]:
            owners = tx.owners([work.event for work in seen])
            repeats: list[tuple[Accepted, UUID]] = []
            for work in seen:
                owner = owners.get(work.event.id)
                if owner == work.event.id:
                    known.append(work)
                elif owner is not None:
                    repeats.append((work.event, owner))
                    outcomes[work.event.id] = Outcome(Kind.DUPLICATE)
                else:
                    outcomes[work.event.id] = Outcome(Kind.RETRY, reason="its dedup key just expired")
            tx.record_duplicates(repeats)

        again: list[tuple[Work, int]] = []
        states = tx.lock([work.event.id for work in known]) if known else {}
        for work in known:
            if work.event.id not in states:
                new.append(work)  # its row was dropped with its partition, or a handler's commit came before it
                continue
            status, attempts = states[work.event.id]
            if Status(status).is_done:
                outcomes[work.event.id] = Outcome(Kind.ALREADY_PROCESSED)
            elif status == Status.DEAD and work.attempts_before != attempts:
                # The function died after it had given this event up and before it had moved the message.
                outcomes[work.event.id] = Outcome(Kind.DEAD, attempts, "attempts exhausted")
            else:
                again.append((work, attempts + 1))
        return outcomes, new, again


def _outcome(attempt: Attempt) -> Outcome:
    kind = {
        Status.PROCESSED: Kind.PROCESSED,
        Status.STALE: Kind.STALE,
        Status.FAILED: Kind.RETRY,
        Status.DEAD: Kind.DEAD,
    }[attempt.result.status]
    failure = attempt.failure
    reason = f"{failure.error_class}: {failure.message}" if failure else ""
    return Outcome(kind, attempt.result.attempts, reason)


def _all_later(works: Sequence[Work], reason: str) -> dict[UUID, Outcome]:
    return {work.event.id: Outcome(Kind.RETRY, reason=reason) for work in works}
