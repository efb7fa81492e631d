"""What was refused, and with which secrets: the commands that need the sources' secrets beside the database.

The functions that have the one have not the other, so it is here, with the operator's own rights, that they meet.
"""

from __future__ import annotations

import argparse
import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from chalicelib import naming, wiring
from chalicelib.config import RETIRED
from chalicelib.deliveries import Delivery, Greeting, Headers
from chalicelib.errors import PosternError, QueueUnavailable, Refusal, SecretUnavailable
from chalicelib.explain import Known
from chalicelib.explain import explain as causes_of
from chalicelib.ingest import Inbox, accept
from chalicelib.sources import Source, load_sources
from cli import output
from cli.target import Target, target

# A secret that verified nothing for so long, while another one did, can go.
_RETIRED_AFTER = timedelta(days=7)


def rejected(options: argparse.Namespace) -> int:
    found = target(options).perform(
        {"action": "rejected", "source": options.source, "pending": options.pending, "limit": options.limit}
    )
    if options.json:
        print(output.as_json(found))
        return 0
    if not found["rejected"]:
        print("Nothing was kept. A source with `quarantine = true` keeps some of what it refuses.")
        return 0
    columns = {"received_at": "RECEIVED", "source": "SOURCE", "reason": "REASON", "bytes": "BYTES", "id": "ID"}
    print(output.table(found["rejected"], {**columns, "event_id": "EVENT"}))
    if found["reasons"]:
        print("\n" + output.table(found["reasons"], {"count": "COUNT", "source": "SOURCE", "reason": "REASON"}))
    print("\n`postern explain ID` says why, `postern reverify` lets through what verifies now.")
    return 0


def explain(options: argparse.Namespace) -> int:
    here = _Here.of(options)
    found = here.target.perform({"action": "show_rejected", "id": str(options.id)})["rejected"]
    if found is None:
        raise PosternError(f"There is no refused delivery {options.id}; `postern rejected` lists those that were kept.")
    source = here.source(found["source"])
    print(f"{found['source']}, {found['received_at']}: refused for '{found['reason']}'.")
    if found["event_id"]:
        print(f"It was let through: postern show {found['event_id']}")
    others = {name: known for name, known in here.secrets.items() if name != source.name and "." not in name}
    mine, retired = here.secrets.get(source.name, []), here.secrets.get(source.name + RETIRED, [])
    for finding in causes_of(_delivery(found), source, Known(mine, retired, others), wiring.fetch):
        print(f"  {finding.cause}: {finding.sentence}")
    if found["reason"] == "verification_token":
        print("  The body, which holds the token for you to read:")
        print(f"  {output.plain(base64.b64decode(found['body']))}")
    return 0


def reverify(options: argparse.Namespace) -> int:
    here = _Here.of(options)
    ids = [str(id) for id in options.ids] or [
        each["id"]
        for each in here.target.perform(
            {"action": "rejected", "source": options.source, "pending": True, "limit": 1000}
        )["rejected"]
    ]
    through = 0
    for id in ids:
        found = here.target.perform({"action": "show_rejected", "id": id})["rejected"]
        if found is None:
            print(f"{id}  there is no such delivery")
            continue
        if found["event_id"]:
            print(f"{id}  was let through before")
            continue
        problem = _let_through(found, here)
        print(f"{id}  {problem or 'let through'}")
        through += problem is None
    print(f"{through} of {len(ids)} let through.")
    return 0 if through or not ids else 1


def _let_through(found: Mapping[str, Any], here: _Here) -> str | None:
    """On the way that every delivery goes, as of the time when it came; or why not.

    The event has the id of what was refused, so that a second time, or another operator at the same time, changes
    nothing.
    """
    try:
        result = accept(_delivery(found), here.inbox(), id=UUID(found["id"]))
    except (QueueUnavailable, SecretUnavailable) as exc:
        raise PosternError(f"{found['id']} could not be let through: {exc.reason}.") from exc
    except Refusal as refusal:
        return f"still refused: {refusal.reason}"
    if isinstance(result, Greeting):
        return "is a handshake, and no event"
    here.target.perform({"action": "resolve_rejected", "id": found["id"], "event_id": str(result.id)})
    return None


def sources(options: argparse.Namespace) -> int:
    here = _Here.of(options)
    used = here.target.perform({"action": "secrets_used", "days": options.days})["secrets"]
    rows = []
    for source in here.sources.values():
        of_source = [each for each in used if each["source"] == source.name]
        rows += _rows(source, here.secrets.get(source.name, []), of_source, datetime.now(UTC))
    columns = {"source": "SOURCE", "secret": "SECRET", "events": "EVENTS", "last": "LAST", "says": ""}
    print(output.table([row for row in rows if row["events"] or row["listed"] > 1] or rows, columns))
    print(f"\nEvents of the last {options.days} days. Sources without any and with one secret are left out.")
    return 0


def _rows(
    source: Source, secrets: Sequence[str], used: Sequence[Mapping[str, Any]], now: datetime
) -> list[dict[str, Any]]:
    """A row for each secret: the listed ones in their order, then those that are listed no more."""
    listed = [naming.fingerprint(source.name, secret) for secret in secrets]
    by_secret = {each["secret"]: each for each in used}
    last = {name: datetime.fromisoformat(each["last"]) for name, each in by_secret.items()}
    rows = []
    for name in dict.fromkeys([*listed, *by_secret]):
        says = "" if name in listed or name is None else "no longer listed"
        others = [last[other] for other in last if other != name]
        if name in listed and len(listed) > 1 and others:
            quiet_since = last.get(name)
            if max(others) - (quiet_since or now - timedelta(days=366)) >= _RETIRED_AFTER:
                says = "safe to retire: another one has verified everything for a week"
        found = by_secret.get(name)
        position = f" ({listed.index(name) + 1} of {len(listed)})" if name in listed else ""
        rows.append(
            {
                "source": source.name,
                "secret": f"{name or 'none'}{position}",
                "events": found["events"] if found else 0,
                "last": found["last"] if found else None,
                "says": says,
                "listed": len(listed),
            }
        )
    return rows


@dataclass(frozen=True)
class _Here:
    """A target, its sources and their secrets."""

    target: Target
    sources: Mapping[str, Source]
    secrets: Mapping[str, list[str]]

    @classmethod
    def of(cls, options: argparse.Namespace) -> _Here:
        found = target(options)
        return cls(found, load_sources(found.sources_file), found.secrets())

    def source(self, name: str) -> Source:
        if name not in self.sources:
            raise PosternError(f"The source '{name}' is declared no more.")
        return self.sources[name]

    def secrets_of(self, name: str) -> list[str]:
        if not self.secrets.get(name):
            raise SecretUnavailable("secret_missing")
        return self.secrets[name]

    def inbox(self) -> Inbox:
        return Inbox(self.sources, self.secrets_of, self.target.queue(), _NoBodies(), wiring.fetch)


class _NoBodies:
    def put(self, key: str, body: bytes) -> None:
        raise QueueUnavailable("nothing that was kept is that large")


def _delivery(found: Mapping[str, Any]) -> Delivery:
    """As it came."""
    headers = [
        (name, value)
        for name, values in found["headers"].items()
        for value in (values if isinstance(values, list) else [values])
    ]
    return Delivery(
        source=found["source"],
        headers=Headers(headers),
        body=base64.b64decode(found["body"]),
        received_at=datetime.fromisoformat(found["received_at"]),
        request_id=found["request_id"],
        method=found["method"],
        url=found["url"],
        query=[(name, value) for name, value in found["query"]],
    )
