"""docs/sql.md: its queries run, its columns are those that are there, and its views say what it says of them."""

from __future__ import annotations

import re

import pytest

from chalicelib.postern.contract.deliveries import Event
from devstack.settings import PROJECT
from tests.integration.world import World, fails_for, numbered

DOCUMENT = (PROJECT / "docs" / "sql.md").read_text("utf-8")
QUERIES = re.findall(r"```sql\n(.+?)```", DOCUMENT, re.DOTALL)
VIEWS = ("tries", "unresolved", "latency", "hourly")
TABLES = ("events", "attempts", "issues", "replays", "replay_items", "entities", "duplicates")


def test_there_are_ten_queries_and_more() -> None:
    assert len(QUERIES) >= 10


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query[:40])
def test_each_query_runs(world: World, query: str) -> None:
    world.processor(fails_for(2)).process(numbered(1, 2))
    world.query(query)


@pytest.mark.parametrize("name", [*TABLES, *VIEWS])
def test_each_column_is_in_the_document(world: World, name: str) -> None:
    columns = world.query(
        "SELECT column_name::text FROM information_schema.columns WHERE table_schema = 'postern' AND table_name = %s",
        name,
    )
    assert columns
    missing = [column for (column,) in columns if f"`{column}`" not in DOCUMENT]
    # Not for people: when somebody last watched a replay, when an item changed.
    assert set(missing) <= {"advanced_at", "changed_at"}


def test_what_is_not_processed_is_in_the_view_with_its_latest_failure(world: World) -> None:
    def fail(event: Event, db: object) -> None:
        if event.payload["n"] == 2:
            raise ValueError(f"try {event.attempt}")

    processor = world.processor(fail)
    batch = numbered(1, 2)
    processor.process(batch)
    processor.process(batch)
    assert world.query("SELECT id::text, status, attempts, message FROM postern.unresolved") == [
        (str(batch[1].event.id), "failed", 2, "try 2")
    ]
    [(waited, took)] = world.query("SELECT waited >= '0s', total >= processing FROM postern.latency")
    assert (waited, took) == (True, True)
    [counts] = world.query("SELECT sum(events), sum(processed), sum(failed), sum(attempts) FROM postern.hourly")
    assert counts == (2, 1, 1, 3)
