"""docs/handlers.md: its handlers are handlers, and do what it says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from chalicelib.postern.processing import handling
from chalicelib.postern.processing.attempts import Work
from chalicelib.postern.processing.handling import Handler
from chalicelib.postern.processing.settling import Kind
from devstack.settings import PROJECT
from tests.integration.world import World, work

BLOCKS = re.findall(r"```python\n(.+?)```", (PROJECT / "docs" / "handlers.md").read_text("utf-8"), re.DOTALL)
# The others are tests and recipes, and a handler that takes what another one takes too.
CODE = [code for code in BLOCKS if "@on(" in code and "secrets(" not in code]

TABLES = """
CREATE TABLE invoices (id text, paid_at timestamptz);
CREATE TABLE refunds (id text, amount integer, created_at timestamptz);
CREATE TABLE orders (id text PRIMARY KEY, state text, paid boolean);
CREATE TABLE outbox (idempotency_key text, call text, body jsonb, created_at timestamptz DEFAULT now());
INSERT INTO invoices VALUES ('in_1', NULL);
"""


@pytest.fixture
def handlers() -> Iterator[list[Handler]]:
    before = len(handling._registered)
    for code in CODE:
        exec(compile(code, "docs/handlers.md", "exec"), {"__name__": "documented"})  # noqa: S102 -- our own document
    yield handling._registered[before:]
    del handling._registered[before:]


def came(source: str, type: str, **payload: Any) -> Work:
    return work(source=source, type=type, body=json.dumps(payload).encode())


def test_the_documents_handlers_do_what_it_says(world: World, handlers: list[Handler]) -> None:
    world.query(TABLES)
    processor = world.processor(handlers=handlers)

    def becomes(item: Work) -> Kind:
        return processor.process([item])[item.event.id].kind

    assert becomes(came("stripe", "invoice.paid", data={"object": {"id": "in_1"}})) is Kind.PROCESSED
    assert world.query("SELECT paid_at IS NOT NULL FROM invoices") == [(True,)]

    refund = {"id": "r_1", "amount": 5, "created_at": "2026-11-24T03:00:00Z"}
    assert becomes(came("shop", "refund.created", **refund, more=True)) is Kind.PROCESSED
    assert becomes(came("shop", "refund.created", id="r_2")) is Kind.DEAD
    assert world.query("SELECT id, amount FROM refunds") == [("r_1", 5)]

    order = {"id": "o_1", "currency": "EUR"}
    newer = came("shop", "order.created", **order, state="paid", updated_at="2026-11-24T03:00:01Z")
    older = came("shop", "order.updated", **order, state="open", updated_at="2026-11-24T03:00:00Z")
    assert becomes(newer) is Kind.PROCESSED
    assert becomes(older) is Kind.STALE
    assert world.query("SELECT state FROM orders") == [("paid",)]
    charge = came("stripe", "charge.succeeded", data={"object": {"metadata": {"order": "o_1"}}})
    assert becomes(charge) is Kind.PROCESSED
    assert world.query("SELECT paid FROM orders") == [(True,)]
    early = came("stripe", "charge.succeeded", data={"object": {"metadata": {"order": "o_9"}}})
    assert becomes(early) is Kind.RETRY
    assert world.query("SELECT reason FROM postern.postponed") == [("order o_9 has not come",)]
    dollars = came("shop", "order.created", id="o_2", currency="USD", state="x", updated_at="2026-11-24T03:00:00Z")
    assert becomes(dollars) is Kind.DEAD

    session = came("stripe", "checkout.session.completed", data={"object": {"customer": "cus_1"}})
    assert becomes(session) is Kind.PROCESSED
    assert world.query("SELECT idempotency_key, body ->> 'customer' FROM outbox") == [(str(session.event.id), "cus_1")]
