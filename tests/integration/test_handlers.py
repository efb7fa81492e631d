"""What handlers may ask for: a timeout, a schema, an order; and which of their failures are for good."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg2
import pytest
from marshmallow import Schema, fields

from chalicelib.postern.contract.deliveries import Event
from chalicelib.postern.processing import handling
from chalicelib.postern.processing.attempts import Work
from chalicelib.postern.processing.handling import Handler, PermanentError, on
from chalicelib.postern.processing.settling import Kind, Outcome
from tests.integration.world import World, effect, numbered, work
from tests.support import eventually


@pytest.fixture
def register() -> Iterator[Callable[[], list[Handler]]]:
    """What `@on` has registered in this test; afterwards it is gone."""
    before = len(handling._registered)
    yield lambda: handling._registered[before:]
    del handling._registered[before:]


Registered = Callable[[], list[Handler]]


def shown(**facts: Any) -> Work:
    return work(body=json.dumps(facts).encode())


def statuses(world: World) -> list[tuple[str, int]]:
    return [(s, a) for s, a in world.query("SELECT status, attempts FROM postern.events ORDER BY received_at")]


# Which run


def test_handlers_run_in_order_and_the_first_failure_ends_it(world: World) -> None:
    seen: list[str] = []

    def step(name: str) -> Callable[[Event, Any], None]:
        return lambda event, db: seen.append(name)

    def fail(event: Event, db: Any) -> None:
        raise ValueError("no such customer")

    item = work()
    outcomes = world.processor(step("a"), step("b"), fail, step("c")).process([item])
    assert outcomes[item.event.id].kind is Kind.RETRY
    assert seen == ["a", "b"]


def test_several_handlers_of_an_event_succeed_or_fail_together(world: World) -> None:
    def fail_first(event: Event, db: Any) -> None:
        if event.attempt == 1:
            raise ValueError("not yet")

    processor = world.processor(effect, fail_first)
    item = work()
    processor.process([item])
    assert world.effects() == 0
    processor.process([item])
    assert world.effects() == 1


# For good


def test_what_a_handler_changes_in_the_payload_is_not_the_next_ones(world: World) -> None:
    seen: list[Any] = []

    def changes(event: Event, db: Any) -> None:
        seen.append((event.payload["n"], "b" in event.headers))
        event.payload["n"] = "changed"
        event.headers["b"] = "changed"  # type: ignore[index]

    world.processor(changes, changes, changes).process(numbered(1))
    assert seen == [(1, False)] * 3


def test_money_reaches_a_handler_and_its_tables_with_every_digit(world: World) -> None:
    world.query("CREATE TABLE paid (total numeric, fee numeric, again numeric)")

    def book(event: Event, db: Any) -> None:
        exact = event.json(parse_float=Decimal)
        assert (type(event.payload["fee"]), type(exact["fee"])) == (float, Decimal)
        db.execute("INSERT INTO paid VALUES (%s, %s, %s)", (event.payload["total"], event.payload["fee"], exact["fee"]))

    processor = world.processor(book)
    processor.process([work(body=b'{"total": 12345678901234567.89, "fee": 0.10}')])
    assert world.query("SELECT total::text, fee::text, again::text FROM paid") == [
        ("12345678901234567.89", "0.1", "0.10")
    ]


def test_a_permanent_error_is_dead_at_once(world: World) -> None:
    class NoSuchPlan(PermanentError):
        """The team's own."""

    def refuse(event: Event, db: Any) -> None:
        effect(event, db)
        raise NoSuchPlan("gold")

    item = work()
    assert world.processor(refuse).process([item]) == {
        item.event.id: Outcome(Kind.DEAD, attempts=1, reason="NoSuchPlan: gold")
    }
    assert world.rows() == [("dead", 1)]
    assert world.effects() == 0


class Order(Schema):
    n = fields.Integer(required=True, strict=True)
    at = fields.DateTime()


def test_a_handler_with_a_schema_gets_what_it_makes_of_the_payload(world: World, register: Registered) -> None:
    seen: list[Any] = []

    @on("shop", schema=Order)
    def typed(event: Event, db: Any) -> None:
        seen.append(event.payload)

    @on("shop")
    def raw(event: Event, db: Any) -> None:
        seen.append(event.payload)

    facts = {"n": 1, "at": "2026-11-24T03:00:00+00:00", "more": True}
    world.processor(handlers=register()).process([shown(**facts)])
    assert seen[0]["at"].isoformat() == facts["at"]
    assert "more" not in seen[0]
    assert seen[1] == facts


