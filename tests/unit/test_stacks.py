"""What CloudFormation may answer, and the emulator does not: a deletion that fails, work that never ends."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber

from deployment import stacks
from deployment.errors import DeploymentError
from deployment.stacks import Stack

NAME = "postern-prod"
ID = "arn:aws:cloudformation:us-east-1:000000000000:stack/postern-prod/1"
AT = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def aws() -> Iterator[Stubber]:
    client = boto3.client(
        "cloudformation", region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test"
    )
    with Stubber(client) as stubber:
        yield stubber


def test_a_deletion_that_fails_says_what_stands_in_the_way(aws: Stubber) -> None:
    describe(aws, "UPDATE_COMPLETE")
    describe(aws, "UPDATE_COMPLETE")
    events(aws)
    aws.add_response("delete_stack", {}, {"StackName": NAME})
    events(aws, ("Network", "DELETE_FAILED", "It is in use."), ("Api", "DELETE_FAILED", "Resource deletion cancelled"))
    describe(aws, "DELETE_FAILED")

    with pytest.raises(DeploymentError) as caught:
        Stack(aws.client, NAME, print).delete()

    assert str(caught.value) == "Stack postern-prod cannot be removed.\n  Network: It is in use."
    aws.assert_no_pending_responses()


def test_what_never_ends_is_given_up_and_said(aws: Stubber, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stacks, "_WITHIN_SECONDS", 0.0)
    describe(aws, "UPDATE_IN_PROGRESS")

    with pytest.raises(DeploymentError, match="has not ended within 0 hours: see its console"):
        Stack(aws.client, NAME, print).delete()


def describe(aws: Stubber, status: str) -> None:
    stack: dict[str, Any] = {"StackId": ID, "StackName": NAME, "StackStatus": status, "CreationTime": AT}
    aws.add_response("describe_stacks", {"Stacks": [stack]}, {"StackName": NAME})


def events(aws: Stubber, *happened: tuple[str, str, str]) -> None:
    found = [
        {
            "StackId": ID,
            "EventId": str(number),
            "StackName": NAME,
            "Timestamp": AT,
            "LogicalResourceId": resource,
            "ResourceStatus": status,
            "ResourceStatusReason": reason,
        }
        for number, (resource, status, reason) in enumerate(happened)
    ]
    aws.add_response("describe_stack_events", {"StackEvents": found}, {"StackName": ID})
