"""What processing does in its transaction, as SQL. Decides nothing: who is first is decided by the unique index."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg2

from chalicelib.adapters.postgres import Database, Session
from chalicelib.attempts import Attempt, Result, Work
from chalicelib.envelope import Accepted, Rejected
from chalicelib.errors import HandlerFailed, InvalidPayload, StatementFailed
from chalicelib.order import Entity
from chalicelib.payloads import jsonb_text, text_of


class EventStore:
    """The events of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @contextmanager
    def transaction(self) -> Iterator[EventTransaction]:
        with self._database.transaction() as session:
            yield EventTransaction(session)

    def keep(self, rejected: Sequence[Rejected]) -> None:
        """Keeps refused deliveries, each once. Raises DatabaseUnavailable and StatementFailed."""
        rows = [
            (
                each.id,
                each.source,
                each.received_at,
                _text(each.reason),
                _text(each.method),
                _text(each.url),
                jsonb_text(json.dumps(each.query)),
                jsonb_text(json.dumps(dict(each.headers))),
                psycopg2.Binary(each.body),
                each.request_id,
            )
            for each in rejected
        ]
        with self._database.transaction() as session:
            session.run_many("insert_rejected", rows)


class EventTransaction:
    """One transaction over events; raises DatabaseUnavailable and StatementFailed."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def keep_deliveries(self, events: Sequence[Accepted]) -> None:
        """Keeps the bytes of deliveries that brought several events, which their events have only parts of."""
        self._session.run_many(
            "insert_deliveries",
            [
                (
                    event.delivery,
                    event.source,
                    event.received_at,
                    jsonb_text(json.dumps(dict(event.headers))),
                    psycopg2.Binary(event.delivery_body),
                )
                for event in sorted(events, key=lambda event: event.id)
            ],
        )

    def claim(self, events: Sequence[Accepted]) -> set[UUID]:
        """Claims each event's dedup key; the ids of those that were first."""
        rows = self._session.run("claim_keys", _keys(events))
        return {row["event_id"] for row in rows}

    def owners(self, events: Sequence[Accepted]) -> dict[UUID, UUID]:
        """For each event, the id of the event that holds its dedup key."""
        rows = self._session.run("key_owners", _keys(events))
        return {row["id"]: row["event_id"] for row in rows}

    def lock(self, ids: Sequence[UUID]) -> dict[UUID, tuple[str, int]]:
        """Locks stored events; id -> status and attempts."""
        rows = self._session.run("lock_events", {"ids": list(ids)})
        return {row["id"]: (row["status"], row["attempts"]) for row in rows}

    def insert(self, rows: Sequence[tuple[Work, Result]]) -> None:
        try:
            self._session.run_many("insert_events", [_row(work, result) for work, result in rows])
        except StatementFailed as exc:
            exc.row_refused = exc.bad_data
            raise

    def update(self, results: Sequence[tuple[UUID, Result]]) -> None:
        self._session.run_many(
            "update_events",
            [(id, result.status, result.attempts, _text(result.error), result.processed_at) for id, result in results],
            template="(%s::uuid, %s, %s::integer, %s::text, %s::timestamptz)",
        )

    def record_duplicates(self, repeats: Sequence[tuple[Accepted, UUID]]) -> None:
        self._session.run_many(
            "insert_duplicates",
            [(event.id, owner, event.source, event.received_at) for event, owner in repeats],
        )

    def lock_entities(self, entities: Sequence[Entity]) -> dict[Entity, Decimal]:
        """Waits until no other transaction works on any of them, and keeps them until this one ends; their versions."""
        if not entities:
            return {}
        self._session.run("lock_entities", _entities(entities))
        return self.versions(entities)  # seen after the locks were had

    def versions(self, entities: Sequence[Entity]) -> dict[Entity, Decimal]:
        """How far these have come."""
        rows = self._session.run("entity_versions", _entities(entities)) if entities else []
        return {Entity(row["source"], row["entity"]): row["version"] for row in rows}

    def advance(self, versions: Mapping[Entity, tuple[Decimal, UUID]]) -> None:
        """Notes how far these entities have come."""
        self._session.run_many(
            "advance_entities",
            [(entity.source, entity.key, version, id) for entity, (version, id) in sorted(versions.items())],
        )

    def record(self, attempts: Sequence[Attempt]) -> None:
        """Keeps them, and counts the failed ones to their issues: last, since batches share those rows."""
        self._session.run_many("insert_attempts", [_attempt(attempt) for attempt in attempts])
        issues: dict[str, list[Attempt]] = {}
        for attempt in attempts:
            if attempt.failure:
                issues.setdefault(attempt.failure.issue, []).append(attempt)
        self._session.run_many("count_issues", [_issue(id, issues[id]) for id in sorted(issues)])

    def attempt(
        self, handlers: Callable[[Any], None], row: tuple[Work, Result] | None, *, seconds: float
    ) -> BaseException | None:
        """Runs `handlers` with a cursor and then inserts `row`; what they raised, or None. No statement of theirs may
        take longer than `seconds`.

        When they raise, nothing of it is kept. Raises TransactionEnded when the transaction did not survive them; the
        row comes after them so that it never says more than what was done, whatever they committed.
        """
        self._session.limit_statements(seconds)
        try:
            with self._session.savepoint():
                self._session.run_handlers(handlers)
                self.insert([row] if row else [])
        except HandlerFailed as exc:
            return exc.failure
        return None


