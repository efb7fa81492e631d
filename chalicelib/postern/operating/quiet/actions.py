"""Silence: learns each source's hours, and says which source is quieter than it usually is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from chalicelib.postern.contract.metrics import Log
from chalicelib.postern.operating.operator import Duty
from chalicelib.postern.operating.quiet.queries import Hours
from chalicelib.postern.operating.quiet.silence import MIN_SILENCE, WEEKS_KEPT, Silence, silence

# Rows are written late after an outage: that long, and their hours are counted once more.
_LATE = timedelta(hours=6)
# What is counted in one transaction, and in one run: nine weeks are there after an hour of maintenance.
_STRETCH = timedelta(hours=6)
_MAX_STRETCHES = 28


@dataclass(frozen=True)
class Watch:
    """`sources` gives the declared ones: of those alone something is expected."""

    hours: Hours
    sources: Callable[[], Iterable[str]]
    now: Callable[[], datetime]
    log: Log

    def listen(self) -> dict[str, Any]:
        now = self.now()
        known_to = self._learn(now)
        if known_to < now - _LATE:
            return {"quiet_sources": 0}  # what is not counted yet is no silence
        quiet = quiet_sources(self.hours, self.hours.last_minutes(self.sources(), known_to), now)
        for source, found in quiet.items():
            self.log(
                "source.quiet",
                failed=True,
                metrics={"quiet_sources": 1},
                source=source,
                quiet_minutes=found.minutes,
                expected=round(found.expected, 1),
            )
        return {"quiet_sources": len(quiet)}

    def _learn(self, now: datetime) -> datetime:
        """Counts the hours that are over; up to when it has come."""
        ends = now.replace(minute=0, second=0, microsecond=0)
        oldest = ends - timedelta(weeks=WEEKS_KEPT)
        known_to: datetime = max(self.hours.known_to(), oldest)
        if known_to >= ends:
            return known_to
        since = max(known_to - _LATE, oldest)
        for _ in range(_MAX_STRETCHES):
            until = min(since + _STRETCH, ends)
            self.hours.count_hours(since, until)
            since = until
            if since == ends:
                break
        self.hours.drop_hours(oldest)
        return since


def quiet_sources(hours: Hours, last_seen: Mapping[str, datetime], now: datetime) -> dict[str, Silence]:
    """Those of them that are quieter than usual."""
    candidates = sorted(source for source, last in last_seen.items() if now - last >= MIN_SILENCE)
    known = hours.hours(candidates) if candidates else {}
    quiet: dict[str, Silence] = {}
    for source, history in known.items():
        found = silence(history, last_seen[source].astimezone(UTC), now)
        if found is not None:
            quiet[source] = found
    return quiet


def duties(watch: Watch) -> dict[str, Duty]:
    return {"quiet": watch.listen}
