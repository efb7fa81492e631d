"""Use case: process a batch. Two gears.

Fast: the events of a batch together in one transaction, keys, handlers and rows, all or nothing. When anything goes
wrong in it, or a handler leaves something in the session for others to find, it is rolled back and begun again in
smaller groups: around the event that is to blame where that is known, and by halves where it is not.

Slow: one event in a transaction of its own. What goes wrong now is its own, whatever the database calls it, unless the
database turns out to be absent; that has to be proven, by asking it. Handlers may so run twice in one try; nothing that
they wrote the first time is kept.

An event that has come before without a verdict is a suspect: its handlers may have ended the function. It is tried
last, in a process of its own, and that it is tried is on record before. That its handler asked for it later is a
verdict as well; and where this container has lived through an outage of late, nothing is a suspect (`outages`).
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from enum import StrEnum
from math import inf
from typing import Protocol
from uuid import UUID

from chalicelib.postern.contract.envelope import Replay
from chalicelib.postern.contract.errors import (
    BodyUnavailable,
    DatabaseUnavailable,
    FunctionEnded,
    HandlersSecretUnavailable,
    LeftBehind,
    StatementFailed,
    TransactionEnded,
)
from chalicelib.postern.processing.attempts import Attempt, HandlerRaised, Runner, Work
from chalicelib.postern.processing.claims import claims_of
from chalicelib.postern.processing.contention import Contention
from chalicelib.postern.processing.failures import Later, later_of
from chalicelib.postern.processing.limits import Clock, HandlerTimeout
from chalicelib.postern.processing.order import Order
from chalicelib.postern.processing.outages import Outages
from chalicelib.postern.processing.settling import Kind, Outcome, RetryPolicy, charged_by_receives
from chalicelib.postern.processing.turns import (
    Job,
    Key,
    ReplayRequest,
    Transaction,
    Turn,
    close_turns,
    key_of,
    open_turns,
)

# Partitions are made and dropped a few at a time, and each may come between.
_MAX_PARTITION_CHANGES = 10

# Of the bodies in one transaction: parsed, and written as text, they take up to forty times as much.
_MAX_GROUP_BYTES = 4_000_000

# Behind others with the same handlers, where these have been in each other's way; and what is no wait at all.
_IN_LINE_MILLISECONDS = 1_000
_MET_SECONDS = 0.002

_NO_TIME = "no time left in this invocation"


class TryRecord(StrEnum):
    """What was found when a suspect's try was to be put on record."""

    NOW = "now"
    BUSY = "busy"  # another function is at it
    LEFT = "left"  # an earlier one began it, and ended without a verdict


class Store(Protocol):
    """The database; adapters.event_store gives each method's promise."""

    def transaction(self) -> AbstractContextManager[Transaction]: ...
    def takes_writes(self, *, roomy: bool = False) -> bool: ...
    def spent(self, works: Sequence[Work]) -> Mapping[UUID, int]: ...
    def postponed(self, receives: Mapping[UUID, int]) -> Mapping[UUID, int]: ...
    def open_try(self, id: UUID, seconds: float) -> TryRecord: ...
    def leave_connection(self) -> None: ...


# Runs work in a process of its own, for the given seconds at most; adapters.children has its promise.
Isolate = Callable[[Callable[[], bytes], float], bytes]


class Outage(Exception):
    """The database is absent, which was proven."""


class GroupFailed(Exception):
    """A group's transaction came to nothing, because of `cause`. `at`: the message that is to blame, if it is known."""

    def __init__(self, cause: BaseException, at: int | None = None) -> None:
        super().__init__()
        self.cause = cause
        self.at = at


