"""The stream of stored events, page by page."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from marshmallow import Schema, ValidationError, fields, validate, validates_schema

from chalicelib.postern.operating.filters import Moment, Whole
from chalicelib.postern.operating.operator import Action
from chalicelib.postern.operating.stream.queries import Place, Stream

_NOW = "now"


def views(stream: Stream) -> dict[str, Action]:
    def page(
        cursor: str | None,
        since: datetime | None,
        first: UUID | None,
        source: str | None,
        type: str | None,
        bodies: bool,
        limit: int,
    ) -> Mapping[str, Any]:
        now = cursor == _NOW
        place = None if cursor is None or now else Place.of(cursor)
        found = stream.page(
            place=place, now=now, since=since, first=first, source=source, type=type, limit=limit, bodies=bodies
        )
        return {
            "cursor": str(found.place),
            "more": found.more,
            "held": found.held,
            "kept_since": found.kept_since,
            "events": found.events,
        }

    return {"stream": Action(page, _Stream())}


def _is_cursor(text: str) -> None:
    if text != _NOW:
        try:
            Place.of(text)
        except ValueError as exc:
            raise ValidationError(str(exc)) from None


class _Stream(Schema):
    """`cursor`: of the page before, or `now`; otherwise it begins with what was received `since`, with the event
    `first`, or with the oldest.
    """

    cursor = fields.String(load_default=None, allow_none=True, validate=_is_cursor)
    since = Moment(load_default=None, allow_none=True)
    first = fields.UUID(load_default=None, allow_none=True)
    source = fields.String(load_default=None, allow_none=True)
    type = fields.String(load_default=None, allow_none=True)
    bodies = fields.Boolean(load_default=False)
    limit = Whole(load_default=100, validate=validate.Range(1, 1000))

    @validates_schema
    def _begins_once(self, data: Mapping[str, Any], **_: Any) -> None:
        if sum(data[name] is not None for name in ("cursor", "since", "first")) > 1:
            raise ValidationError("Where it begins is said once.", "cursor")
