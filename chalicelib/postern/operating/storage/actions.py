"""The schema and its storage: migrate it, make partitions ahead, let go what is old, and say how much room it takes.

What is done here is done in steps, each a transaction of its own: whatever is cut off goes on the next time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from marshmallow import Schema

from chalicelib.postern.adapters.migrations import pending
from chalicelib.postern.contract.bounds import QUEUES_KEEP_DAYS
from chalicelib.postern.contract.errors import MigrationError, StatementFailed
from chalicelib.postern.operating.operator import Action, Duty
from chalicelib.postern.operating.storage.queries import Partition, Storage

_DAYS_AHEAD = 14
_FEWEST_DAYS_AHEAD = 3

# Writers wait behind each lock that does not come: a run gives up on a table after this many.
_MAX_PUT_OFF = 3

# For all that is deleted in one run; the rest goes in the next.
_SECONDS = 60.0

# Of the dedup keys' table, 20 MB: a run that read all of a large one would push what is in use out of memory.
_PAGES = 2_500

# A day has ended when what comes late has come, too.
_CLOSED_AFTER = timedelta(hours=1)
# A million events take 7 s.
_SECONDS_TO_BEGIN_INDEXES = 20.0
_SECONDS_FOR_AN_INDEX = 100.0

# What reads a whole table is done in one run of those of a day, more or less.
_ONCE_A_DAY = 1 / 288


@dataclass(frozen=True)
class Retention:
    """For how many days things are kept. Dedup keys and unresolved events never go before the other events."""

    days: int
    dedup_days: int
    unresolved_days: int

    @classmethod
    def of(cls, days: int, dedup_days: int, unresolved_days: int) -> Retention:
        return cls(days, max(days, dedup_days), max(days, unresolved_days))


class _PutOff:
    """The partitions whose locks did not come in time."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._tables: list[str] = []

    def add(self, exc: StatementFailed, table: str, name: str) -> None:
        """Raises it again when it is no matter of time."""
        if exc.bad_data:
            raise exc
        self.names.append(name)
        self._tables.append(table)

    def enough(self, table: str) -> bool:
        return self._tables.count(table) >= _MAX_PUT_OFF


