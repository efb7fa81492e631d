"""Processing again: `replay` puts stored events back on the queue, `replays` lists what was asked for."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from chalicelib.postern.contract.errors import PosternError
from cli import arguments, output
from cli.arguments import Commands
from cli.filters import add_filters, filters_of
from cli.local import Operator, operator

_STEP_SECONDS = 1.0
_SINGLE_SECONDS = 0.1


def add_commands(commands: Commands, deployed: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "replay",
        parents=[deployed],
        help="process stored events again: the ones named, or all that match",
        description="Processes stored events once more, with today's handlers: those that are named, or all that "
        "match. What matches is counted and shown first. Ctrl-C pauses; --resume goes on, --cancel ends it.",
    )
    parser.add_argument("ids", type=UUID, nargs="*", metavar="ID", help="the ids of the events")
    add_filters(parser)
    parser.add_argument("--all", action="store_true", help="replay every stored event (needed when no filter is given)")
    parser.add_argument("--plan", action="store_true", help="count and show what matches; replay nothing")
    parser.add_argument("--yes", action="store_true", help="skip the confirmation")
    parser.add_argument(
        "--rate", type=arguments.count, default=50, metavar="N", help="replay N events per second (default 50)"
    )
    parser.add_argument(
        "--limit", type=int, default=100_000, metavar="N", help="replay the oldest N events (default 100000)"
    )
    parser.add_argument("--resume", type=UUID, metavar="REPLAY", help="resume this replay")
    parser.add_argument("--cancel", type=UUID, metavar="REPLAY", help="cancel this replay or redrive")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_replay)

    parser = commands.add_parser("replays", parents=[deployed], help="list replays and redrives, newest first")
    parser.add_argument("id", type=UUID, nargs="?", metavar="ID", help="show this replay, with what failed")
    parser.add_argument("--limit", type=arguments.count, default=20, metavar="N", help="show N replays (default 20)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_replays)


def _replay(options: argparse.Namespace) -> int:
    on = operator()
    if options.cancel:
        return _cancel(on, options)
    if options.resume:
        found = on.perform({"action": "show_replay", "id": str(options.resume)})["replay"]
        if found["kind"] != "replay":
            raise PosternError(
                f"{options.resume} is a redrive: {output.command(f'dead redrive --resume {options.resume}')}"
            )
        return _watch(on, str(options.resume), as_json=options.json)
    filters = filters_of(options)
    if options.ids and filters:
        raise PosternError("Say which events, or what they have in common: not both.")
    if not options.ids and not filters and not options.all:
        raise PosternError("That would be every event. Name some, narrow it (--source, --status, …), or say --all.")
    if options.ids:
        filters = {"ids": [str(id) for id in options.ids]}
    plan = on.perform({"action": "plan_replay", **filters})
    if options.ids and plan["count"] < len(set(options.ids)):
        found = {each["id"] for each in on.perform({"action": "events", **filters, "limit": 1000})["events"]}
        missing = [str(id) for id in options.ids if str(id) not in found]
        raise PosternError(f"There is no event {', '.join(missing)}; an accepted one may still be in the queue.")
    if options.plan:
        print(output.as_json(plan) if options.json else _plan(plan))
        return 0
    if not plan["count"]:
        print("Nothing matches.", file=sys.stderr)
        return 1
    if not options.ids and not options.yes:
        print(_plan(plan), file=sys.stderr)
        number = min(plan["count"], options.limit)
        if not arguments.confirmed(f"\nProcess {number:,} events again, {options.rate} a second?"):
            return 1
    started = on.perform({"action": "start_replay", **filters, "rate": options.rate, "most": options.limit})
    return _watch(on, started["replay"]["id"], as_json=options.json)


def _plan(plan: Mapping[str, Any]) -> str:
    statuses = ", ".join(f"{count:,} {status}" for status, count in plan["by_status"].items())
    lines = [f"{plan['count']:,} events match" + (f": {statuses}" if statuses else "")]
    if plan["sample"]:
        columns = {"received_at": "RECEIVED", "source": "SOURCE", "type": "TYPE", "status": "STATUS", "id": "ID"}
        lines += ["", output.table(plan["sample"], {**columns, "error": "ERROR"})]
        if plan["count"] > len(plan["sample"]):
            lines.append(f"… and {plan['count'] - len(plan['sample']):,} more")
    return "\n".join(lines)


def _watch(on: Operator, id: str, *, as_json: bool) -> int:
    """Advances it until it is done. 0 when every event of it was processed."""
    bar = output.Progress()
    with bar.resumed_by(f"replay --resume {id}"):
        while True:
            answer = on.perform({"action": "advance_replay", "id": id})
            replay = answer["replay"]
            settled = _settled(replay)
            bar.show(settled, replay["total"], answer["held"] or "")
            if replay["state"] != "running":
                break
            time.sleep(_SINGLE_SECONDS if replay["total"] <= 10 else _STEP_SECONDS)
    if replay["states"].get("processed") or replay["states"].get("stale"):
        # Where dead events were among them, their letters have become needless.
        _sweep(on)
    print(output.as_json(replay) if as_json else _page(replay))
    return 0 if _succeeded(replay) == replay["total"] else 1


def _sweep(on: Operator) -> None:
    on.perform({"action": "sweep_dead_letters", "most": 1000})


def _settled(replay: Mapping[str, Any]) -> int:
    states = replay["states"]
    return int(replay["total"]) - int(states.get("waiting", 0)) - int(states.get("queued", 0))


def _succeeded(replay: Mapping[str, Any]) -> int:
    return int(replay["states"].get("processed", 0)) + int(replay["states"].get("stale", 0))


def _page(replay: Mapping[str, Any]) -> str:
    states = ", ".join(f"{count:,} {state}" for state, count in replay["states"].items()) or "no events"
    moved = f", {replay['moved']:,} moved to the queue" if replay["kind"] == "redrive" else ""
    lines = [f"{replay['kind']} {replay['id']}: {replay['state']}; {states if not moved else ''}{moved.lstrip(', ')}"]
    if replay.get("failures"):
        lines += ["", output.table(replay["failures"], {"id": "FAILED", "tries": "TRIES", "error": "ERROR"})]
    return "\n".join(lines)


def _cancel(on: Operator, options: argparse.Namespace) -> int:
    answer = on.perform({"action": "cancel_replay", "id": str(options.cancel)})
    if options.json:
        print(output.as_json(answer))
    elif answer["cancelled"]:
        print(f"Cancelled. {_page(answer['replay'])}")
    else:
        print(f"It runs no more. {_page(answer['replay'])}", file=sys.stderr)
    return 0 if answer["cancelled"] else 1


def _replays(options: argparse.Namespace) -> int:
    if options.id:
        replay = operator().perform({"action": "show_replay", "id": str(options.id)})["replay"]
        print(output.as_json(replay) if options.json else _page(replay))
        return 0
    found = operator().perform({"action": "replays", "limit": options.limit})["replays"]
    if options.json:
        print(output.as_json(found))
    elif found:
        rows = [{**each, "filter": output.as_line(each["filter"])} for each in found]
        columns = {
            "created_at": "STARTED",
            "kind": "KIND",
            "state": "STATE",
            "total": "EVENTS",
            "moved": "QUEUED",
            "failed": "FAILED",
            "id": "ID",
            "filter": "OF",
        }
        print(output.table(rows, columns))
    else:
        print("No replays. `postern replay ID` makes one.")
    return 0
