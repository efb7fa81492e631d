"""One try at processing an event: which handlers take it, what they may, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cached_property, partial
from time import monotonic
from typing import Any, Protocol
from uuid import UUID

from chalicelib.postern.contract import payloads
from chalicelib.postern.contract.deliveries import Event, at_work
from chalicelib.postern.contract.envelope import Accepted, Replay
from chalicelib.postern.contract.errors import HandlerFailed, InvalidPayload, PayloadTooLarge, RetryLater
from chalicelib.postern.processing.failures import Failure, failure_of
from chalicelib.postern.processing.handling import Handler
from chalicelib.postern.processing.limits import Clock, HandlerTimeout, within
from chalicelib.postern.processing.order import Entity, Order, Version, version_of
from chalicelib.postern.processing.settling import RetryPolicy


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
class Unread:
    """Bytes that are not at hand: at most how many, how long they may be in coming, and how to get them.

    `read` answers with the event's body, and the whole delivery's where the event brings that; raises BodyUnavailable.
    """

    size: int
    seconds: float
    read: Callable[[], tuple[bytes, bytes | None]]


@dataclass(frozen=True)
class Work:
    """One event of a batch. Its bytes are at hand, or have to be `read` first; all of a batch may be more than there is
    memory for.

    `attempts_before`: how many attempts it had when it was moved to the dead letters that it now comes from.
    `receives`: how often its message was received, this time included, and without those `postponed` by a handler.
    `payload_fits`: False once the database has refused its payload as jsonb. `same_body_as`: the event that came before
    with its bytes, under another id. `queued_at`: when the queue had it, if that is known.
    """

    event: Accepted
    body: bytes
    attempts_before: int | None = None
    receives: int = 1
    postponed: int = 0
    payload_fits: bool = True
    same_body_as: UUID | None = None
    queued_at: datetime | None = None
    unread: Unread | None = None

    @property
    def is_back(self) -> bool:
        """Whether its message was received before."""
        return self.receives + self.postponed > 1

    @cached_property
    def size(self) -> int:
        """In memory: of what is compressed, what it holds."""
        if self.unread:
            return self.unread.size
        try:
            inside = len(payloads.content_of(self.body, self.event.headers))
        except (InvalidPayload, PayloadTooLarge):
            inside = 0  # it is not read either
        return max(inside, len(self.body)) + len(self.event.delivery_body or b"")

    def read(self) -> Work:
        """With its bytes at hand. Raises BodyUnavailable."""
        if self.unread is None or self.body:
            return self
        body, delivery_body = self.unread.read()
        return replace(self, body=body, event=replace(self.event, delivery_body=delivery_body))

    def put_back(self) -> Work:
        """Without the bytes that can be read again."""
        if self.unread is None:
            return self
        return replace(self, body=b"", event=replace(self.event, delivery_body=None))


@dataclass(frozen=True)
class Result:
    """What an event's row says of it. `duration_ms`: of the try that processed it."""

    status: Status
    attempts: int
    error: str | None = None
    processed_at: datetime | None = None
    duration_ms: float | None = None


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
    """A try that is to be made.

    `number` counts all tries at the event; `spent` are those of its present budget that came before: the live ones
    since it was accepted or redriven, or those of one replay. `error`: what stands in its way already; `whose` handler
    that came from.
    """

    work: Work
    number: int
    trigger: Trigger
    spent: int = 0
    announced: Event | None = None
    handlers: Sequence[tuple[Handler, Version | None]] = ()
    error: BaseException | None = None
    whose: str = ""
    replay_id: UUID | None = None

    @property
    def entities(self) -> list[Entity]:
        return [place.entity for _, place in self.handlers if place is not None]


class HandlerRaised(Exception):
    """A handler of this event raised; the cause is what. `had_it_all`: it had as much time as it could ever have."""

    def __init__(self, whose: str, *, had_it_all: bool = True) -> None:
        super().__init__()
        self.whose = whose
        self.had_it_all = had_it_all


class Connection(Protocol):
    """What runs handlers; adapters.postgres gives its promise."""

    def run_handlers(self, handlers: Callable[[Any], None]) -> None: ...


