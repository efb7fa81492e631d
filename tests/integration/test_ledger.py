"""The two books, of what was accepted and of what is stored, balance; and where they do not, it is said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from chalicelib.postern.contract.deliveries import new_event_id
from chalicelib.postern.contract.errors import MetricsUnavailable, UnknownAction
from chalicelib.postern.operating.ledger import actions as ledger
from chalicelib.postern.operating.ledger.actions import Bookkeeper
from chalicelib.postern.operating.ledger.queries import Ledger
from chalicelib.postern.operating.operator import Operator
from chalicelib.postern.processing.engine import Work
from tests.integration.world import World, fails_for, work

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


@dataclass
class FakeCounts:
    """CloudWatch, with these counts by source and minute."""

    numbers: dict[tuple[str, datetime], int] = field(default_factory=dict)
    held: int = 0
    away: bool = False
    asked: list[tuple[datetime, datetime]] = field(default_factory=list)

    def accepting_sources(self, *, lately: bool) -> set[str]:
        if self.away:
            raise MetricsUnavailable("InternalFailure")
        return {source for source, _ in self.numbers}

    def accepted(self, source: str, since: datetime, until: datetime) -> dict[datetime, int]:
        self.asked.append((since, until))
        return {at: n for (of, at), n in self.numbers.items() if of == source and since <= at < until}

    def most_waiting(self, queues: Sequence[str], since: datetime, until: datetime) -> int:
        assert list(queues) == ["webhooks", "dead-letters"]
        return self.held


@dataclass
class Books:
    world: World
    book: Ledger
    now: datetime
    counts: FakeCounts = field(default_factory=FakeCounts)
    lines: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def accept(self, number: int = 1, at: datetime | None = None, source: str = "shop") -> list[Work]:
        """What the API function counts, and the events that it queues."""
        at = at or self.now
        minute = at.replace(second=0, microsecond=0)
        self.counts.numbers[source, minute] = self.counts.numbers.get((source, minute), 0) + number
        return [work(id=new_event_id(at), received_at=at, source=source) for _ in range(number)]

    def uncounted(self, at: datetime, source: str = "shop") -> None:
        """A stored event that the API function counted nowhere."""
        self.store([work(id=new_event_id(at), received_at=at, source=source)])

    def store(self, works: Sequence[Work]) -> None:
        self.world.processor().process(works)

    def balance(self, later: timedelta = 30 * MINUTE) -> int:
        """The mismatch that is found so much later."""
        self.now += later
        self.lines.clear()
        keeper = Bookkeeper(self.book, self.counts, lambda: ["webhooks", "dead-letters"], lambda: self.now, self.log)
        return int(keeper.balance()["ledger_mismatch"])

    def log(
        self, name: str, /, *, failed: bool = False, metrics: Mapping[str, float] | None = None, **fields: Any
    ) -> None:
        self.lines.append((name, {**fields, **(metrics or {})}))

    def said(self) -> list[str]:
        return [name for name, _ in self.lines]

    def ask(self, action: str, **arguments: Any) -> dict[str, Any]:
        actions = ledger.views(self.book, lambda: self.now) | ledger.actions(self.book, lambda: self.now)
        return Operator(actions, {}).perform({"action": action, **arguments})

    def totals(self) -> list[tuple[Any, ...]]:
        return self.world.query(
            "SELECT source, sum(accepted)::int, sum(stored)::int, sum(duplicates)::int, sum(missing)::int,"
            " sum(surplus)::int FROM postern.ledger GROUP BY source ORDER BY source"
        )


@pytest.fixture
def books(world: World) -> Books:
    """Begun long ago, and an hour behind."""
    now = datetime.now(UTC)
    world.query(
        "UPDATE postern.bookkeeping SET ledger_begins = %s, ledger_to = %s, hours_to = %s",
        now - 20 * DAY,
        now - HOUR,
        now,
    )
    return Books(world, Ledger(world.database()), now - 30 * MINUTE)


def test_what_was_stored_or_repeated_balances(books: Books) -> None:
    first, other = books.accept(2)
    [again] = books.accept(1)
    books.store([first, other])
    books.store([work(first.event.dedup_key, id=again.event.id, received_at=again.event.received_at)])
    assert books.balance() == 0
    assert books.totals() == [("shop", 3, 2, 1, 0, 0)]
    assert books.lines == [("ledger.checked", {"ledger_mismatch": 0, "missing": 0, "waiting": 0})]


def test_an_accepted_event_that_is_nowhere_is_a_mismatch(books: Books) -> None:
    first, _ = books.accept(2)
    books.store([first])
    assert books.balance() == 1
    assert books.said() == ["ledger.mismatch", "ledger.checked"]
    assert {key: books.lines[0][1][key] for key in ("source", "missing", "waiting")} == {
        "source": "shop",
        "missing": 1,
        "waiting": 0,
    }
    assert books.lines[1][1]["ledger_mismatch"] == 1


def test_one_source_does_not_make_up_for_another_nor_one_minute_for_the_next(books: Books) -> None:
    books.accept(1, source="lost")
    books.uncounted(books.now, source="uncounted")
    books.uncounted(books.now - MINUTE, source="lost")
    assert books.balance() == 1
    assert books.totals() == [("lost", 1, 1, 0, 1, 1), ("uncounted", 0, 1, 0, 0, 1)]


def test_what_waits_in_the_queue_is_not_missed_until_the_queue_is_empty(books: Books) -> None:
    works = books.accept(3)
    books.counts.held = 3
    assert books.balance() == 0
    books.counts.held = 0
    assert books.balance() == 3
    books.store(works)
    assert books.balance(2 * DAY) == 0
    assert books.totals() == [("shop", 3, 3, 0, 0, 0)]


def test_messages_of_events_that_have_a_row_explain_nothing(books: Books) -> None:
    """A dead event is among the dead letters and in the table: it is not what is missing."""
    bad, _ = books.accept(2)
    books.world.processor(fails_for(1)).process([bad])
    books.counts.held = 1
    assert books.balance() == 1
    [total] = books.ask("ledger", since=(books.now - DAY).isoformat())["sources"]
    assert [total[name] for name in ("accepted", "stored", "failed", "missing")] == [2, 1, 1, 1]


def test_what_has_just_come_is_not_missed_yet(books: Books) -> None:
    books.accept(5)
    assert books.balance(5 * MINUTE) == 0
    assert books.balance(30 * MINUTE) == 5


def test_a_count_that_comes_late_is_entered_where_it_belongs(books: Books) -> None:
    at = books.now
    books.uncounted(at)
    assert books.balance(10 * MINUTE) == 0
    assert books.totals() == [("shop", 0, 1, 0, 0, 1)]
    books.counts.numbers["shop", at.replace(second=0, microsecond=0)] = 1
    assert books.balance(20 * MINUTE) == 0
    assert books.totals() == [("shop", 1, 1, 0, 0, 0)]


def test_more_stored_than_accepted_is_shown_and_is_no_mismatch(books: Books) -> None:
    """The API function died between the queue's yes and its line; nothing was lost."""
    books.uncounted(books.now)
    assert books.balance() == 0
    assert books.ask("ledger")["minutes"][0]["surplus"] == 1