def test_a_payload_that_does_not_fit_the_handlers_schema_is_dead_at_once(world: World, register: Registered) -> None:
    @on("shop", schema=Order)
    def typed(event: Event, db: Any) -> None:
        raise AssertionError("it must not be called")

    item = shown(n="one")
    outcome = world.processor(handlers=register()).process([item])[item.event.id]
    assert outcome.kind is Kind.DEAD
    assert outcome.reason == "PermanentError: The payload is not what Order says: {'n': ['Not a valid integer.']}"


# Its time


def busy(event: Event, db: Any) -> None:
    while True:
        # What only `except Exception` would let through.
        with contextlib.suppress(Exception):
            time.sleep(0.001)


def asleep(event: Event, db: Any) -> None:
    time.sleep(3600)


def asleep_in_the_database(event: Event, db: Any) -> None:
    db.execute("SELECT pg_sleep(3600)")


@pytest.mark.parametrize("stuck", [busy, asleep, asleep_in_the_database])
def test_a_handler_that_never_returns_fails_its_own_event_and_its_mates_are_processed(
    world: World, stuck: Callable[[Event, Any], None]
) -> None:
    def second_is_stuck(event: Event, db: Any) -> None:
        effect(event, db)
        if event.payload["n"] == 2:
            stuck(event, db)

    batch = numbered(1, 2, 3)
    handlers = [Handler("shop", "*", second_is_stuck, timeout=0.3)]
    outcomes = world.processor(handlers=handlers).process(batch)
    assert [outcomes[item.event.id].kind for item in batch] == [Kind.PROCESSED, Kind.RETRY, Kind.PROCESSED]
    assert world.rows() == [("processed", 1), ("failed", 1), ("processed", 1)]
    assert world.effects() == 2
    [(error,)] = world.query("SELECT error FROM postern.events WHERE status = 'failed'")
    assert error.startswith(("HandlerTimeout: It took longer than 0.3 s.", "QueryCanceled: canceling statement due to"))


def test_what_the_invocation_has_no_time_left_for_comes_again_uncharged(world: World) -> None:
    left = [30.0]

    def slow(event: Event, db: Any) -> None:
        effect(event, db)
        left[0] = 3.5  # of which three are kept

    batch = numbered(1, 2, 3)
    outcomes = world.processor(slow).process(batch, time_left=lambda: left[0])
    assert [outcomes[item.event.id].kind for item in batch] == [Kind.PROCESSED, Kind.RETRY, Kind.RETRY]
    assert {outcomes[item.event.id].attempts for item in batch[1:]} == {0}
    assert len(world.rows()) == 1
    again = world.processor(effect).process(batch[1:])
    assert {outcome.kind for outcome in again.values()} == {Kind.PROCESSED}
    assert world.effects() == 3


# Order of an entity


def entity(event: Event) -> object:
    return event.payload["id"]


def version(event: Event) -> object:
    return event.payload["version"]


def project(event: Event, db: Any) -> None:
    db.execute(
        "INSERT INTO orders VALUES (%s, %s) ON CONFLICT (id) DO UPDATE SET state = excluded.state",
        (event.payload["id"], event.payload["state"]),
    )


@pytest.fixture
def orders(world: World) -> World:
    world.query("CREATE TABLE orders (id text PRIMARY KEY, state text)")
    return world


ORDERED = Handler("shop", "*", project, entity=entity, version=version)


def state(world: World) -> list[tuple[str, str]]:
    return [(id, state) for id, state in world.query("SELECT id, state FROM orders ORDER BY id")]


def test_a_late_older_event_is_stale_and_does_not_regress_newer_state(orders: World) -> None:
    processor = orders.processor(handlers=[ORDERED])
    new, old = shown(id="o1", version=2, state="paid"), shown(id="o1", version=1, state="open")
    assert processor.process([new])[new.event.id].kind is Kind.PROCESSED
    assert processor.process([old]) == {old.event.id: Outcome(Kind.STALE, attempts=1)}
    assert state(orders) == [("o1", "paid")]
    assert statuses(orders) == [("processed", 1), ("stale", 1)]


def test_order_holds_within_one_batch_too(orders: World) -> None:
    new, old = shown(id="o1", version=2, state="paid"), shown(id="o1", version=1, state="open")
    outcomes = orders.processor(handlers=[ORDERED]).process([new, old])
    assert outcomes[old.event.id].kind is Kind.STALE
    assert state(orders) == [("o1", "paid")]


def test_a_newer_event_that_failed_makes_nothing_stale(orders: World) -> None:
    def refuse(event: Event, db: Any) -> None:
        if event.payload["state"] == "paid" and event.attempt == 1:
            raise ValueError("not yet")
        project(event, db)

    processor = orders.processor(handlers=[Handler("shop", "*", refuse, entity=entity, version=version)])
    new, old = shown(id="o1", version=2, state="paid"), shown(id="o1", version=1, state="open")
    processor.process([new, old])
    assert state(orders) == [("o1", "open")]
    processor.process([new])
    assert state(orders) == [("o1", "paid")]


