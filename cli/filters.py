"""The options that say which events are meant; `events` and `replay` share them."""

from __future__ import annotations

import argparse
import difflib
import json
import os
from pathlib import Path
from typing import Any

from chalicelib.postern.adapters.teams_room import SHIPPED_SOURCES
from chalicelib.postern.receiving.sources import source_names
from cli import arguments
from cli.local import LocalRun, NotRunning

STATUSES = ("processed", "stale", "failed", "dead")


def add_filters(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--source", help="only events of this source")
    parser.add_argument("--type", help="only events of this type; invoice.* for all that begin so")
    parser.add_argument("--status", action="append", choices=STATUSES, help="only events in this state (repeatable)")
    parser.add_argument(
        "--since",
        type=arguments.moment,
        metavar="TIME",
        help="only events received since TIME: 90s, 2h, 7d or 1w ago, yesterday, 2026-11-24 or 2026-11-24T08:00Z",
    )
    parser.add_argument("--key", metavar="ID", help="only events with this id of the provider, such as evt_123")
    parser.add_argument("--until", type=arguments.moment, metavar="TIME", help="only events received before TIME")
    parser.add_argument("--issue", metavar="ID", help="only events that had this issue")
    parser.add_argument(
        "--contains",
        type=document,
        metavar="JSON",
        help="only events whose payload contains this, such as '{\"livemode\": true}'",
    )


def filters_of(options: argparse.Namespace) -> dict[str, Any]:
    """Those that were given, as the actions take them."""
    given = {
        "source": options.source,
        "type": options.type,
        "status": options.status,
        "since": options.since and options.since.isoformat(),
        "until": options.until and options.until.isoformat(),
        "issue": options.issue,
        "key": options.key,
        "contains": options.contains,
    }
    return {name: value for name, value in given.items() if value is not None}


def undeclared(source: str | None) -> str | None:
    """A sentence where sources.toml has no source of this name: mistyped, or one whose events are still there."""
    if source is None:
        return None
    try:
        known = sorted(source_names(LocalRun.find().sources_file))
    except NotRunning:
        known = sorted(source_names(Path(os.environ.get("SOURCES_FILE") or SHIPPED_SOURCES)))
    if source in known or not known:
        return None
    near = difflib.get_close_matches(source, known, 1)
    return f"sources.toml declares no source '{source}'" + (f"; it has '{near[0]}'." if near else ".")


def document(text: str) -> Any:
    """Checked, and sent as it is written where it is more than one value: a number loses no digit of it on the way."""
    try:
        found = json.loads(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is no JSON") from None
    return text if isinstance(found, dict | list) else found
