"""The sources' hours in one database."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from chalicelib.postern.adapters.postgres import Database
from chalicelib.postern.operating.quiet.silence import Hour


class Hours:
    """Each question in a transaction of its own; raises DatabaseUnavailable and StatementFailed."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def known_to(self) -> datetime:
        """Up to when they have been counted."""
        found: datetime = self._database.run("hours_known_to")[0]["hours_to"]
        return found

    def count_hours(self, since: datetime, until: datetime) -> None:
        """Counts the rows of these whole hours, and notes that it has come so far."""
        with self._database.transaction() as session:
            session.run("count_hours", {"since": since, "until": until})
            session.run("hours_have_come_to", {"until": until})

    def drop_hours(self, before: datetime) -> None:
        self._database.run("drop_hours", before=before)

    def last_minutes(self, sources: Iterable[str], since: datetime) -> dict[str, datetime]:
        """When something last came, by source; rows are looked at since then, and what was counted of before."""
        rows = self._database.run("last_minutes", sources=sorted(sources), since=since)
        return {row["source"]: row["last_seen"] for row in rows if row["last_seen"] is not None}

    def hours(self, sources: Sequence[str]) -> dict[str, list[Hour]]:
        """Those that are known of these sources, in order, by source."""
        known: dict[str, list[Hour]] = {}
        for row in self._database.run("hours_of", sources=list(sources)):
            hour = Hour(row["hour"].astimezone(UTC), row["active_minutes"], row["longest_gap"])
            known.setdefault(row["source"], []).append(hour)
        return known
