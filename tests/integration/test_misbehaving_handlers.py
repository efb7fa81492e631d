"""Whatever a handler does, its batch mates do not feel it."""

from __future__ import annotations

import asyncio
import contextlib
import io
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import psycopg2
import psycopg2.errors
import psycopg2.extras
import pytest
from psycopg2 import sql
from psycopg2.extensions import AsIs

from chalicelib.postern.contract.deliveries import Event
from chalicelib.postern.processing.attempts import Work
from chalicelib.postern.processing.settling import Kind, Outcome
from tests.integration.world import World, effect, fails_for, numbered, work

Outcomes = dict[UUID, Outcome]


def kinds(outcomes: Outcomes, works: list[Work]) -> list[Kind]:
    return [outcomes[w.event.id].kind for w in works]


def misbehaving(do: Callable[[Any], object]) -> Callable[[Event, Any], None]:
    """Has an effect, and then does this, for n = 2."""

    def handler(event: Event, db: Any) -> None:
        effect(event, db)
        if event.payload["n"] == 2:
            do(db)

    return handler


def swallow_an_error(db: Any) -> None:
    with contextlib.suppress(psycopg2.errors.DivisionByZero):
        db.execute("SELECT 1 / 0")


def give_up(db: Any) -> None:
    raise SystemExit(3)


def cancel(db: Any) -> None:
    raise asyncio.CancelledError


# A trigger of the team's own that speaks at the commit, in a class of errors that says nothing about data.
WATCHED = """
CREATE TABLE watched (id integer);
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'refused'; END $$;
CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON watched
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse();
"""

MISBEHAVIOUR: dict[str, Callable[[Any], object]] = {
    "commit": lambda db: db.connection.commit(),
    "rollback": lambda db: db.connection.rollback(),
    "close": lambda db: db.connection.close(),
    "commit-by-another-cursor": lambda db: db.connection.cursor().execute("COMMIT"),
    "sql-commit": lambda db: db.execute("COMMIT"),
    "sql-rollback": lambda db: db.execute(b"ROLLBACK"),
    "hidden-commit": lambda db: db.execute(sql.SQL("SELECT 1; COMMIT")),
    "many-commits": lambda db: db.executemany("COMMIT", [()]),
    "as-is": lambda db: db.execute("SELECT %s", (AsIs("1; COMMIT"),)),
    "with-connection": lambda db: db.connection.__exit__(None, None, None),
    "autocommit": lambda db: setattr(db.connection, "autocommit", True),
    "swallowed-error": swallow_an_error,
    "SystemExit": give_up,
    "syntax-error": lambda db: db.execute("SELEC 1"),
    "lone-surrogate": lambda db: db.execute("SELECT %s", ("\ud800",)),
    "nul": lambda db: db.execute("SELECT %s", ("\0",)),
    "closed-cursor": lambda db: (db.close(), db.execute("SELECT 1")),
    "other-database": lambda db: psycopg2.connect("host=127.0.0.1 port=1 dbname=none"),
    "cancelled": cancel,
    "deferred-trigger": lambda db: db.execute("INSERT INTO watched VALUES (7)"),
    "deferred-violation": lambda db: db.execute("INSERT INTO child VALUES (7)"),
}


@pytest.mark.parametrize("name", MISBEHAVIOUR)
def test_a_handler_that_misbehaves_fails_its_own_event_only(world: World, name: str) -> None:
    world.query("CREATE TABLE parent (id integer PRIMARY KEY)")
    world.query("CREATE TABLE child (id integer REFERENCES parent DEFERRABLE INITIALLY DEFERRED)")
    world.query(WATCHED)
    batch = numbered(1, 2, 3)
    processor = world.processor(misbehaving(MISBEHAVIOUR[name]))
    assert kinds(processor.process(batch), batch) == [Kind.PROCESSED, Kind.RETRY, Kind.PROCESSED]
    assert (world.rows(), world.effects()) == ([("processed", 1), ("failed", 1), ("processed", 1)], 2)
    assert [kinds(processor.process(batch[1:2]), batch[1:2]) for _ in range(2)] == [[Kind.RETRY], [Kind.DEAD]]
    assert world.effects() == 2