@dataclass(frozen=True)
class Processor:
    """Processes batches. Without `isolate` suspects are tried in this process.

    `margin_seconds`: what a process of its own has beside its handlers' time, to connect, roll back and answer.
    """

    store: Store
    runner: Runner
    isolate: Isolate | None = None
    margin_seconds: float = 5.0
    contention: Contention = field(default_factory=Contention)
    outages: Outages = field(default_factory=Outages)

    @property
    def policy(self) -> RetryPolicy:
        return self.runner.policy

    def process(self, batch: Sequence[Job], time_left: Callable[[], float] = lambda: inf) -> dict[Key, Outcome]:
        """The outcome of every message of the batch, by its key. Raises nothing that a database can cause.

        `time_left` is the seconds that the invocation has left.
        """
        clock = Clock(time_left)
        # SQS may put two copies of one message into one batch; they are one event. It keeps no order, either.
        messages = list({key_of(message): message for message in batch}.values())
        outcomes: dict[Key, Outcome] = {}
        try:
            messages = self._without_postponements(messages)
            live = sorted((m for m in messages if isinstance(m, Work)), key=lambda work: work.event.received_at)
            # Whether a replay has had a verdict stands in its item; a process of its own costs less than to ask.
            asked = sorted((m for m in messages if isinstance(m, ReplayRequest)), key=lambda asked: asked.receives > 1)
            suspects = self._suspects(live)
            trusted = [work for work in live if work.event.id not in suspects]
            for unread, cause in self._together(trusted, clock, outcomes):
                for work in self._read([unread], clock, outcomes):
                    outcomes[work.event.id] = self._alone(work, clock, cause)
            for unread in _near_first(work for work in live if work.event.id in suspects):
                for work in self._read([unread], clock, outcomes):
                    outcomes[work.event.id] = self._watched(work, clock)
            for message in asked:
                try_alone = self._watched if message.receives > 1 else self._alone
                outcomes[key_of(message)] = try_alone(message, clock)
        except Outage as exc:
            self.outages.note()
            away = Outcome(Kind.RETRY, reason=f"database: {exc}")
            outcomes = {key_of(message): away for message in messages} | outcomes
        return outcomes

    def _without_postponements(self, messages: Sequence[Job]) -> list[Job]:
        """With the receives alone on which it was not put off by a handler. Raises Outage."""
        again = [message for message in messages if message.receives > 1]
        if not again:
            return list(messages)
        try:
            times = self.store.postponed({_try_of(message): message.receives for message in again})
        except (DatabaseUnavailable, StatementFailed) as exc:
            self._prove_presence(exc)
            times = {}
        return [_less(message, times.get(_try_of(message), 0)) for message in messages]

    # Fast

    def _together(
        self, works: Sequence[Work], clock: Clock, outcomes: dict[Key, Outcome]
    ) -> list[tuple[Work, BaseException | None]]:
        """Adds to `outcomes`; answers with those that have to be tried alone, last, for they may take long to fail; and
        with what came of it where they have been.
        """
        alone: list[tuple[Work, BaseException | None]] = []
        groups = deque(_by_size(_near_first(works)))
        several = False  # have given their verdict within a group
        while groups:
            group = self._read(groups.popleft(), clock, outcomes)
            if not clock.has_any:
                outcomes |= {work.event.id: Outcome(Kind.RETRY, reason=_NO_TIME) for work in group}
                continue
            if not group:
                continue
            try:
                done, begun = self._group(group, clock)
            except GroupFailed as exc:
                if isinstance(exc.cause, DatabaseUnavailable):
                    self._prove_presence(exc.cause)
                contended = isinstance(exc.cause, StatementFailed) and exc.cause.contended
                if contended and self.contention.note(self._handlers_of(group)):
                    groups.appendleft(group)
                    continue
                if exc.at is not None and _is_verdict(exc.cause):
                    work, before, after = group.pop(exc.at), group[: exc.at], group[exc.at :]
                    outcomes[work.event.id] = self._alone(work, clock, exc.cause)
                    # Where one waits, all of them may: by halves, or each would have to be begun for each before it.
                    half = len(after) // 2 if several else 0
                    several = True
                    groups.extendleft(part for part in (after[half:], after[:half], before) if part)
                    continue
                if len(group) == 1 and _is_worth_another_try(exc.cause, group[0]):
                    alone.append((group[0].put_back(), _without_frames(exc.cause)))
                    continue
                if len(group) == 1:
                    # It has been tried alone, and its error holds on to all that the handler had in its hands.
                    outcomes[group[0].event.id] = self._alone(group[0], clock, exc.cause)
                    continue
                at = len(group) // 2 if exc.at is None else exc.at
                if exc.at is not None:
                    alone.append((group.pop(at).put_back(), None))
                groups.extendleft(part for part in (group[at:], group[:at]) if part)
            else:
                outcomes |= done
                if group[begun:]:
                    groups.appendleft(group[begun:])
        return alone

    def _read(self, works: Sequence[Work], clock: Clock, outcomes: dict[Key, Outcome]) -> list[Work]:
        """Those whose bytes are at hand now; the others get their outcome."""
        read: list[Work] = []
        for work in works:
            enough = work.unread is None or work.body or clock.left() >= work.unread.seconds or clock.is_whole
            if not enough:
                outcomes[work.event.id] = Outcome(Kind.RETRY, reason=_NO_TIME)
                continue
            try:
                read.append(work.read())
            except BodyUnavailable as exc:
                outcomes[work.event.id] = self._unreadable(work, exc)
        return read

    def _unreadable(self, work: Work, exc: BodyUnavailable) -> Outcome:
        reason = f"body: {exc}"
        # A role that was spoilt looks the same, and is given time to be mended.
        if exc.is_refused and not self.policy.is_patient_with(work.receives):
            return charged_by_receives(work.receives, reason, self.policy)
        return Outcome(Kind.RETRY, reason=reason)

    def _group(self, messages: Sequence[Job], clock: Clock) -> tuple[dict[Key, Outcome], int]:
        """One transaction: their outcomes, and how many of the messages were begun. One event is, at least; another
        only while there is time for all that its handlers may take, so that what was done before is kept.
        """
        try:
            with self.store.transaction() as tx:
                return self._from_claim_to_commit(messages, tx, clock)
        except (DatabaseUnavailable, StatementFailed, TransactionEnded, LeftBehind) as exc:
            raise GroupFailed(exc) from exc

    def _from_claim_to_commit(
        self, messages: Sequence[Job], tx: Transaction, clock: Clock
    ) -> tuple[dict[Key, Outcome], int]:
        """Claims the keys and locks the rows of known events; locks the entities; runs the handlers; gives back the
        keys of what was not begun; records repetitions, writes rows and attempts, closes the tries of suspects, and
        notes how far the entities have come. The caller commits.
        """
        if crowded := self.contention.among(self._handlers_of(messages)):
            began = self.contention.clock()
            tx.wait_in_line(crowded, _IN_LINE_MILLISECONDS)
            if self.contention.clock() - began > _MET_SECONDS:
                self.contention.note(crowded)  # others are there still
        opened = open_turns(messages, tx)
        at = {key_of(message): n for n, message in enumerate(messages)}
        turns = [self._prepared(turn, at) for turn in opened.turns]
        order = Order(tx.lock_entities([entity for turn in turns for entity in turn.one.entities]))
        made, begun = self._run_handlers(turns, at, tx, order, clock)
        tx.release(
            [each for message in messages[begun:] if isinstance(message, Work) for each in claims_of(message.event)]
        )
        tx.record_duplicates([repeat for repeat in opened.repeats if at[repeat.work.event.id] < begun])
        outcomes = {key: outcome for key, outcome in opened.outcomes.items() if at[key] < begun}
        outcomes |= close_turns(made, tx)
        back = [message for message in messages[:begun] if message.is_back]
        tx.end_tries([_try_of(m) for m in back if outcomes[key_of(m)].kind is not Kind.RETRY])
        tx.close_tries([_try_of(m) for m in back if outcomes[key_of(m)].kind is Kind.RETRY])
        tx.advance(order.advanced)
        return outcomes, begun

    def _handlers_of(self, messages: Sequence[Job]) -> set[str]:
        events = (message.event if isinstance(message, Work) else message.replay for message in messages)
        kinds = {(event.source, event.type) for event in events}
        return {handler.name for handler in self.runner.handlers for kind in kinds if handler.takes(*kind)}

    def _prepared(self, turn: Turn, at: Mapping[Key, int]) -> Turn:
        one = self.runner.prepare(turn.one)
        if one.error is not None:
            raised = HandlerRaised(one.whose)
            raised.__cause__ = one.error
            raise GroupFailed(raised, at[key_of(turn.message)])
        return replace(turn, one=one)

    def _run_handlers(
        self, turns: Sequence[Turn], at: Mapping[Key, int], tx: Transaction, order: Order, clock: Clock
    ) -> tuple[list[tuple[Turn, Attempt]], int]:
        """What came of the tries, and how many of the messages were begun."""
        made: list[tuple[Turn, Attempt]] = []
        begun = len(at)
        limits = [self.runner.limit(handler) for turn in turns for handler, _ in turn.one.handlers]
        with tx.handlers_at_work(max(limits), several=len(at) > 1) if limits else nullcontext():
            for turn in turns:
                place = at[key_of(turn.message)]
                if (
                    made
                    and turn.one.handlers
                    and clock.left() < sum(self.runner.limit(handler) for handler, _ in turn.one.handlers)
                ):
                    begun = place
                    break
                try:
                    made.append((turn, self.runner.run(turn.one, tx, order, clock)))
                    if len(at) > 1 and tx.settings_changed:
                        raise LeftBehind("A handler has changed a setting, which its mates would find changed.")
                except (HandlerRaised, StatementFailed, TransactionEnded, LeftBehind) as exc:
                    raise GroupFailed(exc, place) from exc
            if limits and len(at) > 1:
                tx.prove_whole()
        return [(turn, attempt) for turn, attempt in made if at[key_of(turn.message)] < begun], begun

    # Slow

    def _alone(self, message: Job, clock: Clock, cause: BaseException | None = None) -> Outcome:
        """As it is; without its payload, if that is what the database refuses (the bytes are kept, and handlers read
        those). `cause`: what came of it, where it has been tried already. Raises Outage.
        """
        changes, lost = 0, False
        while True:
            if cause is None:
                if not clock.has_any:
                    return Outcome(Kind.RETRY, reason=_NO_TIME)
                try:
                    done, _ = self._group([message], clock)
                    return done[key_of(message)]
                except GroupFailed as exc:
                    cause = exc.cause
            if isinstance(cause, DatabaseUnavailable):
                self._prove_presence(cause)
                if not lost:
                    lost, cause = True, None  # once is chance; twice, with nothing else at work, is its own doing
                    continue
            if isinstance(cause, StatementFailed):
                if cause.partition_changed and changes < _MAX_PARTITION_CHANGES:
                    changes, cause = changes + 1, None
                    continue
                if cause.row_refused and isinstance(message, Work) and message.payload_fits:
                    message, cause = replace(message, payload_fits=False), None
                    continue
                if not cause.passing:
                    self._prove_presence(cause)  # a migration may be still to come, say
            error = _raised(cause)
            if isinstance(error, HandlersSecretUnavailable):
                return Outcome(Kind.RETRY, reason=f"configuration: {error}")
            if (later := later_of(error)) and (outcome := self._postpone(message, cause, later)):
                return outcome
            if self._is_nobodys(cause) and self.policy.is_patient_with(message.receives):
                return Outcome(Kind.RETRY, reason=_said(cause))
            return self._charge(message, cause)

    def _is_nobodys(self, cause: BaseException) -> bool:
        """Whether it may well go another time: a lock did not come, the database froze for a while, or what time there
        was had been used up by others.
        """
        if isinstance(cause, StatementFailed):
            return cause.passing or cause.partition_changed
        if isinstance(cause, HandlerRaised) and isinstance(cause.__cause__, HandlerTimeout):
            return cause.__cause__.cut_short and not cause.had_it_all
        return False

    def _postpone(self, message: Job, cause: BaseException, later: Later) -> Outcome | None:
        """Notes that it is wanted later; None where that has gone on for too long. Raises Outage."""
        event = message.event if isinstance(message, Work) else message.replay
        whose = cause.whose if isinstance(cause, HandlerRaised) else ""
        receive = message.receives + message.postponed
        try:
            with self.store.transaction() as tx:
                if not tx.postpone(_try_of(message), event, receive, whose, later, self.policy.max_later_seconds):
                    return None
                tx.close_tries([_try_of(message)])
        except (DatabaseUnavailable, StatementFailed) as exc:
            self._prove_presence(exc)
            if self.policy.is_patient_with(message.receives):
                return Outcome(Kind.RETRY, reason=_said(exc))
            return None
        return Outcome(Kind.RETRY, reason=f"RetryLater: {later.why}", delay=later.seconds)

    def _charge(self, message: Job, cause: BaseException) -> Outcome:
        """Writes that it failed, and charges it an attempt. What cannot even be written as failed is charged by its
        receives. Raises Outage.
        """
        error, whose = (cause.__cause__, cause.whose) if isinstance(cause, HandlerRaised) else (cause, "")
        assert error is not None
        # The try's number, and what was written of it: whether that stands is unknown where the commit had no answer.
        written: tuple[int, Outcome] | None = None
        for _ in range(_MAX_PARTITION_CHANGES):
            try:
                with self.store.transaction() as tx:
                    opened = open_turns([message], tx)
                    if written and any(turn.one.number > written[0] for turn in opened.turns):
                        return written[1]  # it stands, and one try is charged once
                    tx.record_duplicates(opened.repeats)
                    made = [(turn, self.runner.failed(turn.one, error, whose)) for turn in opened.turns]
                    outcomes = opened.outcomes | close_turns(made, tx)
                    outcome = outcomes[key_of(message)]
                    if outcome.kind is Kind.RETRY:
                        tx.close_tries([_try_of(message)])
                    else:
                        tx.end_tries([_try_of(message)])
                    written = (opened.turns[0].one.number, outcome) if opened.turns else None
                return outcome
            except DatabaseUnavailable as exc:
                self._prove_presence(exc)
                refused: Exception = exc
            except StatementFailed as exc:
                if exc.row_refused and isinstance(message, Work) and message.payload_fits:
                    message = replace(message, payload_fits=False)
                elif not exc.partition_changed:
                    refused = exc
                    break
                refused = exc
        self._prove_presence(refused)
        self._close(message)
        if isinstance(refused, StatementFailed) and refused.passing and self.policy.is_patient_with(message.receives):
            return Outcome(Kind.RETRY, reason=_said(refused))  # its row is locked; it fails again another time
        outcome = charged_by_receives(message.receives, _said(refused), self.policy)
        if isinstance(message, ReplayRequest) and outcome.kind is Kind.DEAD:
            self._give_up(message.replay, message.receives, outcome.reason)
            return Outcome(Kind.REPLAY_FAILED, message.receives, outcome.reason)
        return outcome

    def _give_up(self, replay: Replay, tries: int, reason: str) -> None:
        """Settles its part in the replay, without a word in the event's own row, which takes none. Raises Outage."""
        try:
            with self.store.transaction() as tx:
                tx.settle(replay, "failed", tries, reason)
        except (DatabaseUnavailable, StatementFailed) as exc:
            self._prove_presence(exc)

    def _prove_presence(self, exc: Exception) -> None:
        """Raises Outage where the database does not answer, or takes no writes from anybody."""
        if not self.store.takes_writes(roomy=isinstance(exc, StatementFailed) and exc.no_room):
            raise Outage(_said(exc)) from exc

    # Suspects

    def _suspects(self, works: Sequence[Work]) -> set[UUID]:
        """Those that were received before without a verdict, unless an outage explains it. Raises Outage."""
        again = [work for work in works if work.receives > 1]
        if not again or self.outages.are_recent:
            return set()
        try:
            spent = self.store.spent(again)
        except (DatabaseUnavailable, StatementFailed) as exc:
            self._prove_presence(exc)
            spent = {}
        return {work.event.id for work in again if spent.get(work.event.id, 0) < work.receives - 1}

    def _watched(self, message: Job, clock: Clock) -> Outcome:
        """In a process of its own, for no longer than its handlers may take. Raises Outage."""
        needed = self.runner.seconds(message.event if isinstance(message, Work) else message.replay)
        if not clock.has_any or (clock.left() < needed and not clock.is_whole):
            return Outcome(Kind.RETRY, reason=_NO_TIME)
        if self.isolate is None:
            return self._alone(message, clock)
        seconds = min(clock.left(), needed + self.margin_seconds)
        try:
            opened = self.store.open_try(_try_of(message), seconds)
        except (DatabaseUnavailable, StatementFailed) as exc:
            self._prove_presence(exc)
            return Outcome(Kind.RETRY, reason=_said(exc))
        if opened is TryRecord.BUSY:
            return Outcome(Kind.RETRY, reason="another function is at it")
        if opened is TryRecord.LEFT:
            return self._charge(message, FunctionEnded("The function ended while this event was being processed."))
        # It ends before its parent would end it, and says what came of it.
        its_own = clock.part(seconds - self.margin_seconds / 3)
        try:
            kind, attempts, reason, delay = json.loads(self.isolate(lambda: self._in_child(message, its_own), seconds))
        except FunctionEnded as exc:
            return self._charge(message, exc)
        except OSError as exc:  # no more processes, say
            self._close(message)
            return Outcome(Kind.RETRY, reason=_said(exc))
        if kind == Kind.RETRY and not attempts:
            self._close(message)
        return Outcome(Kind(kind), attempts, reason, delay)

    def _in_child(self, message: Job, clock: Clock) -> bytes:
        self.store.leave_connection()
        try:
            outcome = self._alone(message, clock)
        except Outage as exc:
            outcome = Outcome(Kind.RETRY, reason=f"database: {exc}")
        return json.dumps([outcome.kind, outcome.attempts, outcome.reason, outcome.delay]).encode()

    def _close(self, message: Job) -> None:
        """It was tried and nothing came of it that could be written, which is no fault of its own."""
        if message.receives == 1:
            return
        try:
            with self.store.transaction() as tx:
                tx.close_tries([_try_of(message)])
        except (DatabaseUnavailable, StatementFailed) as exc:
            self._prove_presence(exc)


