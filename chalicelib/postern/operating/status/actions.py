"""How the inbox does, at a glance: each source, what failed, and whether the ledger balances."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from marshmallow import Schema

from chalicelib.postern.operating.ledger.queries import Ledger
from chalicelib.postern.operating.operator import Action
from chalicelib.postern.operating.quiet.actions import quiet_sources
from chalicelib.postern.operating.quiet.queries import Hours
from chalicelib.postern.operating.quiet.silence import Silence
from chalicelib.postern.operating.status.queries import Status

# Maintenance comes every five minutes.
_STALE = timedelta(minutes=30)


def views(
    state: Status, ledger: Ledger, hours: Hours, sources: Callable[[], Iterable[str]], now: Callable[[], datetime]
) -> dict[str, Action]:
    def status() -> Mapping[str, Any]:
        at = now()
        seen = state.seen(sources(), at)
        last_seen = {each.source: each.last_seen for each in seen if each.last_seen is not None}
        quiet = quiet_sources(hours, last_seen, at)
        statuses = state.statuses()
        progress = ledger.progress()
        stale = at - (progress.checked_at or progress.ledger_begins) > _STALE
        dead = statuses.get("dead", 0)
        failing = state.failing_duties()
        return {
            "sources": [asdict(each) | {"quiet": _described(quiet.get(each.source))} for each in seen],
            "failed": statuses.get("failed", 0),
            "dead": dead,
            "oldest_failed": state.oldest_failed(),
            **state.attention(),
            "postponed": state.postponed(),
            "failing_duties": failing,
            "identity": state.identity_of_late(),
            "ledger": {
                "balanced": progress.mismatch == 0,
                "missing": progress.mismatch,
                "waiting": progress.waiting,
                "checked_at": progress.checked_at,
                "stale": stale,
            },
            "well": not (quiet or dead or progress.mismatch or stale or failing),
        }

    return {"status": Action(status, Schema())}


def about(version: Callable[[], Mapping[str, str | None]]) -> dict[str, Action]:
    """Which code answers; it asks no database."""
    return {"version": Action(version, Schema())}


def _described(found: Silence | None) -> Mapping[str, Any] | None:
    return None if found is None else {"minutes": found.minutes, "expected": round(found.expected, 1)}
