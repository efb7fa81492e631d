"""Replays as SQL: what operators need of them. An event's turn in one is in adapters.event_store."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from chalicelib.postern.adapters.postgres import Database, Session
from chalicelib.postern.contract.envelope import Replay
from chalicelib.postern.operating.filters import as_values


class ReplayStore:
    """The replays of one database; every method raises DatabaseUnavailable and StatementFailed."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def plan(self, filters: Mapping[str, Any], sample: int) -> dict[str, Any]:
        """How many events match, by status, and the oldest few of them."""
        values = as_values(filters)
        with self._database.transaction() as session:
            return {
                "by_status": {row["status"]: row["count"] for row in session.run("count_matching", values)},
                "sample": session.run("sample_matching", {**values, "limit": sample}),
            }

    def start(
        self, id: UUID, *, kind: str, trigger: str, asked: Mapping[str, Any], rate: int, total: int
    ) -> UUID | None:
        """Begins a replay of what matches now, the oldest `total` of it, or a redrive of `total` at most. When another
        bulk one runs, nothing is begun, and that one's id is the answer.
        """
        with self._database.transaction() as session:
            values = {
                "id": id,
                "kind": kind,
                "trigger": trigger,
                "asked": json.dumps(asked, default=str),
                "rate": rate,
                "total": total,
            }
            if not session.run("insert_replay", values):
                running = session.run("running_bulk", {"kind": kind})
                return running[0]["id"] if running else id
            if kind == "replay":
                session.run("insert_replay_items", {**as_values(asked), "replay_id": id, "limit": total})
                session.run("set_replay_total", {"id": id})
            return None

    def replays(self, *, before: UUID | None, limit: int) -> list[dict[str, Any]]:
        """The newest first; `before` is the last id of the page before."""
        return self._database.run("list_replays", before=before, limit=limit)

    def replay(self, id: UUID, *, finish: bool = True) -> dict[str, Any] | None:
        """With how many of its events are in which state, and some that failed. One that has nothing left is done; it
        is noted where `finish` has it.
        """
        with self._database.transaction() as session:
            if finish:
                session.run("finish_replay", {"id": id})
            found = session.run("show_replay", {"id": id})
            if not found:
                return None
            replay = found[0]
            states = {row["state"]: row["count"] for row in session.run("count_replay_items", {"id": id})}
            is_settled = not states.keys() & {"waiting", "queued"}
            if replay["kind"] == "replay" and replay["state"] == "running" and is_settled:
                replay["state"] = "done"
            return {**replay, "states": states, "failures": session.run("failed_replay_items", {"id": id})}

    def cancel(self, id: UUID) -> bool:
        """Whether it was running. What is on the queue already is passed over when its turn comes."""
        with self._database.transaction() as session:
            cancelled = bool(session.run("cancel_replay", {"id": id}))
            if cancelled:
                session.run("cancel_replay_items", {"id": id})
            return cancelled

    @contextmanager
    def advancing(self, id: UUID) -> Iterator[Advance | None]:
        """The replay, if it runs and nobody else is advancing it; what is taken is taken when the block ends well."""
        with self._database.transaction() as session:
            found = session.run("lock_replay", {"id": id})
            yield Advance(session, found[0]) if found else None


class Advance:
    """A running replay that is being advanced: `asked`, `rate`, `total`, `moved`, `queued` (not settled yet) and the
    seconds since it was advanced last.
    """

    def __init__(self, session: Session, row: Mapping[str, Any]) -> None:
        self._session = session
        self._id: UUID = row["id"]
        self.kind: str = row["kind"]
        self.asked: Mapping[str, Any] = row["filter"]
        self.rate: int = row["rate"]
        self.total: int = row["total"]
        self.moved: int = row["moved"]
        self.queued: int = row["queued"]
        self.seconds: float = row["seconds"]

    def take(self, number: int) -> list[Replay]:
        """The next events, the oldest first, which are on the queue from now on."""
        rows = self._session.run("take_replay_items", {"id": self._id, "limit": number})
        self.note(len(rows))
        return [Replay(row["id"], row["source"] or "unknown", row["type"] or "unknown", self._id) for row in rows]

    def note(self, moved: int, *, finished: bool = False) -> None:
        """Notes that `moved` of them were put on the queue."""
        self._session.run("advance_replay", {"id": self._id, "moved": moved, "finished": finished})
