"""Stored events in the order in which they were written: each is read once, however late its transaction ends.

PostgreSQL numbers the transactions that write. Below the oldest one that is open none writes any more, so what is read
up to there has nothing that could still come before it. (A sequence has no such bound: its numbers are drawn in one
order and committed in another.)
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from chalicelib.postern.adapters.postgres import Database, Session
from chalicelib.postern.contract.deliveries import first_event_id
from chalicelib.postern.contract.errors import NotFound, UnfitArguments

# So many rows are looked through for those of a source or type, and an answer of fewer goes on behind them.
_LOOKED_THROUGH = 2_000
# A function's answer carries 6 MB, in which bytes are base64.
MOST_BYTES = 3_000_000

_UUID = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_NUMBER = "[0-9]{1,19}"
_CURSOR = re.compile(rf"({_NUMBER})\.({_NUMBER})\.({_UUID})(?:\.({_UUID})\.({_NUMBER}))?", re.ASCII)
_LOWEST = UUID(int=0)


@dataclass(frozen=True)
class Floor:
    """Of what was written before the transaction `begun`, what has an id below `id` is not asked for."""

    id: UUID
    begun: int


@dataclass(frozen=True)
class Place:
    """Of the server that is so called: behind the row of `id` that the transaction `written_in` wrote."""

    server: str
    written_in: int = 0
    id: UUID = _LOWEST
    floor: Floor | None = None

    @classmethod
    def of(cls, text: str) -> Place:
        """Raises ValueError."""
        found = _CURSOR.fullmatch(text)
        if found is None:
            raise ValueError("It is none that this API gave out.")
        floor = Floor(UUID(found[4]), int(found[5])) if found[4] else None
        return cls(found[1], int(found[2]), UUID(found[3]), floor)

    def __str__(self) -> str:
        floor = f".{self.floor.id}.{self.floor.begun}" if self.floor else ""
        return f"{self.server}.{self.written_in}.{self.id}{floor}"


@dataclass(frozen=True)
class Page:
    """`more`: there may be some right behind it. `held`: there are some that an open transaction holds back.
    `kept_since`: since when days are kept whole, where it was begun earlier.
    """

    events: list[dict[str, Any]]
    place: Place
    more: bool
    held: bool
    kept_since: datetime | None = None


class Stream:
    """Raises DatabaseUnavailable and StatementFailed."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def page(
        self,
        *,
        place: Place | None,
        now: bool,
        since: datetime | None,
        first: UUID | None,
        source: str | None,
        type: str | None,
        limit: int,
        bodies: bool,
    ) -> Page:
        """The next ones: behind `place`, or from where one of the others says; else from the oldest on. Raises
        NotFound where there is no event `first`, UnfitArguments for a place that this server has not come to.
        """
        kept_since = None
        with self._database.transaction() as session:
            [here] = session.run("stream_now", {})
            server, begun = here["server"], int(here["written_in"])
            if place is not None:
                if place.server != server or place.written_in > int(here["ahead"]):
                    raise _elsewhere("This cursor is another server's.")
            elif now:
                place = Place(server, begun)
            elif first is not None:
                place = _before(first, server, session)
            elif since is not None:
                place = Place(server, floor=Floor(first_event_id(since), begun))
                [kept] = session.run("stream_kept", {})
                kept_since = kept["since"] if kept["since"] and since < kept["since"] else None
            else:
                place = Place(server)
            most = limit if source is None and type is None else max(limit, _LOOKED_THROUGH)
            asked = {"written_in": str(place.written_in), "id": place.id, "limit": most, "bodies": bodies}
            asked |= {"floor": place.floor and place.floor.id, "begun": place.floor and str(place.floor.begun)}
            scanned = session.run("scan_stream", asked)
            more, held = len(scanned) >= most, False
            wanted: list[tuple[dict[str, Any], Place]] = []
            size = 0
            for row in scanned:
                behind = replace(place, written_in=int(row["written_in"]), id=row["id"])
                if _fits(row, source, type):
                    size += row["size"] + (row["bytes"] if bodies and row["bytes"] <= MOST_BYTES else 0)
                    if len(wanted) >= limit or (wanted and size > MOST_BYTES):
                        more = True
                        break
                    wanted.append((row, behind))
                place = behind
            if not more and place.floor is not None:
                # Of what was written since, all is asked for, however long ago it was received.
                place, more = Place(server, place.floor.begun), True
            if not more and (newest := session.run("stream_newest", {})):
                if newest[0]["foreign"]:
                    raise _elsewhere("Some events were written by another server.")
                held = newest[0]["held"]
            named = {"ids": [row["id"] for row, _ in wanted], "bodies": bodies, "most": MOST_BYTES}
            rows = {row["id"]: row for row in session.run("streamed_events", named)} if wanted else {}
        events = [_presented(rows[row["id"]], here, row["bytes"], bodies) for row, here in wanted if row["id"] in rows]
        return Page(events, place, more, held, kept_since)


def _before(id: UUID, server: str, session: Session) -> Place:
    found = session.run("stream_place", {"id": id})
    if not found:
        raise NotFound(f"There is no event {id}.")
    return Place(server, int(found[0]["written_in"]), UUID(int=max(id.int - 1, 0)))


def _fits(row: dict[str, Any], source: str | None, type: str | None) -> bool:
    if source is not None and row["source"] != source:
        return False
    if type is None:
        return True
    return bool(row["type"].startswith(type[:-1]) if type.endswith("*") else row["type"] == type)


def _presented(row: dict[str, Any], here: Place, length: int, bodies: bool) -> dict[str, Any]:
    body = {"body": None if row["body"] is None else bytes(row["body"]), "headers": row["headers"]}
    bare = {name: value for name, value in row.items() if name not in body}
    return {**bare, "bytes": length, "cursor": str(here), **(body if bodies else {})}


def _elsewhere(why: str) -> UnfitArguments:
    said = f"{why} Was the database restored, or moved? See docs/stream.md, and begin anew with `since`."
    return UnfitArguments(said, {"cursor": [said]})
