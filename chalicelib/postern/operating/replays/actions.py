"""Replays: stored events, one or all that match, are put on the queue again, no faster than asked for.

A replay is planned (how many, and some of them), started (which events it is, is decided then) and advanced: whoever
watches it asks for the next step every second or so. When nobody does, it rests, and goes on when somebody does again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from marshmallow import Schema, fields, validate

from chalicelib.postern.contract.deliveries import new_event_id
from chalicelib.postern.contract.envelope import to_message
from chalicelib.postern.contract.errors import Conflict, NotFound
from chalicelib.postern.operating.filters import EventFilters, Whole
from chalicelib.postern.operating.operator import Action
from chalicelib.postern.operating.replays.queries import Advance, ReplayStore
from chalicelib.postern.processing.attempts import Trigger

_SAMPLE = 10
_MAX_EVENTS = 100_000
_RATE = 50
# One step puts no more on the queue, however long ago the last one was.
_MAX_STEP_SECONDS = 5.0
_MAX_STEP = 500
# Live events come first: a replay waits while more messages than this are in the queue.
_BUSY = 500

GROUP = "postern.replay"


class Queue(Protocol):
    def send_all(self, messages: Sequence[str], *, group: str, trace: str | None = None) -> None: ...
    def waiting(self) -> int: ...


def views(replays: ReplayStore) -> dict[str, Action]:
    def plan(**filters: Any) -> Mapping[str, Any]:
        found = replays.plan(filters, _SAMPLE)
        return {"count": sum(found["by_status"].values()), **found}

    def listing(before: UUID | None, limit: int) -> Mapping[str, Any]:
        return {"replays": replays.replays(before=before, limit=limit)}

    def show(id: UUID) -> Mapping[str, Any]:
        return _known(replays, id, finish=False)

    return {
        "plan_replay": Action(plan, EventFilters()),
        "replays": Action(listing, _Page()),
        "show_replay": Action(show, _Id()),
    }


def actions(replays: ReplayStore, queue: Callable[[], Queue], now: Callable[[], datetime]) -> dict[str, Action]:
    def start(rate: int, most: int, **filters: Any) -> Mapping[str, Any]:
        asked = {name: value for name, value in filters.items() if value is not None}
        trigger = Trigger.REPLAY if set(asked) == {"ids"} else Trigger.BULK
        id = new_event_id(now())
        running = replays.start(id, kind="replay", trigger=trigger, asked=asked, rate=rate, total=most)
        if running:
            raise Conflict(f"Replay {running} is still running; wait for it, or cancel it.")
        return {"replay": replays.replay(id)}

    def advance(id: UUID) -> Mapping[str, Any]:
        held = None
        with replays.advancing(id) as step:
            if step is not None and step.kind == "replay":
                number, held = _next(step, queue().waiting())
                taken = step.take(number) if number else []
                if taken:
                    # A copy more, when the transaction does not end well, is an event whose turn it was.
                    queue().send_all([to_message(replay) for replay in taken], group=GROUP)
        return {**_known(replays, id), "held": held}

    def show(id: UUID) -> Mapping[str, Any]:
        return _known(replays, id)

    def cancel(id: UUID) -> Mapping[str, Any]:
        cancelled = replays.cancel(id)
        return {**_known(replays, id), "cancelled": cancelled}

    return {
        "start_replay": Action(start, _Start()),
        "advance_replay": Action(advance, _Id()),
        "show_replay": Action(show, _Id()),  # which may be what finds that it has ended
        "cancel_replay": Action(cancel, _Id()),
    }


def _next(step: Advance, waiting: int) -> tuple[int, str | None]:
    """How many events come next, and why none do."""
    if waiting - step.queued > _BUSY:
        return 0, "live events come first"
    if step.queued >= max(_MAX_STEP, step.rate * 10):
        return 0, "the processor has enough to do"
    return allowance(step.rate, step.seconds), None


def allowance(rate: int, seconds: float) -> int:
    """How many a step may move, `seconds` after the last one."""
    return max(1, min(round(rate * min(seconds, _MAX_STEP_SECONDS)), _MAX_STEP))


def _known(replays: ReplayStore, id: UUID, *, finish: bool = True) -> dict[str, Any]:
    found = replays.replay(id, finish=finish)
    if found is None:
        raise NotFound(f"There is no replay {id}.")
    return {"replay": found}


class _Start(EventFilters):
    rate = Whole(load_default=_RATE, validate=validate.Range(1, 1000))
    most = Whole(load_default=_MAX_EVENTS, validate=validate.Range(1, _MAX_EVENTS))


class _Id(Schema):
    id = fields.UUID(required=True)


class _Page(Schema):
    before = fields.UUID(load_default=None, allow_none=True)
    limit = Whole(load_default=20, validate=validate.Range(1, 1000))
