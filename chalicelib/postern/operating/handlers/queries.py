"""What one database knows of the team's handlers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chalicelib.postern.adapters.postgres import Database


class Work:
    """Each question in a transaction of its own; raises DatabaseUnavailable and StatementFailed."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def kinds(self) -> Mapping[tuple[str, str], int]:
        """How many events of each source and type came in the last day."""
        return {(row["source"], row["type"]): row["events"] for row in self._database.run("kinds_of_late")}

    def failures(self) -> Mapping[str, Mapping[str, Any]]:
        """Of the last week, by the handler's name: `failures`, and when the `last_failure` was."""
        return {row["handler"]: row for row in self._database.run("failures_of_handlers")}

    def tries(self) -> list[tuple[str, str, float]]:
        """Source, type and milliseconds of the newest events that were processed."""
        rows = self._database.run("tries_of_late")
        return [(row["source"], row["type"], row["duration_ms"]) for row in rows]
