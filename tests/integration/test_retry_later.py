"""A handler that says "not yet": nothing of it is kept or charged, it comes again, and a person hears of it in time."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import psycopg2.errors
import pytest

from chalicelib.postern.adapters.event_store import EventStore
from chalicelib.postern.contract.deliveries import Event
from chalicelib.postern.contract.envelope import Replay
from chalicelib.postern.contract.errors import RetryLater
from chalicelib.postern.processing.attempts import Runner, Work
from chalicelib.postern.processing.engine import Processor
from chalicelib.postern.processing.handling import Handler
from chalicelib.postern.processing.settling import Again, Kind, Outcome, Renew, settle
from chalicelib.postern.processing.turns import ReplayRequest, key_of
from tests.integration.world import POLICY, World, effect, now, numbered

LATER = (Kind.RETRY, 0)


class Waits:
    """Has its effect, and then wants it later for these `n`, until it is told that they have come."""

    def __init__(self, *numbers: int, seconds: float = 60) -> None:
        self.numbers = set(numbers)
        self.seconds = seconds
        self.calls = 0

    def __call__(self, event: Event, db: Any) -> None:
        self.calls += 1
        effect(event, db)
        if event.payload["n"] in self.numbers:
            raise RetryLater(self.seconds, f"{event.payload['n']} has not come")


def outcome_of(world: World, item: Work, handler: Callable[[Event, Any], object], receives: int = 1) -> Outcome:
    return world.processor(handler).process([replace(item, receives=receives)])[item.event.id]


def postponed(world: World) -> list[tuple[Any, ...]]:
    return world.query("SELECT times, reason FROM postern.postponed ORDER BY reason")


def test_what_is_put_off_leaves_nothing_and_its_mates_commit(world: World) -> None:
    batch = numbered(1, 2, 3, 4, 5)
    handler = Waits(2, 4)
    outcomes = world.processor(handler).process(batch)
    assert [outcomes[work.event.id].kind for work in batch] == [
        *(Kind.PROCESSED, Kind.RETRY, Kind.PROCESSED, Kind.RETRY, Kind.PROCESSED),
    ]
    late = outcomes[batch[1].event.id]
    assert (late.attempts, late.delay, late.reason) == (0, 60, "RetryLater: 2 has not come")
    assert world.rows() == [("processed", 1)] * 3
    assert world.effects() == 3
    assert postponed(world) == [(1, "2 has not come"), (1, "4 has not come")]
    assert world.query("SELECT count(*) FROM postern.attempts") == [(0,)]
    assert world.query("SELECT count(*) FROM postern.dedup_keys") == [(3,)]


def test_it_is_done_when_it_can_be_and_put_off_no_longer(world: World) -> None:
    [item] = numbered(1)
    handler = Waits(1)
    for receives in (1, 2, 3):
        outcome = outcome_of(world, item, handler, receives)
        assert (outcome.kind, outcome.attempts) == LATER
    assert postponed(world) == [(3, "1 has not come")]
    handler.numbers.clear()
    assert outcome_of(world, item, handler, 4).kind is Kind.PROCESSED
    assert world.rows() == [("processed", 1)]
    assert world.effects() == 1
    assert postponed(world) == []


def test_after_a_day_of_it_each_time_is_charged_and_then_it_is_dead(world: World) -> None:
    [item] = numbered(1)
    handler = Waits(1)
    outcome_of(world, item, handler)
    world.query("UPDATE postern.postponed SET first_at = now() - interval '86401 seconds'")
    outcomes = [outcome_of(world, item, handler, receives) for receives in (2, 3, 4)]
    assert [(o.kind, o.attempts, o.delay) for o in outcomes] == [
        (Kind.RETRY, 1, None),
        (Kind.RETRY, 2, None),
        (Kind.DEAD, 3, None),
    ]
    [(error,)] = world.query("SELECT error FROM postern.events")
    assert error.startswith("RetryLater: 1 has not come")
    assert postponed(world) == []
    # Redriven, it has a day again.
    redriven = replace(item, attempts_before=3)
    outcome = outcome_of(world, redriven, handler)
    assert (outcome.kind, outcome.attempts) == LATER


def test_it_may_be_put_off_more_often_than_it_may_fail(world: World) -> None:
    [item] = numbered(1)
    handler = Waits(1)
    for receives in range(1, 30):
        assert (outcome := outcome_of(world, item, handler, receives)).attempts == 0, outcome

    def contended(event: Event, db: Any) -> None:
        raise psycopg2.errors.DeadlockDetected

    def deadlock(event: Event, db: Any) -> None:
        db.execute("DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '40P01'; END $$")

    # What is nobody's fault goes uncharged as often as it would have.
    patience = POLICY.max_attempts + POLICY.max_uncharged
    kinds = [outcome_of(world, item, deadlock, 29 + n).attempts for n in range(1, patience + 2)]
    assert kinds == [0] * patience + [1]


def test_it_is_no_suspect_for_having_been_put_off_and_is_one_for_more(world: World) -> None:
    [item] = numbered(1)
    isolated = list[float]()

    def isolate(work: Callable[[], bytes], seconds: float) -> bytes:
        isolated.append(seconds)
        return work()

    runner = Runner([Handler("shop", "*", Waits(1))], POLICY, now, 10)
    processor = Processor(EventStore(world.database()), runner, isolate)
    for receives in (1, 2, 3):
        processor.process([replace(item, receives=receives)])
    assert isolated == []
    # The fourth receive brought no verdict: its function ended. The fifth is watched, and its verdict is as good.
    outcome = processor.process([replace(item, receives=5)])[item.event.id]
    assert len(isolated) == 1
    assert (outcome.kind, outcome.attempts, outcome.delay) == (Kind.RETRY, 0, 60)
    assert world.query("SELECT count(*) FROM postern.open_tries") == [(0,)]
    # A message that is sent anew begins at one.
    for receives in (1, 2):
        processor.process([replace(item, receives=receives)])
    assert len(isolated) == 1
    processor.process([replace(item, receives=4)])
    assert len(isolated) == 2


def test_what_ends_the_function_is_found_though_it_was_put_off_before(world: World) -> None:
    [item] = numbered(1)
    outcome_of(world, item, Waits(1))
    from chalicelib.postern.adapters.children import in_child

    exits = Handler("shop", "*", lambda event, db: os._exit(3))
    processor = Processor(EventStore(world.database()), Runner([exits], POLICY, now, 1), in_child)
    outcome = processor.process([replace(item, receives=3)])[item.event.id]
    assert (outcome.kind, outcome.attempts) == (Kind.RETRY, 1)
    assert "exit code 3" in outcome.reason


def test_a_replay_is_put_off_as_well_and_its_row_stays_as_it_was(world: World) -> None:
    [item] = numbered(1)
    world.processor(effect).process([item])
    replay_id = uuid.uuid4()
    world.query(
        "INSERT INTO postern.replays (id, kind, trigger, filter, total, rate)"
        " VALUES (%s, 'replay', 'replay', '{}', 1, 1)",
        str(replay_id),
    )
    world.query(
        "INSERT INTO postern.replay_items (replay_id, event_id, state) VALUES (%s, %s, 'queued')",
        *(str(replay_id), str(item.event.id)),
    )
    handler = Waits(1)
    asked = ReplayRequest(Replay(item.event.id, "shop", "order", replay_id))
    outcome = world.processor(handler).process([asked])[key_of(asked)]
    assert (outcome.kind, outcome.attempts, outcome.delay) == (Kind.RETRY, 0, 60)
    assert world.query("SELECT event_id::text, reason FROM postern.postponed") == [
        (str(item.event.id), "1 has not come")
    ]
    assert world.rows() == [("processed", 1)]
    handler.numbers.clear()
    outcome = world.processor(handler).process([replace(asked, receives=2)])[key_of(asked)]
    assert outcome.kind is Kind.REPLAYED
    assert postponed(world) == []


def test_a_repetition_that_was_processed_meanwhile_ends_it(world: World) -> None:
    [item] = numbered(1)
    outcome_of(world, item, Waits(1))
    other = replace(numbered(1)[0])
    other = replace(other, event=replace(other.event, dedup_key=item.event.dedup_key))
    assert outcome_of(world, other, effect).kind is Kind.PROCESSED
    assert outcome_of(world, item, effect, 2).kind is Kind.DUPLICATE
    assert postponed(world) == []
    assert world.effects() == 1


def test_what_a_handler_says_may_be_anything(world: World) -> None:
    [item] = numbered(1)

    def rude(event: Event, db: Any) -> None:
        raise RetryLater(1.5, "\0\ud800" + "x" * 5000)

    outcome = outcome_of(world, item, rude)
    assert (outcome.kind, outcome.attempts, outcome.delay) == (Kind.RETRY, 0, 2)
    [(_, reason)] = postponed(world)
    assert len(reason) == 1000


def test_in_deciding_what_an_event_is_about_it_counts_as_well(world: World) -> None:
    [item] = numbered(1)

    def entity(event: Event) -> str:
        raise RetryLater(5)

    processor = world.processor(handlers=[Handler("shop", "*", effect, entity=entity)])
    outcome = processor.process([item])[item.event.id]
    assert (outcome.kind, outcome.attempts, outcome.delay, outcome.reason) == (Kind.RETRY, 0, 5, "RetryLater: in 5 s")


@pytest.mark.parametrize("seconds", [0, 0.5, -1, 43_001, float("nan"), float("inf")])
def test_a_time_that_no_queue_could_keep_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="seconds, from 1 to 43,000"):
        RetryLater(seconds)


def test_its_message_is_hidden_for_as_long_and_sent_anew_with_what_delay_there_is() -> None:
    put_off = Outcome(Kind.RETRY, delay=3_600)
    policy = replace(POLICY, max_receives=10)
    assert settle(put_off, 3, policy, lambda: 1.0) == Again(3_600)
    assert settle(put_off, 9, policy, lambda: 1.0) == Renew(900)
