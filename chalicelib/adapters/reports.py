"""What people ask of the stored events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from chalicelib.adapters.filters import as_values
from chalicelib.adapters.postgres import Database


class Reports:
    """Reads one database, each question in a transaction of its own. Raises DatabaseUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def events(
        self,
        filters: Mapping[str, Any],
        *,
        before: UUID | None = None,
        after: UUID | None = None,
        attempts: int | None = None,
        error: str | None = None,
        limit: int,
    ) -> list[dict[str, Any]]:
        """The newest first; `before` is the last id of the page before, and `after` an id to stop at. With at least so
        many attempts, and with an error that has this text in it.
        """
        further = {"before": before, "after": after, "attempts": attempts, "error": error, "limit": limit}
        with self._database.transaction() as session:
            return session.run("list_events", {**as_values(filters), **further})

    def event(self, id: UUID) -> dict[str, Any] | None:
        """The event of this id, or the one that the delivery of this id repeated, with its `duplicates`."""
        with self._database.transaction() as session:
            repeated = session.run("event_of_duplicate", {"id": id})
            found = session.run("show_event", {"id": repeated[0]["event_id"] if repeated else id})
            if not found:
                return None
            event = found[0]
            event["body"] = bytes(event["body"])
            event["attempts_made"] = session.run("attempts_of_event", {"id": event["id"]})
            event["duplicates"] = session.run("duplicates_of_event", {"id": event["id"]})
            return event

    def body(self, id: UUID, *, of: str, offset: int, length: int) -> bytes:
        """A part of the body `of` an "event" or a "delivery"; nothing behind its end, or where there is none."""
        with self._database.transaction() as session:
            found = session.run(f"part_of_{of}", {"id": id, "offset": offset, "length": length})
            return bytes(found[0]["part"]) if found else b""

    def issues(self, *, state: str | None, limit: int) -> list[dict[str, Any]]:
        """The latest first; those that are resolved at the end."""
        with self._database.transaction() as session:
            return session.run("list_issues", {"state": state, "limit": limit})

    def issue(self, id: str) -> dict[str, Any] | None:
        """The one issue whose id begins like this, with its latest attempts and its events by status."""
        with self._database.transaction() as session:
            found = session.run("find_issue", {"id": id})
            if len(found) != 1:
                return None
            id = found[0]["id"]
            traces = session.run("last_traceback_of_issue", {"id": id})
            return {
                **found[0],
                "traceback": traces[0]["traceback"] if traces else None,
                "events": {row["status"]: row["count"] for row in session.run("events_of_issue", {"id": id})},
                "attempts": session.run("attempts_of_issue", {"id": id}),
            }

    def set_issue(self, id: str, state: str) -> bool:
        with self._database.transaction() as session:
            return bool(session.run("set_issue", {"id": id, "state": state}))

    def attention(self) -> dict[str, Any]:
        """What a person may want to look at: open issues, changes of payloads, and replays that run or rest."""
        with self._database.transaction() as session:
            return session.run("attention")[0]

    def statuses(self, ids: Sequence[UUID]) -> dict[UUID, str]:
        """Of those that are stored."""
        with self._database.transaction() as session:
            rows = session.run("statuses_of_events", {"ids": list(ids)})
            return {row["id"]: row["status"] for row in rows}

    def delivery(self, id: UUID) -> dict[str, Any] | None:
        """The whole of a delivery that brought several events."""
        with self._database.transaction() as session:
            found = session.run("show_delivery", {"id": id})
            return {**found[0], "body": bytes(found[0]["body"])} if found else None

    def rejected(
        self, *, source: str | None, pending: bool, before: UUID | None, limit: int
    ) -> dict[str, list[dict[str, Any]]]:
        """What was refused and kept, the newest first, and how often for which reason."""
        filters = {"source": source, "pending": pending, "before": before, "limit": limit}
        with self._database.transaction() as session:
            return {
                "rejected": session.run("list_rejected", filters),
                "reasons": session.run("count_rejected", {"source": source}),
            }

    def rejected_delivery(self, id: UUID) -> dict[str, Any] | None:
        with self._database.transaction() as session:
            found = session.run("show_rejected", {"id": id})
            return {**found[0], "body": bytes(found[0]["body"])} if found else None

    def resolve_rejected(self, id: UUID, event_id: UUID) -> bool:
        """Notes the event that it became."""
        with self._database.transaction() as session:
            return bool(session.run("resolve_rejected", {"id": id, "event_id": event_id}))

    def drop_rejected(self, *, days: int, most: int) -> int:
        """Drops what was refused longer ago, and of each source all but so many; how many that were."""
        with self._database.transaction() as session:
            return int(session.run("drop_rejected", {"days": days, "most": most})[0]["dropped"])

    def secrets_used(self, days: int) -> list[dict[str, Any]]:
        """For each source and fingerprint: how many events it verified in these days, the first and the last."""
        with self._database.transaction() as session:
            return session.run("secrets_used", {"days": days})
