"""Use case: consume queue messages: read them, have their events processed, and settle each with the queue.

Safe by default. Without `ReportBatchItemFailures` on the event source mapping, Lambda ignores a partial response
and deletes the whole batch: the failed events would be lost. So what succeeded is deleted here and the invocation
fails, unless the deployment says that the mapping reads the response.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from math import inf
from typing import Any, Protocol
from uuid import UUID

from chalicelib.attempts import Work
from chalicelib.envelope import Accepted, Rejected, Replay, from_message
from chalicelib.errors import (
    BodyUnavailable,
    ConfigurationError,
    DatabaseUnavailable,
    MalformedMessage,
    PosternError,
    QueueUnavailable,
    StatementFailed,
)
from chalicelib.limits import Budget
from chalicelib.metrics import UNKNOWN_SOURCE
from chalicelib.process import Kind, Outcome, Processor
from chalicelib.replaying import Replayer
from chalicelib.retries import RetryPolicy
from chalicelib.tracing import trace_header, trace_id

# Set on a dead letter, and still there when it is redriven: how often it had been tried by then.
ATTEMPTS_ATTRIBUTE = "postern-attempts"
REASON_ATTRIBUTE = "postern-reason"
_LONGEST_REASON = 500

# What became of an event -> the metric that counts it. An event that was processed before has been counted.
_COUNTED_AS = {
    "processed": "processed",
    "stale": "stale",
    "duplicate": "duplicates",
    "failed": "failed",
    "delayed": "delayed",
    "dead": "dead",
}


class BatchIncomplete(PosternError):
    """Some messages of the batch have to come again; the others are done and deleted."""


class Queue(Protocol):
    def send(
        self, message: str, *, attributes: Mapping[str, str], trace: str | None, group: str = "", delay: int = 0
    ) -> None: ...
    def hide(self, delays: Mapping[str, int]) -> None: ...
    def delete(self, receipt_handles: Sequence[str]) -> None: ...


class Bodies(Protocol):
    def get(self, key: str) -> bytes: ...


class Log(Protocol):
    def __call__(
        self, name: str, /, *, failed: bool = False, metrics: Mapping[str, float] | None = None, **fields: Any
    ) -> None: ...


@dataclass(frozen=True)
class Message:
    """A message as it was received. `receives` counts from 1, and counts outages, too."""

    id: str
    receipt_handle: str
    text: str
    receives: int
    attempts_before: int | None
    trace: str | None

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Message:
        """From a record of Lambda's SQS event."""
        attempts = record.get("messageAttributes", {}).get(ATTEMPTS_ATTRIBUTE, {}).get("stringValue")
        return cls(
            id=record["messageId"],
            receipt_handle=record["receiptHandle"],
            text=record["body"],
            receives=int(record["attributes"]["ApproximateReceiveCount"]),
            attempts_before=int(attempts) if attempts and attempts.isdecimal() else None,
            trace=trace_header(record["attributes"].get("AWSTraceHeader")),
        )


