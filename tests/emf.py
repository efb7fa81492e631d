"""Reads a log line as CloudWatch does: its embedded metrics (AWS, "Specification: Embedded metric format")."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aws_lambda_powertools.metrics import MetricUnit

_UNITS = {unit.value for unit in MetricUnit}

Found = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def metrics_in(line: Mapping[str, Any]) -> Found:
    """(name, its dimensions) -> value, for each metric that CloudWatch finds; fails where it would reject the line."""
    if "_aws" not in line:
        return {}
    assert set(line["_aws"]) == {"Timestamp", "CloudWatchMetrics"}
    assert isinstance(line["_aws"]["Timestamp"], int)
    found: Found = {}
    for directive in line["_aws"]["CloudWatchMetrics"]:
        assert set(directive) == {"Namespace", "Dimensions", "Metrics"}
        assert directive["Namespace"] == "Postern"
        assert 1 <= len(directive["Metrics"]) <= 100
        for dimensions in directive["Dimensions"]:
            assert 1 <= len(dimensions) <= 30
            values = tuple((name, _dimension(line[name])) for name in dimensions)
            for metric in directive["Metrics"]:
                assert set(metric) == {"Name", "Unit"}
                assert metric["Unit"] in _UNITS
                assert (metric["Name"], values) not in found
                found[metric["Name"], values] = _number(line[metric["Name"]])
    return found


def names_in(line: Mapping[str, Any]) -> set[str]:
    return {name for name, _ in metrics_in(line)}


def _dimension(value: Any) -> str:
    assert isinstance(value, str)
    assert value.isascii() and value.isprintable() and value.strip() and len(value) <= 1024
    assert not value.startswith(":")
    return value


def _number(value: Any) -> float:
    assert isinstance(value, int | float) and not isinstance(value, bool)
    return value
