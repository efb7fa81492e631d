"""`dry-run`: what today's handlers would do with a stored event, row by row; nothing is kept of it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from cli import output
from cli.arguments import Commands
from cli.local import operator

_MAX_VALUE_LENGTH = 100
_SIGNS = {"inserted": "+", "updated": "~", "deleted": "-"}


def add_commands(commands: Commands, deployed: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "dry-run",
        parents=[deployed],
        help="run an event through today's handlers, undo it, and show what it would have changed",
        description="Runs a stored event through today's handlers in a transaction that is rolled back, and shows the "
        "rows that would have changed. What a handler does elsewhere is done: see event.dry_run in docs/handlers.md. "
        "Exit code 0 when it would be processed.",
    )
    parser.add_argument("id", type=UUID, metavar="ID", help="the event's id")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_dry_run)


def _dry_run(options: argparse.Namespace) -> int:
    found = operator().perform({"action": "dry_run", "id": str(options.id)})
    print(output.as_json(found) if options.json else _page(found))
    return 0 if found["outcome"] in ("processed", "stale") else 1


def _page(found: Mapping[str, Any]) -> str:
    facts = {
        "event": f"{found['id']}  ({found['source']} {found['type']}, {found['status']})",
        "handlers": ", ".join(found["handlers"]) or "none takes it",
        "would be": found["outcome"],
    }
    if found["stale"]:
        facts["passed over"] = ", ".join(found["stale"]) + " (older than what was handled)"
    sections = [output.facts(facts)]
    if found["failure"]:
        sections.append("Error\n" + output.indented(found["failure"]["traceback"]))
    if found["changes"]:
        sections.append("Changes (undone)\n" + "\n".join(map(change_line, found["changes"])))
    elif found["outcome"] in ("processed", "stale"):
        sections.append("No rows would change.")
    sections += [output.plain(sentence) for sentence in found["incomplete"]]
    return "\n\n".join(sections)


def change_line(change: Mapping[str, Any]) -> str:
    """Such as `~ public.orders  id=7  state: "open" → "paid"`."""
    before, after = change["before"] or {}, change["after"] or {}
    key = "  ".join(f"{name}={_value(value)}" for name, value in change["key"].items())
    names = [name for name in (after or before) if name not in change["key"]]
    if change["kind"] == "updated":
        told = [
            f"{name}: {_value(before[name])} → {_value(after[name])}" for name in names if before[name] != after[name]
        ]
    else:
        told = [f"{name}: {_value((after or before)[name])}" for name in names]
    parts = [change["table"], key, ", ".join(told)]
    return output.plain(f"  {_SIGNS[change['kind']]} " + "  ".join(part for part in parts if part))


def _value(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _MAX_VALUE_LENGTH else text[: _MAX_VALUE_LENGTH - 1] + "…"
