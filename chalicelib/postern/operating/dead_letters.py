"""Dead letters: look at them, move them back to the queue (redrive), delete them.

What is dead has its row, with its bytes, in the database; a letter is the message that waits in the dead-letter queue
to be moved back. Some letters have no row: what could not be read at all, or what SQS gave up on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from marshmallow import Schema, fields, validate

from chalicelib.postern.contract.deliveries import new_event_id
from chalicelib.postern.contract.envelope import Accepted, Rejected, Replay
from chalicelib.postern.contract.errors import Conflict, MalformedMessage, NotFound
from chalicelib.postern.contract.opening import from_message
from chalicelib.postern.operating.events.queries import Events
from chalicelib.postern.operating.filters import Whole
from chalicelib.postern.operating.operator import Action
from chalicelib.postern.operating.replays.actions import allowance
from chalicelib.postern.operating.replays.queries import Advance, ReplayStore
from chalicelib.postern.processing.consume import ATTEMPTS_ATTRIBUTE, REASON_ATTRIBUTE

_MAX_LETTERS = 100_000
_RATE = 50
# A letter that is looked at is hidden from others for so long, unless it is let go before.
_LOOKED_AT_SECONDS = 20
# Long enough for a step to be over, so that what it passed over does not come twice in it.
_MOVING_SECONDS = 60
_MAX_STEP = 200


class Letter(Protocol):
    """As adapters.sqs has it."""

    @property
    def handle(self) -> str: ...
    @property
    def text(self) -> str: ...
    @property
    def sent_at(self) -> datetime: ...
    @property
    def attributes(self) -> Mapping[str, str]: ...
    @property
    def group(self) -> str: ...
    @property
    def trace(self) -> str | None: ...


class LetterBox(Protocol):
    def depth(self) -> Mapping[str, int]: ...
    def waiting(self) -> int: ...
    def receive(self, most: int, *, hidden_seconds: int) -> Sequence[Letter]: ...
    def hide(self, delays: Mapping[str, int]) -> None: ...
    def delete(self, receipt_handles: Sequence[str]) -> None: ...


class Queue(Protocol):
    def depth(self) -> Mapping[str, int]: ...
    def send(self, message: str, *, group: str, attributes: Mapping[str, str], trace: str | None) -> None: ...


@dataclass(frozen=True)
class DeadLetters:
    """`queue` and `letters` are asked for when they are needed: an installation may have a database alone."""

    queue: Callable[[], Queue]
    letters: Callable[[], LetterBox]
    events: Events
    redrives: ReplayStore
    now: Callable[[], datetime]

    def actions(self) -> dict[str, Action]:
        return {
            "queues": Action(self._depths, Schema()),
            "dead_letters": Action(self._list, _Limit()),
            "start_redrive": Action(self._start, _Start()),
            "advance_redrive": Action(self._advance, _Id()),
            "purge_dead_letters": Action(self._purge, _Most()),
            "sweep_dead_letters": Action(self._sweep, _Most()),
        }

    def _depths(self) -> Mapping[str, Any]:
        return {"queue": self.queue().depth(), "dead_letters": self.letters().depth()}

    def _list(self, limit: int) -> Mapping[str, Any]:
        """Some of the letters; SQS shows none of them all. They are let go at once."""
        box = self.letters()
        seen = self._receive(box, limit, _LOOKED_AT_SECONDS)
        described = [_described(letter) for letter in seen]
        statuses = self.events.statuses([each["id"] for each in described if each["id"]])
        box.hide(dict.fromkeys([letter.handle for letter in seen], 0))
        return {
            "waiting": max(box.waiting(), len(seen)),
            "letters": [{**each, "status": statuses.get(each["id"])} for each in described],
        }

    def _start(self, most: int, rate: int, **asked: Any) -> Mapping[str, Any]:
        id = new_event_id(self.now())
        total = min(most, self.letters().waiting() or most)
        filters = {name: value for name, value in asked.items() if value is not None}
        running = self.redrives.start(id, kind="redrive", trigger="redrive", asked=filters, rate=rate, total=total)
        if running:
            raise Conflict(f"Redrive {running} is still running; wait for it, go on with it (--resume), or cancel it.")
        return {"replay": self.redrives.replay(id)}

    def _advance(self, id: UUID) -> Mapping[str, Any]:
        with self.redrives.advancing(id) as step:
            if step is not None and step.kind == "redrive":
                self._move(step)
        found = self.redrives.replay(id)
        if found is None:
            raise NotFound(f"There is no redrive {id}.")
        return {"replay": found}

    def _move(self, step: Advance) -> None:
        """In this order: a letter that is on both queues for a moment is one event all the same."""
        box = self.letters()
        queue = self.queue()
        number = min(allowance(step.rate, step.seconds), step.total - step.moved, _MAX_STEP)
        moved: list[Letter] = []
        passed_over: list[Letter] = []
        ended = False
        while len(moved) < number and len(passed_over) < _MAX_STEP * 5 and not ended:
            found = box.receive(min(10, number - len(moved)), hidden_seconds=_MOVING_SECONDS)
            ended = not found
            for letter in found:
                if _is_meant(letter, step.asked):
                    queue.send(letter.text, group=letter.group, attributes=letter.attributes, trace=letter.trace)
                    box.delete([letter.handle])
                    moved.append(letter)
                else:
                    passed_over.append(letter)
        finished = ended or step.moved + len(moved) >= step.total
        step.note(len(moved), finished=finished)
        if finished:
            box.hide(dict.fromkeys([letter.handle for letter in passed_over], 0))

    def _purge(self, most: int) -> Mapping[str, Any]:
        """Their rows stay, and can be replayed from there."""
        box = self.letters()
        found = self._receive(box, min(most, _MAX_STEP), _MOVING_SECONDS)
        box.delete([letter.handle for letter in found])
        return {"deleted": len(found), "waiting": box.waiting()}

    def _sweep(self, most: int) -> Mapping[str, Any]:
        """Deletes the letters of events that have been processed since, by a replay, say."""
        box = self.letters()
        found = self._receive(box, min(most, _MAX_STEP * 5), _LOOKED_AT_SECONDS)
        ids = {letter.handle: _described(letter)["id"] for letter in found}
        statuses = self.events.statuses([id for id in ids.values() if id])
        done = [handle for handle, id in ids.items() if statuses.get(id) in ("processed", "stale")]
        box.delete(done)
        box.hide(dict.fromkeys([handle for handle in ids if handle not in done], 0))
        return {"deleted": len(done), "waiting": box.waiting()}

    def _receive(self, box: LetterBox, most: int, hidden_seconds: int) -> list[Letter]:
        found: list[Letter] = []
        while len(found) < most and (more := box.receive(min(10, most - len(found)), hidden_seconds=hidden_seconds)):
            found += more
        return found


def _read(letter: Letter) -> Accepted | Replay | Rejected | None:
    try:
        return from_message(letter.text)
    except MalformedMessage:
        return None


def _is_meant(letter: Letter, asked: Mapping[str, Any]) -> bool:
    if not asked:
        return True
    event = _read(letter)
    return (
        isinstance(event, Accepted)
        and asked.get("source", event.source) == event.source
        and asked.get("type", event.type) == event.type
        and str(asked.get("id", event.id)) == str(event.id)
    )


def _described(letter: Letter) -> dict[str, Any]:
    event = _read(letter)
    return {
        "id": event.id if event else None,
        "source": event.source if event else None,
        "type": event.type if isinstance(event, Accepted | Replay) else None,
        "sent_at": letter.sent_at,
        "attempts": int(letter.attributes.get(ATTEMPTS_ATTRIBUTE, 0)),
        "reason": letter.attributes.get(REASON_ATTRIBUTE) or "SQS gave it up: it was received too often",
        "readable": event is not None,
        "bytes": len(letter.text),
    }


class _Limit(Schema):
    limit = Whole(load_default=20, validate=validate.Range(1, 200))


class _Start(Schema):
    most = Whole(load_default=_MAX_LETTERS, validate=validate.Range(1, _MAX_LETTERS))
    rate = Whole(load_default=_RATE, validate=validate.Range(1, 1000))
    id = fields.UUID(load_default=None, allow_none=True)
    source = fields.String(load_default=None, allow_none=True)
    type = fields.String(load_default=None, allow_none=True)


class _Id(Schema):
    id = fields.UUID(required=True)


class _Most(Schema):
    most = Whole(required=True, validate=validate.Range(1, _MAX_LETTERS))
