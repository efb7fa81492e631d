"""The schema and its storage: migrate it, make partitions ahead."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from marshmallow import Schema

from chalicelib.operate import Action, Duty

_PARTITIONS_AHEAD_DAYS = 14


class Partitions(Protocol):
    def ensure_partitions(self, days_ahead: int) -> int: ...


def actions(migrate: Callable[[], list[str]]) -> dict[str, Action]:
    def run() -> Mapping[str, Any]:
        return {"applied": migrate()}

    return {"migrate": Action(run, Schema())}


def duties(partitions: Partitions) -> dict[str, Duty]:
    return {"partitions": lambda: {"partitions_made": partitions.ensure_partitions(_PARTITIONS_AHEAD_DAYS)}}
