"""What processing does in its transaction, as SQL. Decides nothing: who is first is decided by the unique index."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg2

from chalicelib.postern.adapters.postgres import Database, Session
from chalicelib.postern.contract.deliveries import new_event_id
from chalicelib.postern.contract.envelope import Accepted, Rejected, Replay
from chalicelib.postern.contract.errors import DatabaseUnavailable, InvalidPayload, PayloadTooLarge, StatementFailed
from chalicelib.postern.contract.payloads import content_of, jsonb_text, parse, text_of
from chalicelib.postern.processing.attempts import Attempt, Result, Status, Trigger, Work
from chalicelib.postern.processing.claims import Claim, Holder, Repeat
from chalicelib.postern.processing.engine import TryRecord
from chalicelib.postern.processing.failures import Later
from chalicelib.postern.processing.order import Entity
from chalicelib.postern.processing.turns import Item, State, Stored

# More than the pages have left between other rows, and nothing that compresses.
_ROOM_BYTES = 3_000_000


class EventStore:
    """The events of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @contextmanager
    def transaction(self) -> Iterator[EventTransaction]:
        with self._database.transaction() as session:
            yield EventTransaction(session)

    def takes_writes(self, *, roomy: bool = False) -> bool:
        """Whether the database answers, and takes an event like any other, with all that it needs; `roomy`: one that
        does not fit where there is room by chance. Nothing stays.
        """
        at = datetime.now(UTC)
        id = new_event_id(at)
        body = b'{"room": "%s"}' % base64.b64encode(os.urandom(_ROOM_BYTES)) if roomy else b"{}"
        probe = Work(Accepted(id, "postern", "probe", str(id), at, {}, body), body)
        try:
            with self._database.transaction() as session:
                tx = EventTransaction(session)
                tx.claim([Claim(probe.event.source, probe.event.dedup_key, id, at)])
                tx.end_tries([id])
                tx.postpone(id, probe.event, 1, "", Later(1, ""), 1)
                with tx.handlers_at_work(1):
                    pass
                tx.insert([(probe, Result(Status.PROCESSED, 1, processed_at=at))])
                raise _TakenBack
        except _TakenBack:
            return True
        except (DatabaseUnavailable, StatementFailed):
            return False

    def spent(self, works: Sequence[Work]) -> dict[UUID, int]:
        """How many live tries each has had since it was accepted, or redriven last."""
        with self._database.transaction() as session:
            return EventTransaction(session).spent(works)

    def postponed(self, receives: Mapping[UUID, int]) -> dict[UUID, int]:
        """On how many of these receives of its message a handler has put each off; of those that it has."""
        rows = self._database.run("postponed", ids=list(receives), receives=list(receives.values()))
        return {row["try_id"]: row["receives"] for row in rows}

    def open_try(self, id: UUID, seconds: float) -> TryRecord:
        """Puts on record that this event is tried now, for at most `seconds`."""
        with self._database.transaction() as session:
            if session.run("open_try", {"id": id, "seconds": seconds}):
                return TryRecord.NOW
            [earlier] = session.run("earlier_try", {"id": id}) or [{"busy": True}]
            return TryRecord.BUSY if earlier["busy"] else TryRecord.LEFT

    def leave_connection(self) -> None:
        """For a forked process, which must not use its parent's."""
        self._database.leave()

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
                each.verified,
                _text(each.signed_id),
            )
            for each in rejected
        ]
        with self._database.transaction() as session:
            session.run_many("insert_rejected", rows)


