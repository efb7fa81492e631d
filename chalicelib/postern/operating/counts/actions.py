"""How much came, and what became of it, over time: from counts that maintenance keeps beside the events."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from marshmallow import Schema, ValidationError, fields, validate, validates_schema

from chalicelib.postern.contract.errors import UnfitArguments
from chalicelib.postern.operating.counts.queries import Counts
from chalicelib.postern.operating.filters import Moment
from chalicelib.postern.operating.operator import Action, Duty

# Of one run of maintenance; the rest is done by the next.
_SECONDS = 30.0

# As many points as a page can show, and the time that they may span.
_STEPS = {"minute": timedelta(hours=6), "hour": timedelta(days=32), "day": timedelta(days=1000)}
_USUAL = timedelta(days=1)
_LENGTHS = {"minute": timedelta(minutes=1), "hour": timedelta(hours=1), "day": timedelta(days=1)}


@dataclass(frozen=True)
class Counter:
    """Keeps the counts up with the events. `clock` counts seconds."""

    counts: Counts
    clock: Callable[[], float]

    def count(self) -> Mapping[str, Any]:
        """What is new first, then what has changed, each hour once, however quickly it changes again; then what came
        before there were counts.
        """
        deadline = self.clock() + _SECONDS
        counted, changed = 0, list[datetime]()
        while self.clock() < deadline and self.counts.count_on():
            counted += 1
        while self.clock() < deadline and (hour := self.counts.recount(changed)):
            changed.append(hour)
        while self.clock() < deadline and self.counts.count_back():
            counted += 1
        return {"hours_counted": counted, "hours_recounted": len(changed)}


def views(counts: Counts, now: Callable[[], datetime]) -> dict[str, Action]:
    def stats(
        since: datetime | None,
        until: datetime | None,
        step: str,
        source: str | None,
        type: str | None,
        by_source: bool,
    ) -> Mapping[str, Any]:
        until = until or now()
        since = _begin(since or until - _USUAL, step)
        until = _begin(until + _LENGTHS[step] - timedelta(microseconds=1), step)
        if until - since > _STEPS[step] + _LENGTHS[step]:
            problem = f"By the {step}, {_STEPS[step] / timedelta(hours=1):.0f} hours at most."
            raise UnfitArguments(f"Action 'stats': {problem}", {"step": [problem]})
        return {
            "since": since,
            "until": until,
            "step": step,
            "points": counts.stats(since=since, until=until, step=step, source=source, type=type, by_source=by_source),
            **counts.latency(since=since, source=source),
        }

    return {"stats": Action(stats, _Span())}


def duties(counter: Counter) -> dict[str, Duty]:
    return {"counts": counter.count}


def _begin(moment: datetime, step: str) -> datetime:
    """Of its minute, hour or day: a point is never of a part."""
    begun = moment.replace(second=0, microsecond=0)
    if step != "minute":
        begun = begun.replace(minute=0)
    return begun.replace(hour=0) if step == "day" else begun


class _Span(Schema):
    since = Moment(load_default=None, allow_none=True)
    until = Moment(load_default=None, allow_none=True)
    step = fields.String(load_default="hour", validate=validate.OneOf(list(_STEPS)))
    source = fields.String(load_default=None, allow_none=True)
    type = fields.String(load_default=None, allow_none=True)
    by_source = fields.Boolean(load_default=False)

    @validates_schema
    def _spans_no_more_than_it_may(self, data: Mapping[str, Any], **_: Any) -> None:
        since, until = data.get("since"), data.get("until")
        if since and until and since > until:
            raise ValidationError({"until": ["Before `since`."]})
