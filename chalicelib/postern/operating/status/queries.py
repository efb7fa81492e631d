"""What an operator sees first."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from chalicelib.postern.adapters.postgres import Database


@dataclass(frozen=True)
class Seen:
    """When something of a source last came, and how many events of the last hour and day."""

    source: str
    last_seen: datetime | None
    hour: int
    day: int


class Status:
    """Each question in a transaction of its own; raises DatabaseUnavailable and StatementFailed."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def seen(self, sources: Iterable[str], now: datetime) -> list[Seen]:
        return [Seen(**row) for row in self._database.run("last_seen", sources=sorted(sources), now=now)]

    def statuses(self) -> dict[str, int]:
        """How many stored events are in each state but `processed`."""
        return {row["status"]: row["number"] for row in self._database.run("count_statuses")}

    def oldest_failed(self) -> dict[str, Any] | None:
        found = self._database.run("oldest_failed")
        return found[0] if found else None

    def attention(self) -> dict[str, Any]:
        """Whether the database refuses every writer, since when something waits for it, open issues, changes of
        payloads, and replays that run or rest.
        """
        return self._database.run("attention")[0]

    def postponed(self) -> list[dict[str, Any]]:
        """The handlers that put something off: how many events, since when, until when the first of them, and why."""
        return self._database.run("handlers_that_postpone")

    def note_duty(self, name: str, reason: str | None) -> None:
        """How one of maintenance's duties went: why it failed, or None."""
        self._database.run("note_duty", name=name, reason=reason and reason.replace("\0", "")[:1000])

    def failing_duties(self) -> list[dict[str, Any]]:
        """Those that failed the last time: why and when, and when it was done last."""
        return self._database.run("failing_duties")

    def identity_of_late(self) -> dict[str, Any]:
        """How many events of the last day had bytes that came before, how many ids came again with others, and how many
        deliveries were taken for repetitions for their bytes alone.
        """
        return self._database.run("identity_of_late")[0]
