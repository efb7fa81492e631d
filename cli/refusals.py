"""What was refused, and with which secrets: the commands that need the sources' secrets beside the database.

The functions that have the one have not the other, so it is here, with the operator's own rights, that they meet.
"""

from __future__ import annotations

import argparse
import base64
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from chalicelib.postern.adapters.secrets import SourceSecrets
from chalicelib.postern.adapters.sqs import SqsQueue
from chalicelib.postern.contract.errors import ConfigurationError, PosternError, QueueUnavailable, SecretUnavailable
from chalicelib.postern.receiving import naming
from chalicelib.postern.receiving.explain import Finding
from chalicelib.postern.receiving.ingest import Inbox, Queue
from chalicelib.postern.receiving.second_look import THROUGH, THROUGH_BEFORE, THROUGH_THOUGH_STALE, SecondLook
from chalicelib.postern.receiving.sources import Source, load_sources
from chalicelib.postern.running import wiring
from chalicelib.postern.running.config import Config
from cli import arguments, output
from cli import sources as adding
from cli.arguments import Commands
from cli.local import LocalRun, Operator, operator

# A secret that verified nothing for so long, while another one did, can go.
_RETIRED_AFTER = timedelta(days=7)
# The most that one question may ask for.
_PAGE = 1_000


def add_commands(commands: Commands, deployed: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "sources", parents=[deployed], help="list sources, and which of their secrets are in use; or add one"
    )
    adding.add_commands(parser.add_subparsers(title="commands", metavar="COMMAND"), deployed)
    parser.add_argument("--days", type=arguments.count, default=30, metavar="N", help="look back N days (default 30)")
    parser.add_argument("--json", action="store_true", help="print JSON, for every source")
    parser.set_defaults(run=sources, needs_secrets=True)

    parser = commands.add_parser("rejected", parents=[deployed], help="list refused deliveries, newest first")
    parser.add_argument("--source", help="only deliveries of this source")
    parser.add_argument("--pending", action="store_true", help="only deliveries that have not become events")
    parser.add_argument("--before", type=UUID, metavar="ID", help="only deliveries older than ID (the next page)")
    parser.add_argument(
        "--limit", type=arguments.count, default=20, metavar="N", help="show N deliveries (default 20, at most 1000)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=rejected)

    parser = commands.add_parser("explain", parents=[deployed], help="explain why a delivery was refused")
    parser.add_argument("id", type=UUID, metavar="ID", help="an id that `postern rejected` lists")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=explain, needs_secrets=True)

    parser = commands.add_parser(
        "reverify", parents=[deployed], help="verify refused deliveries again, and accept the good ones"
    )
    parser.add_argument("ids", type=UUID, nargs="*", metavar="ID", help="the deliveries to verify (default: all)")
    parser.add_argument("--source", help="only deliveries of this source")
    parser.add_argument(
        "--accept-stale", action="store_true", help="also accept those with a right signature whose time is too old"
    )
    parser.set_defaults(run=reverify, needs_secrets=True)


def rejected(options: argparse.Namespace) -> int:
    filters = {"source": options.source, "pending": options.pending, "limit": options.limit}
    before = str(options.before) if options.before else None
    found = operator().perform({"action": "rejected", "before": before, **filters})
    if options.json:
        print(output.as_json(found))
        return 0
    if not found["rejected"]:
        print("Nothing was kept. What verifies and is refused is; with `quarantine = true`, some of the rest.")
        return 0
    columns = {"received_at": "RECEIVED", "source": "SOURCE", "reason": "REASON", "from": "FROM", "bytes": "BYTES"}
    rows = [{**row, "from": "its sender" if row["verified"] else "anybody"} for row in found["rejected"]]
    print(output.table(rows, {**columns, "id": "ID", "event_id": "EVENT"}))
    if found["reasons"]:
        print("\n" + output.table(found["reasons"], {"count": "COUNT", "source": "SOURCE", "reason": "REASON"}))
    if len(found["rejected"]) == options.limit:
        print(f"\nThere may be more: --before {found['rejected'][-1]['id']}")
    print(
        f"\n`{output.command('explain ID')}` says why, `{output.command('reverify')}` lets through what verifies now."
    )
    return 0


