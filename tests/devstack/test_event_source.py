"""What a function's answer means, as AWS documents it and emulators forgive it."""

from __future__ import annotations

from typing import Any

import pytest

from devstack.event_source import event_of, verdict_on_answer

IDS = ["a", "b", "c"]


def deleted(answer: Any, *, partial_responses: bool = True) -> set[str]:
    return set(verdict_on_answer(answer, IDS, partial_responses=partial_responses).delete)


@pytest.mark.parametrize("answer", [None, "", {}, {"batchItemFailures": []}, {"batchItemFailures": None}])
def test_an_empty_answer_is_complete_success(answer: Any) -> None:
    assert deleted(answer) == {"a", "b", "c"}


def test_only_the_listed_messages_are_kept() -> None:
    assert deleted({"batchItemFailures": [{"itemIdentifier": "b"}]}) == {"a", "c"}


@pytest.mark.parametrize(
    "item",
    [{"itemIdentifier": ""}, {"itemIdentifier": None}, {"itemIdentifier": "z"}, {"id": "a"}, "a"],
    ids=["empty", "null", "unknown", "wrong-key", "not-an-object"],
)
def test_one_malformed_item_fails_the_whole_batch(item: Any) -> None:
    assert deleted({"batchItemFailures": [{"itemIdentifier": "a"}, item]}) == set()


def test_an_answer_that_is_not_json_fails_the_whole_batch() -> None:
    assert deleted({"batchItemFailures": [object()]}) == set()


@pytest.mark.parametrize("answer", [{"statusCode": 200, "body": "…"}, {"BatchItemFailures": []}, [1]])
def test_a_wrong_top_level_key_loses_the_batch_and_says_so(answer: Any) -> None:
    verdict = verdict_on_answer(answer, IDS, partial_responses=True)
    assert verdict.delete == set(IDS)
    assert "batchItemFailures" in verdict.warning


def test_without_the_flag_the_answer_is_ignored_and_everything_deleted() -> None:
    answer = {"batchItemFailures": [{"itemIdentifier": "b"}]}
    assert deleted(answer, partial_responses=False) == {"a", "b", "c"}


def test_a_record_has_the_shape_that_lambda_gives() -> None:
    message = {
        "MessageId": "m",
        "ReceiptHandle": "r",
        "Body": "{}",
        "MD5OfBody": "0",
        "Attributes": {"ApproximateReceiveCount": "1", "MessageGroupId": "github"},
        "MessageAttributes": {"postern-attempts": {"DataType": "String", "StringValue": "3"}},
    }
    assert event_of([message], "arn:aws:sqs:eu-central-1:123456789012:q") == {
        "Records": [
            {
                "messageId": "m",
                "receiptHandle": "r",
                "body": "{}",
                "attributes": {"ApproximateReceiveCount": "1", "MessageGroupId": "github"},
                "messageAttributes": {
                    "postern-attempts": {
                        "stringValue": "3",
                        "stringListValues": [],
                        "binaryListValues": [],
                        "dataType": "String",
                    }
                },
                "md5OfBody": "0",
                "eventSource": "aws:sqs",
                "eventSourceARN": "arn:aws:sqs:eu-central-1:123456789012:q",
                "awsRegion": "eu-central-1",
            }
        ]
    }
