"""Use case: consume queue messages: read them, have their events processed, and do with each what `settle` says.

Safe by default. Without `ReportBatchItemFailures` on the event source mapping, Lambda ignores a partial response
and deletes the whole batch: the failed events would be lost. So what succeeded is deleted here and the invocation
fails, unless the deployment says that the mapping reads the response.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from math import inf
from typing import Any, Protocol

from chalicelib.postern.contract.bounds import MAX_BODY_BYTES, MAX_FETCH_SECONDS
from chalicelib.postern.contract.envelope import Accepted, Rejected, Replay
from chalicelib.postern.contract.errors import (
    ConfigurationError,
    DatabaseUnavailable,
    MalformedMessage,
    PosternError,
    QueueUnavailable,
    StatementFailed,
)
from chalicelib.postern.contract.metrics import UNKNOWN_SOURCE, Log
from chalicelib.postern.contract.opening import from_message
from chalicelib.postern.contract.tracing import trace_header, trace_id
from chalicelib.postern.processing.attempts import Unread, Work
from chalicelib.postern.processing.engine import Processor
from chalicelib.postern.processing.settling import (
    Again,
    Bury,
    Decision,
    Kind,
    Outcome,
    Renew,
    RetryPolicy,
    charged_by_receives,
    settle,
)
from chalicelib.postern.processing.turns import ReplayRequest, key_of

# Set on a dead letter, and still there when it is redriven: how often it had been tried by then.
ATTEMPTS_ATTRIBUTE = "postern-attempts"
REASON_ATTRIBUTE = "postern-reason"
_MAX_REASON_LENGTH = 500

# No delivery waits longer for its answer. A message that was sent later is one in the stead of the first.
_LONGEST_ACK = timedelta(seconds=20)

# Of the bodies of a batch: with more, memory would run out.
_MAX_HELD_BYTES = 8_000_000

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


@dataclass(frozen=True)
class Message:
    """A message as it was received. `receives` counts from 1, and counts outages, too. `sent_at`: when SQS had it."""

    id: str
    receipt_handle: str
    text: str
    receives: int
    attempts_before: int | None
    trace: str | None
    sent_at: datetime | None = None

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Message:
        """From a record of Lambda's SQS event."""
        sent = record["attributes"].get("SentTimestamp")
        attempts = record.get("messageAttributes", {}).get(ATTEMPTS_ATTRIBUTE, {}).get("stringValue")
        return cls(
            id=record["messageId"],
            receipt_handle=record["receiptHandle"],
            text=record["body"],
            receives=int(record["attributes"]["ApproximateReceiveCount"]),
            attempts_before=int(attempts) if attempts and attempts.isdecimal() else None,
            trace=trace_header(record["attributes"].get("AWSTraceHeader")),
            sent_at=datetime.fromtimestamp(int(sent) / 1000, UTC) if sent else None,
        )


