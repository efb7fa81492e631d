"""Events and handlers for the tests to process."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from chalicelib.deliveries import Event, new_event_id
from chalicelib.envelope import Accepted
from chalicelib.handling import Handler
from chalicelib.naming import dedup_key
from chalicelib.process import Work
from chalicelib.retries import RetryPolicy

POLICY = RetryPolicy(max_attempts=3, base_seconds=1, max_seconds=1)


def accepted(
    payload: Any = None,
    *,
    body: bytes | None = None,
    source: str = "acme",
    type: str = "thing.happened",
    key: str | None = None,
    received_at: datetime | None = None,
) -> Accepted:
    """An event as the API function hands it over; one with a key of its own unless it is given one."""
    at = received_at or datetime.now(UTC)
    id = new_event_id(at)
    if body is None:
        body = json.dumps({"n": 1} if payload is None else payload).encode()
    return Accepted(
        id=id,
        source=source,
        type=type,
        dedup_key=dedup_key(key or str(id), body),
        received_at=at,
        headers={"content-type": "application/json"},
        body=body,
    )


def work(payload: Any = None, *, attempts_before: int | None = None, **rest: Any) -> Work:
    event = accepted(payload, **rest)
    assert event.body is not None
    return Work(event, event.body, attempts_before)


def handler(function: Any, type: str = "*") -> Handler:
    return Handler("*", type, function)


def leave_effect(event: Event, db: Any) -> None:
    """One row an event in `effects`: what runs twice leaves two."""
    db.execute("INSERT INTO effects (event_id) VALUES (%s)", (event.id,))


def leave_effect_then_fail(event: Event, db: Any) -> None:
    leave_effect(event, db)
    raise ValueError("the crate is empty")
