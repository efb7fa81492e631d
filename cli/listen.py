"""`postern listen`: brings what an inbox receives, or has received, to an address of this machine, or its handlers."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from chalicelib.postern.contract.errors import PosternError
from chalicelib.postern.receiving.sources import load_sources
from cli import output
from cli.arguments import Commands, moment, url
from cli.cursors import KeptCursor, cursor_name
from cli.feed import Feed
from cli.local import LocalRun, operator
from cli.targets import Address, LocalHandlers, Sent, Target

_EVERY_SECONDS = 1.0
_AGAIN_SECONDS = 15.0


def add_commands(commands: Commands, deployed: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "listen", parents=[deployed], help="print events as they arrive, and forward them to this machine"
    )
    parser.add_argument("--source", help="only events of this source")
    begin = parser.add_mutually_exclusive_group()
    begin.add_argument(
        "--since", type=moment, metavar="TIME", help="first what was received since: 30m, 24h, 7d, 2026-11-23 …"
    )
    begin.add_argument("--from", dest="first", type=UUID, metavar="ID", help="first this event and what came behind it")
    parser.add_argument(
        "--cursor",
        type=cursor_name,
        metavar="NAME",
        help="go on where it was under this name, and remember how far it came (--since and --from: the first time)",
    )
    target = parser.add_mutually_exclusive_group()
    target.add_argument(
        "--to", type=url, metavar="URL", help="POST each event to URL, such as http://localhost:3000/hook"
    )
    target.add_argument(
        "--handlers", action="store_true", help="process each with the local run's handlers (needs --stage)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object per line")
    parser.set_defaults(run=listen)


def listen(options: argparse.Namespace) -> int:
    target = _target(options)
    kept = KeptCursor(options.cursor, options.stage) if options.cursor else None
    begin = _begin(options, kept)
    number = 0
    try:
        feed = Feed(operator(), options.source, begin=begin, say=_say, wait=time.sleep)
        if feed.kept_since is not None:
            _say(f"Nothing that was received before {feed.kept_since[:10]} is here, but perhaps what failed.")
        _say(f"Listening{f' to {options.source}' if options.source else ''}. Ctrl-C stops it.")
        while True:
            for found in feed.poll():
                _hand_over(feed, found, target, kept, as_json=options.json)
                number += 1
            if kept is not None:
                kept.move(feed.cursor)
            if not feed.more:
                time.sleep(_EVERY_SECONDS)
    except KeyboardInterrupt:
        # The terminal has shown ^C.
        print(f"\nStopped after {number:,} event{'' if number == 1 else 's'}.", file=sys.stderr)
        return 130


def _begin(options: argparse.Namespace, kept: KeptCursor | None) -> dict[str, Any]:
    """The arguments of the stream's first page."""
    if kept is not None and (cursor := kept.read()) is not None:
        if options.since or options.first:
            _say(f"The cursor {options.cursor} goes on where it was; to begin anew, delete {kept.file}.")
        return {"cursor": cursor}
    if options.since:
        return {"since": options.since.isoformat()}
    return {"first": str(options.first)} if options.first else {"cursor": "now"}


def _target(options: argparse.Namespace) -> Target | None:
    if options.to:
        return Address(options.to, _say, time.sleep)
    if not options.handlers:
        return None
    if not any(os.environ.get(name) for name in ("STORE_FUNCTION", "DATABASE_URL", "DATABASE_SECRET_ID")):
        raise PosternError("The local run's handlers have its own events already: name a stage with --stage.")
    run = LocalRun.find()
    return LocalHandlers(run, load_sources(run.sources_file))


def _hand_over(
    feed: Feed, found: Mapping[str, Any], target: Target | None, kept: KeptCursor | None, *, as_json: bool
) -> None:
    """Nothing is left behind of which a cursor is kept: it waits for a target that does not answer."""
    sent = _send(feed, found, target)
    while kept is not None and not sent.arrived:
        _say(f"{found['id']} is waited for ({sent.outcome}); again in {_AGAIN_SECONDS:.0f} s.")
        time.sleep(_AGAIN_SECONDS)
        sent = _send(feed, found, target)
    _print(found, sent, as_json=as_json)
    if kept is not None:
        kept.move(found["cursor"])


def _send(feed: Feed, found: Mapping[str, Any], target: Target | None) -> Sent:
    if target is None:
        return Sent(found["status"])
    try:
        event = feed.show(found["id"])
    except PosternError as exc:
        return Sent(f"skipped: it cannot be read ({exc})", ok=False, arrived=False)
    if event is None:
        return Sent("skipped: it is gone", ok=False)
    return target.send(event)


def _print(found: Mapping[str, Any], sent: Sent, *, as_json: bool) -> None:
    if as_json:
        facts = {name: found[name] for name in ("id", "received_at", "source", "type", "status")}
        line = json.dumps({**facts, "sent": sent.outcome, "ok": sent.ok})
    else:
        at = found["received_at"].partition("T")[2].partition(".")[0].removesuffix("Z")
        line = output.plain(f"{at}  {found['source']}  {found['type']}  {found['id']}  {sent.outcome}").replace(
            "\n", " "
        )
    print(line, flush=True)


def _say(sentence: str) -> None:
    print(output.plain(sentence).replace("\n", " "), file=sys.stderr, flush=True)
