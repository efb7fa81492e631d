"""What was refused and kept, in one database."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from chalicelib.postern.adapters.postgres import Database


class Refused:
    """Each question in a transaction of its own; raises DatabaseUnavailable and StatementFailed."""

    def __init__(self, database: Database) -> None:
        self._database = database

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

    def resolve_rejected(self, id: UUID, event_id: UUID, note: str | None) -> bool:
        """Notes the event that it became, and what there is to say about it."""
        return bool(self._database.run("resolve_rejected", id=id, event_id=event_id, note=note))

    def drop_rejected(self, *, days: int, most: int, bytes: int) -> int:
        """Drops what is older than `days`, and of each source what exceeds `most` or `bytes`; how many were dropped."""
        return int(self._database.run("drop_rejected", days=days, most=most, bytes=bytes)[0]["dropped"])
