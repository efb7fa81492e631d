"""Use case: what operators ask of an inbox, as actions with JSON in and JSON out.

The `store` function performs them in a deployment; the command line performs them itself on a local run.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol
from uuid import UUID

from marshmallow import Schema, ValidationError, fields, validate

from chalicelib.errors import UnknownAction
from chalicelib.process import Status

_PARTITIONS_AHEAD_DAYS = 14

# What was refused is kept for so long, and of each source no more than so many: at most 64 MB.
_REJECTED_DAYS = 30
_MOST_REJECTED = 1_000


class Reports(Protocol):
    def events(
        self,
        *,
        source: str | None,
        type: str | None,
        status: str | None,
        before: UUID | None,
        limit: int,
    ) -> list[dict[str, Any]]: ...
    def event(self, id: UUID) -> dict[str, Any] | None: ...
    def rejected(
        self, *, source: str | None, pending: bool, before: UUID | None, limit: int
    ) -> dict[str, list[dict[str, Any]]]: ...
    def rejected_delivery(self, id: UUID) -> dict[str, Any] | None: ...
    def resolve_rejected(self, id: UUID, event_id: UUID) -> bool: ...
    def drop_rejected(self, *, days: int, most: int) -> int: ...
    def secrets_used(self, days: int) -> list[dict[str, Any]]: ...
    def ensure_partitions(self, days_ahead: int) -> int: ...


@dataclass(frozen=True)
class Operator:
    """Performs actions on one installation's database."""

    reports: Reports
    migrate: Callable[[], list[str]]

    def perform(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """`{"action": NAME, …arguments}` -> the action's result. Raises UnknownAction with a sentence."""
        arguments = dict(request)
        action = arguments.pop("action", None)
        actions: dict[Any, tuple[Schema, Callable[..., dict[str, Any]]]] = {
            "migrate": (Schema(), self._migrate),
            "events": (_EventsArguments(), self._events),
            "show": (_ShowArguments(), self._show),
            "rejected": (_RejectedArguments(), self._rejected),
            "show_rejected": (_ShowArguments(), self._show_rejected),
            "resolve_rejected": (_ResolveArguments(), self._resolve_rejected),
            "secrets_used": (_DaysArguments(), self._secrets_used),
        }
        if action not in actions:
            raise UnknownAction(f"There is no action {action!r}; there are {', '.join(actions)}.")
        schema, perform = actions[action]
        try:
            checked: dict[str, Any] = schema.load(arguments)
        except ValidationError as exc:
            raise UnknownAction(f"Action '{action}': {exc.messages}") from exc
        return perform(**checked)

    def maintain(self) -> dict[str, Any]:
        """What has to be done every hour."""
        return {
            "partitions_made": self.reports.ensure_partitions(_PARTITIONS_AHEAD_DAYS),
            "rejected_dropped": self.reports.drop_rejected(days=_REJECTED_DAYS, most=_MOST_REJECTED),
        }

    def _migrate(self) -> dict[str, Any]:
        return {"applied": self.migrate()}

    def _events(self, **filters: Any) -> dict[str, Any]:
        return {"events": [_presentable(event) for event in self.reports.events(**filters)]}

    def _show(self, id: UUID) -> dict[str, Any]:
        event = self.reports.event(id)
        return {"event": _presentable(event) if event else None}

    def _rejected(self, **filters: Any) -> dict[str, Any]:
        found: dict[str, Any] = _presentable(self.reports.rejected(**filters))
        return found

    def _show_rejected(self, id: UUID) -> dict[str, Any]:
        found = self.reports.rejected_delivery(id)
        return {"rejected": _presentable(found) if found else None}

    def _resolve_rejected(self, id: UUID, event_id: UUID) -> dict[str, Any]:
        return {"resolved": self.reports.resolve_rejected(id, event_id)}

    def _secrets_used(self, days: int) -> dict[str, Any]:
        return {"secrets": _presentable(self.reports.secrets_used(days))}


class _RejectedArguments(Schema):
    source = fields.String(load_default=None, allow_none=True)
    pending = fields.Boolean(load_default=False)
    before = fields.UUID(load_default=None, allow_none=True)
    limit = fields.Integer(load_default=20, validate=validate.Range(1, 1000))


class _ResolveArguments(Schema):
    id = fields.UUID(required=True)
    event_id = fields.UUID(required=True)


class _DaysArguments(Schema):
    days = fields.Integer(load_default=30, validate=validate.Range(1, 366))


class _EventsArguments(Schema):
    source = fields.String(load_default=None, allow_none=True)
    type = fields.String(load_default=None, allow_none=True)
    status = fields.String(load_default=None, allow_none=True, validate=validate.OneOf([s.value for s in Status]))
    before = fields.UUID(load_default=None, allow_none=True)
    limit = fields.Integer(load_default=20, validate=validate.Range(1, 1000))


class _ShowArguments(Schema):
    id = fields.UUID(required=True)


def _presentable(value: Any) -> Any:
    """As JSON has it: times in ISO 8601 UTC, ids as text, bytes in base64."""
    if isinstance(value, Mapping):
        return {key: _presentable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_presentable(item) for item in value]
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value