def test_other_entities_sources_and_handlers_without_an_order_are_not_concerned(orders: World) -> None:
    processor = orders.processor(effect, handlers=[ORDERED])
    batch = [shown(id="o1", version=2, state="paid"), shown(id="o2", version=1, state="open")]
    late = shown(id="o1", version=1, state="open")
    processor.process([*batch, late])
    assert state(orders) == [("o1", "paid"), ("o2", "open")]
    assert orders.effects() == 3  # the other handler ran for the late one, too


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        (1, 2),
        (1.5, 1.75),
        ("9", "10"),
        ("2026-11-24T03:00:00Z", "2026-11-24T03:00:00.000001Z"),
        ("2026-11-24T03:00:00+02:00", "2026-11-24T03:00:00Z"),
        (10**30, 10**30 + 1),
    ],
)
def test_versions_are_numbers_or_times(orders: World, older: object, newer: object) -> None:
    processor = orders.processor(handlers=[ORDERED])
    for v, expected in [(newer, Kind.PROCESSED), (older, Kind.STALE), (newer, Kind.PROCESSED)]:
        item = shown(id="o1", version=v, state="x")
        assert processor.process([item])[item.event.id].kind is expected


@pytest.mark.parametrize("garbage", [None, "", "yesterday", [1], True, "NaN", "1e999999", float("inf"), "\ud800"])
def test_a_version_that_is_neither_is_a_permanent_error_of_its_own_event(orders: World, garbage: object) -> None:
    handler = Handler("shop", "*", project, entity=entity, version=lambda event: event.payload["version"] or garbage)
    bad, good = shown(id="o1", version=0, state="x"), shown(id="o2", version=1, state="y")
    outcomes = orders.processor(handlers=[handler]).process([bad, good])
    assert outcomes[good.event.id].kind is Kind.PROCESSED
    assert outcomes[bad.event.id].kind is Kind.DEAD
    assert state(orders) == [("o2", "y")]


def test_an_entity_that_cannot_be_told_fails_its_own_event(orders: World) -> None:
    missing, good = shown(version=1, state="x"), shown(id="o2", version=1, state="y")
    outcomes = orders.processor(handlers=[ORDERED]).process([missing, good])
    assert outcomes[missing.event.id] == Outcome(Kind.RETRY, 1, "KeyError: 'id'")
    assert state(orders) == [("o2", "y")]


def test_events_of_one_entity_never_run_at_the_same_time(orders: World) -> None:
    began, go_on = threading.Event(), threading.Event()
    at_work: list[str] = []

    def slow(event: Event, db: Any) -> None:
        at_work.append(event.payload["state"])
        if event.payload["state"] == "first":
            began.set()
            assert go_on.wait(10)
        project(event, db)

    handler = Handler("shop", "*", slow, entity=entity)
    outcomes: list[dict[UUID, Outcome]] = []

    def process(item: Work) -> threading.Thread:
        processor = orders.processor(handlers=[handler])
        thread = threading.Thread(target=lambda: outcomes.append(processor.process([item])))
        thread.start()
        return thread

    first = process(shown(id="o1", state="first"))
    assert began.wait(10)
    second = process(shown(id="o1", state="second"))
    other = process(shown(id="o2", state="other"))
    eventually(lambda: "other" in at_work)
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    eventually(lambda: orders.query(waiting) == [(1,)])
    assert "second" not in at_work
    go_on.set()
    for thread in (first, second, other):
        thread.join(20)
    assert state(orders) == [("o1", "second"), ("o2", "other")]
    assert {outcome.kind for each in outcomes for outcome in each.values()} == {Kind.PROCESSED}


def test_batches_with_the_same_entities_in_opposite_orders_wait_and_do_not_deadlock(orders: World) -> None:
    handlers = [ORDERED]
    ids = [f"o{n}" for n in range(10)]
    batches = [[shown(id=id, version=n, state=str(n)) for id in order] for n, order in enumerate([ids, ids[::-1]] * 4)]
    with ThreadPoolExecutor(len(batches)) as pool:
        results = list(pool.map(lambda batch: orders.processor(handlers=handlers).process(batch), batches))
    assert {o.kind for each in results for o in each.values()} <= {Kind.PROCESSED, Kind.STALE}
    assert state(orders) == [(id, "7") for id in ids]


# What is kept of a try


def attempts(world: World, *columns: str) -> list[tuple[Any, ...]]:
    return world.query(f"SELECT {', '.join(columns)} FROM postern.tries ORDER BY started_at, number")


