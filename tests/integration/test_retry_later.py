"""A handler that says "not yet": nothing of it is kept or charged, it comes again, and a person hears of it in time."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import psycopg2
import pytest

from chalicelib.postern import secrets
from chalicelib.postern.adapters.event_store import EventStore
from chalicelib.postern.contract.deliveries import Event
from chalicelib.postern.contract.errors import RetryLater
from chalicelib.postern.operating.status.queries import Status
from chalicelib.postern.processing.attempts import Runner, Work
from chalicelib.postern.processing.engine import Processor
from chalicelib.postern.processing.handling import Handler
from chalicelib.postern.processing.settling import Again, Kind, Outcome, Renew, settle
from chalicelib.postern.processing.turns import key_of
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
    world.query("UPDATE postern.postponed SET waited = 86400")
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
    handler = Waits(1)
    asked = world.asked_for(item)
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
    assert len(reason) == 900


def test_in_deciding_what_an_event_is_about_it_counts_as_well(world: World) -> None:
    [item] = numbered(1)

    def entity(event: Event) -> str:
        raise RetryLater(5)

    processor = world.processor(handlers=[Handler("shop", "*", effect, entity=entity)])
    outcome = processor.process([item])[item.event.id]
    assert (outcome.kind, outcome.attempts, outcome.delay, outcome.reason) == (Kind.RETRY, 0, 5, "RetryLater: in 5 s")


def test_before_the_database_knows_of_it_nobody_is_charged(world: World) -> None:
    """A new version's functions come before its migrations, and what is to be tried again waits for these."""
    world.query("ALTER TABLE postern.postponed RENAME TO not_yet")
    waits, succeeds = numbered(1, 2)
    for receives in range(1, 12):
        outcomes = [outcome_of(world, waits, Waits(1), receives), outcome_of(world, succeeds, effect, receives + 1)]
        assert [(o.kind, o.attempts) for o in outcomes] == [LATER, LATER]
    world.query("ALTER TABLE postern.not_yet RENAME TO postponed")
    assert outcome_of(world, succeeds, effect, 13).kind is Kind.PROCESSED


class OrderMissing(RetryLater):
    def __init__(self) -> None:
        pass  # and says nothing to its base


class Mute(RetryLater):
    def __str__(self) -> str:
        raise KeyError("why")


def test_one_of_the_teams_own_kind_that_is_not_as_it_should_be_hurts_only_itself(world: World) -> None:
    batch = numbered(1, 2, 3)

    def handler(event: Event, db: Any) -> None:
        effect(event, db)
        if event.payload["n"] == 1:
            raise OrderMissing
        if event.payload["n"] == 2:
            raise Mute(60)

    outcomes = world.processor(handler).process(batch)
    assert [(o.kind, o.attempts, o.delay) for o in (outcomes[work.event.id] for work in batch)] == [
        (Kind.RETRY, 1, None),  # a failure like any other
        (Kind.RETRY, 0, 60),
        (Kind.PROCESSED, 1, None),
    ]
    assert postponed(world) == [(1, "(no message)")]


def test_a_row_that_is_locked_charges_nobody(world: World) -> None:
    [item] = numbered(1)
    outcome_of(world, item, Waits(1))
    with contextlib.closing(psycopg2.connect(world.url)) as other, other.cursor() as cursor:
        cursor.execute("SELECT FROM postern.postponed FOR UPDATE")
        outcome = outcome_of(world, item, Waits(1), 2)
    assert (outcome.kind, outcome.attempts) == LATER
    assert postponed(world) == [(1, "1 has not come")]


def test_an_outage_uses_up_none_of_its_day(world: World) -> None:
    [item] = numbered(1)
    outcome_of(world, item, Waits(1))
    world.query(
        "UPDATE postern.postponed SET first_at = now() - interval '3 days', again_at = now() - interval '3 days'"
    )
    outcome = outcome_of(world, item, Waits(1), 2)
    assert (outcome.kind, outcome.attempts) == LATER
    assert world.query("SELECT waited FROM postern.postponed") == [(120,)]


def test_a_timeout_that_is_caught_is_one_all_the_same(world: World) -> None:
    [item] = numbered(1)

    def slow(event: Event, db: Any) -> None:
        try:
            db.execute("SELECT pg_sleep(5)")
        except BaseException:
            raise RetryLater(60) from None

    processor = world.processor(handlers=[Handler("shop", "*", slow, timeout=0.1)])
    outcome = processor.process([item])[item.event.id]
    assert (outcome.kind, outcome.attempts, outcome.reason.partition(":")[0]) == (Kind.RETRY, 1, "HandlerTimeout")


def test_a_batch_of_which_all_wait_begins_each_of_them_a_few_times_only(world: World) -> None:
    batch = numbered(*range(64))
    handler = Waits(*range(64))
    outcomes = world.processor(handler).process(batch)
    assert {(o.kind, o.attempts, o.delay) for o in outcomes.values()} == {(Kind.RETRY, 0, 60)}
    assert len(postponed(world)) == 64
    assert handler.calls == 64


def test_a_secret_that_is_missing_is_waited_for_without_an_end(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HANDLERS_SECRET_ID", raising=False)
    [item, mate] = numbered(1, 2)

    def handler(event: Event, db: Any) -> None:
        effect(event, db)
        if event.payload["n"] == 1:
            secrets("shop-key")

    outcomes = world.processor(handler).process([item, mate])
    assert outcomes[mate.event.id].kind is Kind.PROCESSED
    for receives in (1, 2, 50):
        outcome = outcome_of(world, item, handler, receives)
        assert (outcome.kind, outcome.attempts, outcome.delay) == (Kind.RETRY, 0, None)
        assert outcome.reason.startswith("configuration: there is no secret 'shop-key'")
    monkeypatch.setenv("HANDLER_SECRET_SHOP_KEY", "k")
    assert outcome_of(world, item, handler, 51).kind is Kind.PROCESSED
    assert world.effects() == 2


@pytest.mark.parametrize("seconds", [0, 0.5, -1, 42_001, float("nan"), float("inf")])
def test_a_time_that_no_queue_could_keep_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="seconds, from 1 to 42,000"):
        RetryLater(seconds)


def test_its_message_is_hidden_for_as_long_and_sent_anew_with_what_delay_there_is() -> None:
    put_off = Outcome(Kind.RETRY, delay=3_600)
    policy = replace(POLICY, max_receives=10)
    assert settle(put_off, 3, policy, lambda: 1.0) == Again(3_600)
    assert settle(put_off, 9, policy, lambda: 1.0) == Renew(900)


def test_what_is_put_off_is_not_taken_for_what_waits_for_the_database(world: World) -> None:
    """To the ledger both are missing yet."""
    [late] = numbered(1)
    outcome_of(world, late, Waits(1))
    minute = "date_trunc('minute', postern.uuid7_time(%s))"
    world.query(f"INSERT INTO postern.ledger VALUES ('shop', {minute}, 1, 0, 0)", str(late.event.id))
    status = Status(world.database())
    assert status.attention()["waiting_since"] is None
    [told] = status.postponed()
    assert (told["handler"].rpartition(".")[2], told["events"], told["reason"]) == ("Waits", 1, "1 has not come")
    world.query("UPDATE postern.ledger SET accepted = 2")
    assert status.attention()["waiting_since"] is not None
    world.query("UPDATE postern.postponed SET again_at = now()")
    assert status.postponed() == []
