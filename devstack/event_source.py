"""Pure: the two ends of a Lambda event source mapping for SQS: what the function gets, and what its answer means.

Follows AWS's documentation ("Using Lambda with Amazon SQS", "Reporting batch item failures") where emulators are
more forgiving.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Verdict:
    """Which messages the mapping deletes, and what a person should hear about it."""

    delete: frozenset[str]
    warning: str = ""


def event_of(messages: Sequence[Mapping[str, Any]], queue_arn: str) -> dict[str, Any]:
    """Lambda's event for messages as `receive_message` gives them."""
    return {"Records": [_record(message, queue_arn) for message in messages]}


def verdict_on_answer(answer: Any, message_ids: Sequence[str], *, partial_responses: bool) -> Verdict:
    """For a function that returned; one that raised, or that was killed, has nothing deleted."""
    everything = Verdict(frozenset(message_ids))
    if not partial_responses:
        return everything
    try:
        answer = json.loads(json.dumps(answer))
    except (TypeError, ValueError):
        return Verdict(frozenset(), "the answer is not JSON: the whole batch failed")
    if not answer:
        return everything
    if not isinstance(answer, dict) or "batchItemFailures" not in answer:
        # AWS takes this for success, which loses the events that failed.
        return Verdict(everything.delete, "the answer has no batchItemFailures: the whole batch counts as done")
    failures = answer["batchItemFailures"]
    if not failures:
        return everything
    failed = [item.get("itemIdentifier") if isinstance(item, dict) else None for item in failures]
    if not all(isinstance(id, str) and id in message_ids for id in failed):
        return Verdict(frozenset(), "an itemIdentifier is empty or unknown: the whole batch failed")
    return Verdict(everything.delete - set(failed))


def _record(message: Mapping[str, Any], queue_arn: str) -> dict[str, Any]:
    return {
        "messageId": message["MessageId"],
        "receiptHandle": message["ReceiptHandle"],
        "body": message["Body"],
        "attributes": dict(message.get("Attributes", {})),
        "messageAttributes": {name: _attribute(value) for name, value in message.get("MessageAttributes", {}).items()},
        "md5OfBody": message.get("MD5OfBody"),
        "eventSource": "aws:sqs",
        "eventSourceARN": queue_arn,
        "awsRegion": queue_arn.split(":")[3],
    }


def _attribute(value: Mapping[str, Any]) -> dict[str, Any]:
    attribute: dict[str, Any] = {
        "stringListValues": [],
        "binaryListValues": [],
        "dataType": value["DataType"],
    }
    if "StringValue" in value:
        attribute["stringValue"] = value["StringValue"]
    if "BinaryValue" in value:
        attribute["binaryValue"] = value["BinaryValue"]
    return attribute
