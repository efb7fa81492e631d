"""Use case: process a batch. One transaction writes it: keys, events and all that the handlers wrote, or nothing.

What fails alone fails alone: when the database refuses the whole, every event gets a transaction of its own.
What the database's absence causes is nobody's fault: nothing is charged, and all of it comes back later.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from copy import deepcopy
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol
from uuid import UUID

from chalicelib import handling, payloads
from chalicelib.deliveries import Event
from chalicelib.envelope import Accepted
from chalicelib.errors import DatabaseUnavailable, StatementFailed, TransactionEnded
from chalicelib.handling import Handler
from chalicelib.retries import RetryPolicy

# Each of them waited for as long as a lock may take: the rest would only use up the function's time.
_MOST_BLOCKED = 2


class Status(StrEnum):
    """The states of a stored event (docs/architecture.md has the diagram)."""

    PROCESSED = "processed"
    FAILED = "failed"
    DEAD = "dead"


@dataclass(frozen=True)
class Work:
    """One event of a batch, its bytes at hand.

    `attempts_before`: how many attempts it had when it was moved to the dead letters that it now comes from.
    `payload_fits`: False once the database has refused its payload as jsonb.
    """

    event: Accepted
    body: bytes
    attempts_before: int | None = None
    payload_fits: bool = True


@dataclass(frozen=True)
class Result:
    """What an event's row says of it."""

    status: Status
    attempts: int
    error: str | None = None
    processed_at: datetime | None = None


class Kind(StrEnum):
    PROCESSED = "processed"
    DUPLICATE = "duplicate"
    ALREADY_PROCESSED = "already_processed"
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
    def attempt(self, handlers: Callable[[Any], None], row: tuple[Work, Result] | None) -> BaseException | None: ...


class Store(Protocol):
    def transaction(self) -> AbstractContextManager[Transaction]: ...


@dataclass(frozen=True)
class Processor:
    """Processes batches with these handlers."""

    store: Store
    handlers: Sequence[Handler]
    policy: RetryPolicy
    now: Callable[[], datetime]

    def process(self, batch: Sequence[Work]) -> dict[UUID, Outcome]:
        """The outcome of every event of the batch, by its id. Raises nothing that a database can cause."""
        # SQS may put two copies of one message into one batch; they are one event.
        works = list({work.event.id: work for work in batch}.values())
        if not works:
            return {}
        try:
            return self._together(works)
        except DatabaseUnavailable as exc:
            return _all_later(works, f"database: {exc}")
        except (StatementFailed, TransactionEnded):
            return self._one_by_one(works)

    def _one_by_one(self, works: Sequence[Work]) -> dict[UUID, Outcome]:
        outcomes: dict[UUID, Outcome] = {}
        blocked = 0
        for at, work in enumerate(works):
            if blocked == _MOST_BLOCKED:
                return outcomes | _all_later(works[at:], "locked by another transaction")
            try:
                outcome = self._alone(work)
            except DatabaseUnavailable as exc:
                return outcomes | _all_later(works[at:], f"database: {exc}")
            outcomes[work.event.id] = outcome
            blocked += outcome.kind is Kind.RETRY and not outcome.attempts
        return outcomes

    def _alone(self, work: Work) -> Outcome:
        """As it is; without its payload, if that is what the database refuses (the bytes are kept, and handlers read
        those); and as failed, if its handlers left something that the commit refuses, or ended the transaction.
        """
        failure: BaseException | None = None
        while True:
            try:
                return self._together([work], failure)[work.event.id]
            except TransactionEnded as exc:
                failure = exc
            except StatementFailed as exc:
                if exc.row_refused and work.payload_fits:
                    work = replace(work, payload_fits=False)
                elif exc.bad_data and failure is None:
                    failure = exc
                else:
                    # A lock that did not come, say: nobody's fault, and gone the next time.
                    return Outcome(Kind.RETRY, reason=str(exc))

    def _together(self, works: Sequence[Work], failure: BaseException | None = None) -> dict[UUID, Outcome]:
        """One transaction. With `failure`, handlers are not run: it is what came of them."""
        with self.store.transaction() as tx:
            outcomes, new, again = self._sort(works, tx)
            # A row whose handlers succeeded is in already, together with what they wrote; the others follow at once.
            rows: list[tuple[Work, Result]] = []
            results: dict[UUID, Result] = {}
            for work in new:
                result, stored = self._run(work, 1, tx, failure)
                results[work.event.id] = result
                if not stored:
                    rows.append((work, result))
            tx.insert(rows)
            for work, attempts in again:
                results[work.event.id], _ = self._run(work, attempts, tx, failure)
            tx.update([(work.event.id, results[work.event.id]) for work, _ in again])
        return outcomes | {id: _outcome(result) for id, result in results.items()}

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
            if status == Status.PROCESSED:
                outcomes[work.event.id] = Outcome(Kind.ALREADY_PROCESSED)
            elif status == Status.DEAD and work.attempts_before != attempts:
                # The function died after it had given this event up and before it had moved the message.
                outcomes[work.event.id] = Outcome(Kind.DEAD, attempts, "attempts exhausted")
            else:
                again.append((work, attempts + 1))
        return outcomes, new, again

    def _run(self, work: Work, attempts: int, tx: Transaction, failure: BaseException | None) -> tuple[Result, bool]:
        """The event's result, and whether its row is in with it."""
        event = work.event
        processed = Result(Status.PROCESSED, attempts, processed_at=self.now())
        if failure is None:
            handlers = [h for h in self.handlers if h.takes(event.source, event.type)]
            if not handlers:
                return processed, False
            failure = tx.attempt(
                lambda db: handling.run(handlers, _announced(work, attempts), db),
                row=(work, processed) if attempts == 1 else None,
            )
            if failure is None:
                return processed, attempts == 1
        since_redrive = attempts - (work.attempts_before or 0)
        status = Status.DEAD if self.policy.is_last(since_redrive) else Status.FAILED
        return Result(status, attempts, error=handling.describe(failure)), False


def _announced(work: Work, attempts: int) -> Event:
    event = work.event
    text = payloads.text_of(work.body, event.form_field, event.format)
    return Event(
        id=event.id,
        source=event.source,
        type=event.type,
        dedup_key=event.dedup_key,
        received_at=event.received_at,
        headers=deepcopy(dict(event.headers)),  # a handler may do with it as it likes
        payload=None if text is None else payloads.parse(text),
        body=work.body,
        attempt=attempts,
        request_id=event.request_id,
    )


def _outcome(result: Result) -> Outcome:
    kind = {
        Status.PROCESSED: Kind.PROCESSED,
        Status.FAILED: Kind.RETRY,
        Status.DEAD: Kind.DEAD,
    }[result.status]
    reason = result.error.splitlines()[0] if result.error else ""
    return Outcome(kind, result.attempts, reason)


def _all_later(works: Sequence[Work], reason: str) -> dict[UUID, Outcome]:
    return {work.event.id: Outcome(Kind.RETRY, reason=reason) for work in works}
