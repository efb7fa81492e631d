"""SQS, as the sender to and the consumer of the queues; decides nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from chalicelib.postern.adapters import aws
from chalicelib.postern.contract.envelope import MAX_MESSAGE_BYTES
from chalicelib.postern.contract.errors import QueueUnavailable

if TYPE_CHECKING:
    from mypy_boto3_sqs.literals import QueueAttributeNameType
    from mypy_boto3_sqs.type_defs import BatchResultErrorEntryTypeDef, MessageTypeDef

# SQS takes no more entries in one call.
_MAX_ENTRIES = 10
_MAX_DELAY_SECONDS = 900

_DEPTH: Mapping[str, QueueAttributeNameType] = {
    "waiting": "ApproximateNumberOfMessages",
    "in_work": "ApproximateNumberOfMessagesNotVisible",
    "delayed": "ApproximateNumberOfMessagesDelayed",
}


@dataclass(frozen=True)
class Letter:
    """A message as it was received: `handle` hides and deletes it."""

    handle: str
    text: str
    sent_at: datetime
    attributes: Mapping[str, str]
    group: str
    trace: str | None


@dataclass(frozen=True)
class SqsQueue:
    """One queue, by its URL. Every method raises QueueUnavailable unless SQS confirmed all of it."""

    url: str

    def send(
        self,
        message: str,
        *,
        group: str = "",
        attributes: Mapping[str, str] | None = None,
        trace: str | None = None,
        delay: int = 0,
    ) -> None:
        """`group` makes a standard queue a fair one: a group with a backlog does not delay the others.

        `trace`, X-Ray's header, does not count to the message's size. `delay`: seconds until it can be received, 900 at
        most.
        """
        optional: dict[str, Any] = {}
        if group:
            optional["MessageGroupId"] = group
        if delay:
            optional["DelaySeconds"] = min(delay, _MAX_DELAY_SECONDS)
        if trace:
            optional["MessageSystemAttributes"] = {"AWSTraceHeader": {"DataType": "String", "StringValue": trace}}
        with aws.failing_as(QueueUnavailable):
            aws.sqs().send_message(
                QueueUrl=self.url,
                MessageBody=message,
                MessageAttributes={
                    name: {"DataType": "String", "StringValue": value} for name, value in (attributes or {}).items()
                },
                **optional,
            )

    def send_all(self, messages: Sequence[str], *, group: str, trace: str | None = None) -> None:
        """All of them, in as few calls as SQS allows; when it raises, some may have been sent."""
        common: Any = {"MessageGroupId": group}
        if trace:
            common["MessageSystemAttributes"] = {"AWSTraceHeader": {"DataType": "String", "StringValue": trace}}
        for part in _by_size(messages):
            with aws.failing_as(QueueUnavailable):
                entries: Any = [{"Id": str(n), "MessageBody": text, **common} for n, text in enumerate(part)]
                answer = aws.sqs().send_message_batch(QueueUrl=self.url, Entries=entries)
            _refuse(answer.get("Failed", []))

    def waiting(self) -> int:
        """About how many messages could be received now."""
        return self.depth()["waiting"]

    def depth(self) -> dict[str, int]:
        """About how many messages could be received now, are being worked on, and are to be tried later."""
        with aws.failing_as(QueueUnavailable):
            answer = aws.sqs().get_queue_attributes(QueueUrl=self.url, AttributeNames=[*_DEPTH.values()])
        return {name: int(answer["Attributes"].get(attribute, 0)) for name, attribute in _DEPTH.items()}

    def receive(self, most: int, *, hidden_seconds: int) -> list[Letter]:
        """Up to ten messages, which nobody else receives for so long; none when there seem to be none."""
        with aws.failing_as(QueueUnavailable):
            answer = aws.sqs().receive_message(
                QueueUrl=self.url,
                MaxNumberOfMessages=most,
                VisibilityTimeout=hidden_seconds,
                # Asks all of SQS's servers, and not a sample of them.
                WaitTimeSeconds=1,
                MessageSystemAttributeNames=["All"],
                MessageAttributeNames=["All"],
            )
        return [_letter(message) for message in answer.get("Messages", [])]

    def hide(self, delays: Mapping[str, int]) -> None:
        """Sets when received messages come back: receipt handle -> seconds from now."""
        failed: list[BatchResultErrorEntryTypeDef] = []
        for part in _parts(list(delays)):
            with aws.failing_as(QueueUnavailable):
                answer = aws.sqs().change_message_visibility_batch(
                    QueueUrl=self.url,
                    Entries=[
                        {"Id": str(n), "ReceiptHandle": handle, "VisibilityTimeout": delays[handle]}
                        for n, handle in enumerate(part)
                    ],
                )
            failed += answer.get("Failed", [])
        _refuse(failed)

    def delete(self, receipt_handles: Sequence[str]) -> None:
        """Takes finished messages off the queue."""
        failed: list[BatchResultErrorEntryTypeDef] = []
        for part in _parts(receipt_handles):
            with aws.failing_as(QueueUnavailable):
                answer = aws.sqs().delete_message_batch(
                    QueueUrl=self.url,
                    Entries=[{"Id": str(n), "ReceiptHandle": handle} for n, handle in enumerate(part)],
                )
            failed += answer.get("Failed", [])
        _refuse(failed)


def _letter(message: MessageTypeDef) -> Letter:
    system = message.get("Attributes", {})
    return Letter(
        handle=message["ReceiptHandle"],
        text=message["Body"],
        sent_at=datetime.fromtimestamp(int(system.get("SentTimestamp", "0")) / 1000, UTC),
        attributes={
            name: value["StringValue"]
            for name, value in message.get("MessageAttributes", {}).items()
            if "StringValue" in value
        },
        group=system.get("MessageGroupId", ""),
        trace=system.get("AWSTraceHeader"),
    )


def _parts(handles: Sequence[str]) -> list[Sequence[str]]:
    return [handles[at : at + _MAX_ENTRIES] for at in range(0, len(handles), _MAX_ENTRIES)]


def _by_size(messages: Sequence[str]) -> Iterator[list[str]]:
    """In batches: SQS takes 10 entries a call, and no more bytes in all than one message may have."""
    part: list[str] = []
    size = 0
    for message in messages:
        if part and (len(part) == _MAX_ENTRIES or size + len(message) > MAX_MESSAGE_BYTES):
            yield part
            part, size = [], 0
        part.append(message)
        size += len(message)
    if part:
        yield part


def _refuse(failed: Sequence[BatchResultErrorEntryTypeDef]) -> None:
    # A batch call answers 200 even when entries in it failed.
    if failed:
        raise QueueUnavailable(f"{len(failed)} entries: {failed[0].get('Code', 'unknown')}")
