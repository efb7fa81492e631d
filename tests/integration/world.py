"""A database of the test's own, and processors on it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from chalicelib.postern.adapters.event_store import EventStore
from chalicelib.postern.adapters.postgres import Database
from chalicelib.postern.contract.deliveries import Event, new_event_id
from chalicelib.postern.contract.envelope import Accepted, Replay
from chalicelib.postern.processing.attempts import Runner, Work
from chalicelib.postern.processing.engine import Processor
from chalicelib.postern.processing.handling import Handler
from chalicelib.postern.processing.settling import RetryPolicy
from chalicelib.postern.processing.turns import ReplayRequest
from tests.support import ask

POLICY = RetryPolicy(max_attempts=3, base_seconds=1, max_seconds=2)


def now() -> datetime:
    return datetime.now(UTC)


def work(key: str | None = None, body: bytes = b'{"n": 1}', **changes: Any) -> Work:
    """A new event, with a dedup key of its own unless one is given."""
    at = now()
    event = Accepted(
        id=new_event_id(at),
        source="shop",
        type="order",
        dedup_key=key or str(uuid.uuid4()),
        received_at=at,
        headers={"content-type": "application/json"},
        body=body,
    )
    return Work(replace(event, **changes), body)


def numbered(*numbers: int) -> list[Work]:
    return [work(body=json.dumps({"n": number}).encode()) for number in numbers]


def effect(event: Event, db: Any) -> None:
    """What handlers in these tests do: a row that shows a double at once."""
    db.execute("INSERT INTO effects VALUES (%s, 1)", (str(event.id),))


def fails_for(*numbers: int) -> Callable[[Event, Any], None]:
    """A handler that has its effect, and then raises for these `n`."""

    def handler(event: Event, db: Any) -> None:
        effect(event, db)
        if event.payload["n"] in numbers:
            raise ValueError(f"{event.payload['n']} is poisoned")

    return handler


@dataclass
class World:
    url: str
    open: list[Database]

    def database(self) -> Database:
        database = Database(lambda fresh: self.url)
        self.open.append(database)
        return database

    def processor(
        self,
        *functions: Callable[[Event, Any], object],
        database: Database | None = None,
        handlers: Sequence[Handler] = (),
    ) -> Processor:
        handlers = [*handlers, *(Handler("shop", "*", function) for function in functions)]
        return Processor(EventStore(database or self.database()), Runner(handlers, POLICY, now, 10))

    def asked_for(self, item: Work, receives: int = 1) -> ReplayRequest:
        """The message of a replay of this event, which is queued."""
        replay_id = uuid.uuid4()
        self.query(
            "INSERT INTO postern.replays (id, kind, trigger, filter, rate, total)"
            " VALUES (%s, 'replay', 'replay', '{}', 1, 1)",
            str(replay_id),
        )
        queued = "INSERT INTO postern.replay_items (replay_id, event_id, state) VALUES (%s, %s, 'queued')"
        self.query(queued, str(replay_id), str(item.event.id))
        return ReplayRequest(Replay(item.event.id, item.event.source, item.event.type, replay_id), receives)

    def query(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        return ask(self.url, sql, *values)

    def rows(self) -> list[tuple[str, int]]:
        """Status and attempts of every event, in order of its `n`."""
        return [(s, a) for s, a in self.query("SELECT status, attempts FROM postern.events ORDER BY payload ->> 'n'")]

    def effects(self) -> int:
        return int(self.query("SELECT coalesce(sum(n), 0) FROM effects")[0][0])
