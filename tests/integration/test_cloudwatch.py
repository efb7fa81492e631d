"""What the API function counts is what the ledger is told: from its log line by way of CloudWatch."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from chalicelib.postern.adapters.cloudwatch import CloudWatch
from chalicelib.postern.contract.errors import MetricsUnavailable
from chalicelib.postern.contract.metrics import embedded
from devstack.aws import EmulatedAws, Resources
from devstack.metrics import Metrics

MINUTE = timedelta(minutes=1)
NOW = datetime.now(UTC).replace(second=0, microsecond=0)

Put = Callable[..., None]


@pytest.fixture
def stage(resources: Resources) -> str:
    """Of the test's own, as metrics stay."""
    return resources.bodies_bucket


@pytest.fixture
def metrics(aws: EmulatedAws, resources: Resources) -> Metrics:
    return Metrics(aws.client("cloudwatch"), aws.client("sqs"), resources)


@pytest.fixture
def count(metrics: Metrics, stage: str, tmp_path: Path) -> Put:
    """Has a line logged that counts, and CloudWatch read it."""
    log = tmp_path / "api.log"
    log.touch()
    metrics.follow(log)

    def put(source: str, number: int, at: datetime) -> None:
        line: dict[str, Any] = {"message": "delivery.accepted", "stage": stage, "source": source, "accepted": number}
        line["_aws"] = embedded(line, {"accepted": number}, int(at.timestamp() * 1000))
        with log.open("a") as file:
            file.write(f"{json.dumps(line)}\nno line of ours\n")
        metrics.put()

    return put


def test_accepted_events_are_counted_by_the_minute_and_the_source(
    count: Put, stage: str, point_aws_at: Callable[..., None]
) -> None:
    count("github", 1, NOW - 3 * MINUTE)
    count("github", 2, NOW - 3 * MINUTE + timedelta(seconds=59))
    count("github", 1, NOW - 2 * MINUTE)
    count("stripe", 1, NOW - 2 * MINUTE)
    cloudwatch = CloudWatch(stage)
    assert cloudwatch.accepting_sources(lately=True) == {"github", "stripe"}
    assert cloudwatch.accepted("github", NOW - 9 * MINUTE, NOW) == {NOW - 3 * MINUTE: 3, NOW - 2 * MINUTE: 1}
    assert cloudwatch.accepted("github", NOW - 9 * MINUTE, NOW - 2 * MINUTE) == {NOW - 3 * MINUTE: 3}
    assert CloudWatch("another").accepting_sources(lately=False) == set()


def test_two_weeks_are_asked_for_in_as_many_calls_as_it_takes(
    count: Put, stage: str, point_aws_at: Callable[..., None]
) -> None:
    days = [NOW - timedelta(days=n, minutes=n) for n in range(1, 13)]
    for day in days:
        count("github", 2, day)
    found = CloudWatch(stage).accepted("github", NOW - timedelta(days=13), NOW)
    assert found == dict.fromkeys(days, 2)


def test_what_waits_is_the_most_that_the_queues_held(
    metrics: Metrics, aws: EmulatedAws, resources: Resources, stage: str, point_aws_at: Callable[..., None]
) -> None:
    for url, number in ((resources.queue_url, 3), (resources.dead_letter_queue_url, 2)):
        for _ in range(number):
            aws.client("sqs").send_message(QueueUrl=url, MessageBody="x")
    aws.client("sqs").receive_message(QueueUrl=resources.queue_url)  # in work, and counted
    metrics.put()
    queues = [url.rsplit("/", 1)[-1] for url in (resources.queue_url, resources.dead_letter_queue_url)]
    until = datetime.now(UTC) + 2 * MINUTE
    cloudwatch = CloudWatch(stage)
    assert cloudwatch.most_waiting(queues, NOW - 5 * MINUTE, until.replace(second=0, microsecond=0)) == 5
    assert cloudwatch.most_waiting(["no-such-queue"], NOW - 5 * MINUTE, NOW) == 0


def test_an_absent_cloudwatch_is_said_to_be(point_aws_at: Callable[..., None]) -> None:
    point_aws_at(cloudwatch="http://127.0.0.1:1")
    with pytest.raises(MetricsUnavailable, match="EndpointConnectionError"):
        CloudWatch("prod").accepting_sources(lately=True)
