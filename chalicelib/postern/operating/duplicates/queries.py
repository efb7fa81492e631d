"""What was taken for a repetition, in one database."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from chalicelib.postern.adapters.postgres import Database
from chalicelib.postern.operating.filters import as_values


class Duplicates:
    """Each question in a transaction of its own; raises DatabaseUnavailable and StatementFailed."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def duplicates(
        self, *, source: str | None, why: str | None, event_id: UUID | None, before: UUID | None, limit: int
    ) -> dict[str, list[dict[str, Any]]]:
        """What was taken for a repetition, the newest first; and how much of it came in the last day, and why."""
        filters = {"source": source, "why": why, "event_id": event_id, "before": before, "limit": limit}
        with self._database.transaction() as session:
            return {
                "duplicates": session.run("list_duplicates", filters),
                "reasons": session.run("count_duplicates", {"source": source}),
            }

    def duplicate(self, id: UUID) -> dict[str, Any] | None:
        """One of them, with the bytes that came, where they are still there."""
        with self._database.transaction() as session:
            found = session.run("show_duplicate", {"id": id})
            if not found:
                return None
            body = found[0]["body"]
            return {**found[0], "body": None if body is None else bytes(body)}

    def known_by(self, key: str, limit: int) -> dict[str, list[dict[str, Any]]]:
        """All that came with this id of a provider's: events, repetitions, what was refused, and the keys of events
        that are gone.
        """
        asked = {"key": key, "limit": limit}
        any_event = {"before": None, "after": None, "attempts": None, "error": None}
        with self._database.transaction() as session:
            events = session.run("list_events", {**as_values({"key": key}), **any_event, "limit": limit})
            return {
                "events": events,
                "duplicates": session.run("find_duplicates", asked),
                "rejected": [] if events else session.run("find_rejected", asked),
                "keys": [] if events else session.run("find_keys", asked),
            }
