"""The ledger: what was accepted, minute by minute, against what is in the tables and what still waits.

The two books are kept by two functions that share nothing: the API function counts what it said 202 to, by the
minute in which it was received; the rows that the processor wrote carry the same time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from marshmallow import Schema, fields, validate

from chalicelib.postern.contract.metrics import Log
from chalicelib.postern.operating.filters import Moment
from chalicelib.postern.operating.ledger.queries import Ledger
from chalicelib.postern.operating.operator import Action, Duty

# CloudWatch has most counts after a minute or two; whatever is later than this is not seen any more.
_LATE = timedelta(hours=1)
# Nothing is missed before the count and the queue's depth can be had: an idle queue's may take a quarter of an hour.
_GRACE = timedelta(minutes=20)
_DEPTH = timedelta(minutes=15)
# As long as a dead letter is kept, and CloudWatch keeps minutes for a day longer.
_REACH = timedelta(days=14)
# What is counted in one transaction.
_STRETCH = timedelta(hours=6)
_RECENT = timedelta(hours=3)
_MINUTE = timedelta(minutes=1)
_KEPT = timedelta(days=35)
_MAX_MINUTES = 1000


class Counts(Protocol):
    """adapters.cloudwatch gives each method's promise."""

    def accepting_sources(self, *, lately: bool) -> set[str]: ...
    def accepted(self, source: str, since: datetime, until: datetime) -> dict[datetime, int]: ...
    def most_waiting(self, queues: Sequence[str], since: datetime, until: datetime) -> int: ...


@dataclass(frozen=True)
class Bookkeeper:
    """What balancing needs. `queues` gives the names of the queue and of the dead letters."""

    book: Ledger
    counts: Counts
    queues: Callable[[], Sequence[str]]
    now: Callable[[], datetime]
    log: Log

    def balance(self) -> dict[str, Any]:
        """Brings the ledger to the present minute and says whether it balances.

        It goes on where it stopped, so that an outage leaves no gap. Raises MetricsUnavailable.
        """
        now = self.now()
        # To the end of the present minute, which is counted again the next time.
        until = now.replace(second=0, microsecond=0) + _MINUTE
        oldest = until - _REACH
        progress = self.book.progress()
        since = max(progress.ledger_begins, progress.ledger_to - _LATE, oldest)
        occurred = self._enter(since, until)
        self.book.recount(oldest, since)
        missing = self.book.missing(oldest, until - _GRACE)
        total = sum(line.missing for line in missing)
        waiting = self._waiting(until, oldest) if missing else 0
        mismatch = max(0, total - waiting)
        self.book.note_check(at=now, missing=total, waiting=waiting)
        for line in missing if mismatch else []:
            self.log(
                "ledger.mismatch",
                failed=True,
                source=line.source,
                missing=line.missing,
                since=line.since.astimezone(UTC).isoformat(),
                waiting=waiting,
            )
        if occurred or missing:
            self.log("ledger.checked", metrics={"ledger_mismatch": mismatch}, missing=total, waiting=waiting)
        return {"ledger_mismatch": mismatch, "ledger_dropped": self.book.drop(until - _KEPT)}

    def _enter(self, since: datetime, until: datetime) -> bool:
        """Whether there was anything to enter."""
        counted = self.counts.accepting_sources(lately=until - since < _RECENT)
        occurred = False
        while since < until:
            end = min(until, since + _STRETCH)
            # A source that has just begun is not listed yet.
            sources = counted | self.book.sources_between(since, end)
            accepted = {
                (source, minute): number
                for source in sorted(sources)
                for minute, number in self.counts.accepted(source, since, end).items()
            }
            self.book.enter(since, end, accepted)
            occurred = occurred or bool(sources)
            since = end
        return occurred

    def _waiting(self, until: datetime, oldest: datetime) -> int:
        """Messages beyond those of events that have a row: what is missing may be among them."""
        held = self.counts.most_waiting(self.queues(), until - _DEPTH, until)
        return max(0, held - self.book.unfinished(oldest))


def views(book: Ledger, now: Callable[[], datetime]) -> dict[str, Action]:
    def ledger(since: datetime | None, source: str | None) -> Mapping[str, Any]:
        since = since or now() - timedelta(days=1)
        progress = book.progress()
        return {
            "since": max(since, progress.ledger_begins),
            "to": progress.ledger_to,
            "checked_at": progress.checked_at,
            "missing": progress.missing,
            "waiting": progress.waiting,
            "sources": book.totals(since=since, source=source),
            "minutes": book.unbalanced(since=since, source=source, limit=_MAX_MINUTES),
        }

    return {"ledger": Action(ledger, _Span())}


def actions(book: Ledger, now: Callable[[], datetime]) -> dict[str, Action]:
    def write_off(since: datetime | None, source: str | None, note: str) -> Mapping[str, Any]:
        until = now() - _GRACE
        since = since or until - _REACH
        return {"written_off": book.write_off(since=since, until=until, source=source, note=note)}

    return {"write_off": Action(write_off, _WriteOff())}


def duties(bookkeeper: Bookkeeper) -> dict[str, Duty]:
    return {"ledger": bookkeeper.balance}


class _Span(Schema):
    source = fields.String(load_default=None, allow_none=True)
    since = Moment(load_default=None, allow_none=True)


class _WriteOff(_Span):
    note = fields.String(required=True, validate=validate.Length(1, 500))
