"""Reconciliations: what a provider says that it sent is compared with what is here, and what is missing is fetched.

The database side of it. Who asks the provider has the token and reaches the internet (receiving/reconciling.py): it
begins one, notes page after page of what the provider lists, is told what to fetch, and says what became of that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from marshmallow import Schema, fields, validate

from chalicelib.postern.contract.deliveries import new_event_id
from chalicelib.postern.contract.errors import NotFound
from chalicelib.postern.operating.filters import Moment, Whole
from chalicelib.postern.operating.operator import Action, Duty
from chalicelib.postern.operating.reconciling.queries import Reconciliations

# More than any provider keeps its own.
_KEPT_DAYS = 90
# What one page of a provider's brings, and what is fetched between two words to the database.
_MAX_ENTRIES = 1_000


def views(book: Reconciliations) -> dict[str, Action]:
    def listing(source: str | None, before: UUID | None, limit: int) -> Mapping[str, Any]:
        return {"reconciliations": book.listed(source=source, before=before, limit=limit)}

    def show(id: UUID) -> Mapping[str, Any]:
        return {"reconciliation": book.one(id)}

    def reconciled_to(source: str, overlap_seconds: int) -> Mapping[str, Any]:
        return {"since": book.reconciled_to(source, timedelta(seconds=overlap_seconds))}

    def gaps(id: UUID, after: str | None, limit: int) -> Mapping[str, Any]:
        return {"gaps": book.gaps(id, after=after, limit=limit)}

    return {
        "reconciliations": Action(listing, _Page()),
        "show_reconciliation": Action(show, _Id()),
        "gaps": Action(gaps, _Gaps()),
        "reconciled_to": Action(reconciled_to, _Source()),
    }


def actions(book: Reconciliations, now: Callable[[], datetime], dedup_days: int) -> dict[str, Action]:
    def begin(source: str, since: datetime, only_looks: bool, hourly: bool) -> Mapping[str, Any]:
        # Of what is older, nobody knows any more whether it was processed.
        since = max(since, now() - timedelta(days=dedup_days) + timedelta(hours=1))
        id = new_event_id(now())
        return _known(book.begin(id, source=source, since=since, only_looks=only_looks, hourly=hourly))

    # Of these the reconciler function makes what they are asked for: it has the providers' tokens (api/relay.py).
    def ask(source: str, since: datetime | None, only_looks: bool) -> Mapping[str, Any]:
        return {"begin": {"source": source, "since": since, "only_looks": only_looks}}

    def advance(id: UUID) -> Mapping[str, Any]:
        return _known(id)

    def note(id: UUID, cursor: str | None, entries: Sequence[Mapping[str, Any]], next: str | None) -> Mapping[str, Any]:
        noted = book.note_page(id, cursor=cursor, entries=entries, next=next)
        return {**_known(id), "noted": noted}

    def fetch(id: UUID, limit: int) -> Mapping[str, Any]:
        gaps = book.open_gaps(id, limit)
        return {**_known(id), "gaps": gaps}

    def settle(id: UUID, settled: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
        book.settle(id, settled)
        return _known(id)

    def fail(id: UUID, error: str) -> Mapping[str, Any]:
        book.end(id, state="failed", error=error)
        return _known(id)

    def cancel(id: UUID) -> Mapping[str, Any]:
        _known(id)
        cancelled = book.end(id, state="cancelled", error=None)
        return {**_known(id), "cancelled": cancelled}

    def _known(id: UUID) -> dict[str, Any]:
        found = book.one(id)
        if found is None:
            raise NotFound(f"There is no reconciliation {id}.")
        return {"reconciliation": found}

    return {
        "ask_reconciliation": Action(ask, _Asking()),
        "advance_reconciliation": Action(advance, _Id()),
        "begin_reconciliation": Action(begin, _Beginning()),
        "note_history": Action(note, _Listed()),
        "open_gaps": Action(fetch, _Fetching()),
        "settle_gaps": Action(settle, _Settled()),
        "fail_reconciliation": Action(fail, _Failure()),
        "cancel_reconciliation": Action(cancel, _Id()),
    }


def duties(book: Reconciliations) -> dict[str, Duty]:
    def drop() -> Mapping[str, Any]:
        return {"reconciliations_dropped": book.drop(_KEPT_DAYS)}

    return {"reconciliations": drop}


def _text(most: int) -> fields.String:
    return fields.String(required=True, validate=validate.Length(1, most))


def _maybe(most: int) -> fields.String:
    return fields.String(load_default=None, allow_none=True, validate=validate.Length(1, most))


class _Id(Schema):
    id = fields.UUID(required=True)


class _Page(Schema):
    source = fields.String(load_default=None, allow_none=True)
    before = fields.UUID(load_default=None, allow_none=True)
    limit = Whole(load_default=20, validate=validate.Range(1, 1000))


class _Gaps(_Id):
    after = _maybe(300)
    limit = Whole(load_default=100, validate=validate.Range(1, 1000))


class _Asking(Schema):
    source = _text(64)
    since = Moment(load_default=None, allow_none=True)
    only_looks = fields.Boolean(load_default=False)


class _Beginning(Schema):
    source = _text(64)
    since = Moment(required=True)
    only_looks = fields.Boolean(load_default=False)
    hourly = fields.Boolean(load_default=False)


class _Source(Schema):
    source = _text(64)
    overlap_seconds = Whole(load_default=10_800, validate=validate.Range(0, 86_400))


class _Entry(Schema):
    key = _text(300)
    at = Moment(required=True)
    type = _maybe(200)
    handle = _text(300)
    refused = fields.Boolean(load_default=False)


class _Listed(_Id):
    cursor = _maybe(1000)
    entries = fields.List(fields.Nested(_Entry), required=True, validate=validate.Length(max=_MAX_ENTRIES))
    next = _maybe(1000)


class _Fetching(_Id):
    limit = Whole(load_default=10, validate=validate.Range(1, _MAX_ENTRIES))


class _Settlement(Schema):
    key = _text(300)
    state = fields.String(required=True, validate=validate.OneOf(["fetched", "no_event", "failed", "again"]))
    event_id = fields.UUID(load_default=None, allow_none=True)
    note = _maybe(500)


class _Settled(_Id):
    settled = fields.List(fields.Nested(_Settlement), required=True, validate=validate.Length(max=_MAX_ENTRIES))


class _Failure(_Id):
    error = _text(500)
