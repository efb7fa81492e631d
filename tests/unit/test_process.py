"""What a batch does when the database refuses it as a whole; the rest of processing is tested on a real one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from chalicelib.attempts import Runner, Work
from chalicelib.deliveries import new_event_id
from chalicelib.envelope import Accepted
from chalicelib.errors import DatabaseUnavailable, StatementFailed
from chalicelib.process import Kind, Outcome, Processor
from chalicelib.retries import RetryPolicy


@dataclass
class Refusing:
    """A store whose transactions fail, each with the next of these errors, before anything is done in them."""

    errors: list[Exception]
    transactions: int = 0

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        self.transactions += 1
        raise self.errors[min(self.transactions, len(self.errors)) - 1]
        yield


@dataclass
class Batch:
    works: list[Work] = field(default_factory=list)

    @classmethod
    def of(cls, size: int) -> Batch:
        at = datetime.now(UTC)
        ids = [new_event_id(at) for _ in range(size)]
        return cls([Work(Accepted(id, "s", "t", str(id), at, {}, b"{}"), b"{}") for id in ids])

    def process(self, store: Refusing) -> list[Outcome]:
        processor = Processor(store, Runner([], RetryPolicy(3, 1, 1), lambda: datetime.now(UTC), 10))
        outcomes: dict[UUID, Outcome] = processor.process(self.works)
        return [outcomes[work.event.id] for work in self.works]


def test_what_waits_for_locks_does_not_use_up_the_functions_time() -> None:
    store = Refusing([StatementFailed("lock timeout")])
    outcomes = Batch.of(10).process(store)
    assert {(o.kind, o.attempts) for o in outcomes} == {(Kind.RETRY, 0)}
    assert store.transactions == 1 + 2


def test_an_absent_database_is_asked_once() -> None:
    store = Refusing([DatabaseUnavailable("away")])
    outcomes = Batch.of(10).process(store)
    assert set(outcomes) == {Outcome(Kind.RETRY, reason="database: away")}
    assert store.transactions == 1


def test_a_database_that_goes_away_in_between_blames_nobody() -> None:
    store = Refusing([StatementFailed("bad", bad_data=True), DatabaseUnavailable("away")])
    assert set(Batch.of(3).process(store)) == {Outcome(Kind.RETRY, reason="database: away")}
    assert store.transactions == 2


def test_an_event_that_cannot_even_be_stored_as_failed_comes_again() -> None:
    commit_refused, row_refused = StatementFailed("bad", bad_data=True), StatementFailed("bad", bad_data=True)
    row_refused.row_refused = True
    # In a batch; then alone, without its payload where that may be to blame, and as failed.
    for error, transactions in ((commit_refused, 1 + 2), (row_refused, 1 + 3)):
        store = Refusing([error])
        assert Batch.of(1).process(store) == [Outcome(Kind.RETRY, reason="bad")]
        assert store.transactions == transactions


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
    # Together, and alone as often as partitions may be made one after the other.
    assert store.transactions == 1 + 11