def test_each_try_is_recorded_with_its_trigger_and_what_came_of_it(world: World) -> None:
    def fail_twice(event: Event, db: Any) -> None:
        if event.attempt < 3:
            raise ValueError(f"try {event.attempt}")

    item = work()
    for _ in range(3):
        world.processor(fail_twice).process([item])
    columns = ("number", "trigger", "outcome", "error_class", "message", "handler")
    name = f"{__name__}.{test_each_try_is_recorded_with_its_trigger_and_what_came_of_it.__name__}.<locals>.fail_twice"
    assert attempts(world, *columns) == [
        (1, "first", "failed", "ValueError", "try 1", name),
        (2, "retry", "failed", "ValueError", "try 2", name),
        (3, "retry", "processed", None, None, None),
    ]
    [(trace, took)] = world.query("SELECT traceback, duration_ms FROM postern.attempts WHERE number = 2")
    assert "in fail_twice" in trace
    assert took >= 0


def test_failures_at_one_place_are_one_issue_whatever_they_quote(world: World) -> None:
    def fail(event: Event, db: Any) -> None:
        if event.payload["n"] < 3:
            raise ValueError(f"{event.payload['n']} is poisoned")
        raise ValueError("elsewhere")

    world.processor(fail).process(numbered(1, 2, 3))
    found = world.query("SELECT count, message, state FROM postern.issues ORDER BY count DESC")
    assert found == [(2, "2 is poisoned", "open"), (1, "elsewhere", "open")]
    [(first, last)] = world.query(
        "SELECT first_event <> last_event, last_seen >= first_seen FROM postern.issues WHERE count = 2"
    )
    assert (first, last) == (True, True)


def test_a_resolved_issue_that_is_seen_again_is_open_again(world: World) -> None:
    def fail(event: Event, db: Any) -> None:
        raise ValueError("again")

    processor = world.processor(fail)
    processor.process([work()])
    world.query("UPDATE postern.issues SET state = 'acknowledged'")
    processor.process([work()])
    assert world.query("SELECT state, count FROM postern.issues") == [("acknowledged", 2)]
    world.query("UPDATE postern.issues SET state = 'resolved'")
    processor.process([work()])
    assert world.query("SELECT state, count FROM postern.issues") == [("open", 3)]


def test_a_failure_at_the_commit_is_recorded_too(world: World) -> None:
    world.query("CREATE TABLE parents (id integer PRIMARY KEY)")
    world.query("CREATE TABLE children (parent integer REFERENCES parents DEFERRABLE INITIALLY DEFERRED)")

    def orphan(event: Event, db: Any) -> None:
        db.execute("INSERT INTO children VALUES (%s)", (event.payload["n"],))

    world.query("INSERT INTO parents VALUES (1)")
    batch = numbered(1, 2)
    world.processor(orphan).process(batch)
    assert world.rows() == [("processed", 1), ("failed", 1)]
    assert sorted(attempts(world, "outcome", "error_class")) == [("failed", "StatementFailed"), ("processed", None)]
    # The same in a batch and alone, so that it is one issue.
    [bad] = [item for item in batch if json.loads(item.body)["n"] == 2]
    world.processor(orphan).process([replace(bad, receives=2)])
    assert world.query("SELECT count FROM postern.issues") == [(2,)]


def test_two_batches_that_fail_alike_at_once_count_every_failure(world: World) -> None:
    def fail(event: Event, db: Any) -> None:
        raise ValueError("alike")

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda _: world.processor(fail).process(numbered(*range(10))), range(6)))
    assert world.query("SELECT count FROM postern.issues") == [(60,)]


def test_a_handler_that_writes_100_mb_is_kept_or_fails_alone(world: World) -> None:
    world.query("CREATE TABLE heap (data text)")

    def write(event: Event, db: Any) -> None:
        if event.payload["n"] == 2:
            db.execute("INSERT INTO heap SELECT repeat('x', 100000000)")
            raise MemoryError("100 MB were too much")
        effect(event, db)

    batch = numbered(1, 2, 3)
    world.processor(write).process(batch)
    assert world.rows() == [("processed", 1), ("failed", 1), ("processed", 1)]
    assert world.query("SELECT count(*) FROM heap") == [(0,)]


def test_a_handler_that_opens_a_second_transaction_has_that_and_no_more(world: World) -> None:
    def elsewhere(event: Event, db: Any) -> None:
        effect(event, db)
        with contextlib.closing(psycopg2.connect(world.url)) as other, other.cursor() as cursor:
            cursor.execute("INSERT INTO effects VALUES (%s, 100)", (str(event.id),))
            other.commit()
        raise ValueError("and then it fails")

    world.processor(elsewhere).process([work()])
    assert world.effects() == 100  # its own affair: docs/handlers.md
    assert world.rows() == [("failed", 1)]
