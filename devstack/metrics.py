"""CloudWatch's part of a run: puts what the log lines count, and how much the queues hold, to the emulated one.

On AWS, CloudWatch reads the functions' lines (embedded metric format) and SQS counts its messages itself.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from devstack.aws import Resources

_ATTRIBUTES = {
    "ApproximateNumberOfMessages": "ApproximateNumberOfMessagesVisible",
    "ApproximateNumberOfMessagesNotVisible": "ApproximateNumberOfMessagesNotVisible",
    "ApproximateNumberOfMessagesDelayed": "ApproximateNumberOfMessagesDelayed",
}
# PutMetricData takes no more in one call.
_MAX_DATA = 1000

# Namespace, name, unit, dimensions, minute.
_Key = tuple[str, str, str, tuple[tuple[str, str], ...], int]


@dataclass
class _Statistics:
    """What CloudWatch keeps of the values of a minute."""

    count: int
    total: float
    least: float
    most: float

    def add(self, value: float) -> None:
        self.count += 1
        self.total += value
        self.least = min(self.least, value)
        self.most = max(self.most, value)


class Metrics:
    """Follows log files; each line's metrics are put once, to the minute that the line names."""

    def __init__(self, cloudwatch: Any, sqs: Any, resources: Resources) -> None:
        self._cloudwatch = cloudwatch
        self._sqs = sqs
        self._queues = (resources.queue_url, resources.dead_letter_queue_url)
        self._positions: dict[Path, int] = {}
        self._kept: dict[_Key, _Statistics] = {}

    def follow(self, log: Path) -> None:
        self._positions[log] = 0

    def put(self) -> None:
        """What is new in the lines, and the queues' depth. What the emulator does not take, it gets the next time."""
        for log in self._positions:
            for line in self._new_lines(log):
                _add(line, self._kept)
        try:
            self._put("Postern", self._kept)
            self._kept = {}
            self._put("AWS/SQS", self._depths())
        except (BotoCoreError, ClientError):
            return

    def _new_lines(self, log: Path) -> Iterable[bytes]:
        if not log.exists():
            return []
        with log.open("rb") as file:
            file.seek(self._positions[log])
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        self._positions[log] += len(whole)
        return whole.splitlines()

    def _depths(self) -> dict[_Key, _Statistics]:
        now = int(time.time()) // 60 * 60
        found: dict[_Key, _Statistics] = {}
        for url in self._queues:
            answer = self._sqs.get_queue_attributes(QueueUrl=url, AttributeNames=list(_ATTRIBUTES))
            for attribute, name in _ATTRIBUTES.items():
                number = float(answer["Attributes"].get(attribute, 0))
                key = ("AWS/SQS", name, "Count", (("QueueName", url.rsplit("/", 1)[-1]),), now)
                found[key] = _Statistics(1, number, number, number)
        return found

    def _put(self, namespace: str, kept: Mapping[_Key, _Statistics]) -> None:
        data = [_datum(key, statistics) for key, statistics in kept.items()]
        for at in range(0, len(data), _MAX_DATA):
            self._cloudwatch.put_metric_data(Namespace=namespace, MetricData=data[at : at + _MAX_DATA])


def _datum(key: _Key, statistics: _Statistics) -> dict[str, Any]:
    _, name, unit, dimensions, minute = key
    return {
        "MetricName": name,
        "Dimensions": [{"Name": name, "Value": value} for name, value in dimensions],
        "Timestamp": minute,
        "Unit": unit,
        "StatisticValues": {
            "SampleCount": statistics.count,
            "Sum": statistics.total,
            "Minimum": statistics.least,
            "Maximum": statistics.most,
        },
    }


def _add(line: bytes, kept: dict[_Key, _Statistics]) -> None:
    """What a line counts; a line that is none of ours counts nothing."""
    if b'"_aws"' not in line:
        return
    try:
        entry = json.loads(line)
        embedded = entry["_aws"]
        minute = int(embedded["Timestamp"]) // 60_000 * 60
        for directive in embedded["CloudWatchMetrics"]:
            for names in directive["Dimensions"]:
                dimensions = tuple((name, str(entry[name])) for name in names)
                for metric in directive["Metrics"]:
                    value = float(entry[metric["Name"]])
                    key = (directive["Namespace"], metric["Name"], metric["Unit"], dimensions, minute)
                    kept.setdefault(key, _Statistics(0, 0.0, value, value)).add(value)
    except (ValueError, KeyError, TypeError):
        return
