"""`postern status`: the health of the inbox on one screen."""

from __future__ import annotations

import argparse
from typing import Any

from cli import output
from cli.arguments import Commands
from cli.local import operator


def add_commands(commands: Commands, deployed: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "status", parents=[deployed], help="show the health of the inbox; exit code 1 when something needs a person"
    )
    parser.add_argument("--all", action="store_true", help="include sources that nothing ever came from")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_status)


def _status(options: argparse.Namespace) -> int:
    found = operator().perform({"action": "status"})
    print(output.as_json(found) if options.json else _page(found, everything=options.all))
    return 0 if found["well"] else 1


def _page(found: dict[str, Any], *, everything: bool) -> str:
    sources = [row | {"state": _state(row)} for row in found["sources"] if everything or row["last_seen"]]
    silent = len(found["sources"]) - len(sources)
    columns = {"source": "SOURCE", "last_seen": "LAST SEEN", "hour": "HOUR", "day": "DAY", "state": "STATE"}
    parts = [output.table(sources, columns) if sources else "Nothing has come yet. `postern send github push` helps."]
    if silent:
        parts.append(f"Nothing ever came from {silent} other sources (--all lists them).")
    parts.append("\n".join(_facts(found)))
    return "\n\n".join(parts)


def _facts(found: dict[str, Any]) -> list[str]:
    ledger = found["ledger"]
    balance = "balanced" if ledger["balanced"] else f"{ledger['missing']} MISSING (`{output.command('ledger')}`)"
    facts = [
        f"failed  {found['failed']}  (they are tried again)",
        f"dead    {found['dead']}" + (f"  (`{output.command('events --status dead')}`)" if found["dead"] else ""),
        f"ledger  {balance}, checked {ledger['checked_at'] or 'never'}"
        + (", NOT since then: maintenance fails" * ledger["stale"]),
    ]
    if found["open_issues"]:
        facts.append(f"issues  {found['open_issues']} open  (`{output.command('issues')}`)")
    if number := found["identity"]["same_bytes"]:
        facts.append(f"marked  {number} of the last day with the bytes of an earlier event (docs/sources.md)")
    if number := found["identity"]["other_bytes"]:
        facts.append(
            f"marked  {number} of the last day under a known id with OTHER BYTES  (`{output.command('duplicates')}`)"
        )
    if found["open_drift"]:
        facts.append(f"drift   {found['open_drift']} changes of payloads  (`{output.command('drift')}`)")
    if found["running_replays"]:
        facts.append(f"replays {found['running_replays']} running or resting  (`{output.command('replays')}`)")
    if oldest := found["oldest_failed"]:
        error = output.plain(f"{oldest['source']} {oldest['type']}: {oldest['error']}")[:100]
        facts.append(f"oldest failed  {oldest['received_at']}  {oldest['id']}  {error}")
    return facts


def _state(row: dict[str, Any]) -> str:
    if row["quiet"] is None:
        return "-" if row["last_seen"] is None else "ok"
    return f"QUIET for {row['quiet']['minutes']} min, expected about {row['quiet']['expected']:.0f} with events"
