"""Deliveries that were taken for repetitions of an event: list them, say why, let one through after all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, Protocol
from uuid import UUID

from marshmallow import Schema, fields, validate

from chalicelib.postern.contract.envelope import MAX_MESSAGE_BYTES, Accepted, to_message
from chalicelib.postern.contract.errors import Conflict, NotFound
from chalicelib.postern.operating.duplicates.queries import Duplicates, Repetition
from chalicelib.postern.operating.filters import Whole
from chalicelib.postern.operating.operator import Action
from chalicelib.postern.processing.claims import Why

# So many of each kind, for one id of a provider's.
_MAX_FOUND = 50
# A function's answer carries 6 MB, in which bytes are base64.
_MOST_BYTES = 3_000_000


class Queue(Protocol):
    def send(self, message: str, *, group: str, trace: str | None = None) -> None: ...


def views(duplicates: Duplicates) -> dict[str, Action]:
    def show(id: UUID) -> Mapping[str, Any]:
        found = duplicates.duplicate(id)
        if found is None:
            return {"duplicate": None}
        body = found.body if found.body is not None and len(found.body) <= _MOST_BYTES else None
        return {"duplicate": {**asdict(found), "body": body}}

    def find(key: str) -> Mapping[str, Any]:
        return duplicates.known_by(key, _MAX_FOUND)

    return {
        "duplicates": Action(duplicates.duplicates, _Filters()),
        "show_duplicate": Action(show, _Id()),
        "find": Action(find, _Key()),
    }


def actions(duplicates: Duplicates, queue: Callable[[], Queue]) -> dict[str, Action]:
    def accept(id: UUID) -> Mapping[str, Any]:
        """Puts it on the queue as an event of its own. A second time changes nothing: its id is the event's."""
        found = duplicates.duplicate(id)
        if found is None:
            raise NotFound(f"Nothing that came as {id} was taken for a repetition.")
        if found.accepted_at is not None:
            return {"accepted": False, "event_id": id}
        event = _as_event(found)
        message = to_message(event)
        if len(message) > MAX_MESSAGE_BYTES:
            raise Conflict(f"The {len(event.body or b''):,} bytes of {id} fit no message: it cannot be let through.")
        queue().send(message, group=found.source)
        return {"accepted": True, "event_id": id}

    return {"accept_duplicate": Action(accept, _Id())}


def _as_event(found: Repetition) -> Accepted:
    """Under a claim of its own: whatever holds its key holds it on."""
    id = found.id
    if found.type is None or found.headers is None or found.format is None:
        raise Conflict(f"{id} came before such deliveries were kept: nothing is left of it to let through.")
    if found.body is None:
        raise Conflict(f"{id} had the bytes of event {found.event_id}, which is no longer stored.")
    return Accepted(
        id=id,
        source=found.source,
        type=found.type,
        dedup_key=found.dedup_key,
        claim=f"duplicate:{id}",
        received_at=found.received_at,
        headers=found.headers,
        body=found.body,
        format=found.format,
        form_field=found.form_field,
        request_id=found.request_id,
    )


class _Filters(Schema):
    source = fields.String(load_default=None, allow_none=True)
    why = fields.String(load_default=None, allow_none=True, validate=validate.OneOf([why.value for why in Why]))
    event_id = fields.UUID(load_default=None, allow_none=True)
    before = fields.UUID(load_default=None, allow_none=True)
    limit = Whole(load_default=20, validate=validate.Range(1, 1000))


class _Id(Schema):
    id = fields.UUID(required=True)


class _Key(Schema):
    key = fields.String(required=True, validate=validate.Length(1, 300))