@dataclass(frozen=True)
class Consumer:
    """What consuming needs. `processor` and `replayer` are asked for with every batch: they may be what cannot
    be had.

    `sources` are the declared ones, by name; the metrics tell no others apart. `renewed_after`: what was received so
    often without being tried is sent anew, before SQS takes it for dead.
    """

    processor: Callable[[], Processor]
    replayer: Callable[[], Replayer]
    keep: Callable[[Sequence[Rejected]], None]
    queue: Queue
    dead_letters: Queue
    bodies: Bodies
    policy: RetryPolicy
    partial_responses: bool
    renewed_after: int
    sources: Container[str]
    random: Callable[[], float]
    now: Callable[[], datetime]
    log: Log

    def consume(
        self, records: Sequence[Mapping[str, Any]], time_left: Callable[[], float] = lambda: inf
    ) -> dict[str, Any]:
        """Returns Lambda's partial batch response. Raises BatchIncomplete where that would not be read.

        `time_left` is the seconds that the invocation has left.
        """
        started = self.now()
        messages = [Message.from_record(record) for record in records]
        events, outcomes = self._outcomes(messages, time_left)
        written = self.now()
        self._bury([m for m in messages if outcomes[m.id].kind is Kind.DEAD], events, outcomes)
        for message in messages:
            self._report(message, events.get(message.id), outcomes[message.id], written)
        again = [m for m in messages if outcomes[m.id].kind is Kind.RETRY]
        again = self._renew(again, events, outcomes)
        self._hide(again, outcomes)
        unsafe = bool(again) and not self.partial_responses
        if unsafe:
            self._delete([m for m in messages if m not in again])
        self.log(
            "batch.consumed",
            metrics={"batch_size": len(messages)},
            outcomes=dict(Counter(_what(outcomes[m.id]) for m in messages)),
            duration_ms=_ms(started, self.now()),
        )
        if unsafe:
            raise BatchIncomplete(f"{len(again)} of {len(messages)} messages have to come again.")
        return {"batchItemFailures": [{"itemIdentifier": m.id} for m in again]}

    def _outcomes(
        self, messages: Sequence[Message], time_left: Callable[[], float]
    ) -> tuple[dict[str, Accepted | Replay], dict[str, Outcome]]:
        """By message id: the events that could be read, and the outcome of every message."""
        outcomes: dict[str, Outcome] = {}
        works: dict[str, Work] = {}
        replays: dict[str, Replay] = {}
        refused: dict[str, Rejected] = {}
        for message in messages:
            try:
                found = self._read(message)
                if isinstance(found, Rejected):
                    refused[message.id] = found
                elif isinstance(found, Replay):
                    replays[message.id] = found
                else:
                    works[message.id] = found
            except MalformedMessage as exc:
                # It has no row to count attempts in; what is counted are receives, and no redrive continues them.
                spent = self.policy.is_last(message.receives)
                outcomes[message.id] = (
                    Outcome(Kind.DEAD, reason=f"malformed: {exc}")
                    if spent
                    else Outcome(Kind.RETRY, message.receives, f"malformed: {exc}")
                )
            except BodyUnavailable as exc:
                outcomes[message.id] = Outcome(Kind.RETRY, reason=f"body: {exc}")
        processed = self._process(list(works.values()), time_left)
        outcomes |= {id: processed[work.event.id] for id, work in works.items()}
        outcomes |= self._keep(refused)
        outcomes |= self._replay(replays, time_left)
        return {**{id: work.event for id, work in works.items()}, **replays}, outcomes

    def _replay(self, replays: Mapping[str, Replay], time_left: Callable[[], float]) -> dict[str, Outcome]:
        budget = Budget(time_left)
        try:
            return {id: self.replayer().replay(replay, budget) for id, replay in replays.items()}
        except ConfigurationError as exc:
            return {id: Outcome(Kind.RETRY, reason=f"configuration: {exc}") for id in replays}

    def _keep(self, refused: Mapping[str, Rejected]) -> dict[str, Outcome]:
        """Nobody misses a forgery: one that the database does not take is let go, unless it is the database's fault."""
        try:
            if refused:
                self.keep(list(refused.values()))
        except (DatabaseUnavailable, ConfigurationError) as exc:
            return {id: Outcome(Kind.RETRY, reason=f"database: {exc}") for id in refused}
        except StatementFailed:
            self.log("rejected.lost", failed=True, number=len(refused))
        return {id: Outcome(Kind.KEPT) for id in refused}

    def _read(self, message: Message) -> Work | Replay | Rejected:
        event = from_message(message.text)
        if not isinstance(event, Accepted):
            return event
        body = self.bodies.get(event.body_key) if event.body_key else event.body
        assert body is not None  # from_message allows exactly one of the two
        if event.delivery_body_key:
            event = replace(event, delivery_body=self.bodies.get(event.delivery_body_key))
        return Work(event, body, message.attempts_before)

    def _process(self, works: Sequence[Work], time_left: Callable[[], float]) -> dict[UUID, Outcome]:
        try:
            return self.processor().process(works, time_left)
        except ConfigurationError as exc:
            # A handler module that cannot be imported, say: no event's fault, and mended by the next deployment.
            return {w.event.id: Outcome(Kind.RETRY, reason=f"configuration: {exc}") for w in works}

    def _bury(
        self, dead: Sequence[Message], events: Mapping[str, Accepted | Replay], outcomes: dict[str, Outcome]
    ) -> None:
        """Moves messages to the dead letters; one that cannot be moved has to come again."""
        # By their text: SQS may bring two copies of one message in one batch.
        for message in {message.text: message for message in dead}.values():
            outcome = outcomes[message.id]
            try:
                self.dead_letters.send(
                    message.text,
                    attributes={
                        ATTEMPTS_ATTRIBUTE: str(outcome.attempts),
                        REASON_ATTRIBUTE: _attribute(outcome.reason),
                    },
                    trace=message.trace,
                )
            except QueueUnavailable as exc:
                facts = self._facts(message, events.get(message.id))
                self.log("dead_letter.failed", failed=True, **facts, reason=exc.reason)
                outcomes[message.id] = Outcome(Kind.RETRY, reason="dead-letter queue unavailable")

    def _renew(
        self, again: Sequence[Message], events: Mapping[str, Accepted | Replay], outcomes: Mapping[str, Outcome]
    ) -> list[Message]:
        """Those that have to come again as they are. What SQS would soon give up on, and is not to blame for having
        come so often, is sent as a new message in its stead: one more copy is an event that is there already.
        """
        left = []
        for message in again:
            event = events.get(message.id)
            if event is None or outcomes[message.id].attempts or message.receives < self.renewed_after:
                left.append(message)
                continue
            before = message.attempts_before
            try:
                self.queue.send(
                    message.text,
                    group=event.source,
                    attributes={} if before is None else {ATTEMPTS_ATTRIBUTE: str(before)},
                    trace=message.trace,
                    delay=self.policy.delay(message.receives, self.random),
                )
            except QueueUnavailable as exc:
                self.log("renewal.failed", failed=True, **self._facts(message, event), reason=exc.reason)
                left.append(message)
        return left

    def _hide(self, again: Sequence[Message], outcomes: Mapping[str, Outcome]) -> None:
        delays = {
            m.receipt_handle: self.policy.delay(outcomes[m.id].attempts or m.receives, self.random) for m in again
        }
        try:
            self.queue.hide(delays)
        except QueueUnavailable as exc:
            # They come back all the same, after the queue's visibility timeout.
            self.log("backoff.failed", failed=True, reason=exc.reason)

    def _delete(self, done: Sequence[Message]) -> None:
        try:
            self.queue.delete([m.receipt_handle for m in done])
        except QueueUnavailable as exc:
            # They come again, and are found to be done.
            self.log("delete.failed", failed=True, reason=exc.reason)

    def _report(self, message: Message, event: Accepted | Replay | None, outcome: Outcome, written: datetime) -> None:
        what = _what(outcome)
        metrics: dict[str, float] = {_COUNTED_AS[what]: 1} if what in _COUNTED_AS else {}
        if isinstance(event, Accepted) and outcome.kind in (Kind.PROCESSED, Kind.STALE):
            metrics["ingest_lag_ms"] = _ms(event.received_at, written)
        self.log(
            f"event.{what}",
            failed=outcome.kind in (Kind.RETRY, Kind.DEAD),
            metrics=metrics,
            **self._facts(message, event),
            receives=message.receives,
            attempts=outcome.attempts,
            # Of a handler's error its kind only: its text may quote the body. The whole of it is in the event's row.
            reason=(outcome.reason.partition(":")[0] if event and outcome.attempts else outcome.reason) or None,
        )

    def _facts(self, message: Message, event: Accepted | Replay | None) -> dict[str, Any]:
        """What every line about a message says of it."""
        declared = event is not None and event.source in self.sources
        return {
            "id": str(event.id) if event else None,
            "source": event.source if event and declared else UNKNOWN_SOURCE,
            "undeclared_source": event.source if event and not declared else None,
            "type": event.type if event else None,
            "request_id": event.request_id if event else None,
            "trace_id": trace_id(message.trace),
            "message_id": message.id,
        }


def _what(outcome: Outcome) -> str:
    """What became of an event, as its line and the batch's say it."""
    if outcome.kind is Kind.RETRY:
        return "failed" if outcome.attempts else "delayed"
    return str(outcome.kind)


def _ms(since: datetime, until: datetime) -> float:
    # Two machines' clocks: never less than nothing.
    return max(0.0, round((until - since) / timedelta(milliseconds=1), 1))


def _attribute(text: str) -> str:
    """What SQS takes as an attribute's value: something, and nothing that XML forbids."""
    legal = "".join(c if c.isprintable() else " " for c in text[:_LONGEST_REASON])
    return legal.encode("utf-8", "replace").decode() or "unknown"
