"""Stored events on the command line: `events` lists them, `show` shows one."""

from __future__ import annotations

import argparse
import base64
import sys
import time
from collections.abc import Mapping
from typing import Any, NoReturn
from uuid import UUID

from chalicelib.postern.contract.deliveries import moment_of
from chalicelib.postern.contract.errors import PosternError
from cli import arguments, duplicates, output
from cli.arguments import Commands
from cli.filters import add_filters, filters_of
from cli.local import Operator, operator

_FOLLOW_SECONDS = 1.0
_REMEMBERED = 10_000


def add_commands(commands: Commands, deployed: argparse.ArgumentParser) -> None:
    parser = commands.add_parser("events", parents=[deployed], help="list stored events, newest first")
    add_filters(parser)
    parser.add_argument("--error", metavar="TEXT", help="only events with TEXT in the error")
    parser.add_argument("--attempts", type=arguments.count, metavar="N", help="only events with N attempts or more")
    parser.add_argument("--before", type=UUID, metavar="ID", help="only events older than ID (the next page)")
    parser.add_argument(
        "--limit", type=arguments.count, default=20, metavar="N", help="show N events (default 20, at most 1000)"
    )
    parser.add_argument("--follow", action="store_true", help="keep printing new events until Ctrl-C, oldest first")
    parser.add_argument("--json", action="store_true", help="print JSON; with --follow, one object per line")
    parser.set_defaults(run=_events)

    parser = commands.add_parser("show", parents=[deployed], help="show one event, with its headers, body and error")
    parser.add_argument("id", metavar="ID", help="the id that the sender got, the event's, or the provider's")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON; the body in base64")
    form.add_argument("--body", action="store_true", help="print the body, byte for byte as it came")
    parser.set_defaults(run=_show)


_COLUMNS = {
    "received_at": "RECEIVED",
    "source": "SOURCE",
    "type": "TYPE",
    "status": "STATUS",
    "attempts": "TRIES",
    "id": "ID",
    "error": "ERROR",
}


def _events(options: argparse.Namespace) -> int:
    filters = {**filters_of(options), "error": options.error, "attempts": options.attempts, "limit": options.limit}
    on = operator()
    if options.follow:
        _follow(on, filters, as_json=options.json)
    before = str(options.before) if options.before else None
    found = on.perform({"action": "events", **filters, "before": before})
    events, searched_to = found["events"], found["searched_to"]
    if options.json:
        print(output.as_json(events))
    elif events:
        print(output.table(events, _COLUMNS))
        if len(events) == options.limit:
            print(f"\nThere may be more: --before {events[-1]['id']}")
    elif not searched_to:
        print("No events. `postern send github push` makes one.")
    if searched_to:
        at = moment_of(UUID(searched_to)).isoformat(timespec="seconds")
        print(f"\nSearched back to {at} in the time there was; to go on: --before {searched_to}", file=sys.stderr)
    return 0


def _follow(on: Operator, filters: Mapping[str, Any], *, as_json: bool) -> NoReturn:
    """Prints each event once, as it is when it is first seen, and again when its status or its tries change."""
    known: dict[str, tuple[str, int]] = {}
    widths: dict[str, int] = {}
    while True:
        found = on.perform({"action": "events", **filters})["events"]
        for event in reversed(found):
            now = (event["status"], event["attempts"])
            if known.get(event["id"]) == now:
                continue
            known[event["id"]] = now
            print(output.as_json_line(event) if as_json else output.row(event, _COLUMNS, widths), flush=True)
        # As many as a page may have again.
        for id in list(known)[:-_REMEMBERED]:
            del known[id]
        time.sleep(_FOLLOW_SECONDS)


def _show(options: argparse.Namespace) -> int:
    on = operator()
    id = _as_uuid(options.id)
    event = on.perform({"action": "show", "id": id})["event"] if id else None
    if event is None:
        found = on.perform({"action": "find", "key": options.id})
        if len(found["events"]) != 1:
            return _show_known(options.id, found, as_json=options.json)
        event = on.perform({"action": "show", "id": found["events"][0]["id"]})["event"]
    if options.body:
        sys.stdout.buffer.write(base64.b64decode(event["body"]))
    elif options.json:
        print(output.as_json(event))
    else:
        print(output.event_page(event))
    return 0


def _as_uuid(text: str) -> str | None:
    try:
        return str(UUID(text))
    except ValueError:
        return None


def _show_known(key: str, found: Mapping[str, Any], *, as_json: bool) -> int:
    """What came with this id of a provider's, where that is not one event."""
    if as_json and any(found.values()):
        print(output.as_json(found))
        return 0 if found["events"] else 1
    parts = []
    if found["events"]:
        parts.append(f"{len(found['events'])} events:\n{output.table(found['events'], _COLUMNS)}")
    if found["duplicates"]:
        parts.append(f"Taken for a repetition:\n{duplicates.table(found['duplicates'])}")
    if found["rejected"]:
        columns = {"received_at": "RECEIVED", "source": "SOURCE", "reason": "REASON", "id": "ID", "event_id": "EVENT"}
        parts.append(f"Refused, with this in headers or body:\n{output.table(found['rejected'], columns)}")
    parts += [
        f"{held['source']}: it came {held['claimed_at']} as event {held['event_id']}, which is no longer stored."
        for held in found["keys"]
    ]
    if not parts:
        raise PosternError(
            f"Nothing is known of '{output.plain(key)}', neither as an id that a sender got nor as a provider's. "
            "An accepted event may still be in the queue."
        )
    print("\n\n".join(parts))
    return 0 if found["events"] else 1
