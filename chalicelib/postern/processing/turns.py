"""Whose turn it is: what there is to try of a message's event, and what is written of the try.

A live event is claimed by its dedup key; the insert itself decides who is first. A replayed one is stored already, and
its item in the replay is locked, so that it is processed once however often its message comes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from typing import Any, Protocol
from uuid import UUID

from chalicelib.postern.contract.envelope import Accepted, Replay
from chalicelib.postern.processing.attempts import Attempt, Result, Status, Trigger, Try, Work
from chalicelib.postern.processing.claims import Holder, Keys, Repeat, claim, claims_of, repeat_of
from chalicelib.postern.processing.failures import Later
from chalicelib.postern.processing.order import Entity
from chalicelib.postern.processing.settling import Kind, Outcome

_UNSETTLED = ("waiting", "queued")


@dataclass(frozen=True)
class State:
    """What a stored event's row says of it. `spent`: the live tries since it was redriven last, or ever."""

    status: Status
    attempts: int
    spent: int = 0


@dataclass(frozen=True)
class Item:
    """An event's part in a replay. `running` is False once the replay was cancelled."""

    state: str
    tries: int
    trigger: Trigger
    running: bool


@dataclass(frozen=True)
class Stored:
    """An event as it is stored."""

    work: Work
    status: Status
    attempts: int
    processed_at: datetime | None


@dataclass(frozen=True)
class ReplayRequest:
    """A message that asks for an event to be replayed. `receives` and `postponed` as in Work."""

    replay: Replay
    receives: int = 1
    postponed: int = 0

    @property
    def is_back(self) -> bool:
        return self.receives + self.postponed > 1


# What a message of the queue asks for.
Job = Work | ReplayRequest
Key = UUID | tuple[UUID, UUID]


def key_of(message: Job) -> Key:
    """The same for messages that mean the same."""
    return message.event.id if isinstance(message, Work) else (message.replay.replay_id, message.replay.id)


class Transaction(Keys, Protocol):
    """The database's side of it; adapters.event_store gives each method's promise."""

    def keep_deliveries(self, events: Sequence[Accepted]) -> None: ...
    def lock(self, works: Sequence[Work]) -> dict[UUID, State]: ...
    def insert(self, rows: Sequence[tuple[Work, Result]]) -> None: ...
    def update(self, results: Sequence[tuple[UUID, Result, int]]) -> None: ...
    def record_duplicates(self, repeats: Sequence[Repeat]) -> None: ...
    def lock_entities(self, entities: Sequence[Entity]) -> dict[Entity, Decimal]: ...
    def advance(self, versions: Mapping[Entity, tuple[Decimal, UUID]]) -> None: ...
    def record(self, attempts: Sequence[Attempt]) -> None: ...
    def close_tries(self, ids: Sequence[UUID]) -> None: ...
    def end_tries(self, ids: Sequence[UUID]) -> None: ...
    def postpone(
        self, id: UUID, event: Accepted | Replay, receive: int, whose: str, later: Later, bound: int
    ) -> bool: ...
    def wait_in_line(self, handlers: Sequence[str], milliseconds: int) -> None: ...
    def handlers_at_work(self, seconds: float, *, several: bool = False) -> AbstractContextManager[None]: ...
    def run_handlers(self, handlers: Callable[[Any], None]) -> None: ...
    @property
    def settings_changed(self) -> bool: ...
    def prove_whole(self) -> None: ...
    def item(self, replay: Replay) -> Item | None: ...
    def stored(self, id: UUID) -> Stored | None: ...
    def settle(self, replay: Replay, state: str, tries: int, error: str | None) -> None: ...


@dataclass(frozen=True)
class Turn:
    """A try and what it begins from: `state`, None for an event that has no row yet; or, of a replay, `stored`."""

    message: Job
    one: Try
    state: State | None = None
    stored: Stored | None = None


@dataclass(frozen=True)
class Opened:
    """Which messages have their outcome already, what there is to try of the others, and what repeats an event."""

    outcomes: dict[Key, Outcome] = field(default_factory=dict)
    turns: list[Turn] = field(default_factory=list)
    repeats: list[Repeat] = field(default_factory=list)


def open_turns(messages: Sequence[Job], tx: Transaction) -> Opened:
    """What repeats an event is still to be recorded, if its message is begun at all."""
    opened = _open_live([m for m in messages if isinstance(m, Work)], tx)
    for message in messages:
        if isinstance(message, ReplayRequest):
            turn = _open_replay(message, tx)
            if isinstance(turn, Turn):
                opened.turns.append(turn)
            else:
                opened.outcomes[key_of(message)] = turn
    return opened


def _open_live(works: Sequence[Work], tx: Transaction) -> Opened:
    opened = Opened()
    if not works:
        return opened
    tx.keep_deliveries([work.event for work in works if work.event.delivery_body is not None])
    claimed = claim(works, tx)
    mates = {work.event.id: work for work in works}
    new = {work.event.id: work for work in claimed.new}
    # Its key may have passed to a later event since, or have been let go: what has a row is what it was.
    states = _states([w for w in works if w.event.id in claimed.known or w.is_back or w.attempts_before], tx)
    for work in works:
        id = work.event.id
        state = states.get(id)
        if state is not None:
            _open_stored(work, state, opened)
        elif id in claimed.refused:
            opened.repeats.append(repeat_of(work, claimed.refused[id], mates, bytes_decided=True))
        elif id in new:
            opened.turns.append(Turn(new[id], Try(new[id], 1, Trigger.FIRST)))
        else:
            turn = _open_known(work, claimed.known[id], mates)
            if isinstance(turn, Turn):
                opened.turns.append(turn)
            elif isinstance(turn, Repeat):
                opened.repeats.append(turn)
            else:
                opened.outcomes[id] = turn
    opened.outcomes.update({repeat.work.event.id: Outcome(Kind.DUPLICATE) for repeat in opened.repeats})
    return opened


