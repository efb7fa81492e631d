"""`postern listen`: brings what a stage receives from now on to an address on this machine, or to its handlers."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping
from typing import Any

from chalicelib.postern.contract.errors import PosternError
from chalicelib.postern.receiving.sources import load_sources
from cli import output
from cli.arguments import Commands, url
from cli.feed import Feed
from cli.local import LocalRun, operator
from cli.targets import Address, LocalHandlers, Sent, Target

_EVERY_SECONDS = 1.0


def add_commands(commands: Commands, deployed: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "listen", parents=[deployed], help="print events as they arrive, and forward them to this machine"
    )
    parser.add_argument("--source", help="only events of this source")
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
    number = 0
    try:
        feed = Feed(operator(), options.source, say=_say, wait=time.sleep)
        _say(f"Listening{f' to {options.source}' if options.source else ''}. Ctrl-C stops it.")
        while True:
            for found in feed.poll():
                _print(found, _send(feed, found, target), as_json=options.json)
                number += 1
            time.sleep(_EVERY_SECONDS)
    except KeyboardInterrupt:
        # The terminal has shown ^C.
        print(f"\nStopped after {number:,} event{'' if number == 1 else 's'}.", file=sys.stderr)
        return 130


def _target(options: argparse.Namespace) -> Target | None:
    if options.to:
        return Address(options.to, _say, time.sleep)
    if not options.handlers:
        return None
    if not any(os.environ.get(name) for name in ("STORE_FUNCTION", "DATABASE_URL", "DATABASE_SECRET_ID")):
        raise PosternError("The local run's handlers have its own events already: name a stage with --stage.")
    run = LocalRun.find()
    return LocalHandlers(run, load_sources(run.sources_file))


def _send(feed: Feed, found: Mapping[str, Any], target: Target | None) -> Sent:
    if target is None:
        return Sent(found["status"])
    event = feed.show(found["id"])
    if event is None:
        return Sent("skipped: it cannot be read", ok=False)
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
