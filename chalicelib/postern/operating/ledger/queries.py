"""The ledger in one database. Decides nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from chalicelib.postern.adapters.postgres import Database


@dataclass(frozen=True)
class Progress:
    """How far the ledger has come, and what its last check found: how many were missing, and how many messages waited
    that these may be among.
    """

    ledger_begins: datetime
    ledger_to: datetime
    checked_at: datetime | None
    missing: int
    waiting: int

    @property
    def mismatch(self) -> int:
        return max(0, self.missing - self.waiting)


@dataclass(frozen=True)
class Missing:
    """How many events of a source were accepted and have no row, from which minute on."""

    source: str
    missing: int
    since: datetime


class Ledger:
    """One database's; each method is a transaction of its own. Raises DatabaseUnavailable and StatementFailed."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def progress(self) -> Progress:
        [row] = self._database.run("bookkeeping")
        return Progress(**row)

    def sources_between(self, since: datetime, until: datetime) -> set[str]:
        """Those that have rows of that time."""
        return {row["source"] for row in self._database.run("sources_between", since=since, until=until)}

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
        self._database.run("recount_missing", since=since, until=until)

    def missing(self, since: datetime, until: datetime) -> list[Missing]:
        rows = self._database.run("missing_by_source", since=since, until=until)
        return [Missing(row["source"], int(row["missing"]), row["since"]) for row in rows]

    def unfinished(self, since: datetime) -> int:
        """Stored events that have a message in the queue or among the dead letters."""
        return int(self._database.run("count_unfinished", since=since)[0]["unfinished"])

    def note_check(self, *, at: datetime, missing: int, waiting: int) -> None:
        self._database.run("note_check", at=at, missing=missing, waiting=waiting)

    def drop(self, before: datetime) -> int:
        """How many of its lines were older."""
        return int(self._database.run("drop_ledger", before=before)[0]["dropped"])

    def totals(self, *, since: datetime, source: str | None) -> list[dict[str, Any]]:
        return self._database.run("ledger_totals", since=since, source=source)

    def unbalanced(self, *, since: datetime, source: str | None, limit: int) -> list[dict[str, Any]]:
        """The minutes that do not balance, the newest first."""
        return self._database.run("ledger_minutes", since=since, source=source, limit=limit)

    def write_off(self, *, since: datetime, until: datetime, source: str | None, note: str) -> int:
        """Counts what is missing as missed no more; how many that were."""
        return int(
            self._database.run("write_off", since=since, until=until, source=source, note=note)[0]["written_off"]
        )
