"""The recipes of docs/handlers.md, as they stand there."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from sqlalchemy import JSON, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from chalicelib.postern.contract.deliveries import Event
from tests.integration.world import World, numbered

HANDLERS = (Path(__file__).parents[2] / "docs" / "handlers.md").read_text("utf-8")


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    n: Mapped[int] = mapped_column(primary_key=True)
    content: Mapped[Any] = mapped_column(JSON)


@pytest.fixture
def lent_sessions(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    [text] = re.findall(r"test_recipes\.py\. -->\n\n```python\n(.*?)```", HANDLERS, re.DOTALL)
    module = ModuleType("lent_sessions")
    monkeypatch.setitem(sys.modules, "lent_sessions", module)
    exec(text, module.__dict__)  # noqa: S102 -- our own document
    yield module


def test_a_session_of_sqlalchemy_is_in_the_events_transaction(world: World, lent_sessions: ModuleType) -> None:
    world.query("CREATE TABLE orders (n integer PRIMARY KEY, state text)")

    def handler(event: Event, db: Any) -> None:
        n = event.payload["n"]
        with lent_sessions.session_of(db) as session:
            session.execute(text("INSERT INTO orders VALUES (:n, 'kept')"), {"n": n})
            session.commit()
            session.execute(text("INSERT INTO orders VALUES (:n, 'taken back')"), {"n": n + 100})
            session.rollback()
            session.execute(text("INSERT INTO orders VALUES (:n, 'never committed')"), {"n": n + 200})
        if n == 2:
            raise ValueError("2 is poisoned")

    world.processor(handler).process(numbered(1, 2, 3))
    assert world.query("SELECT n, state FROM orders ORDER BY n") == [(1, "kept"), (3, "kept")]
    assert world.rows() == [("processed", 1), ("failed", 1), ("processed", 1)]


def test_its_models_are_written_with_the_event(world: World, lent_sessions: ModuleType) -> None:
    world.query("CREATE TABLE orders (n integer PRIMARY KEY, content jsonb)")

    def handler(event: Event, db: Any) -> None:
        with lent_sessions.session_of(db) as session:
            session.merge(Order(n=event.payload["n"], content=event.payload))
            session.commit()

    processor = world.processor(handler)
    processor.process(numbered(1, 2))
    processor.process(numbered(2, 3))
    assert world.query("SELECT n, content FROM orders ORDER BY n") == [(n, {"n": n}) for n in (1, 2, 3)]
