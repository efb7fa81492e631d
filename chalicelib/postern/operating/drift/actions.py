"""Drift: the shape of each type of events is learned by the clock, and a departure from it is reported once.

Not where events are processed, which must not pay for it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from marshmallow import Schema, fields, validate

from chalicelib.postern.contract.deliveries import first_event_id
from chalicelib.postern.contract.errors import StatementFailed
from chalicelib.postern.contract.metrics import UNKNOWN_SOURCE, Log
from chalicelib.postern.operating.drift import shapes
from chalicelib.postern.operating.drift.queries import Shapes
from chalicelib.postern.operating.drift.shapes import LEARNED_AFTER, Field, Finding
from chalicelib.postern.operating.filters import Whole
from chalicelib.postern.operating.operator import Action, Duty

# One run looks at 300 events and 20 MB of each type at most, at 1,000 types, and stops after a minute.
_MAX_EVENTS = 300
_MAX_BYTES = 20_000_000
_MAX_KINDS = 1_000
_MAX_SECONDS = 60.0

# Ids are of the time of receipt, and rows come later: what is younger may still have an older one before it.
_SETTLED_AFTER = timedelta(minutes=5)

# A sender that changed everything makes no more findings than this in one run.
_MAX_FINDINGS = 50

_SHAPES_DAYS = 90
_DRIFT_DAYS = 365


@dataclass(frozen=True)
class Learner:
    """Learns shapes, within bounds, and logs what departs from them. `clock` is in seconds, from anywhere."""

    shapes: Shapes
    sources: Callable[[], Collection[str]]
    now: Callable[[], datetime]
    clock: Callable[[], float]
    log: Log

    def look(self, settled_after: timedelta = _SETTLED_AFTER) -> Mapping[str, int]:
        """Takes what came since it last looked, and that long ago. Raises DatabaseUnavailable."""
        deadline = self.clock() + _MAX_SECONDS
        settled = first_event_id(self.now() - settled_after)
        found = refused = learned = 0
        for source, type in self.shapes.kinds(self.now(), _MAX_KINDS):
            if self.clock() > deadline:
                break
            try:
                number, findings = self._look_at(source, type, settled, deadline)
            except StatementFailed:
                # One type's data must not keep the others from their turn.
                self.shapes.put_off(source, type)
                refused += 1
                continue
            learned += number
            found += len(findings)
            for finding in findings:
                self._report(source, type, finding)
        dropped = self.shapes.drop_old(shapes_days=_SHAPES_DAYS, drift_days=_DRIFT_DAYS)
        return {
            "drift_found": found,
            "drift_events": learned,
            "drift_types_refused": refused,
            "drift_types_dropped": dropped,
        }

    def _look_at(self, source: str, type: str, settled: UUID, deadline: float) -> tuple[int, list[Finding]]:
        """From how many events it learned, and what is new of what it found."""
        taken: list[UUID] = []
        with self.shapes.kind(source, type) as kind:
            if kind is None:
                return 0, []

            def events() -> Iterator[tuple[str, Any]]:
                for id, payload in kind.events(settled, most=_MAX_EVENTS, most_bytes=_MAX_BYTES):
                    if taken and self.clock() > deadline:
                        return
                    taken.append(id)
                    yield str(id), payload

            shape = Field.from_json(kind.shape) if kind.shape else Field()
            findings = shapes.learn(shape, events())[:_MAX_FINDINGS]
            is_new = kind.keep(shape.to_json(), taken[-1] if taken else None, len(taken), findings)
        return len(taken), [finding for finding, new in zip(findings, is_new, strict=True) if new]

    def _report(self, source: str, type: str, finding: Finding) -> None:
        declared = source in self.sources()
        self.log(
            "drift.found",
            failed=True,
            metrics={"drift": 1},
            source=source if declared else UNKNOWN_SOURCE,
            undeclared_source=None if declared else source,
            type=type,
            kind=finding.kind.value,
            path=finding.path,
            id=finding.event,
        )


def views(store: Shapes) -> dict[str, Action]:
    def listing(state: str | None, **filters: Any) -> Mapping[str, Any]:
        return {"drift": store.drift(open=None if state is None else state == "open", **filters)}

    def shape(source: str, type: str) -> Mapping[str, Any]:
        found = store.shape(source, type)
        return {"shape": found and _described(found)}

    return {"drift": Action(listing, _Filters()), "shape": Action(shape, _Kind())}


def actions(store: Shapes, learner: Learner) -> dict[str, Action]:
    # Whoever asks sees what was found, so that nothing is logged; and it is for now, not for the next hour.
    asked = replace(learner, log=lambda *_, **__: None)

    def look() -> Mapping[str, Any]:
        return asked.look(timedelta(0))

    def accept(**which: Any) -> Mapping[str, Any]:
        return {"accepted": store.accept_drift(**which)}

    return {"look_for_drift": Action(look, Schema()), "accept_drift": Action(accept, _Which())}


def duties(learner: Learner) -> dict[str, Duty]:
    return {"drift": learner.look}


def _described(found: Mapping[str, Any]) -> dict[str, Any]:
    """`always`: in every event that could have had it."""
    root = Field.from_json(found["shape"]) if found["shape"] else Field()
    return {
        "events": found["events"],
        "learned": root.objects >= LEARNED_AFTER,
        "looked_at": found["looked_at"],
        "places": [
            {"path": path, "types": sorted(place.types), "seen": place.seen, "always": place.seen == place.of}
            for path, place in shapes.paths(root)
        ],
    }


# PostgreSQL's bigint.
_MAX_ID = 2**63 - 1


class _Filters(Schema):
    source = fields.String(load_default=None, allow_none=True)
    type = fields.String(load_default=None, allow_none=True)
    state = fields.String(load_default=None, allow_none=True, validate=validate.OneOf(["open", "accepted"]))
    before = Whole(load_default=None, allow_none=True, validate=validate.Range(0, _MAX_ID))
    limit = Whole(load_default=20, validate=validate.Range(1, 1000))


class _Which(Schema):
    """All of these; without any of them, all that there are."""

    ids = fields.List(
        Whole(validate=validate.Range(0, _MAX_ID)),
        load_default=None,
        allow_none=True,
        validate=validate.Length(1, 1000),
    )
    source = fields.String(load_default=None, allow_none=True)
    type = fields.String(load_default=None, allow_none=True)


class _Kind(Schema):
    source = fields.String(required=True)
    type = fields.String(required=True)
