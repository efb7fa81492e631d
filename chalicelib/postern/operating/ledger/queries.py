"""The ledger and the sources' hours in the database, as SQL. Decides nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from chalicelib.postern.adapters.postgres import Database


class Ledger:
    """One database's; each method is a transaction of its own. Raises DatabaseUnavailable and StatementFailed."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def progress(self) -> dict[str, Any]:
        """How far it has come, and what the last check found."""
        return self._run("bookkeeping")[0]

    def sources_between(self, since: datetime, until: datetime) -> set[str]:
        """Those that have rows of that time."""
        return {row["source"] for row in self._run("sources_between", since=since, until=until)}

    def enter(self, since: datetime, until: datetime, accepted: Mapping[tuple[str, datetime], int]) -> None:
        """Counts the rows of these minutes beside what was accepted in them, and notes that it has come so far."""
        with self._database.transaction() as session:
            session.run(
                "enter_ledger",
                {
                    "since": since,
                    "until": until,
                    "sources": [source for source, _ in accepted],
                    "minutes": [minute for _, minute in accepted],
                    "numbers": list(accepted.values()),
                },
            )
            session.run("ledger_has_come_to", {"until": until})

    def recount(self, since: datetime, until: datetime) -> None:
        """Counts once more the rows of those minutes that lack some."""
        self._run("recount_missing", since=since, until=until)

    def missing(self, since: datetime, until: datetime) -> list[dict[str, Any]]:
        """How many each source lacks, and from which minute on."""
        return self._run("missing_by_source", since=since, until=until)

    def unfinished(self, since: datetime) -> int:
        """Stored events that have a message in the queue or among the dead letters."""
        return int(self._run("count_unfinished", since=since)[0]["unfinished"])

    def note_check(self, *, at: datetime, missing: int, waiting: int) -> None:
        self._run("note_check", at=at, missing=missing, waiting=waiting)

    def drop(self, before: datetime) -> int:
        """How many of its lines were older."""
        return int(self._run("drop_ledger", before=before)[0]["dropped"])

    def totals(self, *, since: datetime, source: str | None) -> list[dict[str, Any]]:
        return self._run("ledger_totals", since=since, source=source)

    def unbalanced(self, *, since: datetime, source: str | None, limit: int) -> list[dict[str, Any]]:
        """The minutes that do not balance, the newest first."""
        return self._run("ledger_minutes", since=since, source=source, limit=limit)

    def write_off(self, *, since: datetime, until: datetime, source: str | None, note: str) -> int:
        """Counts what is missing as missed no more; how many that were."""
        return int(self._run("write_off", since=since, until=until, source=source, note=note)[0]["written_off"])

    # The hours.

    def count_hours(self, since: datetime, until: datetime) -> None:
        """Counts the rows of these whole hours, and notes that it has come so far."""
        with self._database.transaction() as session:
            session.run("count_hours", {"since": since, "until": until})
            session.run("hours_have_come_to", {"until": until})

    def drop_hours(self, before: datetime) -> None:
        self._run("drop_hours", before=before)

    def last_minutes(self, sources: Iterable[str], since: datetime) -> dict[str, datetime]:
        """When something last came, by source; rows are looked at since then, and what was counted of before."""
        rows = self._run("last_minutes", sources=sorted(sources), since=since)
        return {row["source"]: row["last_seen"] for row in rows if row["last_seen"] is not None}

    def seen(self, sources: Iterable[str], now: datetime) -> list[dict[str, Any]]:
        """When something last came, and the events of the last hour and day, by source."""
        return self._run("last_seen", sources=sorted(sources), now=now)

    def hours(self, sources: Sequence[str]) -> list[dict[str, Any]]:
        """Those that are known of these sources, in order."""
        return self._run("hours_of", sources=list(sources))

    def statuses(self) -> dict[str, int]:
        """How many stored events are in each state but `processed`."""
        return {row["status"]: row["number"] for row in self._run("count_statuses")}

    def oldest_failed(self) -> dict[str, Any] | None:
        found = self._run("oldest_failed")
        return found[0] if found else None

    def _run(self, query: str, **values: Any) -> list[dict[str, Any]]:
        with self._database.transaction() as session:
            return session.run(query, values)
