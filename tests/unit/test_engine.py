"""What a batch does when the database refuses it as a whole; the rest of processing is tested on a real one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from chalicelib.postern.contract.deliveries import new_event_id
from chalicelib.postern.contract.envelope import Accepted
from chalicelib.postern.contract.errors import DatabaseUnavailable, StatementFailed
from chalicelib.postern.processing.attempts import Runner, Work
from chalicelib.postern.processing.engine import Processor, TryRecord
from chalicelib.postern.processing.settling import Kind, Outcome, RetryPolicy


@dataclass
class Refusing:
    """A store whose transactions fail, each with the next of these errors, before anything is done in them."""

    errors: list[Exception]
    present: bool = True
    transactions: int = 0
    asked: int = 0

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        self.transactions += 1
        raise self.errors[min(self.transactions, len(self.errors)) - 1]
        yield

    def takes_writes(self, *, roomy: bool = False) -> bool:
        self.asked += 1
        return self.present

    def spent(self, works: Sequence[Work]) -> dict[UUID, int]:
        return {}

    def postponed(self, receives: Mapping[UUID, int]) -> dict[UUID, int]:
        return {}

    def open_try(self, id: UUID, seconds: float) -> TryRecord:
        return TryRecord.NOW

    def leave_connection(self) -> None:
        pass


@dataclass
class Batch:
    works: list[Work] = field(default_factory=list)

    @classmethod
    def of(cls, size: int, receives: int = 1) -> Batch:
        at = datetime.now(UTC)
        ids = [new_event_id(at) for _ in range(size)]
        return cls([Work(Accepted(id, "s", "t", str(id), at, {}, b"{}"), b"{}", receives=receives) for id in ids])

    def process(self, store: Refusing) -> list[Outcome]:
        processor = Processor(store, Runner([], RetryPolicy(3, 1, 1), lambda: datetime.now(UTC), 10))
        outcomes: dict[UUID, Outcome] = processor.process(self.works)
        return [outcomes[work.event.id] for work in self.works]


def test_what_waits_for_locks_is_not_charged_and_does_not_end_the_turn_of_others() -> None:
    store = Refusing([StatementFailed("lock timeout", passing=True)])
    outcomes = Batch.of(10).process(store)
    assert {(o.kind, o.attempts) for o in outcomes} == {(Kind.RETRY, 0)}
    # All, by halves, and each alone.
    assert store.transactions == 19


def test_an_absent_database_is_asked_once() -> None:
    store = Refusing([DatabaseUnavailable("away")], present=False)
    outcomes = Batch.of(10).process(store)
    assert set(outcomes) == {Outcome(Kind.RETRY, reason="database: away")}
    assert (store.transactions, store.asked) == (1, 1)


def test_a_database_that_goes_away_in_between_blames_nobody() -> None:
    store = Refusing([StatementFailed("bad", bad_data=True), DatabaseUnavailable("away")], present=False)
    assert set(Batch.of(3).process(store)) == {Outcome(Kind.RETRY, reason="database: away")}
    assert store.transactions == 2


def test_an_event_that_loses_its_connection_though_the_database_is_there_is_charged() -> None:
    """By its receives, since here not even its failure can be written."""
    store = Refusing([DatabaseUnavailable("connection lost")])
    assert Batch.of(1).process(store) == [Outcome(Kind.RETRY, 1, "connection lost")]
    # Once more alone, then as failed.
    assert store.transactions == 2 + 10


def test_an_event_that_cannot_even_be_stored_as_failed_is_charged_by_its_receives() -> None:
    commit_refused, row_refused = StatementFailed("bad", bad_data=True), StatementFailed("bad", bad_data=True)
    row_refused.row_refused = True
    # Alone; then without its payload where that may be to blame, and as failed.
    for error, transactions in ((commit_refused, 1 + 1), (row_refused, 2 + 1)):
        store = Refusing([error])
        assert Batch.of(1).process(store) == [Outcome(Kind.RETRY, 1, "bad")]
        assert store.transactions == transactions
        assert Batch.of(1, receives=3).process(Refusing([error])) == [Outcome(Kind.DEAD, reason="bad")]


def test_an_empty_batch_is_no_transaction() -> None:
    store = Refusing([AssertionError("a transaction was begun")])
    assert Batch.of(0).process(store) == []


@pytest.mark.parametrize("size", [1, 10])
def test_an_error_that_nobody_expected_is_not_swallowed(size: int) -> None:
    """The invocation fails, nothing is deleted, and everything comes again."""
    with pytest.raises(ZeroDivisionError):
        Batch.of(size).process(Refusing([ZeroDivisionError()]))


def test_a_partition_that_is_made_or_dropped_meanwhile_charges_no_event() -> None:
    store = Refusing([StatementFailed("violates partition constraint", partition_changed=True)])
    [outcome] = Batch.of(1).process(store)
    assert (outcome.kind, outcome.attempts) == (Kind.RETRY, 0)
    # As often as partitions may be made one after the other.
    assert store.transactions == 1 + 10
