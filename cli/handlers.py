"""`postern handlers`: which of the team's functions takes what, and how it does."""

from __future__ import annotations

import argparse
import sys

from cli import output
from cli.arguments import Commands
from cli.local import operator

_COLUMNS = {
    "name": "HANDLER",
    "takes": "TAKES",
    "events": "DAY",
    "p50_ms": "P50 MS",
    "p95_ms": "P95 MS",
    "failures": "FAILED IN A WEEK",
    "last_failure": "LAST FAILURE",
}


def add_commands(commands: Commands, deployed: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "handlers",
        parents=[deployed],
        help="list your handlers: what each takes, how often, how long it takes, what failed",
        description="Lists the handlers. Their times are those of the events that they take, all handlers of each "
        "together. Exit code 1 when one is probably not what was meant.",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_handlers)


def _handlers(options: argparse.Namespace) -> int:
    found = operator().perform({"action": "handlers"})
    if options.json:
        print(output.as_json(found))
    elif found["registered"]:
        rows = [
            {
                **each,
                "takes": f"{each['source']} {each['type']}",
                **{name: None if each[name] is None else round(each[name], 1) for name in ("p50_ms", "p95_ms")},
            }
            for each in found["registered"]
        ]
        print(output.table(rows, _COLUMNS))
    else:
        print("No handlers: events are stored, and nothing else is done (docs/handlers.md).")
    for doubt in found["doubts"]:
        print(f"\n{output.plain(doubt)}", file=sys.stderr)
    return 1 if found["doubts"] else 0
