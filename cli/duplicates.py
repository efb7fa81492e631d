"""What was taken for a repetition: `duplicates` lists it, shows why, and lets one through after all."""

from __future__ import annotations

import argparse
from typing import Any
from uuid import UUID

from chalicelib.postern.contract.errors import PosternError
from cli import arguments, output
from cli.arguments import Commands
from cli.local import operator


def add_commands(commands: Commands, deployed: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "duplicates",
        parents=[deployed],
        help="list deliveries taken for repetitions, and why; accept one after all",
        description="Deliveries that were accepted and taken for an event that was there already, newest first. "
        "`postern duplicates accept ID` makes one an event of its own.",
    )
    parser.add_argument(
        "what", nargs="?", choices=["list", "accept"], default="list", help="list (the default), or accept"
    )
    parser.add_argument("ids", type=UUID, nargs="*", metavar="ID", help="accept: the ids that their senders got")
    parser.add_argument("--source", help="show this source only")
    parser.add_argument("--why", choices=[why for why in output.WHY if why], help="show this reason only")
    parser.add_argument("--event", type=UUID, metavar="ID", help="show repetitions of this event only")
    parser.add_argument("--before", type=UUID, metavar="ID", help="show those older than ID (the next page)")
    parser.add_argument(
        "--limit", type=arguments.count, default=20, metavar="N", help="show N deliveries (default 20, at most 1000)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_duplicates)


def _duplicates(options: argparse.Namespace) -> int:
    return _accept(options.ids) if options.what == "accept" else _list(options)


def _list(options: argparse.Namespace) -> int:
    if options.ids:
        raise PosternError("Ids are for `postern duplicates accept`; --event ID lists those of one event.")
    found = operator().perform(
        {
            "action": "duplicates",
            "source": options.source,
            "why": options.why,
            "event_id": options.event and str(options.event),
            "before": options.before and str(options.before),
            "limit": options.limit,
        }
    )
    if options.json:
        print(output.as_json(found))
        return 0
    if not found["duplicates"]:
        print("Nothing was taken for a repetition.")
        return 0
    print(table(found["duplicates"]))
    if found["reasons"]:
        counted = [{**row, "why": output.WHY[row["why"]]} for row in found["reasons"]]
        print("\nOf the last day:\n" + output.table(counted, {"count": "COUNT", "source": "SOURCE", "why": "WHY"}))
    if len(found["duplicates"]) == options.limit:
        print(f"\nThere may be more: --before {found['duplicates'][-1]['id']}")
    show, accept = output.command("show ID"), output.command("duplicates accept ID")
    print(f"\n`{show}` shows one, `{accept}` makes it an event of its own.")
    return 0


def table(duplicates: list[dict[str, Any]]) -> str:
    rows = [{**row, "why": output.WHY[row["why"]], "became": row["accepted_at"] and "an event"} for row in duplicates]
    columns = {"received_at": "RECEIVED", "source": "SOURCE", "type": "TYPE", "why": "WHY", "dedup_key": "KEY"}
    return output.table(rows, {**columns, "id": "ID", "event_id": "OF EVENT", "became": "BECAME"})


def _accept(ids: list[UUID]) -> int:
    if not ids:
        raise PosternError("Which? `postern duplicates` lists them: postern duplicates accept ID")
    on = operator()
    for id in ids:
        done = on.perform({"action": "accept_duplicate", "id": str(id)})
        print(f"{id}  {'let through' if done['accepted'] else 'was let through before'}")
    return 0
