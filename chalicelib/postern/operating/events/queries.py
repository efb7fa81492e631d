"""The stored events of one database."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from chalicelib.postern.adapters.postgres import Database
from chalicelib.postern.contract.deliveries import first_event_id, moment_of
from chalicelib.postern.contract.errors import StatementFailed
from chalicelib.postern.operating.filters import as_values

# What no index finds in the order of ids. It is looked for piece by piece, the newest first, for as long as a person
# waits. A piece is wider than the one before where that was quick, and narrower where it was not.
_SOUGHT = ("contains", "error", "attempts")
_SECONDS = 8.0
_PIECE_SECONDS = 3.0
_QUICK_SECONDS = 0.2
_FIRST, _NARROWEST, _WIDEST = timedelta(minutes=15), timedelta(seconds=1), timedelta(days=366)

_LAST_ID = UUID(int=2**128 - 1)


@dataclass(frozen=True)
class Found:
    """`searched_to` is None where these are all that there are, or as many as were asked for; otherwise time was up,
    and the search goes on with what came before that id.
    """

    events: list[dict[str, Any]]
    searched_to: UUID | None = None


class Events:
    """Each question in a transaction of its own; raises DatabaseUnavailable and StatementFailed."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._clock = clock

    def events(
        self,
        filters: Mapping[str, Any],
        *,
        before: UUID | None = None,
        after: UUID | None = None,
        attempts: int | None = None,
        error: str | None = None,
        limit: int,
    ) -> Found:
        """The newest first; `before` is the last id of the page before, and `after` an id to stop at. With at least so
        many attempts, and with an error that has this text in it.
        """
        values = {**as_values(filters), "before": before, "after": after, "limit": limit}
        values |= {"attempts": attempts, "error": error}
        if any(values[name] is not None for name in _SOUGHT) or (values["type"] or "").endswith("*"):
            return self._search(values)
        return Found(self._database.run("list_events", **values))

    def _search(self, values: Mapping[str, Any]) -> Found:
        """Raises StatementFailed where there was not the time for a single piece."""
        since, until, after = values["since"], values["until"], values["after"]
        begin = min(values["before"] or _LAST_ID, first_event_id(until) if until else _LAST_ID)
        oldest = self._database.run("oldest_event")
        bottom = max(
            oldest[0]["id"] if oldest else begin,
            first_event_id(since) if since else UUID(int=0),
            UUID(int=after.int + 1) if after else UUID(int=0),
        )
        deadline, top, wide = self._clock() + _SECONDS, begin, _FIRST
        found: list[dict[str, Any]] = []
        while bottom < top and len(found) < values["limit"]:
            began = self._clock()
            if began >= deadline and top < begin:
                return Found(found, top)
            low = max(bottom, first_event_id(min(moment_of(top), datetime.now(UTC)) - wide))
            piece = {"before": top, "after": UUID(int=low.int - 1), "limit": values["limit"] - len(found)}
            try:
                with self._database.transaction() as session:
                    session.run("bound_statements", {"seconds": _PIECE_SECONDS})
                    found += session.run("search_events", {**values, **piece})
            except StatementFailed as exc:
                if not exc.passing or began >= deadline:
                    raise
                wide = max(wide / 8, _NARROWEST)
            else:
                top = low
                if self._clock() - began < _QUICK_SECONDS:
                    wide = min(wide * 4, _WIDEST)
        return Found(found)

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