@dataclass(frozen=True)
class Runner:
    """Tries events with these handlers, none of which may take longer than `timeout_seconds` unless it says so."""

    handlers: Sequence[Handler]
    policy: RetryPolicy
    now: Callable[[], datetime]
    timeout_seconds: float

    def prepare(self, one: Try, *, dry_run: bool = False) -> Try:
        """Finds its handlers, and what each says the event is about. What goes wrong in that is its `error`."""
        handlers = self.handlers_of(one.work)
        if not handlers:
            return one
        placed: list[tuple[Handler, Version | None]] = []
        whose = handlers[0].name
        try:
            announced = event_of(one, dry_run=dry_run)
            for handler in handlers:
                whose = handler.name
                place = partial(version_of, handler, announced)
                placed.append((handler, within(self.limit(handler), place) if handler.entity else place()))
        except KeyboardInterrupt:
            raise
        except BaseException as exc:
            return replace(one, error=exc, whose=whose)
        return replace(one, announced=announced, handlers=placed)

    def run(self, one: Try, connection: Connection, order: Order, clock: Clock) -> Attempt:
        """Runs its handlers. Raises HandlerRaised, and what the connection raises when it is no longer one."""
        started = self.now()
        current = [(handler, place) for handler, place in one.handlers if not order.is_stale(place)]
        status = Status.PROCESSED if len(current) == len(one.handlers) else Status.STALE
        if current:
            call = Call(self, one, [handler for handler, _ in current], clock)
            had_it_all = clock.is_whole
            try:
                connection.run_handlers(call)
            except HandlerFailed as exc:
                raise HandlerRaised(call.at_work, had_it_all=had_it_all) from exc.failure
            for _, place in current:
                order.advance(place, one.work.event.id)
        took = max(0.0, (self.now() - started) / timedelta(milliseconds=1))
        result = Result(status, one.number, processed_at=started, duration_ms=took)
        return Attempt(one.work.event, one.trigger, started, took, result, replay_id=one.replay_id)

    def failed(self, one: Try, error: BaseException, whose: str) -> Attempt:
        """A try that came to nothing, and is charged: failed, or dead where the policy gives up."""
        # None of the team's own code may run here: it may be what ended the function.
        failure = failure_of(error, whose or ", ".join(handler.name for handler in self.handlers_of(one.work)))
        dead = self.policy.gives_up(one.spent + 1, permanent=failure.permanent)
        result = Result(Status.DEAD if dead else Status.FAILED, one.number, error=failure.text)
        return Attempt(one.work.event, one.trigger, self.now(), 0.0, result, failure, one.replay_id)

    def handlers_of(self, work: Work) -> list[Handler]:
        return [handler for handler in self.handlers if handler.takes(work.event.source, work.event.type)]

    def limit(self, handler: Handler) -> float:
        """How many seconds it may take."""
        return handler.timeout or self.timeout_seconds

    def seconds(self, event: Accepted | Replay) -> float:
        """How many seconds its handlers may take in all."""
        return sum(self.limit(handler) for handler in self.handlers if handler.takes(event.source, event.type))


@dataclass
class Call:
    """Calls one event's handlers, one after the other, and remembers which one is at work."""

    runner: Runner
    one: Try
    handlers: Sequence[Handler]
    clock: Clock
    at_work: str = field(default="", init=False)

    def __call__(self, db: Any) -> None:
        announced = self.one.announced
        assert announced is not None
        for place, handler in enumerate(self.handlers):
            self.at_work = handler.name
            # What one changes in the payload is not the next one's.
            event = event_of(self.one, dry_run=announced.dry_run) if place else announced
            limit, left = self.runner.limit(handler), max(0.1, self.clock.left())
            work = partial(handler, event, db)
            token = at_work.set((handler.name, event))
            started = monotonic()
            try:
                within(min(limit, left), work, db.connection.interrupt, cut_short=left < limit)
            except RetryLater as exc:
                if monotonic() - started >= min(limit, left):  # it has caught its timeout, which is none the less one
                    raise HandlerTimeout(min(limit, left), cut_short=left < limit) from exc
                raise
            finally:
                at_work.reset(token)


def event_of(one: Try, *, dry_run: bool = False) -> Event:
    """What its handlers get. Raises InvalidPayload and PayloadTooLarge, where the bytes are not what was accepted."""
    event = one.work.event
    content = payloads.content_of(one.work.body, event.headers)
    text = payloads.text_of(content, event.form_field, event.format)
    return Event(
        id=event.id,
        source=event.source,
        type=event.type,
        dedup_key=event.dedup_key,
        received_at=event.received_at,
        headers=deepcopy(dict(event.headers)),  # a handler may do with it as it likes
        payload=None if text is None else payloads.parse(text),
        body=one.work.body,
        attempt=one.number,
        request_id=event.request_id,
        replayed=one.trigger in (Trigger.REPLAY, Trigger.BULK),
        dry_run=dry_run,
        format=event.format,
        form_field=event.form_field,
    )
