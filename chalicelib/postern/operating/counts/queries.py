"""The counts of one database."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Any

from chalicelib.postern.adapters.postgres import Database, Session

_HOUR = timedelta(hours=1)

# A million events, wide ones.
_SECONDS = 30.0


class Counts:
    """Each method is a transaction of its own; raises DatabaseUnavailable and StatementFailed.

    Those that count do one hour at most, and say whether there was anything to do: whoever calls bounds the time. The
    row of `counting` is locked meanwhile, so that two never add the same.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def count_on(self) -> bool:
        """The next hour, or the part of it that is settled. What is settled is known the next time it is asked for."""
        with self._database.transaction() as session:
            [progress] = session.run("counting")
            since, settled = progress["counted_to"], progress["settled_to"]
            if settled is None and not progress["restored"]:
                return False
            if settled is None or settled <= since:
                session.run("note_look")
                return False
            # Over hours in which nothing came.
            found = session.run("next_event_after", {"moment": since})
            first = found[0]["at"] if found else settled
            if first >= settled:
                until = settled
            else:
                since, until = max(since, _hour_of(first)), min(settled, _hour_of(first) + _HOUR)
                _add(session, since, until)
            session.run("note_counted", {"since": progress["counted_from"], "until": until})
            return True

    def count_back(self) -> bool:
        """The hour of the newest event that came before any was counted."""
        with self._database.transaction() as session:
            [progress] = session.run("counting")
            found = session.run("last_event_before", {"moment": progress["counted_from"]})
            if not found:
                return False
            hour = _hour_of(found[0]["at"])
            _add(session, hour, min(hour + _HOUR, progress["counted_from"]))
            session.run("note_counted", {"since": hour, "until": progress["counted_to"]})
            return True

    def recount(self, done: Collection[datetime]) -> datetime | None:
        """An hour that has changed since it was counted, and is none of these; None where there is none."""
        with self._database.transaction() as session:
            [progress] = session.run("counting")
            since, until = progress["counted_from"], progress["counted_to"]
            taken = session.run("take_changed_hour", {"since": since, "until": until, "done": [*done]})
            if not taken:
                return None
            hour: datetime = taken[0]["hour"]
            session.run("drop_hour_counts", {"hour": hour})
            _add(session, hour, min(hour + _HOUR, until))
            return hour

    def stats(
        self, *, since: datetime, until: datetime, step: str, source: str | None, type: str | None, by_source: bool
    ) -> list[dict[str, Any]]:
        """By minute, hour or day (UTC) of receipt."""
        values = {"since": since, "until": until, "source": source, "type": type}
        fine = "minute" if step == "minute" else "hour"
        return self._database.run("stats", **values, step=step, fine=fine, by_source=by_source)

    def latency(self, *, since: datetime, source: str | None) -> dict[str, Any]:
        """Seconds from receipt until the queue had it, which is what its sender waited for, and until its row."""
        found = self._database.run("latency", since=since, source=source)[0]
        shares = ("p50", "p95", "p99")
        return {
            "ack": {share: found[f"ack_{share}"] for share in shares},
            "time_to_row": {name: found[name] for name in ("events", *shares)},
        }


def _add(session: Session, since: datetime, until: datetime) -> None:
    session.run("bound_statements", {"seconds": _SECONDS})
    session.run("add_counts", {"since": since, "until": until})


def _hour_of(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
