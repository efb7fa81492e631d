"""Refused deliveries that were kept to be explained: list them, show one, note what became of it, let old ones go."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from marshmallow import Schema, fields, validate

from chalicelib.postern.contract.errors import Conflict
from chalicelib.postern.operating.filters import Whole
from chalicelib.postern.operating.operator import Action, Duty
from chalicelib.postern.operating.refused.queries import Refused

# Kept for 30 days; of each source 1,000 deliveries and 256 MB at most, counted apart for strangers and signers.
_MAX_DAYS = 30
_MAX_KEPT = 1_000
_MAX_BYTES = 256_000_000


def views(refused: Refused) -> dict[str, Action]:
    return {"rejected": Action(refused.rejected, _Filters())}


def actions(refused: Refused) -> dict[str, Action]:
    # No view: what was refused may hold what becomes a secret (Notion's token).
    def show(id: UUID) -> Mapping[str, Any]:
        return {"rejected": refused.rejected_delivery(id)}

    # Of these the public function makes what they are asked for: it has the sources' secrets (api/relay.py).
    def reverify(id: UUID, stale: bool) -> Mapping[str, Any]:
        return {**show(id), "stale": stale}

    def resolve(id: UUID, event_id: UUID, note: str | None) -> Mapping[str, Any]:
        if event_id != id:
            raise Conflict("A delivery that is let through becomes the event of its own id.")
        return {"resolved": refused.resolve_rejected(id, event_id, note)}

    return {
        "show_rejected": Action(show, _Id()),
        "explain_rejected": Action(show, _Id()),
        "reverify_rejected": Action(reverify, _Reverification()),
        "resolve_rejected": Action(resolve, _Resolution()),
    }


def duties(refused: Refused) -> dict[str, Duty]:
    def drop() -> Mapping[str, Any]:
        return {"rejected_dropped": refused.drop_rejected(days=_MAX_DAYS, most=_MAX_KEPT, bytes=_MAX_BYTES)}

    return {"rejected": drop}


class _Filters(Schema):
    source = fields.String(load_default=None, allow_none=True)
    pending = fields.Boolean(load_default=False)
    before = fields.UUID(load_default=None, allow_none=True)
    limit = Whole(load_default=20, validate=validate.Range(1, 1000))


class _Id(Schema):
    id = fields.UUID(required=True)


class _Reverification(Schema):
    id = fields.UUID(required=True)
    stale = fields.Boolean(load_default=False)


class _Resolution(Schema):
    id = fields.UUID(required=True)
    event_id = fields.UUID(required=True)
    note = fields.String(load_default=None, allow_none=True, validate=validate.Length(max=200))
