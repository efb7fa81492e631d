"""docs/observability.md names every line that is logged and every metric, as the code has them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from chalicelib.postern.contract.metrics import METRICS
from chalicelib.postern.processing.consume import became
from chalicelib.postern.processing.settling import Kind, Outcome

PROJECT = Path(__file__).parents[2]
DOCUMENT = (PROJECT / "docs" / "observability.md").read_text("utf-8")
ROWS = [[cell.strip() for cell in line.split("|")[1:-1]] for line in DOCUMENT.splitlines() if line.startswith("|")]


def logged_names(file: Path) -> Iterator[str]:
    """The names in calls of `line`, `log`, `crash` and `timed`, where they are spelled out."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args):
            continue
        match node.func.attr, node.args[0]:
            case "timed", ast.Constant(value=str(name)):
                yield from (f"{name}.done", f"{name}.failed")
            case "line" | "log" | "crash", ast.Constant(value=str(name)):
                yield name


OUTCOMES = [*(Outcome(kind, attempts=1) for kind in Kind), Outcome(Kind.RETRY), Outcome(Kind.RETRY, delay=1)]
NAMES = {name for file in [PROJECT / "app.py", *(PROJECT / "chalicelib").rglob("*.py")] for name in logged_names(file)}
NAMES |= {f"event.{became(outcome)}" for outcome in OUTCOMES} | {"delivery.accepted", "delivery.rejected"}


def test_names_are_found_in_the_code() -> None:
    assert {"batch.consumed", "maintenance.done", "request.failed", "event.delayed"} <= NAMES


def test_every_line_is_in_the_document_and_no_other() -> None:
    documented = {name for row in ROWS for name in re.findall(r"`([a-z_]+\.[a-z_]+)`", row[0])}
    assert documented == NAMES


@pytest.mark.parametrize("name", METRICS)
def test_each_metric_is_in_the_document_with_its_unit_and_dimensions(name: str) -> None:
    metric = METRICS[name]
    [row] = [row for row in ROWS if row[0] == f"`{name}`"]
    assert row[1:3] == [metric.unit, f"`stage`, `{metric.by}`" if metric.by else "-"]
