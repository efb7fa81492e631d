"""How the inbox does, at a glance: each source, what failed, and whether the ledger balances."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, Protocol

from marshmallow import Schema

from chalicelib.postern.operating.operator import Action
from chalicelib.postern.operating.quiet.actions import Hours, quiet_sources
from chalicelib.postern.operating.quiet.silence import Silence

# Maintenance comes every five minutes.
_STALE = timedelta(minutes=30)


class Facts(Hours, Protocol):
    """operating.ledger.queries gives each method's promise."""

    def seen(self, sources: Iterable[str], now: datetime) -> list[dict[str, Any]]: ...
    def statuses(self) -> dict[str, int]: ...
    def oldest_failed(self) -> dict[str, Any] | None: ...


class Attention(Protocol):
    def attention(self) -> dict[str, Any]: ...
    def identity_of_late(self) -> dict[str, Any]: ...


def views(
    facts: Facts, others: Attention, sources: Callable[[], Iterable[str]], now: Callable[[], datetime]
) -> dict[str, Action]:
    def status() -> Mapping[str, Any]:
        at = now()
        seen = facts.seen(sources(), at)
        last_seen = {row["source"]: row["last_seen"] for row in seen if row["last_seen"] is not None}
        quiet = quiet_sources(facts, last_seen, at)
        statuses = facts.statuses()
        progress = facts.progress()
        mismatch = max(0, progress["missing"] - progress["waiting"])
        stale = at - (progress["checked_at"] or progress["ledger_begins"]) > _STALE
        dead = statuses.get("dead", 0)
        return {
            "sources": [row | {"quiet": _described(quiet.get(row["source"]))} for row in seen],
            "failed": statuses.get("failed", 0),
            "dead": dead,
            "oldest_failed": facts.oldest_failed(),
            **others.attention(),
            "identity": others.identity_of_late(),
            "ledger": {
                "balanced": mismatch == 0,
                "missing": mismatch,
                "waiting": progress["waiting"],
                "checked_at": progress["checked_at"],
                "stale": stale,
            },
            "well": not (quiet or dead or mismatch or stale),
        }

    return {"status": Action(status, Schema())}


def _described(found: Silence | None) -> Mapping[str, Any] | None:
    return None if found is None else {"minutes": found.minutes, "expected": round(found.expected, 1)}