@dataclass(frozen=True)
class Consumer:
    """What consuming needs. `processor` is asked for with every batch: it may be what cannot be had.

    `sources` are the declared ones, by name; the metrics tell no others apart.
    """

    processor: Callable[[], Processor]
    keep: Callable[[Sequence[Rejected]], None]
    queue: Queue
    dead_letters: Queue
    bodies: Bodies
    policy: RetryPolicy
    partial_responses: bool
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
        again = self._settle(messages, events, outcomes, written)
        unsafe = bool(again) and not self.partial_responses
        if unsafe:
            self._delete([m for m in messages if m not in again])
        self.log(
            "batch.consumed",
            metrics={"batch_size": len(messages)},
            outcomes=dict(Counter(became(outcomes[m.id]) for m in messages)),
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
        read: dict[str, Work | ReplayRequest] = {}
        refused: dict[str, Rejected] = {}
        receives = {message.id: message.receives for message in messages}
        held = held_refused = 0
        for message in messages:
            try:
                found = from_message(message.text)
            except MalformedMessage as exc:
                outcomes[message.id] = charged_by_receives(message.receives, f"malformed: {exc}", self.policy)
                continue
            if isinstance(found, Rejected):
                refused[message.id] = found
                held_refused += len(found.body)
                if held_refused > _MAX_HELD_BYTES:
                    outcomes |= self._keep(refused, receives)
                    refused.clear()
                    held_refused = 0
            elif isinstance(found, Replay):
                read[message.id] = ReplayRequest(found, message.receives)
            else:
                read[message.id] = work = self._work(message, found, _MAX_HELD_BYTES - held)
                held += 0 if work.unread else work.size
        outcomes |= self._process(read, time_left)
        outcomes |= self._keep(refused, receives)
        return {id: each.event if isinstance(each, Work) else each.replay for id, each in read.items()}, outcomes

    def _process(self, read: Mapping[str, Work | ReplayRequest], time_left: Callable[[], float]) -> dict[str, Outcome]:
        if not read:
            return {}
        try:
            done = self.processor().process(list(read.values()), time_left)
        except ConfigurationError as exc:
            # A handler module that cannot be imported, say: no event's fault, and mended by the next deployment.
            return {id: Outcome(Kind.RETRY, reason=f"configuration: {exc}") for id in read}
        return {id: done[key_of(each)] for id, each in read.items()}

    def _keep(self, refused: Mapping[str, Rejected], receives: Mapping[str, int]) -> dict[str, Outcome]:
        """Nobody misses a forgery: one that the database does not take is let go, unless it is the database's fault.
        What was verified is tried again, and ends among the dead letters.
        """
        outcomes: dict[str, Outcome] = {}
        try:
            try:
                if refused:
                    self.keep(list(refused.values()))
            except StatementFailed as exc:
                if len(refused) > 1:  # one of them, perhaps
                    for id, each in refused.items():
                        outcomes |= self._keep({id: each}, receives)
                    return outcomes
                [(id, each)] = refused.items()
                if each.verified:
                    return {id: charged_by_receives(receives[id], f"not kept: {exc}", self.policy)}
                self.log("rejected.lost", failed=True, number=1)
        except (DatabaseUnavailable, ConfigurationError) as exc:
            return {id: Outcome(Kind.RETRY, reason=f"database: {exc}") for id in refused}
        return {id: Outcome(Kind.KEPT) for id in refused}

    def _work(self, message: Message, event: Accepted, room: int) -> Work:
        """With its bytes, if they came with the message and there is room for them. A small message may unpack to
        many: if there is not, they are unpacked once more when their turn comes.
        """
        sent = message.sent_at
        queued_at = sent if sent and abs(sent - event.received_at) < _LONGEST_ACK else None
        work = Work(event, event.body or b"", message.attempts_before, message.receives, queued_at=queued_at)
        fetches = sum(key is not None for key in (event.body_key, event.delivery_body_key))
        if not fetches and work.size <= room:
            return work

        def read() -> tuple[bytes, bytes | None]:
            found = from_message(message.text)
            assert isinstance(found, Accepted)
            body = self.bodies.get(found.body_key) if found.body_key else found.body
            assert body is not None  # from_message allows exactly one of the two
            whole = self.bodies.get(found.delivery_body_key) if found.delivery_body_key else found.delivery_body
            return body, whole

        size = MAX_BODY_BYTES if fetches else work.size
        unread = Unread(size, fetches * MAX_FETCH_SECONDS, read)
        return replace(work, body=b"", event=replace(event, body=None, delivery_body=None), unread=unread)

    # Settling

    def _settle(
        self,
        messages: Sequence[Message],
        events: Mapping[str, Accepted | Replay],
        outcomes: dict[str, Outcome],
        written: datetime,
    ) -> list[Message]:
        """Carries out what `settle` decides; the messages that come again as they are."""
        buried: set[str] = set()
        delays: dict[str, int] = {}
        again: list[Message] = []
        for message in messages:
            event = events.get(message.id)
            decision = self._decision(message, event, outcomes[message.id])
            # By its text: SQS may bring two copies of one message in one batch.
            if isinstance(decision, Bury) and message.text not in buried:
                buried.add(message.text)
                if not self._bury(message, event, decision):
                    outcomes[message.id] = Outcome(Kind.RETRY, reason="dead-letter queue unavailable")
                    decision = self._decision(message, event, outcomes[message.id])
            self._report(message, event, outcomes[message.id], written)
            if isinstance(decision, Renew) and not self._renew(message, event, decision):
                decision = Again(decision.delay)
            if isinstance(decision, Again):
                again.append(message)
                delays[message.receipt_handle] = decision.delay
        self._hide(delays)
        return again

    def _decision(self, message: Message, event: Accepted | Replay | None, outcome: Outcome) -> Decision:
        return settle(outcome, message.receives, self.policy, self.random, is_event=event is not None)

    def _bury(self, message: Message, event: Accepted | Replay | None, decision: Bury) -> bool:
        """Moves a message to the dead letters; one that cannot be moved has to come again."""
        attributes = {ATTEMPTS_ATTRIBUTE: str(decision.attempts), REASON_ATTRIBUTE: _attribute(decision.reason)}
        try:
            self.dead_letters.send(message.text, attributes=attributes, trace=message.trace)
        except QueueUnavailable as exc:
            self.log("dead_letter.failed", failed=True, **self._facts(message, event), reason=exc.reason)
            return False
        return True

    def _renew(self, message: Message, event: Accepted | Replay | None, decision: Renew) -> bool:
        """Sends it as a new message in its stead: one more copy is an event that is there already."""
        before = message.attempts_before
        try:
            self.queue.send(
                message.text,
                group=event.source if event else "",
                attributes={} if before is None else {ATTEMPTS_ATTRIBUTE: str(before)},
                trace=message.trace,
                delay=decision.delay,
            )
        except QueueUnavailable as exc:
            self.log("renewal.failed", failed=True, **self._facts(message, event), reason=exc.reason)
            return False
        return True

    def _hide(self, delays: Mapping[str, int]) -> None:
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
        what = became(outcome)
        metrics: dict[str, float] = {_COUNTED_AS[what]: 1} if what in _COUNTED_AS else {}
        if isinstance(event, Accepted) and outcome.kind in (Kind.PROCESSED, Kind.STALE):
            metrics["ingest_lag_ms"] = _ms(event.received_at, written)
        is_handlers = outcome.attempts or outcome.delay is not None
        self.log(
            f"event.{what}",
            failed=what in ("failed", "delayed", "dead"),
            metrics=metrics,
            **self._facts(message, event),
            receives=message.receives,
            attempts=outcome.attempts,
            # Of a handler's error its kind only: its text may quote the body. The whole of it is in the event's row.
            reason=(outcome.reason.partition(":")[0] if event and is_handlers else outcome.reason) or None,
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


def became(outcome: Outcome) -> str:
    """What became of an event, as its line and the batch's say it."""
    if outcome.kind is Kind.RETRY:
        if outcome.delay is not None:
            return "postponed"
        return "failed" if outcome.attempts else "delayed"
    return str(outcome.kind)


def _ms(since: datetime, until: datetime) -> float:
    # Two machines' clocks: never less than nothing.
    return max(0.0, round((until - since) / timedelta(milliseconds=1), 1))


def _attribute(text: str) -> str:
    """What SQS takes as an attribute's value: something, and nothing that XML forbids."""
    legal = "".join(c if c.isprintable() else " " for c in text[:_MAX_REASON_LENGTH])
    return legal.encode("utf-8", "replace").decode() or "unknown"
