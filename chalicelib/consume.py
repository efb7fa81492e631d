"""Use case: consume queue messages: read them, have their events processed, and settle each with the queue.

Safe by default. Without `ReportBatchItemFailures` on the event source mapping, Lambda ignores a partial response
and deletes the whole batch: the failed events would be lost. So what succeeded is deleted here and the invocation
fails, unless the deployment says that the mapping reads the response.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

from chalicelib.envelope import Accepted, from_message
from chalicelib.errors import (
    BodyUnavailable,
    ConfigurationError,
    MalformedMessage,
    PosternError,
    QueueUnavailable,
)
from chalicelib.process import Kind, Outcome, Processor, Work
from chalicelib.retries import RetryPolicy
from chalicelib.tracing import trace_header, trace_id

# Set on a dead letter, and still there when it is redriven: how often it had been tried by then.
ATTEMPTS_ATTRIBUTE = "postern-attempts"
REASON_ATTRIBUTE = "postern-reason"
_LONGEST_REASON = 500


class BatchIncomplete(PosternError):
    """Some messages of the batch have to come again; the others are done and deleted."""


class Queue(Protocol):
    def send(self, message: str, *, attributes: Mapping[str, str], trace: str | None) -> None: ...
    def hide(self, delays: Mapping[str, int]) -> None: ...
    def delete(self, receipt_handles: Sequence[str]) -> None: ...


class Bodies(Protocol):
    def get(self, key: str) -> bytes: ...


class Log(Protocol):
    def __call__(self, name: str, /, *, failed: bool = False, **fields: Any) -> None: ...


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
    """What consuming needs. `processor` is asked for with every batch: it may be what cannot be had."""

    processor: Callable[[], Processor]
    queue: Queue
    dead_letters: Queue
    bodies: Bodies
    policy: RetryPolicy
    partial_responses: bool
    random: Callable[[], float]
    log: Log

    def consume(self, records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Returns Lambda's partial batch response. Raises BatchIncomplete where that would not be read."""
        messages = [Message.from_record(record) for record in records]
        outcomes = self._outcomes(messages)
        self._bury([m for m in messages if outcomes[m.id].kind is Kind.DEAD], outcomes)
        again = [m for m in messages if outcomes[m.id].kind is Kind.RETRY]
        self._hide(again, outcomes)
        if self.partial_responses:
            return {"batchItemFailures": [{"itemIdentifier": m.id} for m in again]}
        if again:
            self._delete([m for m in messages if outcomes[m.id].kind is not Kind.RETRY])
            raise BatchIncomplete(f"{len(again)} of {len(messages)} messages have to come again.")
        return {"batchItemFailures": []}

    def _outcomes(self, messages: Sequence[Message]) -> dict[str, Outcome]:
        """The outcome of every message, by its message id; each is logged in one line."""
        outcomes: dict[str, Outcome] = {}
        works: dict[str, Work] = {}
        for message in messages:
            try:
                works[message.id] = self._read(message)
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
        processed = self._process(list(works.values()))
        outcomes |= {id: processed[work.event.id] for id, work in works.items()}
        for message in messages:
            self._report(message, works.get(message.id), outcomes[message.id])
        return outcomes

    def _read(self, message: Message) -> Work:
        event = from_message(message.text)
        body = self.bodies.get(event.body_key) if event.body_key else event.body
        assert body is not None  # from_message allows exactly one of the two
        return Work(event, body, message.attempts_before)

    def _process(self, works: Sequence[Work]) -> dict[UUID, Outcome]:
        try:
            return self.processor().process(works)
        except ConfigurationError as exc:
            # A handler module that cannot be imported, say: no event's fault, and mended by the next deployment.
            return {w.event.id: Outcome(Kind.RETRY, reason=f"configuration: {exc}") for w in works}

    def _bury(self, dead: Sequence[Message], outcomes: dict[str, Outcome]) -> None:
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
                self.log("dead_letter.failed", failed=True, message_id=message.id, reason=exc.reason)
                outcomes[message.id] = Outcome(Kind.RETRY, reason="dead-letter queue unavailable")

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

    def _report(self, message: Message, work: Work | None, outcome: Outcome) -> None:
        event: Accepted | None = work.event if work else None
        name = f"event.{outcome.kind}"
        if outcome.kind is Kind.RETRY:
            name = "event.failed" if outcome.attempts else "event.delayed"
        self.log(
            name,
            failed=outcome.kind in (Kind.RETRY, Kind.DEAD),
            id=str(event.id) if event else None,
            source=event.source if event else None,
            type=event.type if event else None,
            request_id=event.request_id if event else None,
            trace_id=trace_id(message.trace),
            message_id=message.id,
            receives=message.receives,
            attempts=outcome.attempts,
            # Of a handler's error its kind only: its text may quote the body. The whole of it is in the event's row.
            reason=(outcome.reason.partition(":")[0] if event and outcome.attempts else outcome.reason) or None,
        )


def _attribute(text: str) -> str:
    """What SQS takes as an attribute's value: something, and nothing that XML forbids."""
    legal = "".join(c if c.isprintable() else " " for c in text[:_LONGEST_REASON])
    return legal.encode("utf-8", "replace").decode() or "unknown"