@dataclass(frozen=True)
class Upkeep:
    """Keeps one database's storage as `retention` has it. `clock` counts seconds, `random` gives a number below 1."""

    store: Storage
    retention: Retention
    now: Callable[[], datetime]
    clock: Callable[[], float]
    random: Callable[[], float]

    def make_partitions(self) -> Mapping[str, Any]:
        """Makes the partitions of the days ahead, and of each day within retention that has rows and no partition."""
        today = self._today()
        first, last = today - timedelta(days=self.retention.days), today + timedelta(days=_DAYS_AHEAD)
        ahead = [today + timedelta(days=n) for n in range(_DAYS_AHEAD + 1)]
        made, moved, put_off = 0, 0, _PutOff()
        for table in self.store.tables():
            there = {partition.since.date() for partition in self.store.partitions() if partition.table == table}
            behind = self.store.days_without_partition(table, first, last)
            # Those ahead first: events that come are best off at home from the start.
            for day in dict.fromkeys([*ahead, *behind]):
                if day in there or put_off.enough(table):
                    continue
                try:
                    rows = self.store.make_partition(table, day)
                except StatementFailed as exc:
                    put_off.add(exc, table, f"{table}_{day:%Y%m%d}")
                    continue
                if rows is not None:
                    made, moved = made + 1, moved + rows
        return {"partitions_made": made, "rows_moved_home": moved, "partitions_not_made": put_off.names or None}

    def drop_partitions(self) -> Mapping[str, Any]:
        """Drops the days that are old enough. What is unresolved or only just settled moves to the default partition
        first, and an event's attempts stay as long as it does.
        """
        before, dropped, put_off = self._days_ago(self.retention.days), 0, _PutOff()
        kept = self.store.drop_retired(self._settled_since())
        old = [partition for partition in self.store.partitions() if partition.until <= before]
        events_stay = {partition.since for partition in old if partition.table == "events"}
        for partition in sorted(old, key=lambda partition: (partition.table != "events", partition.since)):
            if put_off.enough(partition.table) or (partition.table != "events" and partition.since in events_stay):
                continue
            try:
                rows = self._retire(partition)
            except StatementFailed as exc:
                put_off.add(exc, partition.table, partition.name)
                continue
            if partition.table == "events":
                events_stay.discard(partition.since)
            if rows is not None:
                dropped, kept = dropped + 1, kept + rows + self.store.drop_retired(self._settled_since())
        return {"partitions_dropped": dropped, "rows_kept": kept, "partitions_not_dropped": put_off.names or None}

    def delete_leftovers(self) -> Mapping[str, Any]:
        """Deletes, in short transactions and for a minute at most, what outlived its partition and what has none."""
        deadline = self.clock() + _SECONDS
        before = self._days_ago(self.retention.days)
        kinds: dict[str, Callable[[], int]] = {
            "events_deleted": lambda: self.store.delete_events(
                before, self._settled_since(), self._days_ago(self.retention.unresolved_days)
            ),
            "duplicates_deleted": lambda: self.store.delete_duplicates(before),
            "deliveries_deleted": lambda: self.store.delete_deliveries(before),
            "attempts_deleted": lambda: self.store.delete_attempts(before),
            "replays_deleted": lambda: self.store.delete_replays(before),
            # Their messages are gone by now.
            "postponed_deleted": lambda: self.store.delete_postponed(self._settled_since()),
        }
        if self.random() < _ONCE_A_DAY:
            # An older event of theirs would be a new one by now, dedup key and all.
            kinds["entities_deleted"] = lambda: self.store.delete_entities(self._days_ago(self.retention.dedup_days))
        done = dict.fromkeys([*kinds, "dedup_keys_deleted"], 0)
        for kind, delete in kinds.items():
            while self.clock() < deadline and (deleted := delete()):
                done[kind] += deleted
        for deleted in self._expire_keys(deadline):
            done["dedup_keys_deleted"] += deleted
        return done

    def index_payloads(self) -> Mapping[str, Any]:
        """Makes the index of payloads for days that have ended, so that what comes does not pay for it. One that took
        too long is tried again on another day.
        """
        deadline, made, failed = self.clock() + _SECONDS_TO_BEGIN_INDEXES, 0, list[str]()
        for name, left in self.store.days_without_payload_index(self.now() - _CLOSED_AFTER).items():
            if left and self.random() >= _ONCE_A_DAY:
                failed.append(name)
            elif self.clock() < deadline:
                try:
                    self.store.make_payload_index(name, _SECONDS_FOR_AN_INDEX)
                    made += 1
                except StatementFailed as exc:
                    if exc.bad_data:
                        raise
                    failed.append(name)
        return {"payload_indexes_made": made, "payload_indexes_not_made": failed or None}

    def report(self) -> dict[str, Any]:
        """Sizes, partitions, indexes, dedup keys, what retention is set to, and sentences on what is not well."""
        today, now = self._today(), self.now()
        before, ahead = self._days_ago(self.retention.days), _midnight(today + timedelta(days=_DAYS_AHEAD + 1))
        partitions = self.store.partitions()
        tables = self.store.table_sizes()
        default = {table: self.store.default_rows(table, before, ahead) for table in self.store.tables()}
        oldest_key = self.store.oldest_key()
        report: dict[str, Any] = {
            "tables": tables,
            "partitions": [
                self._partitions_of(table, [p for p in partitions if p.table == table], rows)
                for table, rows in default.items()
            ],
            "indexes": self.store.index_health(),
            "dedup_keys": {
                "rows": next((table["rows"] for table in tables if table["name"] == "dedup_keys"), 0),
                "oldest": oldest_key,
                "oldest_days": (now - oldest_key).days if oldest_key else None,
            },
            "unresolved_kept": default["events"]["unresolved"],
            "retention": {
                "retention_days": self.retention.days,
                "dedup_days": self.retention.dedup_days,
                "unresolved_days": self.retention.unresolved_days,
            },
        }
        return {**report, "warnings": list(_warnings(report, now))}

    def _retire(self, partition: Partition) -> int | None:
        if partition.table != "events":
            return self.store.retire_partition(partition, self.store.kept_events(partition), unresolved=False)
        # A copy of the message of one that was settled a short while ago may still be on its way.
        keep = self.store.settled_since(partition, self._settled_since())
        unresolved = partition.until > self._days_ago(self.retention.unresolved_days)
        return self.store.retire_partition(partition, keep, unresolved=unresolved)

    def _expire_keys(self, deadline: float) -> Iterator[int]:
        """Goes through the table, or a part of a large one. Where it begins is drawn each time, so that every part gets
        its turn.
        """
        before, pages = self._days_ago(self.retention.dedup_days), self.store.key_pages()
        start, left = int(self.random() * pages), _PAGES
        for page, end in ((start, pages), (0, start)):
            while page < end and left > 0 and self.clock() < deadline:
                deleted, after = self.store.delete_keys(page, before)
                left, page = left - (after - page), after
                yield deleted

    def _partitions_of(self, table: str, days: Sequence[Partition], default: Mapping[str, Any]) -> dict[str, Any]:
        last = self._today() - timedelta(days=1)
        for day in sorted(partition.since.date() for partition in days):
            if day == last + timedelta(days=1):
                last = day
        return {
            "table": table,
            "count": len(days),
            "oldest": min((p.since.date() for p in days), default=None),
            "newest": max((p.since.date() for p in days), default=None),
            "days_ahead": (last - self._today()).days,
            "next_drop": days[0].name if days else None,
            "next_drop_at": days[0].until + timedelta(days=self.retention.days) if days else None,
            "default_rows": default["rows"],
            "default_rows_to_move": default["to_move"],
        }

    def _today(self) -> date:
        return self.now().astimezone(UTC).date()

    def _days_ago(self, days: int) -> datetime:
        return _midnight(self._today() - timedelta(days=days))

    def _settled_since(self) -> datetime:
        return self.now() - timedelta(days=QUEUES_KEEP_DAYS)


