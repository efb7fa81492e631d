"""What failed, grouped: `issues` lists it, shows one, notes what a person thinks of it, and retries all of it."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from cli import arguments, output
from cli.arguments import Commands
from cli.local import operator

_NOTED = {"ack": "acknowledged", "resolve": "resolved", "reopen": "open"}


def add_commands(commands: Commands, deployed: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "issues",
        parents=[deployed],
        help="list the failures of handlers, grouped; show, acknowledge or resolve one",
        description="Lists failed attempts, grouped by handler and error. To process all events of an issue again: "
        "postern replay --issue ID --status failed --status dead",
    )
    parser.add_argument(
        "id", nargs="?", metavar="ID", help="show this issue (the first 4 characters of its id are enough)"
    )
    parser.add_argument("note", nargs="?", choices=list(_NOTED), help="set its state")
    parser.add_argument("--state", choices=["open", "acknowledged", "resolved"], help="show this state only")
    parser.add_argument("--limit", type=arguments.count, default=20, metavar="N", help="show N issues (default 20)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_issues)


def _issues(options: argparse.Namespace) -> int:
    on = operator()
    if options.id:
        request = {"action": "show_issue", "id": options.id}
        if options.note:
            request = {"action": "set_issue", "id": options.id, "state": _NOTED[options.note]}
        issue = on.perform(request)["issue"]
        print(output.as_json(issue) if options.json else _page(issue))
        return 0
    found = on.perform({"action": "issues", "state": options.state, "limit": options.limit})["issues"]
    if options.json:
        print(output.as_json(found))
    elif found:
        rows = [{**each, "error": f"{each['error_class']}: {each['message']}"} for each in found]
        columns = {
            "id": "ID",
            "state": "STATE",
            "count": "COUNT",
            "first_seen": "FIRST",
            "last_seen": "LAST",
            "handler": "HANDLER",
            "error": "ERROR",
        }
        print(output.table(rows, columns))
    else:
        print("No issues: nothing has failed.")
    return 0


def _page(issue: Mapping[str, Any]) -> str:
    facts = {
        "issue": issue["id"],
        "state": issue["state"],
        "handler": issue["handler"],
        "error": f"{issue['error_class']}: {issue['message']}",
        "count": issue["count"],
        "first": f"{issue['first_seen']}  {issue['first_event']}",
        "last": f"{issue['last_seen']}  {issue['last_event']}",
        "events now": ", ".join(f"{count:,} {status}" for status, count in issue["events"].items()) or "none stored",
    }
    sections = [output.facts(facts)]
    if issue["attempts"]:
        columns = {"started_at": "TRIED", "source": "SOURCE", "type": "TYPE", "status": "STATUS NOW", "id": "EVENT"}
        sections.append(output.table(issue["attempts"], columns))
    if issue["traceback"]:
        sections.append("Latest traceback\n" + output.indented(issue["traceback"]))
    if issue["events"].keys() & {"failed", "dead"}:
        sections.append(
            "When it is mended: " + output.command(f"dry-run {issue['last_event']}") + "\n"
            "                   " + output.command(f"replay --issue {issue['id']} --status failed --status dead")
        )
    return "\n\n".join(sections)
