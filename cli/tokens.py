"""`tokens` on the command line: who may use the API of a deployed stage, or of the local run."""

from __future__ import annotations

import argparse
import os
import secrets
from datetime import UTC, datetime
from typing import Any

from chalicelib.postern.api import access
from chalicelib.postern.api.access import Role
from chalicelib.postern.contract.errors import PosternError
from cli import kept, output
from cli.arguments import Commands
from cli.local import LocalRun


def add_commands(commands: Commands, deployed: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "tokens",
        help="list, make and revoke tokens for the API",
        description="Lists, makes and revokes tokens for the API (docs/api.md), with your own rights. A token is shown "
        "once, when it is made; its hash is all that is kept.",
    )
    actions = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    listing = actions.add_parser("list", parents=[deployed], help="list tokens, with their roles and fingerprints")
    listing.add_argument("--json", action="store_true", help="print JSON")
    listing.set_defaults(run=_list, needs_secrets=True)

    making = actions.add_parser("make", parents=[deployed], help="make a token, and print it")
    making.add_argument("name", type=_name, help="who or what it is for, such as anna or grafana")
    making.add_argument(
        "--role",
        choices=[role.value for role in Role],
        default=Role.READ.value,
        help="read: look at everything, payloads included (the default); operate: change things as well",
    )
    making.set_defaults(run=_make, needs_secrets=True)

    revoking = actions.add_parser("revoke", parents=[deployed], help="revoke a token, and end its sessions")
    revoking.add_argument("name", help="a name that `postern tokens list` shows")
    revoking.set_defaults(run=_revoke, needs_secrets=True)


def _list(options: argparse.Namespace) -> int:
    tokens = access.read_tokens(kept.read(_arn()))
    rows = [
        {"name": each.name, "role": each.role.value, "fingerprint": each.fingerprint, "made_at": each.made_at}
        for each in sorted(tokens, key=lambda each: each.name)
    ]
    if options.json:
        print(output.as_json(rows))
    elif not rows:
        print(f"There are no tokens yet. To make one: {output.command('tokens make NAME')}")
    else:
        columns = {"name": "NAME", "role": "ROLE", "fingerprint": "FINGERPRINT", "made_at": "MADE"}
        print(output.table(rows, columns))
    return 0


def _make(options: argparse.Namespace) -> int:
    token = access.make_token(secrets.token_bytes(32))
    made_at = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    about = {"sha256": access.hashed(token), "role": options.role, "made_at": made_at}

    def edit(known: dict[str, Any]) -> dict[str, Any]:
        tokens = _tokens(known)
        if options.name in tokens:
            raise PosternError(
                f"There is a token '{options.name}' already; to replace it, revoke it first: "
                f"{output.command(f'tokens revoke {options.name}')}"
            )
        return {**known, "tokens": {**tokens, options.name: about}}

    kept.change(_arn(), edit)
    print(token)
    return 0


def _revoke(options: argparse.Namespace) -> int:
    def edit(known: dict[str, Any]) -> dict[str, Any]:
        tokens = _tokens(known)
        if options.name not in tokens:
            there = ", ".join(sorted(tokens)) or "none"
            raise PosternError(f"There is no token '{options.name}'; there are: {there}.")
        return {**known, "tokens": {name: about for name, about in tokens.items() if name != options.name}}

    kept.change(_arn(), edit)
    print(f"The token '{options.name}' is revoked, and its sessions end, within ten seconds.")
    return 0


def _arn() -> str:
    """The tokens' secret of the stage that the environment names, or of the local run."""
    if os.environ.get("STORE_FUNCTION"):
        found = os.environ.get("TOKENS_SECRET_ID")
        if not found:
            raise PosternError(
                'This stage has no API: set "Console": "on" in infra/parameters and deploy it (docs/api.md).'
            )
        return found
    run = LocalRun.find()
    os.environ |= run.environ()
    return run.tokens_secret_id


def _tokens(known: dict[str, Any]) -> dict[str, Any]:
    found = known.get("tokens", {})
    if not isinstance(found, dict):
        raise PosternError("The tokens' secret is not as this command writes it; nothing was changed.")
    return found


def _name(text: str) -> str:
    if not access.TOKEN_NAME.fullmatch(text):
        raise argparse.ArgumentTypeError("must be of lower-case letters, digits and '-', 40 at most")
    return text
