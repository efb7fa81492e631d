"""Dry runs: what would change is shown row by row, and nothing of it is kept."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import psycopg2
import pytest

from chalicelib.postern.adapters.row_changes import Outcome, RowChanges
from chalicelib.postern.contract.deliveries import Event
from chalicelib.postern.contract.errors import DatabaseUnavailable, RetryLater, UnknownAction
from chalicelib.postern.operating.dry_run import actions as dry_run
from chalicelib.postern.operating.dry_run.queries import StoredEvents
from chalicelib.postern.operating.operator import Operator
from chalicelib.postern.processing.handling import Handler, PermanentError
from cli.dry_run import change_line
from tests.integration.world import World, effect, numbered, work
from tests.support import eventually

Changes = Callable[[str], Outcome]

SHOP = """
CREATE TABLE items (id integer PRIMARY KEY, name text, price numeric(10, 2), tags text[], at timestamptz);
INSERT INTO items SELECT n, 'item ' || n, n, '{a,b}', '2026-11-24' FROM generate_series(1, 1000) AS n;
CREATE TABLE notes (item integer REFERENCES items ON DELETE CASCADE, text text);
INSERT INTO notes VALUES (1, 'one'), (1, 'uno'), (2, 'two');
CREATE TABLE log (id bigserial PRIMARY KEY, what text) PARTITION BY RANGE (id);
CREATE TABLE log_low PARTITION OF log FOR VALUES FROM (1) TO (1000000);
"""


@pytest.fixture
def shop(world: World) -> World:
    world.query(SHOP)
    return world


@pytest.fixture
def changes(shop: World) -> Changes:
    """What these statements would change."""
    return lambda statements: RowChanges(lambda fresh: shop.url).of(lambda db: db.execute(statements))


def told(outcome: Outcome) -> list[tuple[str, str, dict[str, Any]]]:
    return [(change.table, change.kind, change.key) for change in outcome.changes]


def tables(world: World) -> list[tuple[Any, ...]]:
    return world.query(
        "SELECT (SELECT sum(hashtext(items::text)) FROM items), (SELECT sum(hashtext(notes::text)) FROM notes),"
        " (SELECT count(*) FROM log)"
    )


@pytest.mark.parametrize(
    ("statements", "expected"),
    [
        ("SELECT 1", []),
        ("INSERT INTO items VALUES (2000, 'new')", [("postern.items", "inserted", {"id": 2000})]),
        ("UPDATE items SET price = price + 1 WHERE id = 7", [("postern.items", "updated", {"id": 7})]),
        ("UPDATE items SET price = price WHERE id = 7", []),
        ("DELETE FROM items WHERE id = 7", [("postern.items", "deleted", {"id": 7})]),
        ("SELECT FROM items WHERE id = 7 FOR UPDATE", []),
        ("INSERT INTO items VALUES (2000, 'x'); DELETE FROM items WHERE id = 2000", []),
        (
            "DELETE FROM items WHERE id = 7; INSERT INTO items VALUES (7, 'again')",
            [("postern.items", "updated", {"id": 7})],
        ),
        (
            "UPDATE items SET id = 2000 WHERE id = 7",
            [("postern.items", "inserted", {"id": 2000}), ("postern.items", "deleted", {"id": 7})],
        ),
        (
            "SAVEPOINT a; UPDATE items SET name = 'a' WHERE id = 1; RELEASE a;"
            "SAVEPOINT b; UPDATE items SET name = 'b' WHERE id = 2; ROLLBACK TO b;"
            "SAVEPOINT c; UPDATE items SET name = 'c' WHERE id = 3",
            [("postern.items", "updated", {"id": 1}), ("postern.items", "updated", {"id": 3})],
        ),
        ("INSERT INTO log (what) VALUES ('x')", [("postern.log", "inserted", {"id": 1})]),
        (
            "DELETE FROM items WHERE id = 1",
            [
                ("postern.items", "deleted", {"id": 1}),
                ("postern.notes", "deleted", {}),
                ("postern.notes", "deleted", {}),
            ],
        ),
        ("INSERT INTO notes VALUES (3, 'three')", [("postern.notes", "inserted", {})]),
        ("CREATE TABLE mine (id integer PRIMARY KEY); INSERT INTO mine VALUES (1)", None),
        ("TRUNCATE notes", None),
    ],
)
def test_the_changes_are_told_and_undone(
    shop: World, changes: Changes, statements: str, expected: list[tuple[str, str, dict[str, Any]]] | None
) -> None:
    before = tables(shop)
    outcome = changes(statements)
    assert outcome.error is None
    if expected is None:
        assert outcome.incomplete
    else:
        assert sorted(told(outcome), key=str) == sorted(expected, key=str)
    assert tables(shop) == before
    # The server takes a moment to see that a client has gone, and its own workers come and go.
    count = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend'"
    )
    eventually(lambda: shop.query(count) == [(1,)])


def test_a_changed_row_is_told_as_it_was_and_as_it_would_be(changes: Changes) -> None:
    [change] = changes("UPDATE items SET price = 9.50, tags = NULL WHERE id = 7").changes
    assert change.before is not None
    assert change.after is not None
    assert (change.before["price"], change.after["price"]) == ("7.00", "9.50")
    assert (change.before["tags"], change.after["tags"]) == (["a", "b"], None)
    line = change_line({"table": change.table, "kind": change.kind, "key": change.key, "before": change.before,
                        "after": change.after})  # fmt: skip
    assert line == '  ~ postern.items  id=7  tags: ["a", "b"] → null, price: "7.00" → "9.50"'


def test_a_number_is_told_with_all_of_its_digits(shop: World) -> None:
    shop.query(
        "CREATE TABLE sums (id numeric PRIMARY KEY, total numeric); INSERT INTO sums VALUES (1.234567890123456789, 1)"
    )
    statements = "UPDATE sums SET total = 12345678901234567.89"
    [change] = RowChanges(lambda fresh: shop.url).of(lambda db: db.execute(statements)).changes
    assert (change.kind, change.key) == ("updated", {"id": "1.234567890123456789"})
    assert (change.before, change.after) == (
        {"id": "1.234567890123456789", "total": 1},
        {"id": "1.234567890123456789", "total": "12345678901234567.89"},
    )


def test_the_changes_of_others_are_not_told(shop: World) -> None:
    with contextlib.closing(psycopg2.connect(shop.url)) as other, other.cursor() as cursor:
        cursor.execute("UPDATE items SET name = 'theirs' WHERE id = 1")

        def work(db: Any) -> None:
            db.execute("UPDATE items SET name = 'ours' WHERE id = 2")
            other.commit()
            shop.query("INSERT INTO items VALUES (3000, 'theirs')")
            db.execute("UPDATE items SET name = 'ours' WHERE id = 4")

        outcome = RowChanges(lambda fresh: shop.url).of(work)
    assert told(outcome) == [("postern.items", "updated", {"id": 2}), ("postern.items", "updated", {"id": 4})]


def test_what_is_too_much_is_cut_and_said(changes: Changes) -> None:
    outcome = changes("UPDATE items SET name = repeat('x', 5000)")
    assert len(outcome.changes) == 200
    assert outcome.incomplete == [
        "postern.items: 0 inserted, 1000 updated, 0 deleted; more than 200 changes are not shown."
    ]
    assert outcome.changes[0].after is not None
    assert len(outcome.changes[0].after["name"]) == 1_001


def test_work_that_raises_has_what_it_changed_until_then(shop: World) -> None:
    def fail(db: Any) -> None:
        db.execute("UPDATE items SET name = 'x' WHERE id = 1")
        raise SystemExit("enough")

    outcome = RowChanges(lambda fresh: shop.url).of(fail)
    assert isinstance(outcome.error, SystemExit)
    assert told(outcome) == [("postern.items", "updated", {"id": 1})]


def test_work_that_voids_its_transaction_says_so(changes: Changes) -> None:
    outcome = changes("UPDATE items SET name = 'x' WHERE id = 1; SELECT 1 / 0")
    assert isinstance(outcome.error, psycopg2.errors.DivisionByZero)
    assert outcome.incomplete == ["A database error undid what was written before it."]


@pytest.mark.parametrize("end", [lambda db: db.execute("COMMIT"), lambda db: db.connection.commit()])
def test_work_cannot_commit(shop: World, end: Callable[[Any], None]) -> None:
    def work(db: Any) -> None:
        db.execute("UPDATE items SET name = 'x' WHERE id = 1")
        end(db)

    before = tables(shop)
    outcome = RowChanges(lambda fresh: shop.url).of(work)
    assert "must not end it" in str(outcome.error)
    assert tables(shop) == before


def test_a_database_that_is_away_is_said_to_be() -> None:
    with pytest.raises(DatabaseUnavailable):
        RowChanges(lambda fresh: "host=127.0.0.1 port=1 dbname=none").of(lambda db: None)


# Of an event


def dry(world: World, id: object, *handlers: Handler) -> dict[str, Any]:
    runner = world.processor(handlers=handlers).runner
    store = StoredEvents(world.database())
    operator = Operator(dry_run.actions(store, lambda: runner, RowChanges(lambda fresh: world.url)), {})
    return operator.perform({"action": "dry_run", "id": str(id)})


def test_an_event_is_run_through_todays_handlers_and_stays_as_it_was(world: World) -> None:
    seen: list[tuple[bool, int]] = []

    def mended(event: Event, db: Any) -> None:
        seen.append((event.dry_run, event.attempt))
        effect(event, db)

    def broken(event: Event, db: Any) -> None:
        raise ValueError("broken")

    [item] = numbered(1)
    world.processor(broken).process([item])
    found = dry(world, item.event.id, Handler("shop", "*", mended))
    assert (found["status"], found["outcome"], found["failure"]) == ("failed", "processed", None)
    assert found["changes"] == [
        {
            "table": "postern.effects",
            "kind": "inserted",
            "key": {},
            "before": None,
            "after": {"event": str(item.event.id), "n": 1},
        }
    ]
    assert seen == [(True, 2)]
    assert world.effects() == 0
    assert world.rows() == [("failed", 1)]
    assert world.query("SELECT count(*) FROM postern.attempts") == [(1,)]


def test_a_handler_that_would_fail_is_told_with_its_traceback(world: World) -> None:
    def refuse(event: Event, db: Any) -> None:
        raise PermanentError("no")

    item = work()
    world.processor().process([item])
    found = dry(world, item.event.id, Handler("shop", "*", refuse))
    assert (found["outcome"], found["failure"]["message"]) == ("dead", "no")
    assert "in refuse" in found["failure"]["traceback"]


def test_a_handler_that_never_returns_is_interrupted_here_too(world: World) -> None:
    item = work()
    world.processor().process([item])
    handler = Handler("shop", "*", lambda event, db: db.execute("SELECT pg_sleep(0.2)"), timeout=0.05)
    assert dry(world, item.event.id, handler)["failure"]["error_class"] == "HandlerTimeout"


def test_what_is_older_than_what_was_handled_would_be_stale(world: World) -> None:
    handler = Handler("shop", "*", effect, entity=lambda e: "one", version=lambda e: e.payload["n"])
    older, newer = numbered(1, 2)
    world.processor(handlers=[handler]).process([newer])
    world.processor().process([older])
    found = dry(world, older.event.id, handler)
    assert (found["outcome"], found["handlers"], found["changes"]) == ("stale", [], [])


def test_what_would_be_put_off_is_said(world: World) -> None:
    def wait(event: Event, db: Any) -> None:
        raise RetryLater(60, "no order yet")

    item = work()
    world.processor().process([item])
    for handler in (Handler("shop", "*", wait), Handler("shop", "*", effect, entity=lambda event: wait(event, None))):
        found = dry(world, item.event.id, handler)
        assert (found["outcome"], found["failure"]) == ("postponed", None)
        assert found["incomplete"][-1].endswith("would put it off for 60 s: no order yet")


def test_an_event_that_is_not_there_is_said(world: World) -> None:
    with pytest.raises(UnknownAction, match="There is no event"):
        dry(world, uuid4())