class _TakenBack(Exception):
    pass


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

    def claim(self, claims: Sequence[Claim]) -> set[Claim]:
        """Claims each key, unless it is held already; those that were first. Of claims for a window only one a key."""
        won = set[Claim]()
        for query, wanted in (
            ("claim_keys", [claim for claim in claims if claim.window is None]),
            ("claim_keys_for_a_while", [claim for claim in claims if claim.window is not None]),
        ):
            if wanted:
                first = {
                    (row["source"], row["key"], row["event_id"]) for row in self._session.run(query, _keys(wanted))
                }
                won |= {claim for claim in wanted if (claim.source, claim.key, claim.event_id) in first}
        return won

    def holders(self, claims: Sequence[Claim]) -> dict[Claim, Holder]:
        """Of each claim's key."""
        rows = self._session.run("key_holders", _keys(claims)) if claims else []
        found = {
            (row["source"], row["key"]): Holder(
                row["event_id"], row["claimed_at"], row["body_hash"] and bytes(row["body_hash"])
            )
            for row in rows
        }
        return {claim: found[claim.source, claim.key] for claim in claims if (claim.source, claim.key) in found}

    def release(self, claims: Sequence[Claim]) -> None:
        """Lets go of what these hold for events that have no row, and will have none in this transaction."""
        if claims:
            self._session.run("release_keys", _keys(claims))

    def lock(self, works: Sequence[Work]) -> dict[UUID, State]:
        """Locks stored events."""
        rows = self._session.run("lock_events", {"ids": [work.event.id for work in works]})
        open = {row["id"] for row in rows if not Status(row["status"]).is_done}
        spent = self.spent([work for work in works if work.event.id in open]) if open else {}
        return {row["id"]: State(Status(row["status"]), row["attempts"], spent.get(row["id"], 0)) for row in rows}

    def spent(self, works: Sequence[Work]) -> dict[UUID, int]:
        ids = [work.event.id for work in works]
        rows = self._session.run("live_tries", {"ids": ids, "befores": [work.attempts_before or 0 for work in works]})
        return {row["id"]: row["spent"] for row in rows}

    def insert(self, rows: Sequence[tuple[Work, Result]]) -> None:
        try:
            self._session.copy("copy_events", [_row(work, result) for work, result in rows])
        except StatementFailed as exc:
            exc.row_refused = exc.bad_data
            raise
        let_through = [work.event.id for work, _ in rows if work.event.claim is not None]
        if let_through:
            self._session.run("duplicates_accepted", {"ids": let_through})

    def update(self, results: Sequence[tuple[UUID, Result, int]]) -> None:
        """Each with the number of attempts that the row had. Raises StatementFailed when one has changed since."""
        tried_once = [id for id, _, before in results if before == 1]
        if tried_once:
            self._session.run("record_first_tries", {"ids": tried_once})
        changed = self._session.run_many(
            "update_events",
            [
                (id, to.status, to.attempts, _text(to.error), to.processed_at, to.duration_ms, before)
                for id, to, before in results
            ],
            template="(%s::uuid, %s, %s::integer, %s::text, %s::timestamptz, %s::real, %s::integer)",
        )
        if changed != len(results):
            raise StatementFailed("an event was changed by something else meanwhile", passing=True)

    def record_duplicates(self, repeats: Sequence[Repeat]) -> None:
        self._session.run_many("insert_duplicates", [_duplicate(repeat) for repeat in repeats])

    def lock_entities(self, entities: Sequence[Entity]) -> dict[Entity, Decimal]:
        """Waits until no other transaction works on any of them, and keeps them until this one ends; their versions."""
        if not entities:
            return {}
        self._session.lock("lock_entities", _entities(entities))
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

    # Of a replay's event

    def item(self, replay: Replay) -> Item | None:
        """Locks its part in the replay."""
        rows = self._session.run("lock_replay_item", {"replay_id": replay.replay_id, "event_id": replay.id})
        if not rows:
            return None
        row = rows[0]
        return Item(row["state"], row["tries"], Trigger(row["trigger"]), row["running"])

    def stored(self, id: UUID) -> Stored | None:
        """Locks it."""
        # Twice: a day that got its partition while the first waited has taken the row there.
        rows = self._session.run("lock_stored_event", {"id": id}) or self._session.run("lock_stored_event", {"id": id})
        return stored_event(rows[0]) if rows else None

    def settle(self, replay: Replay, state: str, tries: int, error: str | None) -> None:
        values = {"replay_id": replay.replay_id, "event_id": replay.id, "state": state, "tries": tries}
        self._session.run("settle_replay_item", {**values, "error": (_text(error) or "")[:1000] or None})

    # Handlers

    def close_tries(self, ids: Sequence[UUID]) -> None:
        """Of what open_try has put on record."""
        if ids:
            self._session.run("close_tries", {"ids": list(ids)})

    def end_tries(self, ids: Sequence[UUID]) -> None:
        """As close_tries, of what is done, or given up: it is put off no longer."""
        if ids:
            self._session.run("end_tries", {"ids": list(ids)})

    def postpone(self, id: UUID, event: Accepted | Replay, receive: int, whose: str, later: Later, bound: int) -> bool:
        """Puts on record that a handler wants it later. False once it has been put off for `bound` seconds in all."""
        values = {"try_id": id, "event_id": event.id, "source": event.source, "type": event.type, "receive": receive}
        values |= {"handler": _text(whose), "reason": _text(later.why)}
        return bool(self._session.run("postpone", {**values, "seconds": later.seconds, "bound": bound}))

    def wait_in_line(self, handlers: Sequence[str], milliseconds: int) -> None:
        """Until no other transaction that waits in line as well runs any of these handlers; for so long at most."""
        self._session.lock_briefly("lock_handlers", {"names": list(handlers)}, milliseconds)

    def handlers_at_work(self, seconds: float, *, several: bool = False) -> AbstractContextManager[None]:
        """Around all handlers of this transaction. No statement of theirs takes longer than `seconds`, and none of
        `several` events' waits long for a lock. Raises TransactionEnded when they have ended it.
        """
        return self._session.handlers_at_work(seconds, several=several)

    def run_handlers(self, handlers: Callable[[Any], None]) -> None:
        """Runs them with a cursor. Raises HandlerFailed with what they raised, TransactionEnded, and what the others
        raise.
        """
        self._session.run_handlers(handlers)

    @property
    def settings_changed(self) -> bool:
        """Whether a handler has changed a setting, which holds for whatever comes after it in the transaction."""
        return self._session.settings_changed

    def prove_whole(self) -> None:
        """Raises LeftBehind when handlers have left something in the session for others to find."""
        self._session.prove_whole()


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


