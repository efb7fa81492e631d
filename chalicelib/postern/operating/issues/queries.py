"""The issues of one database."""

from __future__ import annotations

from typing import Any

from chalicelib.postern.adapters.postgres import Database


class Issues:
    """Each question in a transaction of its own; raises DatabaseUnavailable and StatementFailed."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def issues(self, *, state: str | None, before: str | None, limit: int) -> list[dict[str, Any]]:
        """The latest first; those that are resolved at the end. `before` is the last `cursor` of the page before."""
        return self._database.run("list_issues", state=state, before=before, limit=limit)

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
        return bool(self._database.run("set_issue", id=id, state=state))
