"""Dead letters: `dead` lists them, moves them back to the queue, or deletes them."""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any
from uuid import UUID

from chalicelib.postern.contract.errors import PosternError
from cli import arguments, output
from cli.arguments import Commands
from cli.local import Operator, operator

_STEP_SECONDS = 1.0


def add_commands(commands: Commands, deployed: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "dead",
        parents=[deployed],
        help="list dead letters, move them back to the queue, or delete them",
        description="Dead letters are the messages of events that were given up. Their events are stored with status "
        "dead, bytes and all (postern events --status dead); redriving a letter gives its event its attempts anew.",
    )
    parser.add_argument(
        "what",
        nargs="?",
        choices=["list", "redrive", "purge", "sweep"],
        default="list",
        help="list (the default); redrive: back to the queue; purge: delete, the events stay stored; sweep: delete "
        "those whose events have been processed since",
    )
    parser.add_argument("--id", type=UUID, metavar="ID", help="redrive this event's letter only")
    parser.add_argument("--source", help="redrive this source's letters only")
    parser.add_argument("--type", help="redrive this type's letters only")
    parser.add_argument(
        "--limit", type=int, metavar="N", help="handle N letters at most (default: list 20; redrive and purge all)"
    )
    parser.add_argument(
        "--rate", type=arguments.count, default=50, metavar="N", help="redrive N letters per second (default 50)"
    )
    parser.add_argument("--resume", type=UUID, metavar="REDRIVE", help="resume this redrive")
    parser.add_argument("--yes", action="store_true", help="skip the confirmation")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_dead)


def _dead(options: argparse.Namespace) -> int:
    on = operator()
    return {"list": _list, "redrive": _redrive, "purge": _purge, "sweep": _sweep}[options.what](on, options)


def _list(on: Operator, options: argparse.Namespace) -> int:
    found = on.perform({"action": "dead_letters", "limit": min(options.limit or 20, 200)})
    if options.json:
        print(output.as_json(found))
        return 0
    if not found["letters"]:
        print("No dead letters.")
        return 0
    rows = [{**letter, "id": letter["id"] or "(cannot be read)"} for letter in found["letters"]]
    columns = {
        "sent_at": "SINCE",
        "source": "SOURCE",
        "type": "TYPE",
        "status": "STATUS",
        "attempts": "TRIES",
        "id": "ID",
        "reason": "REASON",
    }
    print(output.table(rows, columns))
    if found["waiting"] > len(rows):
        print(f"\nThese are some of about {found['waiting']:,}.")
    return 0


def _redrive(on: Operator, options: argparse.Namespace) -> int:
    if options.resume:
        redrive = on.perform({"action": "show_replay", "id": str(options.resume)})["replay"]
        if redrive["kind"] != "redrive":
            raise PosternError(f"{options.resume} is a replay: {output.command(f'replay --resume {options.resume}')}")
    else:
        asked: dict[str, Any] = {
            "id": str(options.id) if options.id else None,
            "source": options.source,
            "type": options.type,
        }
        waiting = on.perform({"action": "dead_letters", "limit": 1})["waiting"]
        if not waiting:
            print("No dead letters.", file=sys.stderr)
            return 1
        whose = " ".join(f"{name} {value}" for name, value in asked.items() if value)
        number = min(options.limit or waiting, waiting)
        question = f"Move up to {number:,} dead letters{f' of {whose}' if whose else ''} back to the queue?"
        if not options.yes and not arguments.confirmed(question):
            return 1
        most = {"most": options.limit} if options.limit else {}
        redrive = on.perform({"action": "start_redrive", **asked, **most, "rate": options.rate})["replay"]
    bar = output.Progress()
    with bar.resumed_by(f"dead redrive --resume {redrive['id']}"):
        while redrive["state"] == "running":
            redrive = on.perform({"action": "advance_redrive", "id": redrive["id"]})["replay"]
            bar.show(redrive["moved"], redrive["total"])
            if redrive["state"] == "running":
                time.sleep(_STEP_SECONDS)
    if options.json:
        print(output.as_json(redrive))
    else:
        print(f"{redrive['moved']:,} dead letters are back on the queue ({redrive['id']}, {redrive['state']}).")
    return 0 if redrive["state"] == "done" else 1


def _purge(on: Operator, options: argparse.Namespace) -> int:
    waiting = on.perform({"action": "dead_letters", "limit": 1})["waiting"]
    number = min(options.limit or waiting, waiting)
    if not number:
        print("No dead letters.", file=sys.stderr)
        return 1
    if not options.yes and not arguments.confirmed(
        f"Delete {number:,} dead letters for good? Their events stay stored, as dead."
    ):
        return 1
    deleted = 0
    bar = output.Progress()
    while deleted < number:
        gone = on.perform({"action": "purge_dead_letters", "most": number - deleted})["deleted"]
        if not gone:
            break
        deleted += gone
        bar.show(deleted, number)
    bar.end()
    print(output.as_json({"deleted": deleted}) if options.json else f"Deleted {deleted:,} dead letters.")
    return 0


def _sweep(on: Operator, options: argparse.Namespace) -> int:
    swept = on.perform({"action": "sweep_dead_letters", "most": options.limit or 1000})
    left = f"about {swept['waiting']:,} are left"
    print(output.as_json(swept) if options.json else f"Deleted {swept['deleted']:,} needless letters; {left}.")
    return 0
