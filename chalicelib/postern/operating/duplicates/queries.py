"""What was taken for a repetition, in one database."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from chalicelib.postern.adapters.postgres import Database
from chalicelib.postern.contract.payloads import Format
from chalicelib.postern.operating.filters import as_values


@dataclass(frozen=True)
class Repetition:
    """A delivery that was taken for a repetition of the event `event_id`.

    Of those that came before such deliveries were kept `why`, `type`, `headers` and `format` are None. `body` is what
    came, or the event's where that is the same (`same_bytes`); None where that event is gone.
    """

    id: UUID
    event_id: UUID
    source: str
    type: str | None
    dedup_key: str
    why: str | None
    received_at: datetime
    accepted_at: datetime | None
    headers: Mapping[str, Any] | None
    format: Format | None
    form_field: str | None
    request_id: str | None
    body: bytes | None
    same_bytes: bool

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Repetition:
        return cls(**{**row, "body": None if row["body"] is None else bytes(row["body"])})


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

    def duplicate(self, id: UUID) -> Repetition | None:
        found = self._database.run("show_duplicate", id=id)
        return Repetition.from_row(found[0]) if found else None

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
