"""Drift on the command line: what departed from the shapes of events, and what their shapes are."""

from __future__ import annotations

import argparse
from typing import Any

from chalicelib.postern.contract.errors import PosternError
from cli import arguments, output
from cli.arguments import Commands
from cli.local import operator


def add_commands(commands: Commands, deployed: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "drift", parents=[deployed], help="list how payloads have changed: new, missing and retyped fields"
    )
    parser.add_argument("--source", help="show this source only")
    parser.add_argument("--type", help="show this type only")
    parser.add_argument("--all", action="store_true", help="include accepted findings")
    parser.add_argument(
        "--before", type=int, metavar="NUMBER", help="show findings older than finding N (the next page)"
    )
    parser.add_argument(
        "--limit", type=arguments.count, default=20, metavar="N", help="show N findings (default 20, at most 1000)"
    )
    parser.add_argument(
        "--accept",
        type=int,
        nargs="*",
        metavar="NUMBER",
        help="accept these findings, or all of --source and --type; accepted ones are no longer listed",
    )
    parser.add_argument("--look", action="store_true", help="look at new events now instead of at the next full hour")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=drift)

    parser = commands.add_parser("shape", parents=[deployed], help="show which fields a type of events has")
    parser.add_argument("source", help="a source, such as github")
    parser.add_argument("type", help="an event type, such as push")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=shape)


def drift(options: argparse.Namespace) -> int:
    which = {"source": options.source, "type": options.type}
    if options.accept is not None:
        return _accept(options, which)
    if options.look:
        operator().perform({"action": "look_for_drift"})
    state = None if options.all else "open"
    filters = {**which, "state": state, "before": options.before, "limit": options.limit}
    found = operator().perform({"action": "drift", **filters})["drift"]
    if options.json:
        print(output.as_json(found))
        return 0
    if not found:
        print("No drift. Each type is learned from its first 20 events; `--look` looks at new ones now.")
        return 0
    columns = {"id": "NUMBER", "found_at": "FOUND", "source": "SOURCE", "type": "TYPE", "change": "CHANGE"}
    rows = [{**each, "change": _change(each)} for each in found]
    print(output.table(rows, {**columns, "path": "PATH", "event_id": "FIRST EVENT"}))
    if len(found) == options.limit:
        print(f"\nThere may be more: --before {found[-1]['id']}")
    return 0


def shape(options: argparse.Namespace) -> int:
    asked = {"action": "shape", "source": options.source, "type": options.type}
    found = operator().perform(asked)["shape"]
    if found is None:
        raise PosternError(
            f"Nothing is known of {output.plain(options.source)} {output.plain(options.type)} yet;"
            " `postern drift --look` looks at new events."
        )
    if options.json:
        print(output.as_json(found))
        return 0
    rows = [{**place, "types": " or ".join(place["types"]), "optional": _optional(place)} for place in found["places"]]
    print(output.table(rows, {"path": "PATH", "types": "TYPES", "optional": "", "seen": "SEEN"}))
    print(f"\nFrom {found['events']:,} events." + ("" if found["learned"] else " It is still being learned."))
    return 0


def _accept(options: argparse.Namespace, which: dict[str, str | None]) -> int:
    ids = options.accept or None
    accepted = operator().perform({"action": "accept_drift", "ids": ids, **which})["accepted"]
    print(output.as_json({"accepted": accepted}) if options.json else f"{accepted} accepted.")
    return 0


def _change(found: dict[str, Any]) -> str:
    if found["kind"] != "retyped":
        return str(found["kind"])
    return f"{' or '.join(found['was'])} -> {' or '.join(found['became'])}"


def _optional(place: dict[str, Any]) -> str:
    return "" if place["always"] else "optional"
