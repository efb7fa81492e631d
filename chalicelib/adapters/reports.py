"""What people ask of the stored events."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from chalicelib.adapters.postgres import Database


class Reports:
    """Reads one database, each question in a transaction of its own. Raises DatabaseUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def events(
        self,
        *,
        source: str | None,
        type: str | None,
        status: str | None,
        before: UUID | None,
        limit: int,
    ) -> list[dict[str, Any]]:
        """The newest first; `before` is the last id of the page before."""
        with self._database.transaction() as session:
            return session.run(
                "list_events",
                {"source": source, "type": type, "status": status, "before": before, "limit": limit},
            )

    def event(self, id: UUID) -> dict[str, Any] | None:
        """The event of this id, or the one that the delivery of this id repeated, with its `duplicates`."""
        with self._database.transaction() as session:
            repeated = session.run("event_of_duplicate", {"id": id})
            found = session.run("show_event", {"id": repeated[0]["event_id"] if repeated else id})
            if not found:
                return None
            event = found[0]
            event["body"] = bytes(event["body"])
            event["duplicates"] = session.run("duplicates_of_event", {"id": event["id"]})
            return event

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
