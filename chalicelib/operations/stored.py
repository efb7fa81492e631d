"""Stored events: list them, show one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol
from uuid import UUID

from marshmallow import Schema, fields, validate

from chalicelib.operate import Action
from chalicelib.operations.filters import EventFilters


class Events(Protocol):
    def events(
        self,
        filters: Mapping[str, Any],
        *,
        before: UUID | None,
        after: UUID | None,
        attempts: int | None,
        error: str | None,
        limit: int,
    ) -> list[dict[str, Any]]: ...
    def event(self, id: UUID) -> dict[str, Any] | None: ...
    def delivery(self, id: UUID) -> dict[str, Any] | None: ...
    def secrets_used(self, days: int) -> list[dict[str, Any]]: ...


def actions(events: Events) -> dict[str, Action]:
    def listing(
        before: UUID | None, after: UUID | None, attempts: int | None, error: str | None, limit: int, **filters: Any
    ) -> Mapping[str, Any]:
        found = events.events(filters, before=before, after=after, attempts=attempts, error=error, limit=limit)
        return {"events": found}

    def show(id: UUID) -> Mapping[str, Any]:
        return {"event": events.event(id)}

    def show_delivery(id: UUID) -> Mapping[str, Any]:
        return {"delivery": events.delivery(id)}

    def secrets_used(days: int) -> Mapping[str, Any]:
        return {"secrets": events.secrets_used(days)}

    return {
        "events": Action(listing, _Listing()),
        "show": Action(show, _Id()),
        "show_delivery": Action(show_delivery, _Id()),
        "secrets_used": Action(secrets_used, _Days()),
    }


class _Listing(EventFilters):
    before = fields.UUID(load_default=None, allow_none=True)
    after = fields.UUID(load_default=None, allow_none=True)
    attempts = fields.Integer(load_default=None, allow_none=True, validate=validate.Range(min=1))
    error = fields.String(load_default=None, allow_none=True)
    limit = fields.Integer(load_default=20, validate=validate.Range(1, 1000))


class _Id(Schema):
    id = fields.UUID(required=True)


class _Days(Schema):
    days = fields.Integer(load_default=30, validate=validate.Range(1, 366))
