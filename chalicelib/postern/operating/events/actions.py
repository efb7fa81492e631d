"""Stored events: list them, show one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from marshmallow import Schema, fields, validate

from chalicelib.postern.operating.events.queries import Events
from chalicelib.postern.operating.filters import EventFilters, Whole
from chalicelib.postern.operating.operator import Action

# A function's answer carries 6 MB, in which bytes are base64 and an event has its headers and its tries.
_PART_BYTES = 3_000_000


def views(events: Events) -> dict[str, Action]:
    def listing(
        before: UUID | None, after: UUID | None, attempts: int | None, error: str | None, limit: int, **filters: Any
    ) -> Mapping[str, Any]:
        found = events.events(filters, before=before, after=after, attempts=attempts, error=error, limit=limit)
        return {"events": found.events, "searched_to": found.searched_to}

    def show(id: UUID) -> Mapping[str, Any]:
        return {"event": _without_large_body(events.event(id))}

    def show_delivery(id: UUID) -> Mapping[str, Any]:
        return {"delivery": _without_large_body(events.delivery(id))}

    def body(id: UUID, of: str, offset: int) -> Mapping[str, Any]:
        return {"part": events.body(id, of=of, offset=offset, length=_PART_BYTES)}

    def secrets_used(days: int) -> Mapping[str, Any]:
        return {"secrets": events.secrets_used(days)}

    return {
        "events": Action(listing, _Listing()),
        "show": Action(show, _Id()),
        "show_delivery": Action(show_delivery, _Id()),
        "body": Action(body, _Part()),
        "secrets_used": Action(secrets_used, _Days()),
    }


class _Listing(EventFilters):
    before = fields.UUID(load_default=None, allow_none=True)
    after = fields.UUID(load_default=None, allow_none=True)
    attempts = Whole(load_default=None, allow_none=True, validate=validate.Range(1, 2**31 - 1))
    error = fields.String(load_default=None, allow_none=True)
    limit = Whole(load_default=20, validate=validate.Range(1, 1000))


def _without_large_body(found: dict[str, Any] | None) -> dict[str, Any] | None:
    """One that would not fit into a function's answer is None, and asked for in parts: `bytes` says how many."""
    if found is None:
        return None
    size = len(found["body"])
    return {**found, "bytes": size, "body": found["body"] if size <= _PART_BYTES else None}


class _Part(Schema):
    id = fields.UUID(required=True)
    of = fields.String(required=True, validate=validate.OneOf(["event", "delivery"]))
    offset = Whole(required=True, validate=validate.Range(0, 2**31 - 2))


class _Id(Schema):
    id = fields.UUID(required=True)


class _Days(Schema):
    days = Whole(load_default=30, validate=validate.Range(1, 366))
