"""What a line says of its metrics is what CloudWatch reads; AWS's own serializer is the witness."""

from __future__ import annotations

from contextvars import Context
from typing import Any

import pytest
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.metrics.provider.cloudwatch_emf.cloudwatch import AmazonCloudWatchEMFProvider

from chalicelib.postern.contract import errors
from chalicelib.postern.contract.metrics import METRICS, embedded
from chalicelib.postern.running import logs
from tests.emf import metrics_in


def by_powertools(line: dict[str, str], name: str, field: str | None) -> dict[str, Any]:
    metrics = AmazonCloudWatchEMFProvider(namespace="Postern")
    metrics.add_dimension("stage", line["stage"])
    if field:
        metrics.add_dimensions(stage=line["stage"], **{field: line[field]})
    metrics.add_metric(name, MetricUnit(METRICS[name].unit), 1)
    metrics.timestamp = 1_700_000_000_000
    document: dict[str, Any] = metrics.serialize_metric_set()["_aws"]
    return document


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_is_declared_as_powertools_would(name: str) -> None:
    line = {"stage": "prod", "source": "github", "reason": "invalid_signature", "secret_used": "github/0a1b2c3d"}
    assert embedded(line, {name: 1}, 1_700_000_000_000) == by_powertools(line, name, METRICS[name].by)


def test_metrics_of_one_line_are_each_counted_their_own_way() -> None:
    line: dict[str, Any] = {"stage": "prod", "source": "github", "processed": 1, "ingest_lag_ms": 12.5}
    line["_aws"] = embedded(line, {"processed": 1, "ingest_lag_ms": 12.5}, 1)
    assert metrics_in(line) == {
        ("processed", (("stage", "prod"),)): 1,
        ("processed", (("stage", "prod"), ("source", "github"))): 1,
        ("ingest_lag_ms", (("stage", "prod"),)): 12.5,
    }


def test_what_a_line_does_not_say_is_no_dimension_of_its_metrics() -> None:
    line: dict[str, Any] = {"stage": "prod", "processed": 1}
    line["_aws"] = embedded(line, {"processed": 1}, 1)
    assert metrics_in(line) == {("processed", (("stage", "prod"),)): 1}


def test_outside_of_an_invocation_nothing_is_counted() -> None:
    """There is no stage to count it for."""
    assert Context().run(logs._entry, {"reason": "x"}, {"rejected": 1}) == {"reason": "x", "rejected": 1}


def test_the_reasons_that_are_a_dimension_are_the_codes_of_our_answers() -> None:
    """Few, and none of a sender's making: each is a metric of its own, and is paid for."""
    codes = {refusal.code for refusal in [errors.Refusal, *errors.Refusal.__subclasses__()]}
    assert len(codes) < 12
    assert all(code.isidentifier() for code in codes)