def _is_verdict(cause: BaseException) -> bool:
    """Whether a handler has said that it cannot be done now, which it would say once more."""
    error = _raised(cause)
    return isinstance(error, HandlersSecretUnavailable) or later_of(error) is not None


def _raised(cause: BaseException) -> BaseException | None:
    """What a handler has raised; None where it was something else."""
    return cause.__cause__ if isinstance(cause, HandlerRaised) else None


def _less(message: Job, postponed: int) -> Job:
    return replace(message, receives=message.receives - postponed, postponed=postponed) if postponed else message


def _by_size(works: Sequence[Work]) -> list[list[Work]]:
    """In groups whose bodies are not too large together; what is too large is a group of its own."""
    groups: list[list[Work]] = []
    room = 0
    for work in works:
        size = work.size
        near = groups and (groups[-1][-1].unread is None) == (work.unread is None)
        if not near or size > room:
            groups.append([])
            room = _MAX_GROUP_BYTES
        groups[-1].append(work)
        room -= size
    return groups


def _near_first(works: Iterable[Work]) -> list[Work]:
    """What has to be fetched may be long in coming."""
    return sorted(works, key=lambda work: work.unread is not None)


def _is_worth_another_try(cause: BaseException, work: Work) -> bool:
    """Whether `_alone` would run it once more before it charges it."""
    if isinstance(cause, StatementFailed):
        return cause.partition_changed or (cause.row_refused and work.payload_fits)
    return isinstance(cause, DatabaseUnavailable)


def _without_frames(cause: BaseException) -> BaseException:
    """What is said of it, without what its frames hold on to: a whole group's bytes."""
    cause.__cause__ = cause.__context__ = None
    return cause.with_traceback(None)


def _try_of(message: Job) -> UUID:
    """What its try is recorded by: a replay's is none of the live event's."""
    if isinstance(message, Work):
        return message.event.id
    return UUID(int=message.replay.id.int ^ message.replay.replay_id.int)


def _said(cause: BaseException) -> str:
    error = _raised(cause) or cause
    return str(error) or type(error).__name__
