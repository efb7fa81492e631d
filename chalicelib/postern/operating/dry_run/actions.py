"""Dry run: an event goes through today's handlers, and everything that they do to the database is undone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any
from uuid import UUID

from marshmallow import Schema, fields

from chalicelib.postern.adapters.row_changes import RowChanges
from chalicelib.postern.contract.errors import NotFound
from chalicelib.postern.operating.dry_run.queries import StoredEvents
from chalicelib.postern.operating.operator import Action
from chalicelib.postern.processing.attempts import Call, Runner, Status, Trigger, Try
from chalicelib.postern.processing.failures import Failure, failure_of, later_of
from chalicelib.postern.processing.limits import Clock
from chalicelib.postern.processing.order import Order

# The store function's time, less what it needs besides.
_SECONDS = 120.0


def actions(events: StoredEvents, runner: Callable[[], Runner], rows: RowChanges) -> dict[str, Action]:
    def dry_run(id: UUID) -> Mapping[str, Any]:
        stored = events.stored(id)
        if stored is None:
            raise NotFound(f"There is no event {id}; an accepted one may still be in the queue.")
        one = runner().prepare(Try(stored.work, stored.attempts + 1, Trigger.REPLAY), dry_run=True)
        order = Order(events.versions(one.entities))
        current = [handler for handler, place in one.handlers if not order.is_stale(place)]
        error, whose = one.error, one.whose
        changes: Sequence[Any] = ()
        incomplete: Sequence[str] = ()
        if error is None and one.announced is not None:
            call = Call(runner(), one, current, Clock(lambda: _SECONDS))
            found = rows.of(call)
            changes, incomplete = found.changes, found.incomplete
            error, whose = found.error, call.at_work
        failure = None
        if later := later_of(error):
            incomplete = [*incomplete, f"{whose} would put it off for {later.seconds} s: {later.why}"]
        elif error:
            failure = failure_of(error, whose)
        return {
            "id": id,
            "source": stored.work.event.source,
            "type": stored.work.event.type,
            "status": stored.status,
            "handlers": [handler.name for handler in current],
            "stale": [handler.name for handler, place in one.handlers if order.is_stale(place)],
            "outcome": "postponed" if later else _outcome(failure, stale=len(current) < len(one.handlers)),
            "failure": asdict(failure) if failure else None,
            "changes": [asdict(change) for change in changes],
            "incomplete": incomplete,
        }

    return {"dry_run": Action(dry_run, _Id())}


def _outcome(failure: Failure | None, *, stale: bool) -> Status:
    if failure is not None:
        return Status.DEAD if failure.permanent else Status.FAILED
    return Status.STALE if stale else Status.PROCESSED


class _Id(Schema):
    id = fields.UUID(required=True)
