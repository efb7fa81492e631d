"""Events that all want the same rows: batches that meet at two of them are done, and then one goes after the other."""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg2
import pytest

from chalicelib.postern.contract.deliveries import Event
from chalicelib.postern.processing.settling import Kind
from tests.integration.world import World, effect, numbered
from tests.support import eventually


class Meeting:
    """A handler that updates the row of its event's `n`; the first two transactions wait for each other after one."""

    def __init__(self) -> None:
        self.together = threading.Barrier(2, timeout=10)
        self.first = threading.local()

    def __call__(self, event: Event, db: Any) -> None:
        effect(event, db)
        db.execute("UPDATE hot SET times = times + 1 WHERE n = %s", (event.payload["n"],))
        if not hasattr(self.first, "done"):
            self.first.done = True
            self.together.wait()


@pytest.fixture
def hot(world: World) -> World:
    world.query("CREATE TABLE hot (n integer PRIMARY KEY, times integer); INSERT INTO hot VALUES (1, 0), (2, 0)")
    return world


def times(world: World) -> list[int]:
    return [n for (n,) in world.query("SELECT times FROM hot ORDER BY n")]


def test_two_batches_that_meet_from_both_sides_are_both_done(hot: World) -> None:
    handler = Meeting()
    one, two = hot.processor(handler), hot.processor(handler)
    there, back = numbered(1, 2), numbered(2, 1)
    with ThreadPoolExecutor(2) as functions:
        done = [functions.submit(one.process, there), functions.submit(two.process, back)]
        outcomes = [outcome for each in done for outcome in each.result().values()]
    assert {(o.kind, o.attempts) for o in outcomes} == {(Kind.PROCESSED, 1)}
    assert (times(hot), hot.effects()) == ([2, 2], 4)
    names = [handler.name for handler in one.runner.handlers]
    assert one.contention.among(names) or two.contention.among(names)


def test_who_has_met_others_waits_in_line_for_them(hot: World) -> None:
    """The second begins when the first one's transaction is over, and has held nothing until then."""
    inside, leave = threading.Event(), threading.Event()

    def slow(event: Event, db: Any) -> None:
        effect(event, db)
        inside.set()
        assert leave.wait(10)

    def handler(event: Event, db: Any) -> None:
        (slow if event.payload["n"] == 1 else effect)(event, db)

    one, two = hot.processor(handler), hot.processor(handler)
    names = [each.name for each in one.runner.handlers]
    for each in (one, two):
        each.contention.note(names)
    first, second = numbered(1), numbered(2)
    with ThreadPoolExecutor(2) as functions:
        begun = functions.submit(one.process, first)
        assert inside.wait(10)
        waits = functions.submit(two.process, second)
        claimed = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        eventually(lambda: hot.query(claimed) == [(1,)])
        leave.set()
        kinds = [outcome.kind for each in (begun, waits) for outcome in each.result().values()]
    assert kinds == [Kind.PROCESSED, Kind.PROCESSED]


def test_who_waits_in_line_for_too_long_goes_on_without(hot: World) -> None:
    processor = hot.processor(effect)
    [name] = [each.name for each in processor.runner.handlers]
    processor.contention.note([name])
    with contextlib.closing(psycopg2.connect(hot.url)) as other, other.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended('postern.handlers' || E'\\n' || %s, 0))", (name,))
        outcomes = processor.process(numbered(1, 2))
    assert {outcome.kind for outcome in outcomes.values()} == {Kind.PROCESSED}


def test_a_lock_that_does_not_come_is_waited_for_alone_and_for_longer(hot: World) -> None:
    """Of a batch the others are done meanwhile; alone it waits as long as ever."""
    let_go = threading.Timer(1.0, lambda: other.rollback())

    def handler(event: Event, db: Any) -> None:
        effect(event, db)
        db.execute("UPDATE hot SET times = times + 1 WHERE n = %s", (event.payload["n"],))

    with contextlib.closing(psycopg2.connect(hot.url)) as other, other.cursor() as cursor:
        cursor.execute("UPDATE hot SET times = times WHERE n = 2")
        let_go.start()
        outcomes = hot.processor(handler).process(numbered(1, 2))
        let_go.join()
    assert {(o.kind, o.attempts) for o in outcomes.values()} == {(Kind.PROCESSED, 1)}
    assert (times(hot), hot.effects()) == ([1, 1], 2)


@pytest.mark.parametrize("several", [False, True])
def test_a_function_that_changes_the_lock_timeout_is_found_out_all_the_same(world: World, several: bool) -> None:
    world.query(
        "CREATE FUNCTION hidden() RETURNS void LANGUAGE plpgsql AS $$ BEGIN SET LOCAL lock_timeout = '1ms'; END $$"
    )
    seen: list[str] = []

    def handler(event: Event, db: Any) -> None:
        db.execute("SHOW lock_timeout")
        seen.append(db.fetchone()[0])
        db.execute("SELECT hidden()")

    outcomes = world.processor(handler).process(numbered(1, 2) if several else numbered(1))
    assert {outcome.kind for outcome in outcomes.values()} == {Kind.PROCESSED}
    assert seen[0] == ("300ms" if several else "5s")
    assert seen[-1] == "5s"
