"""The stored events of one database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from chalicelib.postern.adapters.postgres import Database
from chalicelib.postern.operating.filters import as_values


class Events:
    """Each question in a transaction of its own; raises DatabaseUnavailable and StatementFailed."""

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
        """The event of this id, with its `duplicates`; or the one that the delivery of this id was taken for a
        repetition of, which is then there as `repetition`.
        """
        with self._database.transaction() as session:
            found, repetition = session.run("show_event", {"id": id}), None
            if not found and (repeated := session.run("show_duplicate", {"id": id})):
                repetition = {name: value for name, value in repeated[0].items() if name != "body"}
                found = session.run("show_event", {"id": repetition["event_id"]})
            if not found:
                return None
            event = found[0]
            event["body"] = bytes(event["body"])
            event["attempts_made"] = session.run("attempts_of_event", {"id": event["id"]})
            event["duplicates"] = session.run("duplicates_of_event", {"id": event["id"]})
            event["repetition"] = repetition
            return event

    def delivery(self, id: UUID) -> dict[str, Any] | None:
        """The whole of a delivery that brought several events."""
        with self._database.transaction() as session:
            found = session.run("show_delivery", {"id": id})
            return {**found[0], "body": bytes(found[0]["body"])} if found else None

    def body(self, id: UUID, *, of: str, offset: int, length: int) -> bytes:
        """A part of the body `of` an "event" or a "delivery"; nothing behind its end, or where there is none."""
        with self._database.transaction() as session:
            found = session.run(f"part_of_{of}", {"id": id, "offset": offset, "length": length})
            return bytes(found[0]["part"]) if found else b""

    def statuses(self, ids: Sequence[UUID]) -> dict[UUID, str]:
        """Of those that are stored."""
        with self._database.transaction() as session:
            rows = session.run("statuses_of_events", {"ids": list(ids)})
            return {row["id"]: row["status"] for row in rows}

    def secrets_used(self, days: int) -> list[dict[str, Any]]:
        """For each source and fingerprint: how many events it verified in these days, the first and the last."""
        return self._database.run("secrets_used", days=days)
