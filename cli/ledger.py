"""The ledger on the command line: what was accepted, and what became of it."""

from __future__ import annotations

import argparse
from typing import Any

from cli import arguments, output
from cli.arguments import Commands
from cli.local import operator

_COUNTS = {
    "accepted": "ACCEPTED",
    "stored": "STORED",
    "duplicates": "DUPLICATES",
    "written_off": "WRITTEN OFF",
    "missing": "MISSING",
    "surplus": "SURPLUS",
}


def add_commands(commands: Commands, deployed: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "ledger",
        parents=[deployed],
        help="compare what was accepted with what is stored; list the minutes that do not balance",
    )
    parser.add_argument("--source", help="show this source only")
    parser.add_argument(
        "--since",
        type=arguments.moment,
        metavar="WHEN",
        help="start at WHEN: 90m, 24h, 7d or 1w ago, yesterday, or a time (default 24h)",
    )
    parser.add_argument(
        "--write-off", metavar="NOTE", help="write off what is missing, because of NOTE (14 days back without --since)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_ledger)


def _ledger(options: argparse.Namespace) -> int:
    filters = {"source": options.source, "since": options.since and options.since.isoformat()}
    if options.write_off is not None:
        done = operator().perform({"action": "write_off", "note": options.write_off, **filters})
        print(output.as_json(done) if options.json else f"Written off: {done['written_off']}.")
        return 0
    found = operator().perform({"action": "ledger", **filters})
    print(output.as_json(found) if options.json else _page(found))
    return 0


def _page(found: dict[str, Any]) -> str:
    if not found["sources"]:
        return f"Nothing was accepted from {found['since']} to {found['to']}."
    columns = {"source": "SOURCE", **_COUNTS, "failed": "FAILED", "dead": "DEAD"}
    parts = [output.table(found["sources"], columns)]
    if found["minutes"]:
        parts.append(
            output.table(found["minutes"], {"minute": "MINUTE", "source": "SOURCE", **_COUNTS, "note": "NOTE"})
        )
    parts.append(_verdict(found))
    return "\n\n".join(parts)


def _verdict(found: dict[str, Any]) -> str:
    """As of the last check, of all sources and two weeks."""
    if found["checked_at"] is None:
        return "Not checked yet: `maintenance` does it."
    mismatch = max(0, found["missing"] - found["waiting"])
    books = f"{mismatch} are missing and in no queue" if mismatch else "It balances"
    queued = f"; of {found['missing']} that are in no table, the queues may hold {found['waiting']}"
    return f"{books}{queued if found['missing'] else ''} (checked at {found['checked_at']}, all sources)."
