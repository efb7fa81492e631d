"""Which metrics there are, and how a log line says that it carries some: CloudWatch's embedded metric format (EMF).

CloudWatch reads `_aws` in a line and takes metrics and dimensions from the line's own fields. Every metric has the
dimension `stage`; some are counted once more by another field. Docs: docs/observability.md, docs/decisions/0005.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

NAMESPACE = "Postern"


class Log(Protocol):
    """Writes one line, a name with its fields; `metrics` are counted from it. running.logs gives the promise."""

    def __call__(
        self, name: str, /, *, failed: bool = False, metrics: Mapping[str, float] | None = None, **fields: Any
    ) -> None: ...


# Stands for every source that the installation does not declare: a dimension's values are paid for, each of them.
UNKNOWN_SOURCE = "unknown"


@dataclass(frozen=True)
class Metric:
    """`by`: the field by which it is counted besides `stage`; its values are few, and none is a sender's to choose."""

    by: str | None = None
    unit: str = "Count"


METRICS = {
    "accepted": Metric(by="source"),
    "rejected": Metric(by="reason"),
    "verified_not_kept": Metric(by="source"),
    "secret_matches": Metric(by="secret_used"),
    "duplicates": Metric(by="source"),
    "processed": Metric(by="source"),
    "stale": Metric(by="source"),
    "failed": Metric(by="source"),
    "delayed": Metric(by="source"),
    "dead": Metric(by="source"),
    "drift": Metric(by="source"),
    "ingest_lag_ms": Metric(unit="Milliseconds"),
    "ack_ms": Metric(unit="Milliseconds"),
    "batch_size": Metric(),
    "ledger_mismatch": Metric(),
    "quiet_sources": Metric(by="source"),
    "reconcile_gaps": Metric(by="source"),
    "reconcile_failures": Metric(by="source"),
}


def embedded(line: Mapping[str, Any], names: Mapping[str, Any], at_ms: int) -> dict[str, Any]:
    """`_aws` for a line that has these metrics among its fields; `at_ms` is Unix time in milliseconds.

    A directive's metrics share its dimensions, so that there is one for each way of counting.
    """
    by: dict[str | None, list[dict[str, str]]] = {}
    for name in names:
        metric = METRICS[name]
        by.setdefault(metric.by if metric.by in line else None, []).append({"Name": name, "Unit": metric.unit})
    return {
        "Timestamp": at_ms,
        "CloudWatchMetrics": [
            {
                "Namespace": NAMESPACE,
                "Dimensions": [["stage"], ["stage", field]] if field else [["stage"]],
                "Metrics": metrics,
            }
            for field, metrics in by.items()
        ],
    }
