"""Use case: what operators ask of an inbox, as actions with JSON in and JSON out, and what is done by the clock.

The `store` function performs the actions in a deployment; the command line performs them itself on a local run. What
there is to do stands in chalicelib/postern/operating, a module a subject; wiring puts them together.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from marshmallow import Schema, ValidationError

from chalicelib.postern.contract.errors import PosternError, UnfitArguments, UnknownAction


@dataclass(frozen=True)
class Action:
    """`perform` gets the arguments that `arguments` has checked, by name; its result may hold times, ids and bytes."""

    perform: Callable[..., Mapping[str, Any]]
    arguments: Schema


# The actions that change nothing; the `reader` function performs them as well, for those who may look and no more.
VIEWS = frozenset(
    {
        "body",
        "drift",
        "duplicates",
        "events",
        "find",
        "gaps",
        "handlers",
        "issues",
        "ledger",
        "migrations",
        "plan_replay",
        "reconciled_to",
        "reconciliations",
        "rejected",
        "replays",
        "secrets_used",
        "shape",
        "show",
        "show_delivery",
        "show_duplicate",
        "show_issue",
        "show_reconciliation",
        "show_replay",
        "stats",
        "status",
        "storage",
        "stream",
        "version",
    }
)

# What is done by the clock: it returns what it did, as fields of maintenance's log line.
Duty = Callable[[], Mapping[str, Any]]


# Keeps how a duty went, for those who ask: its name, and why it failed or None.
Noting = Callable[[str, str | None], None]


def _forget(name: str, reason: str | None) -> None:
    pass


class MaintenanceFailed(PosternError):
    """Some duties could not be done; the others were."""


@dataclass(frozen=True)
class Operator:
    """Performs actions on one installation's database, and its duties."""

    actions: Mapping[str, Action]
    duties: Mapping[str, Duty]
    note: Noting = _forget

    def perform(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """`{"action": NAME, …arguments}` -> the action's result. Raises UnknownAction with a sentence."""
        arguments = dict(request)
        name = arguments.pop("action", None)
        if name not in self.actions:
            raise UnknownAction(f"There is no action {name!r}; there are {', '.join(self.actions)}.")
        action = self.actions[name]
        try:
            checked: dict[str, Any] = action.arguments.load(arguments)
        except ValidationError as exc:
            raise UnfitArguments(f"Action '{name}': {exc.messages}", exc.messages_dict) from exc
        result: dict[str, Any] = presentable(action.perform(**checked))
        return result

    def maintain(self) -> dict[str, Any]:
        """Does every duty, whatever becomes of the others. Raises MaintenanceFailed with the names of those that
        failed.
        """
        done: dict[str, Any] = {}
        failed: dict[str, Exception] = {}
        for name, duty in self.duties.items():
            try:
                done |= duty()
            except Exception as exc:
                failed[name] = exc
            self._note(name, failed.get(name))
        if failed:
            what = "; ".join(f"{name}: {type(exc).__name__}: {exc}" for name, exc in failed.items())
            raise MaintenanceFailed(what) from next(iter(failed.values()))
        return done

    def _note(self, duty: str, exc: Exception | None) -> None:
        with suppress(PosternError):  # of a database that is away, whoever asks it is told
            self.note(duty, None if exc is None else f"{type(exc).__name__}: {exc}")


def presentable(value: Any) -> Any:
    """As JSON has it: times in ISO 8601 UTC, ids as text, bytes in base64."""
    if isinstance(value, Mapping):
        return {key: presentable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [presentable(item) for item in value]
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, bytes | memoryview):
        return base64.b64encode(value).decode()
    return value