def test_what_a_handler_may_do_works(world: World) -> None:
    def handler(event: Event, db: Any) -> dict[str, Any]:
        psycopg2.extras.execute_values(db, "INSERT INTO effects VALUES %s", [(str(event.id), 1), (str(event.id), 2)])
        db.execute(sql.SQL("INSERT INTO {} VALUES (%s, 4)").format(sql.Identifier("effects")), (str(event.id),))
        db.copy_expert("COPY effects FROM STDIN", io.StringIO(f"{event.id}\t8\n"))
        db.execute("SAVEPOINT mine; INSERT INTO effects VALUES (NULL, 1000); ROLLBACK TO SAVEPOINT mine")
        db.executemany("INSERT INTO effects VALUES (%s, %s)", [(str(event.id), 16), (str(event.id), 32)])
        event.payload["n"] = "changed"
        return {"garbage": True}

    [w] = numbered(1)
    assert kinds(world.processor(handler, handler).process([w]), [w]) == [Kind.PROCESSED]
    assert world.effects() == 2 * 63


def test_batches_that_overlap_in_opposite_orders_have_each_effect_once(world: World) -> None:
    deliveries = [f"k{n}" for n in range(20)]
    batches = [[work(key) for key in random.Random(seed).sample(deliveries, 15)] for seed in range(12)]
    start = threading.Barrier(4)

    def process(batch: list[Work]) -> Outcomes:
        processor = world.processor(effect)
        start.wait()
        return processor.process(batch)

    with ThreadPoolExecutor(4) as workers:
        everything = [outcome for outcomes in workers.map(process, batches) for outcome in outcomes.values()]
    assert {outcome.kind for outcome in everything} <= {Kind.PROCESSED, Kind.DUPLICATE}
    assert len(world.rows()) == world.effects() == len({w.event.dedup_key for batch in batches for w in batch})
    assert world.query("SELECT count(*) FROM postern.duplicates") == [(12 * 15 - world.effects(),)]


def test_batches_whose_handlers_lock_the_same_rows_in_opposite_orders_charge_no_event(world: World) -> None:
    world.query("CREATE TABLE counters (n integer PRIMARY KEY, times integer)")
    world.query("INSERT INTO counters VALUES (1, 0), (2, 0)")
    both_hold_one = threading.Barrier(2, timeout=20)
    first_tries = iter(range(2))

    def count(event: Event, db: Any) -> None:
        db.execute("UPDATE counters SET times = times + 1 WHERE n = %s", (event.payload["n"],))
        if next(first_tries, None) is not None:
            both_hold_one.wait()

    batches = [numbered(1, 2), numbered(2, 1)]
    with ThreadPoolExecutor(2) as workers:
        outcomes = list(workers.map(lambda batch: world.processor(count).process(batch), batches))
    assert [kinds(o, batch) for o, batch in zip(outcomes, batches, strict=True)] == [[Kind.PROCESSED] * 2] * 2
    assert world.rows() == [("processed", 1)] * 4
    assert world.query("SELECT times FROM counters") == [(2,), (2,)]


@pytest.mark.parametrize("first_try_failed", [False, True], ids=["new", "retry"])
def test_two_copies_of_one_batch_at_once_have_each_effect_once(world: World, first_try_failed: bool) -> None:
    batch = numbered(*range(10))
    if first_try_failed:
        world.processor(fails_for(*range(10))).process(batch)
    start = threading.Barrier(2)

    def process(order: int) -> Outcomes:
        processor = world.processor(effect)
        start.wait()
        return processor.process(batch[::order])

    with ThreadPoolExecutor(2) as workers:
        both = list(workers.map(process, (1, -1)))
    assert world.effects() == 10
    for w in batch:
        assert sorted(o[w.event.id].kind for o in both) == [Kind.ALREADY_PROCESSED, Kind.PROCESSED]