def _keys(claims: Sequence[Claim]) -> dict[str, list[Any]]:
    return {
        "sources": [claim.source for claim in claims],
        "keys": [claim.key for claim in claims],
        "ids": [claim.event_id for claim in claims],
        "times": [claim.received_at for claim in claims],
        "windows": [claim.window for claim in claims],
    }


def _duplicate(repeat: Repeat) -> tuple[Any, ...]:
    event = repeat.work.event
    return (
        event.id,
        repeat.of,
        event.source,
        event.received_at,
        repeat.why,
        event.type,
        event.dedup_key,
        jsonb_text(json.dumps(dict(event.headers))),
        psycopg2.Binary(repeat.work.body) if repeat.has_other_bytes else None,
        event.format,
        event.form_field,
        event.request_id,
        event.origin,
    )


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
        result.duration_ms,
        jsonb_text(json.dumps(dict(event.headers))),
        _payload(work),
        work.body,
        event.request_id,
        event.delivery,
        event.secret,
        event.format,
        event.form_field,
        work.same_body_as,
        work.queued_at,
        event.origin,
    )


def _payload(work: Work) -> str | None:
    """The payload as jsonb reads it: from the sender's own text, so that every digit of a number is kept."""
    if not work.payload_fits:
        return None
    try:
        content = content_of(work.body, work.event.headers)
        text = text_of(content, work.event.form_field, work.event.format)
        return None if text is None else jsonb_text(text)
    except (InvalidPayload, PayloadTooLarge):
        return None  # a damaged object in the bucket, say; the API function lets no such body through


def _text(text: str | None) -> str | None:
    """What PostgreSQL's text can hold: an error may quote anything."""
    return text and text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()


def stored_event(row: Mapping[str, Any]) -> Stored:
    return Stored(stored_work(row), Status(row["status"]), row["attempts"], row["processed_at"])


def stored_work(row: Mapping[str, Any]) -> Work:
    """An event as it was between the two functions."""
    body = bytes(row["body"])
    format = row["format"]
    if format is None:
        # From before it was kept.
        format = "json" if _is_json(body) else "form"
    event = Accepted(
        id=row["id"],
        source=row["source"],
        type=row["type"],
        dedup_key=row["dedup_key"],
        received_at=row["received_at"],
        headers=row["headers"],
        body=body,
        form_field=row["form_field"],
        request_id=row["request_id"],
        format=format,
    )
    return Work(event, body)


def _is_json(body: bytes) -> bool:
    try:
        parse(text_of(body) or "")
    except InvalidPayload:
        return False
    return True