def test_what_was_fetched_from_a_provider_makes_up_for_nothing_that_is_missing(books: Books) -> None:
    """Nobody was told that it is accepted: the gaps have it."""
    books.accept(2)  # and both are lost
    books.store([work(origin="reconciled", received_at=books.now, id=new_event_id(books.now)) for _ in range(2)])
    [first] = [work(origin="reconciled", received_at=books.now, id=new_event_id(books.now))]
    again = work(key=first.event.dedup_key, origin="reconciled", received_at=books.now, id=new_event_id(books.now))
    books.store([first])
    books.store([again])  # a repetition
    assert books.balance() == 2
    assert books.totals() == [("shop", 2, 0, 0, 2, 0)]


def test_an_outage_leaves_no_minute_out(books: Books) -> None:
    books.balance(0 * MINUTE)
    began = books.now
    for day in range(10):
        books.accept(1, began + day * DAY)
    assert books.balance(10 * DAY) == 10
    spans = sorted(books.counts.asked)
    assert spans[0][0] <= began
    assert all(earlier[1] >= later[0] for earlier, later in pairwise(spans))


def test_cloudwatch_being_away_costs_nothing_but_time(books: Books) -> None:
    books.store(books.accept(2))
    books.counts.away = True
    with pytest.raises(MetricsUnavailable):
        books.balance()
    books.counts.away = False
    assert books.balance(3 * HOUR) == 0
    assert books.totals() == [("shop", 2, 2, 0, 0, 0)]


def test_dropped_rows_are_no_loss(books: Books) -> None:
    books.store(books.accept(2))
    assert books.balance() == 0
    books.world.query("DELETE FROM postern.events")
    assert books.balance() == 0
    assert books.totals() == [("shop", 2, 2, 0, 0, 0)]


def test_an_idle_inbox_is_asked_once_and_says_nothing(books: Books) -> None:
    assert books.balance() == 0
    assert (books.lines, books.counts.asked) == ([], [])


def test_what_was_looked_into_can_be_written_off_with_a_note(books: Books) -> None:
    books.accept(2)
    books.accept(1, source="other")
    assert books.balance() == 3
    assert books.ask("write_off", source="shop", note="purged by hand") == {"written_off": 2}
    assert books.balance(5 * MINUTE) == 1
    assert books.ask("write_off", note="that one, too") == {"written_off": 1}
    assert books.balance(5 * MINUTE) == 0
    notes = books.world.query("SELECT note FROM postern.ledger ORDER BY note")
    assert notes == [("purged by hand",), ("that one, too",)]
    with pytest.raises(UnknownAction, match="note"):
        books.ask("write_off")


def test_the_ledger_can_be_asked_for_one_source_and_a_time(books: Books) -> None:
    books.store(books.accept(2))
    books.accept(1, source="other")
    books.balance()
    found = books.ask("ledger", source="other")
    assert [row["source"] for row in found["sources"]] == ["other"]
    assert (found["missing"], found["waiting"]) == (1, 0)
    assert [minute["missing"] for minute in found["minutes"]] == [1]
    assert books.ask("ledger", since=(books.now + DAY).isoformat())["sources"] == []


def test_old_lines_are_let_go(books: Books) -> None:
    books.accept(1)
    books.balance()
    books.balance(36 * DAY)
    assert books.totals() == []
