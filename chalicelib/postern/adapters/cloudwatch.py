"""CloudWatch, as the witness of what was accepted and of what waits; decides nothing.

ListMetrics and GetMetricStatistics are what is free of charge (a million calls a month); GetMetricData is not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from chalicelib.postern.adapters import aws
from chalicelib.postern.contract.errors import MetricsUnavailable
from chalicelib.postern.contract.metrics import NAMESPACE

# GetMetricStatistics answers with no more points than that; a point is a minute.
_MAX_POINTS = timedelta(minutes=1440)
_WAITING = (
    "ApproximateNumberOfMessagesVisible",
    "ApproximateNumberOfMessagesNotVisible",
    "ApproximateNumberOfMessagesDelayed",
)


@dataclass(frozen=True)
class CloudWatch:
    """One stage's metrics. Every method raises MetricsUnavailable."""

    stage: str

    def accepting_sources(self, *, lately: bool) -> set[str]:
        """The sources with a count of accepted events: within three hours, or within two weeks.

        One that is new may take a quarter of an hour to be among them.
        """
        optional: dict[str, str] = {"RecentlyActive": "PT3H"} if lately else {}
        sources: set[str] = set()
        while True:
            with aws.failing_as(MetricsUnavailable):
                answer = aws.cloudwatch().list_metrics(
                    Namespace=NAMESPACE,
                    MetricName="accepted",
                    Dimensions=[{"Name": "stage", "Value": self.stage}, {"Name": "source"}],
                    **optional,
                )
            for metric in answer["Metrics"]:
                named = {dimension["Name"]: dimension["Value"] for dimension in metric["Dimensions"]}
                if named.keys() == {"stage", "source"}:
                    sources.add(named["source"])
            if not answer.get("NextToken"):
                return sources
            optional["NextToken"] = answer["NextToken"]

    def accepted(self, source: str, since: datetime, until: datetime) -> dict[datetime, int]:
        """How many events were accepted in each minute of receipt that has any."""
        dimensions = {"stage": self.stage, "source": source}
        points = _points(NAMESPACE, "accepted", dimensions, "Sum", since, until)
        return {minute: round(value) for minute, value in points if value}

    def most_waiting(self, queues: Sequence[str], since: datetime, until: datetime) -> int:
        """How many messages these queues held at most, by their names; in sight, in work and delayed."""
        total = 0
        for queue in queues:
            held: Counter[datetime] = Counter()
            for name in _WAITING:
                for minute, value in _points("AWS/SQS", name, {"QueueName": queue}, "Maximum", since, until):
                    held[minute] += round(value)
            total += max(held.values(), default=0)
        return total


def _points(
    namespace: str, name: str, dimensions: dict[str, str], statistic: str, since: datetime, until: datetime
) -> Iterator[tuple[datetime, float]]:
    """Minute and value, in no order. `since` and `until` are whole minutes."""
    while since < until:
        end = min(until, since + _MAX_POINTS)
        with aws.failing_as(MetricsUnavailable):
            answer: dict[str, Any] = aws.cloudwatch().get_metric_statistics(
                Namespace=namespace,
                MetricName=name,
                Dimensions=[{"Name": key, "Value": value} for key, value in dimensions.items()],
                StartTime=since,
                EndTime=end,
                Period=60,
                Statistics=[statistic],
            )
        for point in answer["Datapoints"]:
            yield point["Timestamp"].astimezone(UTC), point[statistic]
        since = end
