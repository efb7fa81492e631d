"""The filters that say which events are meant; listing and replaying share them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from marshmallow import Schema, fields, validate

from chalicelib.postern.contract import payloads
from chalicelib.postern.contract.errors import InvalidPayload
from chalicelib.postern.contract.numbers import dumps
from chalicelib.postern.processing.attempts import Status


class Moment(fields.AwareDateTime):
    """A time of ISO 8601, UTC where it says nothing else."""

    def __init__(self, **options: Any) -> None:
        super().__init__(format="iso", default_timezone=UTC, **options)

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **options: Any) -> datetime:
        found = super()._deserialize(value, attr, data, **options)
        try:
            return found.astimezone(UTC)
        except OverflowError:
            raise self.make_error("invalid", input=value, obj_type=self.OBJ_TYPE) from None


class Whole(fields.Integer):
    """A whole number, as one or as its digits; 1.7 is none, where marshmallow would make 1 of it."""

    def _validated(self, value: Any) -> int:
        if isinstance(value, float) and not value.is_integer():
            raise self.make_error("invalid", input=value)
        found: int = super()._validated(value)
        return found


class Contained(fields.Raw):
    """What a payload has in it: any JSON value, or an object or list as the JSON text of it, which keeps the digits of
    its numbers on every way. Loaded, it is text.
    """

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        if not isinstance(value, str) or not value.lstrip().startswith(("{", "[")):
            return dumps(value)
        try:
            payloads.parse(value)
        except InvalidPayload:
            return dumps(value)  # a text that only begins so
        return value


class EventFilters(Schema):
    """`type`: with a `*` at its end, all that begin so; `since` and `until`: of receipt; `issue`: of the issue with
    this id; `contains`: what the payload has in it; `key`: the provider's id, whole, or its first part where it has
    several.
    """

    ids = fields.List(fields.UUID(), load_default=None, allow_none=True, validate=validate.Length(1, 1000))
    source = fields.String(load_default=None, allow_none=True)
    type = fields.String(load_default=None, allow_none=True)
    status = fields.List(
        fields.String(validate=validate.OneOf([s.value for s in Status])),
        load_default=None,
        allow_none=True,
        validate=validate.Length(1),
    )
    since = Moment(load_default=None, allow_none=True)
    until = Moment(load_default=None, allow_none=True)
    issue = fields.String(load_default=None, allow_none=True)
    key = fields.String(load_default=None, allow_none=True, validate=validate.Length(1, 300))
    contains = Contained(load_default=None, allow_none=True)


def as_values(filters: Mapping[str, Any]) -> dict[str, Any]:
    """Values for the condition of their queries; a filter that is not there lets everything through."""
    values = {name: filters.get(name) for name in EventFilters().fields}
    if values["contains"] is not None:
        values["contains"] = payloads.jsonb_text(values["contains"])
    if values["ids"] is not None:
        values["ids"] = [str(id) for id in values["ids"]]
    return values
