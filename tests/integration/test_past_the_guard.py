"""Ways around the guard: a handler that ends its transaction all the same takes no other event along."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import psycopg2.extensions
import psycopg2.extras
import pytest

from chalicelib.postern.adapters.event_store import EventTransaction
from chalicelib.postern.contract.deliveries import Event
from chalicelib.postern.processing.settling import Kind
from tests.integration.world import World, effect, numbered, work

OWN_CURSOR = psycopg2.extensions.cursor


def with_a_dict_cursor(statement: str) -> Callable[[Any], None]:
    """What many reach for, to have rows by name."""
    return lambda db: db.connection.cursor(cursor_factory=psycopg2.extras.RealDictCursor).execute(statement)


ENDS_IT_ALL_THE_SAME: dict[str, Callable[[Any], object]] = {
    # These two roll back inside of psycopg2, without a call to rollback().
    "client-encoding": lambda db: db.connection.set_client_encoding("LATIN1"),
    "isolation-level": lambda db: db.connection.set_isolation_level(3),
    "rollback-by-dict-cursor": with_a_dict_cursor("ROLLBACK"),
    "commit-by-dict-cursor": with_a_dict_cursor("COMMIT"),
    "commit-behind-a-nested-comment": lambda db: db.execute("/* a /* b */ c */ COMMIT"),
    "rollback-by-the-base-class": lambda db: OWN_CURSOR.execute(db, "ROLLBACK"),
    "rollback-and-on": lambda db: (OWN_CURSOR.execute(db, "ROLLBACK"), OWN_CURSOR.execute(db, "SELECT 1")),
    "posterns-savepoint-released": lambda db: db.execute("RELEASE SAVEPOINT postern_event"),
}


@pytest.mark.parametrize("name", ENDS_IT_ALL_THE_SAME)
def test_no_other_event_is_lost_and_nothing_of_its_own_is_kept(world: World, name: str) -> None:
    def handler(event: Event, db: Any) -> None:
        effect(event, db)
        if event.payload["n"] == 2:
            ENDS_IT_ALL_THE_SAME[name](db)

    batch = numbered(1, 2, 3)
    outcomes = world.processor(handler).process(batch)
    assert [outcomes[item.event.id].kind for item in batch] == [Kind.PROCESSED, Kind.RETRY, Kind.PROCESSED]
    assert [outcomes[item.event.id].attempts for item in batch] == [1, 1, 1]
    assert world.rows() == [("processed", 1), ("failed", 1), ("processed", 1)]
    assert world.effects() == 2


def test_an_event_that_is_reported_as_done_is_in_the_database(world: World) -> None:
    """The one thing that may never happen: the message is deleted, and the row is not there."""

    def handler(event: Event, db: Any) -> None:
        if event.payload["n"] == 5:
            db.connection.set_isolation_level(3)

    batch = numbered(*range(10))
    outcomes = world.processor(handler).process(batch)
    done = {str(id) for id, outcome in outcomes.items() if outcome.kind is not Kind.RETRY}
    stored = {row[0] for row in world.query("SELECT id::text FROM postern.events")}
    assert done <= stored


def test_a_value_that_a_handler_has_put_into_quotes_ends_no_transaction(world: World) -> None:
    """psycopg2 quotes it once more, so that its own quotes end those, and what is in it is read as SQL."""
    world.query("CREATE TABLE notes (note text)")

    def careless(event: Event, db: Any) -> None:
        db.execute("INSERT INTO notes VALUES ('%s')", (event.payload["note"],))

    note = "); ROLLBACK; INSERT INTO notes VALUES (1); --"
    world.processor(careless).process([work(body=json.dumps({"note": note}).encode())])
    assert world.query("SELECT note FROM notes") == []
    [(error,)] = world.query("SELECT error FROM postern.events")
    assert error.startswith("TransactionControlForbidden")


def test_what_a_handler_sets_for_speed_does_not_hold_for_the_commit(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit that is not on disk may be lost, and its message is deleted by then."""
    seen: list[Any] = []
    advance = EventTransaction.advance

    def spied(self: EventTransaction, versions: Any) -> None:
        seen.extend(self._session.execute("SHOW synchronous_commit"))
        advance(self, versions)

    def hasty(event: Event, db: Any) -> None:
        db.execute("SET LOCAL synchronous_commit = off")
        db.execute("SET LOCAL client_encoding = latin1")

    world.query(
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET synchronous_commit = on', current_database()); END $$"
    )
    monkeypatch.setattr(EventTransaction, "advance", spied)
    world.processor(hasty).process([work(body='{"n": 1, "name": "Zoë"}'.encode())])
    assert seen == [{"synchronous_commit": "on"}]
    assert world.query("SELECT payload ->> 'name' FROM postern.events") == [("Zoë",)]


def test_settings_that_a_handler_changes_do_not_outlive_its_event(world: World) -> None:
    """They would hold for every later event on this connection, whoever's it is."""
    database = world.database()

    def handler(event: Event, db: Any) -> None:
        db.execute("SET statement_timeout = '7ms'")
        db.execute("SET search_path = nowhere")

    world.processor(handler, database=database).process(numbered(1))
    with database.transaction() as session:
        settings = session.execute(
            "SELECT current_setting('statement_timeout') AS timeout, current_setting('search_path') AS path"
        )
    assert settings == [{"timeout": "20s", "path": "public, postern"}]


class Unprintable(Exception):
    """An error that fails once more when it is asked what it is."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


def test_an_error_without_words_fails_its_own_event_only(world: World) -> None:
    def handler(event: Event, db: Any) -> None:
        effect(event, db)
        if event.payload["n"] == 2:
            raise Unprintable

    batch = numbered(1, 2, 3)
    world.processor(handler).process(batch)
    assert world.rows() == [("processed", 1), ("failed", 1), ("processed", 1)]


def test_what_a_handler_changes_in_its_event_is_not_what_is_stored(world: World) -> None:
    world.query("CREATE TABLE parent (id integer PRIMARY KEY)")
    world.query("CREATE TABLE child (id integer REFERENCES parent DEFERRABLE INITIALLY DEFERRED)")

    def handler(event: Event, db: Any) -> None:
        event.headers["x-changed"] = "by a handler"  # type: ignore[index]
        event.payload["n"] = "changed"
        if event.type == "refused at the commit":
            db.execute("INSERT INTO child VALUES (7)")

    # The refused commit makes the batch run a second time, event by event.
    first, second = numbered(1, 2)
    second = replace(second, event=replace(second.event, type="refused at the commit"))
    world.processor(handler).process([first, second])
    assert world.query("SELECT headers, payload FROM postern.events ORDER BY payload ->> 'n'") == [
        ({"content-type": "application/json"}, {"n": 1}),
        ({"content-type": "application/json"}, {"n": 2}),
    ]
