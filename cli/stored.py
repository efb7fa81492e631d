"""Stored events on the command line: `events` lists them, `show` shows one."""

from __future__ import annotations

import argparse
import base64
import sys
from uuid import UUID

from chalicelib.errors import PosternError
from cli import arguments, output
from cli.arguments import Commands
from cli.local import operator


def add_commands(commands: Commands, deployed: argparse.ArgumentParser) -> None:
    parser = commands.add_parser("events", parents=[deployed], help="list stored events, newest first")
    parser.add_argument("--source", help="only of this source")
    parser.add_argument("--type", help="only of this type")
    parser.add_argument("--status", choices=["processed", "failed", "dead"], help="only in this state")
    parser.add_argument("--before", type=UUID, metavar="ID", help="only older than this event, for the next page")
    parser.add_argument(
        "--limit", type=arguments.count, default=20, metavar="N", help="at most so many, up to 1000 (20)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_events)

    parser = commands.add_parser("show", parents=[deployed], help="show one event, with its headers, body and error")
    parser.add_argument("id", type=UUID, metavar="ID", help="the id that the sender got, or an event's")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON; the body in base64")
    form.add_argument("--body", action="store_true", help="print the body, byte for byte as it came")
    parser.set_defaults(run=_show)


def _events(options: argparse.Namespace) -> int:
    filters = {
        "source": options.source,
        "type": options.type,
        "status": options.status,
        "before": str(options.before) if options.before else None,
        "limit": options.limit,
    }
    events = operator().perform({"action": "events", **filters})["events"]
    if options.json:
        print(output.as_json(events))
    elif events:
        columns = {
            "received_at": "RECEIVED",
            "source": "SOURCE",
            "type": "TYPE",
            "status": "STATUS",
            "attempts": "TRIES",
            "id": "ID",
            "error": "ERROR",
        }
        print(output.table(events, columns))
        if len(events) == options.limit:
            print(f"\nThere may be more: --before {events[-1]['id']}")
    else:
        print("No events. `postern send github push` makes one.")
    return 0


def _show(options: argparse.Namespace) -> int:
    event = operator().perform({"action": "show", "id": str(options.id)})["event"]
    if event is None:
        raise PosternError(f"There is no event {options.id}; an accepted one may still be in the queue.")
    if options.body:
        sys.stdout.buffer.write(base64.b64decode(event["body"]))
    elif options.json:
        print(output.as_json(event))
    else:
        print(output.event_page(event))
    return 0