def _entities(entities: Sequence[Entity]) -> dict[str, list[str]]:
    several = sorted(set(entities))
    return {"sources": [e.source for e in several], "keys": [e.key for e in several]}


def _attempt(attempt: Attempt) -> tuple[Any, ...]:
    failure = attempt.failure
    return (
        attempt.event.id,
        attempt.result.attempts,
        attempt.started_at,
        attempt.duration_ms,
        attempt.trigger,
        attempt.result.status,
        *((_text(failure.handler), _text(failure.error_class), _text(failure.message)) if failure else (None,) * 3),
        *((_text(failure.traceback), failure.issue) if failure else (None, None)),
        attempt.replay_id,
    )


def _issue(id: str, attempts: Sequence[Attempt]) -> tuple[Any, ...]:
    first, last = attempts[0], attempts[-1]
    assert last.failure is not None
    return (
        id,
        _text(last.failure.handler),
        _text(last.failure.error_class),
        _text(last.failure.message),
        len(attempts),
        first.started_at,
        last.started_at,
        first.event.id,
        last.event.id,
    )


def _keys(events: Sequence[Accepted]) -> dict[str, list[Any]]:
    return {
        "sources": [event.source for event in events],
        "keys": [event.claim or event.dedup_key for event in events],
        "ids": [event.id for event in events],
    }


def _row(work: Work, result: Result) -> tuple[Any, ...]:
    event = work.event
    return (
        event.id,
        event.source,
        event.type,
        event.dedup_key,
        result.status,
        result.attempts,
        _text(result.error),
        event.received_at,
        result.processed_at,
        jsonb_text(json.dumps(dict(event.headers))),
        _payload(work),
        psycopg2.Binary(work.body),
        event.request_id,
        event.delivery,
        event.secret,
        event.format,
        event.form_field,
    )


def _payload(work: Work) -> str | None:
    """The payload as jsonb reads it: from the sender's own text, so that every digit of a number is kept."""
    if not work.payload_fits:
        return None
    try:
        text = text_of(work.body, work.event.form_field, work.event.format)
        return None if text is None else jsonb_text(text)
    except InvalidPayload:
        return None  # a damaged object in the bucket, say; the API function lets no such body through


def _text(text: str | None) -> str | None:
    """What PostgreSQL's text can hold: an error may quote anything."""
    return text and text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()
