"""Partitions, what is deleted with age, and how much room it takes. Decides nothing: it is told which and when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from uuid import UUID

from chalicelib.postern.adapters.postgres import Database

# One transaction deletes 5,000 rows, or the keys in 250 pages: some hundredths of a second.
_ROWS = 5_000
_PAGES = 250

# `oldest_key` looks at 20,000 pages at most.
_SAMPLED_PAGES = 20_000


@dataclass(frozen=True)
class Partition:
    """A day of a partitioned table: from `since` until before `until`."""

    table: str
    name: str
    since: datetime
    until: datetime


class Storage:
    """One database, each method in a transaction of its own.

    Raises DatabaseUnavailable, and StatementFailed without `bad_data` where a lock did not come in time.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def applied_migrations(self) -> dict[tuple[str, str], str]:
        """The checksum of each, by its owner and name."""
        if not self._database.run("knows_migrations")[0]["known"]:
            return {}
        return {(row["owner"], row["name"]): row["checksum"] for row in self._database.run("applied_migrations")}

    def tables(self) -> list[str]:
        """The partitioned tables, the events first."""
        return [row["parent"] for row in self._database.run("partitioned_tables")]

    def partitions(self) -> list[Partition]:
        """By age; without the default ones."""
        return [
            Partition(row["parent"], row["name"], row["since"], row["until"])
            for row in self._database.run("partitions")
        ]

    def days_without_partition(self, table: str, first: date, last: date) -> list[date]:
        """The days of which the default partition holds rows."""
        rows = self._database.run("days_without_partition", parent=table, first=first, last=last)
        return [row["day"] for row in rows]

    def make_partition(self, table: str, day: date) -> int | None:
        """How many rows of the day moved into it; None where it was there. Blocks writers for two seconds at most."""
        moved: int | None = self._run_bounded("make_partition", parent=table, day=day)["moved"]
        return moved

    def days_without_payload_index(self, closed: datetime) -> dict[str, bool]:
        """The events' partitions that ended before, the newest first; True where an index was begun and left."""
        return {row["name"]: row["left"] for row in self._database.run("days_without_payload_index", closed=closed)}

    def make_payload_index(self, name: str, seconds: float) -> None:
        """So that payloads can be searched (`@>`). Blocks nobody. What was left of an earlier try is dropped first."""
        index = f"{name}_payload"
        self._database.run_outside(f"DROP INDEX CONCURRENTLY IF EXISTS postern.{index}", seconds / 5)
        self._database.run_outside(
            f"CREATE INDEX CONCURRENTLY {index} ON postern.{name} USING gin (payload jsonb_path_ops)", seconds
        )

    def settled_since(self, partition: Partition, moment: datetime) -> list[UUID]:
        """The events of a partition of theirs that were processed at this moment or later."""
        values = {"since": partition.since, "until": partition.until, "settled_since": moment}
        with self._database.transaction() as session:
            session.run("bound_statements", {"seconds": 60})  # it reads the whole day
            return [row["id"] for row in session.run("settled_since", values)]

    def kept_events(self, partition: Partition) -> list[UUID]:
        """The events that outlived the partition of their day."""
        return [row["id"] for row in self._database.run("kept_events", since=partition.since, until=partition.until)]

    def retire_partition(self, partition: Partition, keep: Sequence[UUID], *, unresolved: bool) -> int | None:
        """Takes it out, but keeps these rows and, with `unresolved`, events that are not processed: how many; None
        where it was gone. Blocks writers for two seconds at most.
        """
        kept: int | None = self._run_bounded(
            "retire_partition",
            parent=partition.table,
            name=partition.name,
            keep=list(keep),
            unresolved=unresolved,
        )["kept"]
        return kept

    def drop_retired(self, settled_since: datetime) -> int:
        """Drops what was taken out, but keeps what was written to it last; how many rows. Blocks nobody."""
        kept = 0
        for retired in self._database.run("retired_partitions"):
            with self._database.transaction() as session:
                session.run("bound_statements", {"seconds": 60})
                kept += session.run("drop_retired", {**retired, "settled_since": settled_since})[0]["kept"]
        return kept

    def delete_events(self, before: datetime, settled_before: datetime, unresolved_before: datetime) -> int:
        """Deletes some events that outlived their partition; how many."""
        return self._delete(
            "delete_events",
            before=before,
            settled_before=settled_before,
            unresolved_before=unresolved_before,
        )

    def delete_attempts(self, before: datetime) -> int:
        """Deletes some attempts at events that are gone; how many."""
        return self._delete("delete_attempts", before=before)

    def delete_duplicates(self, before: datetime) -> int:
        """Deletes some duplicates of events that are gone; how many."""
        return self._delete("delete_duplicates", before=before)

    def delete_deliveries(self, before: datetime) -> int:
        """Deletes some deliveries whose events are all gone; how many."""
        return self._delete("delete_deliveries", before=before)

    def delete_replays(self, before: datetime) -> int:
        """Deletes some replays that ended before, with their items; how many."""
        return self._delete("delete_replays", before=before)

    def delete_postponed(self, before: datetime) -> int:
        """Deletes some that were put off until then and have not come since; how many."""
        return self._delete("delete_postponed", before=before)

    def delete_entities(self, before: datetime) -> int:
        """Deletes what is known of some entities that nothing was handled of since; how many."""
        return self._delete("delete_entities", before=before)

    def key_pages(self) -> int:
        pages: int = self._database.run("key_pages")[0]["pages"]
        return pages

    def delete_keys(self, page: int, before: datetime) -> tuple[int, int]:
        """Deletes the expired dedup keys in some pages, from `page` on; how many, and the page to go on from."""
        after = page + _PAGES
        deleted: int = self._database.run("delete_keys", page=page, page_after=after, before=before)[0]["deleted"]
        return deleted, after

    def table_sizes(self) -> list[dict[str, Any]]:
        return self._database.run("table_sizes")

    def index_health(self) -> list[dict[str, Any]]:
        return self._database.run("index_health")

    def default_rows(self, table: str, before: datetime, ahead: datetime) -> dict[str, Any]:
        """How many rows the default partition holds, and how many of them belong to days between the two."""
        return self._database.run(f"default_{table}", before=before, ahead=ahead)[0]

    def oldest_key(self) -> datetime | None:
        """When the oldest dedup key was claimed; of very many, when the oldest in a sample was."""
        percent = min(100.0, 100.0 * _SAMPLED_PAGES / max(self.key_pages(), 1))
        oldest: datetime | None = self._database.run("oldest_key", percent=percent)[0]["oldest"]
        return oldest

    def _run_bounded(self, query: str, **values: Any) -> dict[str, Any]:
        with self._database.transaction() as session:
            session.run("bound_locks")
            return session.run(query, values)[0]

    def _delete(self, query: str, **values: Any) -> int:
        deleted: int = self._database.run(query, **values, limit=_ROWS)[0]["deleted"]
        return deleted