def views(upkeep: Upkeep) -> dict[str, Action]:
    def migrations() -> Mapping[str, Any]:
        try:
            return {"pending": pending(upkeep.store.applied_migrations()), "problem": None}
        except MigrationError as exc:
            return {"pending": [], "problem": str(exc)}

    return {"storage": Action(upkeep.report, Schema()), "migrations": Action(migrations, Schema())}


def actions(migrate: Callable[[], list[str]]) -> dict[str, Action]:
    def run() -> Mapping[str, Any]:
        return {"applied": migrate()}

    return {"migrate": Action(run, Schema())}


def duties(upkeep: Upkeep) -> dict[str, Duty]:
    return {
        "partitions": upkeep.make_partitions,
        "retention": upkeep.drop_partitions,
        "leftovers": upkeep.delete_leftovers,
    }


def late_duties(upkeep: Upkeep) -> dict[str, Duty]:
    """What takes its time, and so comes after all others."""
    return {"payload_indexes": upkeep.index_payloads}


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


def _warnings(report: Mapping[str, Any], now: datetime) -> Iterator[str]:
    for of in report["partitions"]:
        table = of["table"]
        if of["days_ahead"] < _FEWEST_DAYS_AHEAD:
            yield (
                f"postern.{table} has partitions for {max(of['days_ahead'], 0)} days ahead: maintenance should have "
                f"made {_DAYS_AHEAD}. What comes without one is kept in {table}_default."
            )
        if of["default_rows_to_move"]:
            yield (
                f"{of['default_rows_to_move']} rows in {table}_default belong to days that should have a partition; "
                "maintenance moves them when nobody holds its lock."
            )
        if of["next_drop_at"] is not None and of["next_drop_at"] < now - timedelta(days=1):
            yield f"{of['next_drop']} should have been dropped; maintenance did not get its lock, or does not run."
    for index in report["indexes"]:
        if not index["valid"]:
            what = f"Index {index['name']} of postern.{index['table']} is invalid, and is of no use"
            # Each day has its own, and maintenance makes it anew.
            again = "maintenance tries again within a day or two" if index["name"] == "events_payload" else "REINDEX it"
            yield f"{what}: {again}."
    days, limit = report["dedup_keys"]["oldest_days"], report["retention"]["dedup_days"]
    if days is not None and days > limit + 7 and not report["unresolved_kept"]:
        yield f"The oldest dedup key is {days} days old, though they are kept for {limit}: is maintenance behind?"
