"""One try at processing an event: which handlers take it, what they may, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Protocol
from uuid import UUID

from chalicelib import payloads
from chalicelib.deliveries import Event
from chalicelib.envelope import Accepted
from chalicelib.failures import Failure, failure_of
from chalicelib.handling import Handler
from chalicelib.limits import Budget, time_limit
from chalicelib.order import Entity, Order, Place, place_of
from chalicelib.retries import RetryPolicy


class Status(StrEnum):
    """The states of a stored event (docs/architecture.md has the diagram)."""

    PROCESSED = "processed"
    STALE = "stale"
    FAILED = "failed"
    DEAD = "dead"

    @property
    def is_done(self) -> bool:
        return self in (Status.PROCESSED, Status.STALE)


class Trigger(StrEnum):
    """Why an event is tried."""

    FIRST = "first"
    RETRY = "retry"
    REDRIVE = "redrive"  # a dead letter that was moved back to the queue
    REPLAY = "replay"
    BULK = "bulk"  # a replay of all that match a filter


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


@dataclass(frozen=True)
class Attempt:
    """A try that was made. Its outcome is `result.status`."""

    event: Accepted
    trigger: Trigger
    started_at: datetime
    duration_ms: float
    result: Result
    failure: Failure | None = None
    replay_id: UUID | None = None


@dataclass(frozen=True)
class Try:
    """A try that is to be made. `failure`: what stands in its way already."""

    work: Work
    number: int
    trigger: Trigger
    announced: Event | None = None
    handlers: Sequence[tuple[Handler, Place | None]] = ()
    failure: Failure | None = None
    replay_id: UUID | None = None

    @property
    def entities(self) -> list[Entity]:
        return [place.entity for _, place in self.handlers if place is not None]


class Transaction(Protocol):
    """What a try needs of the database's; chalicelib.adapters.event_store gives each method's promise."""

    def attempt(
        self, handlers: Callable[[Any], None], row: tuple[Work, Result] | None, *, seconds: float
    ) -> BaseException | None: ...


@dataclass(frozen=True)
class Runner:
    """Tries events with these handlers, none of which may take longer than `timeout_seconds` unless it says so."""

    handlers: Sequence[Handler]
    policy: RetryPolicy
    now: Callable[[], datetime]
    timeout_seconds: float

    def prepare(
        self,
        work: Work,
        number: int,
        trigger: Trigger,
        *,
        failure: BaseException | None = None,
        replay_id: UUID | None = None,
        dry_run: bool = False,
    ) -> Try:
        """With `failure`, handlers are not run: it is what came of them."""
        event = work.event
        handlers = [h for h in self.handlers if h.takes(event.source, event.type)]
        if failure is not None:
            whose = ", ".join(h.name for h in handlers)
            return Try(work, number, trigger, failure=failure_of(failure, whose), replay_id=replay_id)
        if not handlers:
            return Try(work, number, trigger, replay_id=replay_id)
        placed: list[tuple[Handler, Place | None]] = []
        whose = handlers[0].name
        try:
            announced = _announced(work, number, trigger, dry_run)
            for handler in handlers:
                whose = handler.name
                placed.append((handler, place_of(handler, announced)))
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as exc:
            return Try(work, number, trigger, failure=failure_of(exc, whose), replay_id=replay_id)
        return Try(work, number, trigger, announced, placed, replay_id=replay_id)

    def run(self, one: Try, tx: Transaction, order: Order, budget: Budget) -> Attempt | None:
        """What came of it; its row is in, if it is a new one whose handlers succeeded. None when there is no time left
        to begin it. Raises what the transaction raises.
        """
        started = self.now()
        failure = one.failure
        status = Status.PROCESSED
        if failure is None and one.handlers:
            if not budget.allows(sum(map(self.limit, (handler for handler, _ in one.handlers)))):
                return None
            current = [(handler, place) for handler, place in one.handlers if not order.is_stale(place)]
            if len(current) < len(one.handlers):
                status = Status.STALE
            assert one.announced is not None
            call = Call(self, one.announced, [handler for handler, _ in current], budget)
            error = tx.attempt(
                call,
                row=(one.work, Result(status, 1, processed_at=started)) if one.number == 1 else None,
                seconds=max((self.limit(handler) for handler, _ in current), default=self.timeout_seconds),
            )
            if error is None:
                for _, place in current:
                    order.advance(place, one.work.event.id)
            else:
                failure = failure_of(error, call.at_work)
        if failure is None:
            result = Result(status, one.number, processed_at=started)
        else:
            since_redrive = one.number - (one.work.attempts_before or 0)
            gives_up = failure.permanent or self.policy.is_last(since_redrive)
            result = Result(Status.DEAD if gives_up else Status.FAILED, one.number, error=failure.text)
        took = (self.now() - started) / timedelta(milliseconds=1)
        return Attempt(one.work.event, one.trigger, started, max(0.0, took), result, failure, one.replay_id)

    def limit(self, handler: Handler) -> float:
        """How many seconds it may take."""
        return handler.timeout or self.timeout_seconds


@dataclass
class Call:
    """Calls one event's handlers, one after the other, and remembers which one is at work."""

    runner: Runner
    event: Event
    handlers: Sequence[Handler]
    budget: Budget
    at_work: str = field(default="", init=False)

    def __call__(self, db: Any) -> None:
        for handler in self.handlers:
            self.at_work = handler.name
            with time_limit(max(0.1, min(self.runner.limit(handler), self.budget.left()))):
                handler(self.event, db)


def _announced(work: Work, number: int, trigger: Trigger, dry_run: bool) -> Event:
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
        attempt=number,
        request_id=event.request_id,
        replayed=trigger in (Trigger.REPLAY, Trigger.BULK),
        dry_run=dry_run,
    )