def _states(works: Sequence[Work], tx: Transaction) -> dict[UUID, State]:
    return tx.lock(works) if works else {}


def _open_stored(work: Work, state: State, opened: Opened) -> None:
    if state.status.is_done:
        opened.outcomes[work.event.id] = Outcome(Kind.ALREADY_PROCESSED)
    elif state.status is Status.DEAD and (work.attempts_before is None or state.spent):
        # The function died after it had given this event up and before it had moved the message.
        opened.outcomes[work.event.id] = Outcome(Kind.DEAD, state.attempts, "attempts exhausted")
    else:
        trigger = Trigger.RETRY if work.attempts_before is None else Trigger.REDRIVE
        opened.turns.append(Turn(work, Try(work, state.attempts + 1, trigger, state.spent), state))


def _open_known(work: Work, holder: Holder | None, mates: Mapping[UUID, Work]) -> Turn | Repeat | Outcome:
    """Of an event without a row, whose key was claimed before."""
    if holder is None:
        return Outcome(Kind.RETRY, reason="its dedup key just expired")
    own = claims_of(work.event)[0]
    if holder.event_id == work.event.id or (holder.claimed_at > own.received_at and not own.repeats(holder.claimed_at)):
        # Its row was dropped with its partition, or a handler's commit came before it; or a later event has the key.
        return Turn(work, Try(work, 1, Trigger.FIRST))
    if not own.repeats(holder.claimed_at):
        return Outcome(Kind.RETRY, reason="its dedup key was just taken over")
    return repeat_of(work, holder, mates)


def _open_replay(asked: ReplayRequest, tx: Transaction) -> Turn | Outcome:
    replay = asked.replay
    item = tx.item(replay)
    if item is None or item.state not in _UNSETTLED:
        return Outcome(Kind.REPLAY_SKIPPED, reason=item.state if item else "no such replay")
    if not item.running:
        tx.settle(replay, "cancelled", item.tries, None)
        return Outcome(Kind.REPLAY_SKIPPED, reason="cancelled")
    stored = tx.stored(replay.id)
    if stored is None:
        tx.settle(replay, "gone", item.tries, "The event is no longer stored.")
        return Outcome(Kind.REPLAY_SKIPPED, reason="gone")
    one = Try(stored.work, stored.attempts + 1, item.trigger, item.tries, replay_id=replay.replay_id)
    return Turn(asked, one, stored=stored)


def close_turns(made: Sequence[tuple[Turn, Attempt]], tx: Transaction) -> dict[Key, Outcome]:
    """Writes what came of tries."""
    rows: list[tuple[Work, Result]] = []
    changes: list[tuple[UUID, Result, int]] = []
    attempts: list[Attempt] = []
    outcomes: dict[Key, Outcome] = {}
    for turn, attempt in made:
        if turn.stored is not None:
            changes.append(_close_replay(turn, attempt, tx))
            attempts.append(_recorded(attempt))
            outcomes[key_of(turn.message)] = _of_replay(turn, attempt)
            continue
        if turn.state is None:
            rows.append((turn.one.work, attempt.result))
        else:
            changes.append((attempt.event.id, attempt.result, turn.state.attempts))
        if turn.state is not None or attempt.failure is not None:
            attempts.append(attempt)  # of a first try that succeeds, the event's row says it all
        outcomes[key_of(turn.message)] = _of_live(attempt)
    tx.insert(rows)
    tx.update(changes)
    tx.record(attempts)
    return outcomes


def _of_live(attempt: Attempt) -> Outcome:
    kind = {
        Status.PROCESSED: Kind.PROCESSED,
        Status.STALE: Kind.STALE,
        Status.FAILED: Kind.RETRY,
        Status.DEAD: Kind.DEAD,
    }[attempt.result.status]
    return Outcome(kind, attempt.result.attempts, _reason(attempt) or "")


def _of_replay(turn: Turn, attempt: Attempt) -> Outcome:
    if attempt.failure is None:
        return Outcome(Kind.REPLAYED, attempt.result.attempts)
    last = attempt.result.status is Status.DEAD
    return Outcome(Kind.REPLAY_FAILED if last else Kind.RETRY, turn.one.spent + 1, _reason(attempt) or "")


def _close_replay(turn: Turn, attempt: Attempt, tx: Transaction) -> tuple[UUID, Result, int]:
    """Its item is settled. What fails keeps the status that it had: a replay never makes a processed event a failed
    one, and its messages never become dead letters.
    """
    assert isinstance(turn.message, ReplayRequest)
    assert turn.stored is not None
    result, stored = attempt.result, turn.stored
    tries = turn.one.spent + 1
    if attempt.failure is None:
        tx.settle(turn.message.replay, result.status, tries, None)
        return attempt.event.id, result, stored.attempts
    state = "failed" if result.status is Status.DEAD else "queued"
    tx.settle(turn.message.replay, state, tries, _reason(attempt))
    kept = replace(result, status=stored.status, processed_at=stored.processed_at)
    return attempt.event.id, replace(kept, error=None) if stored.status.is_done else kept, stored.attempts


def _recorded(attempt: Attempt) -> Attempt:
    """A replay's try: it fails, and is never what an event dies of."""
    if attempt.failure is None:
        return attempt
    return replace(attempt, result=replace(attempt.result, status=Status.FAILED))


def _reason(attempt: Attempt) -> str | None:
    failure = attempt.failure
    return f"{failure.error_class}: {failure.message}" if failure else None
