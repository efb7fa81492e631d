"""What people ask of the stored events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from chalicelib.postern.adapters.filters import as_values
from chalicelib.postern.adapters.postgres import Database


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

    def known_by(self, key: str, limit: int) -> dict[str, list[dict[str, Any]]]:
        """All that came with this id of a provider's: events, repetitions, what was refused, and the keys of events
        that are gone.
        """
        asked = {"key": key, "limit": limit}
        events = self.events({"key": key}, limit=limit)
        with self._database.transaction() as session:
            return {
                "events": events,
                "duplicates": session.run("find_duplicates", asked),
                "rejected": [] if events else session.run("find_rejected", asked),
                "keys": [] if events else session.run("find_keys", asked),
            }

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

    def duplicate(self, id: UUID) -> dict[str, Any] | None:
        """One of them, with the bytes that came, where they are still there."""
        with self._database.transaction() as session:
            found = session.run("show_duplicate", {"id": id})
            if not found:
                return None
            body = found[0]["body"]
            return {**found[0], "body": None if body is None else bytes(body)}

    def identity_of_late(self) -> dict[str, Any]:
        """How many events of the last day had bytes that came before, and how many ids came again with others."""
        with self._database.transaction() as session:
            return session.run("identity_of_late")[0]

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

    def resolve_rejected(self, id: UUID, event_id: UUID, note: str | None) -> bool:
        """Notes the event that it became, and what there is to say about it."""
        with self._database.transaction() as session:
            return bool(session.run("resolve_rejected", {"id": id, "event_id": event_id, "note": note}))

    def drop_rejected(self, *, days: int, most: int, bytes: int) -> int:
        """Drops what was refused longer ago, and of each source all but so many and so large; how many that were."""
        with self._database.transaction() as session:
            return int(session.run("drop_rejected", {"days": days, "most": most, "bytes": bytes})[0]["dropped"])

    def secrets_used(self, days: int) -> list[dict[str, Any]]:
        """For each source and fingerprint: how many events it verified in these days, the first and the last."""
        with self._database.transaction() as session:
            return session.run("secrets_used", {"days": days})