def explain(options: argparse.Namespace) -> int:
    here = _Here.find()
    found, findings = _explained(str(options.id), here)
    if options.json:
        facts = {name: found[name] for name in ("id", "source", "received_at", "reason", "event_id")}
        print(output.as_json({**facts, "causes": [asdict(finding) for finding in findings]}))
        return 0
    print(output.plain(f"{found['source']}, {found['received_at']}: refused for '{found['reason']}'."))
    if found["event_id"]:
        print("It was let through: " + output.command(f"show {found['event_id']}"))
    for finding in findings:
        print(output.plain(f"  {finding.cause}: {finding.sentence}"))
    if found["reason"] == "verification_token":
        print("  The body, which holds the token for you to read:")
        print(f"  {output.plain(base64.b64decode(found['body']))}")
        _warn_of_others(found["source"], here.on)
    return 0


def causes(id: str) -> list[dict[str, Any]]:
    """Why this delivery was refused, the likeliest first. Raises PosternError."""
    _, findings = _explained(id, _Here.find())
    return [asdict(finding) for finding in findings]


def _explained(id: str, here: _Here) -> tuple[dict[str, Any], list[Finding]]:
    found = here.on.perform({"action": "show_rejected", "id": id})["rejected"]
    if found is None:
        raise PosternError(f"There is no refused delivery {id}; `postern rejected` lists those that were kept.")
    return found, here.second_look(_Nowhere()).causes(found)


def _warn_of_others(source: str, on: Operator) -> None:
    """Of several tokens only one is the provider's."""
    page = on.perform({"action": "rejected", "source": source, "pending": True, "before": None, "limit": _PAGE})
    tokens = [each["id"] for each in page["rejected"] if each["reason"] == "verification_token"]
    if len(tokens) > 1:
        print(f"  Warning: {len(tokens)} requests brought a token, and anybody can send one. The provider's form takes")
        print("  only its own; put no other into the secret. These are all:")
        for id in tokens:
            print(f"    {output.command(f'explain {id}')}")


def reverify(options: argparse.Namespace) -> int:
    here = _Here.find()
    look = here.second_look(SqsQueue(Config.from_environ(os.environ).need("queue_url")))
    ids = [str(id) for id in options.ids] or _pending(options.source, here.on)
    became: Counter[str] = Counter()
    for id in ids:
        found = here.on.perform({"action": "show_rejected", "id": id})["rejected"]
        words = _let_through(found, look, here.on, stale=options.accept_stale)
        print(f"{id}  {words}")
        became[words] += 1
    print(f"{became[THROUGH] + became[THROUGH_THOUGH_STALE]} of {len(ids)} let through.")
    for words, number in became.most_common():
        if words != THROUGH:
            print(f"{number:>6}  {words}")
    if any("timestamp_stale" in words for words in became):
        print("What is only too old comes through with --accept-stale.")
    let_through = became[THROUGH] + became[THROUGH_THOUGH_STALE] + became[THROUGH_BEFORE]
    return 0 if not ids or let_through else 1


def _let_through(found: Mapping[str, Any] | None, look: SecondLook, on: Operator, *, stale: bool) -> str:
    if found is None:
        return "there is no such delivery"
    try:
        outcome = look.let_through(found, stale=stale)
    except QueueUnavailable as exc:
        raise PosternError(f"{found['id']} could not be let through: {exc.reason}.") from exc
    if outcome.event is not None:
        became = {"event_id": str(outcome.event), "note": outcome.note}
        on.perform({"action": "resolve_rejected", "id": found["id"], **became})
    return outcome.words


def _pending(source: str | None, on: Operator) -> list[str]:
    """All that have become no event."""
    ids: list[str] = []
    while True:
        asked = {"source": source, "pending": True, "before": ids[-1] if ids else None, "limit": _PAGE}
        page = on.perform({"action": "rejected", **asked})["rejected"]
        ids += [each["id"] for each in page]
        if len(page) < _PAGE:
            return ids


def sources(options: argparse.Namespace) -> int:
    here = _Here.find()
    used = here.on.perform({"action": "secrets_used", "days": options.days})["secrets"]
    rows = []
    secrets = here.secrets()
    for name in here.sources:
        rows += _rows(name, secrets.get(name, []), [each for each in used if each["source"] == name])
    if options.json:
        print(output.as_json(rows))
        return 0
    columns = {"source": "SOURCE", "secret": "SECRET", "events": "EVENTS", "last": "LAST", "says": ""}
    print(output.table([row for row in rows if row["events"] or row["listed"] > 1] or rows, columns))
    print(f"\nEvents of the last {options.days} days. Sources without any and with one secret are left out.")
    return 0


