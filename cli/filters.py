"""The options that say which events are meant; `events` and `replay` share them."""

from __future__ import annotations

import argparse
import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_AGO = re.compile(r"(\d{1,6})([smhdw])")

STATUSES = ("processed", "stale", "failed", "dead")


def add_filters(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--source", help="only of this source")
    parser.add_argument("--type", help="only of this type")
    parser.add_argument(
        "--status", action="append", choices=STATUSES, help="only in this state; may be given several times"
    )
    parser.add_argument(
        "--since", type=moment, metavar="TIME", help="only received since: 30m, 2h, 7d ago, or 2026-11-24T08:00Z"
    )
    parser.add_argument("--until", type=moment, metavar="TIME", help="only received before")
    parser.add_argument("--issue", metavar="ID", help="only those that had this issue")
    parser.add_argument(
        "--contains",
        type=document,
        metavar="JSON",
        help="only with this in the payload, such as '{\"livemode\": true}'",
    )


def filters_of(options: argparse.Namespace) -> dict[str, Any]:
    """Those that were given, as the actions take them."""
    given = {
        "source": options.source,
        "type": options.type,
        "status": options.status,
        "since": options.since,
        "until": options.until,
        "issue": options.issue,
        "contains": options.contains,
    }
    return {name: value for name, value in given.items() if value is not None}


def moment(text: str) -> str:
    """A time ago, or a time in ISO 8601 (UTC unless it says), as ISO 8601."""
    if ago := _AGO.fullmatch(text):
        return (datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})).isoformat()
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is neither 30m, 2h, 7d nor a time in ISO 8601") from None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).isoformat()


def document(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is no JSON") from None
