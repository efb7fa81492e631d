"""Two functions on the same events at the same moment, held there: the second waits, and finds the work done."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any
from uuid import UUID

import pytest

from chalicelib.postern.contract.deliveries import Event
from chalicelib.postern.processing.attempts import Work
from chalicelib.postern.processing.settling import Kind, Outcome
from tests.integration.world import World, effect, fails_for, numbered, work
from tests.support import eventually

Outcomes = dict[UUID, Outcome]


class Gate:
    """A handler that has its effect, and then stands still inside its transaction until it is opened."""

    def __init__(self, then: Callable[[Event, Any], None] = lambda event, db: None) -> None:
        self.reached = threading.Event()
        self.open = threading.Event()
        self._then = then

    def __call__(self, event: Event, db: Any) -> None:
        effect(event, db)
        self.reached.set()
        assert self.open.wait(20)
        self._then(event, db)


def one_waits(world: World) -> bool:
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    return world.query(waiting) == [(1,)]


def both(world: World, gate: Gate, first: list[Work], second: list[Work]) -> tuple[Outcomes, Outcomes]:
    """The second batch begins inside the first one's transaction, and waits for it."""
    with ThreadPoolExecutor(2) as functions:
        try:
            one: Future[Outcomes] = functions.submit(world.processor(gate).process, first)
            assert gate.reached.wait(20)
            two: Future[Outcomes] = functions.submit(world.processor(effect).process, second)
            eventually(lambda: one_waits(world))
        finally:
            gate.open.set()
        return one.result(), two.result()


def only(outcomes: Outcomes) -> Outcome:
    [outcome] = outcomes.values()
    return outcome


def test_the_second_copy_of_a_new_event_waits_and_changes_nothing(world: World) -> None:
    [item] = numbered(1)
    one, two = both(world, Gate(), [item], [item])
    assert (only(one).kind, only(two).kind) == (Kind.PROCESSED, Kind.ALREADY_PROCESSED)
    assert (world.rows(), world.effects()) == ([("processed", 1)], 1)


def test_a_second_delivery_of_the_event_waits_and_is_a_duplicate(world: World) -> None:
    one, two = both(world, Gate(), [work("evt_1")], [work("evt_1")])
    assert (only(one).kind, only(two).kind) == (Kind.PROCESSED, Kind.DUPLICATE)
    assert (world.rows(), world.effects()) == ([("processed", 1)], 1)


def test_the_second_copy_of_a_retry_waits_and_changes_nothing(world: World) -> None:
    [item] = numbered(1)
    world.processor(fails_for(1)).process([item])
    one, two = both(world, Gate(), [item], [item])
    assert (only(one), only(two).kind) == (Outcome(Kind.PROCESSED, attempts=2), Kind.ALREADY_PROCESSED)
    assert (world.rows(), world.effects()) == ([("processed", 2)], 1)


def test_the_second_copy_runs_when_the_first_fails(world: World) -> None:
    """The first has rolled back by then. It writes that it failed before the second runs, or finds that it is done."""
    [item] = numbered(1)
    world.processor(fails_for(1)).process([item])
    one, two = both(world, Gate(fails_for(1)), [item], [item])
    number = 3 if only(one).kind is Kind.RETRY else 2
    assert (only(one).kind, only(two)) == (
        Kind.RETRY if number == 3 else Kind.ALREADY_PROCESSED,
        Outcome(Kind.PROCESSED, attempts=number),
    )
    assert (world.rows(), world.effects()) == ([("processed", number)], 1)


def test_the_second_is_first_when_the_first_comes_to_nothing(world: World) -> None:
    def lose_the_connection(event: Event, db: Any) -> None:
        db.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    first, second = work("evt_1"), work("evt_1")
    one, two = both(world, Gate(lose_the_connection), [first], [second])
    assert (only(one).kind, only(two).kind) == (Kind.DUPLICATE, Kind.PROCESSED)
    assert (world.rows(), world.effects()) == ([("processed", 1)], 1)


@pytest.mark.parametrize("failed_before", [False, True], ids=["new", "retries"])
def test_batches_in_opposite_orders_do_not_wait_for_each_other_in_a_circle(world: World, failed_before: bool) -> None:
    batch = [work(f"evt_{n}") for n in range(30)]
    if failed_before:
        world.processor(fails_for(1)).process(batch)
    for _ in range(5):
        start = threading.Barrier(3)

        def process(items: list[Work], start: threading.Barrier = start) -> Outcomes:
            processor = world.processor(effect)
            start.wait()
            return processor.process(items)

        with ThreadPoolExecutor(3) as functions:
            done = [o for out in functions.map(process, [batch, batch[::-1], batch[::2]]) for o in out.values()]
        assert {outcome.kind for outcome in done} <= {Kind.PROCESSED, Kind.ALREADY_PROCESSED}
    assert world.effects() == 30


def test_a_new_partition_is_made_while_events_come_in(world: World) -> None:
    """It locks the default partition, which every insert may have to look into."""
    gate = Gate()
    with ThreadPoolExecutor(2) as functions:
        try:
            processing = functions.submit(world.processor(gate).process, numbered(1))
            assert gate.reached.wait(20)
            making = functions.submit(world.query, "SELECT postern.ensure_partitions(16)")
            eventually(lambda: making.done() or one_waits(world))
        finally:
            gate.open.set()
        assert only(processing.result()).kind is Kind.PROCESSED
        assert making.result() == [(2,)]