def _rows(source: str, secrets: Sequence[str], used: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for each secret: the listed ones in their order, then those that are listed no more."""
    listed = [naming.fingerprint(source, secret) for secret in secrets]
    by_secret = {each["secret"]: each for each in used}
    rows = []
    for name in dict.fromkeys([*listed, *by_secret]):
        found = by_secret.get(name)
        row: dict[str, Any] = {"source": source, "secret": name or "none", "says": "", "listed": len(listed)}
        if name in listed:
            at = listed.index(name)
            row["secret"] += f" ({at + 1} of {len(listed)})"
            newer = [by_secret[other] for other in listed[:at] if other in by_secret]
            if since := _retired_since(found, newer):
                row["says"] = f"safe to retire: newer ones have verified everything since {since:%Y-%m-%d %H:%M}"
        elif name is not None:
            row["says"] = "no longer listed"
        rows.append({**row, "events": found["events"] if found else 0, "last": found["last"] if found else None})
    return rows


def _retired_since(older: Mapping[str, Any] | None, newer: Sequence[Mapping[str, Any]]) -> datetime | None:
    """Since when newer secrets have verified everything, where that is a week or longer.

    What counts are events: in a week without any, nothing is learned about a secret. A new one that verified nothing
    yet is not an old one.
    """
    if not newer:
        return None
    since = min(datetime.fromisoformat(each["first"]) for each in newer)
    if older:
        since = max(since, datetime.fromisoformat(older["last"]))
    until = max(datetime.fromisoformat(each["last"]) for each in newer)
    return since if until - since >= _RETIRED_AFTER else None


@dataclass(frozen=True)
class _Here:
    """An installation's sources with their secrets, and its database: a deployed stage's, which the environment names,
    or the local run's.
    """

    sources: Mapping[str, Source]
    secrets_of: Callable[[str], list[str]]
    previous_of: Callable[[str], list[str]]
    on: Operator

    @classmethod
    def find(cls) -> _Here:
        config = Config.from_environ(os.environ)
        if config.sources_secret_id:
            return cls._of_stage(config, config.sources_secret_id)
        if os.environ.get("STORE_FUNCTION"):
            raise ConfigurationError("STORE_FUNCTION names a stage, and SOURCES_SECRET_ID does not name its secrets.")
        run = LocalRun.find()
        os.environ.update(run.environ())
        return cls(load_sources(run.sources_file), run.secrets_of(), lambda name: [], operator(run))

    @classmethod
    def _of_stage(cls, config: Config, secret_id: str) -> _Here:
        if not (os.environ.get("STORE_FUNCTION") or config.database_url or config.database_secret_id):
            raise ConfigurationError("SOURCES_SECRET_ID names a stage's secrets, and STORE_FUNCTION not its database.")
        current = SourceSecrets(secret_id, time.monotonic)
        previous = SourceSecrets(secret_id, time.monotonic, "AWSPREVIOUS")
        return cls(load_sources(config.sources_file), current.of, previous.of, operator())

    def secrets(self) -> dict[str, list[str]]:
        """Of each source that has any. Raises PosternError where they cannot be had."""
        found = {}
        for name in self.sources:
            try:
                found[name] = self.secrets_of(name)
            except SecretUnavailable as exc:
                if exc.reason.startswith("secrets_unreachable"):
                    why = exc.reason.partition(": ")[2]
                    raise PosternError(f"The sources' secrets cannot be read: {why}.") from None
        return found

    def second_look(self, queue: Queue) -> SecondLook:
        """Raises PosternError at once where the secrets cannot be had; those that there are stay good."""
        self.secrets()
        return SecondLook(Inbox(self.sources, self.secrets_of, queue, _Nowhere(), wiring.fetch), self.previous_of)


class _Nowhere:
    """Where nothing is sent: an explanation sends nothing, and nothing that was kept is too large for a message."""

    def send(self, message: str, *, group: str, trace: str | None) -> None:
        raise QueueUnavailable("nothing is sent from here")

    def send_all(self, messages: Sequence[str], *, group: str, trace: str | None) -> None:
        raise QueueUnavailable("nothing is sent from here")

    def put(self, key: str, body: bytes) -> None:
        raise QueueUnavailable("nothing that was kept is that large")
