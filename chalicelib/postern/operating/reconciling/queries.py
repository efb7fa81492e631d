"""Reconciliations and the gaps that they found, in one database."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from chalicelib.postern.adapters.postgres import Database, Session


class Reconciliations:
    """Each question in a transaction of its own; raises DatabaseUnavailable and StatementFailed."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin(self, id: UUID, *, source: str, since: datetime, only_looks: bool, hourly: bool) -> UUID:
        """The id of the source's running one: this, or one that ran already, but for one that only looks where this
        fetches.
        """
        asked = {"id": id, "source": source, "since": since, "only_looks": only_looks, "hourly": hourly}
        with self._database.transaction() as session:
            session.run("make_way", asked)
            for _ in range(2):  # what ran may have ended in between
                if session.run("begin_reconciliation", asked):
                    break
                if running := session.run("running_reconciliation", {"source": source}):
                    return UUID(str(running[0]["id"]))
            return id

    def reconciled_to(self, source: str, overlap: timedelta) -> datetime | None:
        """From when on the next hourly one has to look; None where there was none yet."""
        found = self._database.run("reconciled_to", source=source, overlap=overlap.total_seconds())
        return found[0]["since"] if found else None

    def listed(self, *, source: str | None, before: UUID | None, limit: int) -> list[dict[str, Any]]:
        """The newest first."""
        return self._database.run("list_reconciliations", source=source, before=before, limit=limit)

    def one(self, id: UUID) -> dict[str, Any] | None:
        found = self._database.run("show_reconciliation", id=id)
        return found[0] if found else None

    def gaps(self, id: UUID, *, after: str | None, limit: int) -> list[dict[str, Any]]:
        """In the order of their keys, behind `after`."""
        return self._database.run("list_gaps", id=id, after=after, limit=limit)

    def note_page(
        self, id: UUID, *, cursor: str | None, entries: Sequence[Mapping[str, Any]], next: str | None
    ) -> bool:
        """Compares what the provider has listed from `cursor` on; whether that was asked for now. `entries`: each with
        `key`, `at`, `type`, `handle` and `refused`. Without a `next` cursor all of it has been listed.
        """
        with self._database.transaction() as session:
            found = session.run("lock_listing", {"id": id, "cursor": cursor})
            if not found:
                return False
            values = {
                "id": id,
                "source": found[0]["source"],
                "keys": [each["key"] for each in entries],
                "times": [each["at"] for each in entries],
                "types": [each["type"] for each in entries],
                "handles": [each["handle"] for each in entries],
                "refused": [each["refused"] for each in entries],
            }
            kinds = Counter(row["kind"] for row in session.run("note_gaps", values))
            found_now = {kind: kinds[kind] for kind in ("missing", "refused", "dead")}
            session.run("advance_listing", {"id": id, "next": next, "listed": len(entries), **found_now})
            session.run("finish_reconciliation", {"id": id})
            return True

    def open_gaps(self, id: UUID, limit: int) -> list[dict[str, Any]]:
        """What is to be fetched next, the oldest first, without what has arrived meanwhile."""
        with self._database.transaction() as session:
            session.run("lock_reconciliation", {"id": id})
            _count(id, session.run("note_arrivals", {"id": id}), session)
            session.run("finish_reconciliation", {"id": id})
            return session.run("open_gaps", {"id": id, "limit": limit})

    def settle(self, id: UUID, settled: Sequence[Mapping[str, Any]]) -> None:
        """`settled`: what became of which, each with `key`, `state`, `event_id` and `note`. `again` is `open` once
        more, and `failed` the third time.
        """
        with self._database.transaction() as session:
            session.run("lock_reconciliation", {"id": id})
            keys = [each["key"] for each in settled]
            values = {
                "id": id,
                "keys": keys,
                "states": [each["state"] for each in settled],
                "events": [each["event_id"] for each in settled],
                "notes": [each["note"] for each in settled],
            }
            _count(id, session.run("settle_gaps", values), session)
            session.run("resolve_refused", {"id": id, "keys": keys})
            session.run("finish_reconciliation", {"id": id})

    def end(self, id: UUID, *, state: str, error: str | None) -> bool:
        """Whether it was running."""
        return bool(self._database.run("end_reconciliation", id=id, state=state, error=error))

    def drop(self, days: int) -> int:
        return int(self._database.run("drop_reconciliations", days=days)[0]["dropped"])


def _count(id: UUID, settled: Sequence[Mapping[str, Any]], session: Session) -> None:
    if settled:
        states = Counter(row["state"] for row in settled)
        counts = {state: states[state] for state in ("fetched", "arrived", "no_event", "failed")}
        session.run("count_settled", {"id": id, **counts})
