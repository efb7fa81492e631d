"""What the tests of handlers have: events as they would come, a cursor, and deliveries from the door to the row."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from chalicelib.postern.contract.errors import InvalidPayload, PosternError, RetryLater, TransactionControlForbidden
from chalicelib.postern.processing import handling
from chalicelib.postern.receiving.sources import load_sources
from cli import scenarios
from devstack.fixtures import Deliver, MakeEvent, Play
from tests.support import EVERY_SOURCE


@pytest.fixture
def handlers(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[handling.Handler]]:
    """The registered ones: none, until the test adds some."""
    only: list[handling.Handler] = []
    monkeypatch.setattr("devstack.fixtures.discover", lambda: only)
    yield only


def test_an_event_without_a_payload_is_the_providers_sample(event: MakeEvent) -> None:
    one = event("github", "push")
    assert (one.source, one.type) == ("github", "push")
    assert one.payload["repository"]["full_name"]
    assert one.dedup_key
    assert one.headers["x-github-event"] == "push"
    assert event("github").type == "push"


def test_what_is_given_lies_over_the_sample(event: MakeEvent) -> None:
    one = event("stripe", "invoice.paid", {"data": {"object": {"amount": Decimal("0.10")}}})
    assert one.payload["data"] == {"object": {"amount": 0.1}}
    assert one.payload["id"].startswith("evt_")
    assert one.payload["type"] == one.type == "invoice.paid"
    assert b"0.10" in one.body


def test_what_is_no_mapping_takes_its_place(event: MakeEvent) -> None:
    assert event("hmac", "any", [1, 2]).payload == [1, 2]
    assert event("hmac", "any", b'{"n": 1}').body == b'{"n": 1}'
    assert event("hmac", "any", '{"n": 1}').payload == {"n": 1}


def test_fields_of_the_event_can_be_given(event: MakeEvent) -> None:
    assert event("github", "push", attempt=3).attempt == 3


def test_what_the_door_refuses_is_raised(event: MakeEvent) -> None:
    with pytest.raises(InvalidPayload):
        event("stripe", "invoice.paid", b"{")


def test_a_source_that_is_not_declared_is_said_so(event: MakeEvent) -> None:
    with pytest.raises(PosternError, match=r"There is no source 'strype'.*Did you mean 'stripe'"):
        event("strype", "invoice.paid")


def test_the_cursor_is_a_handlers(db: Any) -> None:
    db.execute("CREATE TABLE of_the_team (n integer); INSERT INTO of_the_team VALUES (1)")
    db.execute("SELECT n FROM public.of_the_team")
    assert db.fetchall() == [(1,)]
    with pytest.raises(TransactionControlForbidden):
        db.connection.commit()


def test_a_delivery_becomes_a_row_with_what_its_handlers_wrote(
    deliver: Deliver, db: Any, database_url: str, handlers: list[handling.Handler]
) -> None:
    with psycopg2.connect(database_url) as other, other.cursor() as cursor:
        cursor.execute("CREATE TABLE effects (event uuid)")
    handlers.append(
        handling.Handler("github", "push", lambda event, db: db.execute("INSERT INTO effects VALUES (%s)", (event.id,)))
    )
    first = deliver("github", "push", times=2)
    assert first.status == "duplicate"
    second = deliver("github", "push")
    assert (second.status, second.attempts, second.error) == ("processed", 1, None)
    db.execute("SELECT count(*) FROM effects JOIN postern.events ON id = event")
    assert db.fetchall() == [(2,)]


def test_a_delivery_whose_handler_raises_says_why(deliver: Deliver, handlers: list[handling.Handler]) -> None:
    def fails(event: Any, db: Any) -> None:
        raise LookupError("no such order")

    handlers.append(handling.Handler("stripe", "*", fails))
    one = deliver("stripe", "invoice.paid")
    assert (one.status, one.attempts) == ("failed", 1)
    assert one.error is not None and one.error.startswith("LookupError: no such order")
    assert "in fails" in one.error


def test_what_the_cursor_wrote_is_there_for_a_delivery(
    deliver: Deliver, db: Any, handlers: list[handling.Handler]
) -> None:
    """An order first, and then its payment."""

    def pay(event: Any, db: Any) -> None:
        db.execute("UPDATE orders SET paid = true")
        if not db.rowcount:
            raise RetryLater(60, "no order yet")

    handlers.append(handling.Handler("stripe", "*", pay))
    db.execute("CREATE TABLE orders (paid boolean)")
    early = deliver("stripe", "invoice.paid")
    assert (early.status, early.error) == ("postponed", "RetryLater: no order yet")
    db.execute("INSERT INTO orders VALUES (false)")
    assert deliver("stripe", "invoice.paid").status == "processed"
    db.execute("SELECT paid FROM public.orders")
    assert db.fetchall() == [(True,)]
    with pytest.raises(TransactionControlForbidden):
        db.connection.commit()


def test_of_several_events_the_one_that_failed_is_told(
    deliver: Deliver, handlers: list[handling.Handler], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("devstack.fixtures._sources", lambda: load_sources(EVERY_SOURCE))

    def fails(event: Any, db: Any) -> None:
        if event.payload["event"] == "bounce":
            raise LookupError("no such address")

    handlers.append(handling.Handler("*", "*", fails))
    sent = [{"event": kind, "sg_event_id": kind, "timestamp": 1} for kind in ("open", "bounce", "click")]
    one = deliver("sendgrid", "open", sent)
    assert (one.status, len(one.ids)) == ("failed", 3)
    assert one.id == one.ids[1]


def test_a_scenario_is_played_against_the_handlers_in_its_order(
    play: Play, handlers: list[handling.Handler], tmp_path: Path
) -> None:
    took: list[Any] = []
    handlers.append(handling.Handler("hmac", "*", lambda event, db: took.append(event.payload["n"])))
    scenes = [scenarios.Scene(60.0, "hmac", "order", [], b'{"type": "order", "n": %d}' % n) for n in (1, 2)]
    scenarios.write(tmp_path / "orders.json", scenes)
    assert [one.status for one in play(tmp_path / "orders.json")] == ["processed", "processed"]
    assert took == [1, 2]
