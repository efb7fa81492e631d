"""The shapes of events in PostgreSQL: what has to be looked at, and what was found. Decides nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any
from uuid import UUID

from chalicelib.postern.adapters.postgres import Database, Session
from chalicelib.postern.operating.drift.shapes import Finding

# So many bytes of payloads are in memory at a time; one is, however large.
_BYTES_AT_ONCE = 2_000_000


class Shapes:
    """The shapes of one database. Every method raises DatabaseUnavailable and StatementFailed."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def kinds(self, now: datetime, most: int) -> list[tuple[str, str]]:
        """The sources and types that there are, those first that were not looked at for longest."""
        with self._database.transaction() as session:
            session.run("note_kinds", {"now": now, "most": most})
        with self._database.transaction() as session:
            return [(row["source"], row["type"]) for row in session.run("kinds_to_look_at", {"most": most})]

    @contextmanager
    def kind(self, source: str, type: str) -> Iterator[KindOfEvents | None]:
        """One type, in a transaction that keeps all others off it; None where another has it."""
        with self._database.transaction() as session:
            found = session.run("hold_shape", {"source": source, "type": type})
            yield KindOfEvents(session, source, type, found[0]) if found else None

    def put_off(self, source: str, type: str) -> None:
        """Has its turn again after all others."""
        with self._database.transaction() as session:
            session.run("put_off_shape", {"source": source, "type": type})

    def drop_old(self, *, shapes_days: int, drift_days: int) -> int:
        """Drops the shapes of types that have not come for so long, and old findings; how many shapes."""
        with self._database.transaction() as session:
            session.run("drop_old_drift", {"days": drift_days})
            return int(session.run("drop_old_shapes", {"days": shapes_days})[0]["dropped"])

    def drift(
        self, *, source: str | None, type: str | None, open: bool | None, before: int | None, limit: int
    ) -> list[dict[str, Any]]:
        """The newest first; `before` is the last id of the page before."""
        with self._database.transaction() as session:
            filters = {"source": source, "type": type, "open": open, "before": before, "limit": limit}
            return session.run("list_drift", filters)

    def accept_drift(self, *, ids: Sequence[int] | None, source: str | None, type: str | None) -> int:
        """How many were accepted that had not been."""
        with self._database.transaction() as session:
            values = {"ids": None if ids is None else list(ids), "source": source, "type": type}
            return len(session.run("accept_drift", values))

    def shape(self, source: str, type: str) -> dict[str, Any] | None:
        with self._database.transaction() as session:
            found = session.run("show_shape", {"source": source, "type": type})
            return found[0] if found else None


class KindOfEvents:
    """One type of events in one transaction."""

    def __init__(self, session: Session, source: str, type: str, known: Mapping[str, Any]) -> None:
        self._session = session
        self._kind = {"source": source, "type": type}
        self._last: UUID | None = known["last_id"]
        self.shape: Mapping[str, Any] | None = known["shape"]

    def events(self, before: UUID, *, most: int, most_bytes: int) -> Iterator[tuple[UUID, Any]]:
        """Ids and payloads of those that came since it was last looked at, the oldest first: of so many the newest.

        The numbers in a payload are not told apart: each is 0. One that is no JSON is None.
        """
        values = {**self._kind, "before": before, "after": self._last, "most": most}
        chunk: list[UUID] = []
        size = 0
        for row in reversed(_within(self._session.run("unlearned_events", values), most_bytes)):
            if chunk and size + row["bytes"] > _BYTES_AT_ONCE:
                yield from self._payloads(chunk)
                chunk, size = [], 0
            chunk.append(row["id"])
            size += row["bytes"]
        if chunk:
            yield from self._payloads(chunk)

    def keep(self, shape: Mapping[str, Any], last: UUID | None, events: int, findings: Sequence[Finding]) -> list[bool]:
        """Keeps the shape as it is after these further events; of each finding, whether it is a new one."""
        values = {"shape": json.dumps(shape), "last_id": last, "events": events}
        self._session.run("keep_shape", {**self._kind, **values})
        return [bool(self._session.run("insert_drift", {**self._kind, **_row(each)})) for each in findings]

    def _payloads(self, ids: Sequence[UUID]) -> Iterator[tuple[UUID, Any]]:
        for row in self._session.run("payloads_of", {"ids": list(ids)}):
            # As floats they would overflow, and Python refuses long ones as integers.
            yield row["id"], row["payload"] and json.loads(row["payload"], parse_int=_number, parse_float=_number)


def _within(rows: list[dict[str, Any]], most_bytes: int) -> list[dict[str, Any]]:
    """The first of these that are no larger together; one at least."""
    size = 0
    for at, row in enumerate(rows):
        size += row["bytes"]
        if size > most_bytes and at:
            return rows[:at]
    return rows


def _row(finding: Finding) -> dict[str, Any]:
    return {
        "kind": finding.kind.value,
        "path": finding.path,
        "was": list(finding.was),
        "became": list(finding.became),
        "event": finding.event,
    }


def _number(digits: str) -> int:
    return 0
