"""The `postern` command: reads its arguments, calls one function, prints."""

from __future__ import annotations

import argparse
import io
import os
import sys

from chalicelib.postern.contract.errors import PosternError
from chalicelib.postern.receiving.providers import provider_names
from chalicelib.postern.running.version import VERSION
from cli import (
    catalogue,
    dead,
    doctor,
    drift,
    dry_run,
    duplicates,
    export,
    handlers,
    issues,
    ledger,
    listen,
    mcp,
    new,
    output,
    play,
    reconcile,
    refusals,
    replays,
    send,
    source_secrets,
    status,
    storage,
    stored,
    tokens,
)
from cli.filters import undeclared
from cli.local import LocalRun, NotRunning, operator
from cli.stage import enter


def main(argv: list[str] | None = None) -> int:
    """Exit codes: 0 done, 1 not done (the reason is on standard error), 2 not understood."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that is not UTF-8 has no room for an arrow
    options = _parser().parse_args(argv)
    try:
        if options.stage:
            enter(options.stage, with_secrets=options.needs_secrets)
        if note := undeclared(getattr(options, "source", None)):
            print(f"postern: {output.plain(note)}", file=sys.stderr)
        return int(options.run(options))
    except (PosternError, NotRunning) as exc:
        print(f"postern: {exc}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # The reader, `head` perhaps, has seen enough. Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="postern", description="POST in, Postgres out: a webhook inbox.")
    parser.add_argument("--version", action="version", version=f"postern {VERSION}")
    parser.set_defaults(stage=None, needs_secrets=False)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    deployed = argparse.ArgumentParser(add_help=False)
    deployed.add_argument("--stage", metavar="NAME", help="use this deployed stage instead of the local run")

    send.add_commands(commands, deployed)

    providers = commands.add_parser("providers", help="list providers, or show how to set one up")
    providers.add_argument("name", nargs="?", help="a provider, such as github")
    providers.add_argument(
        "--source", metavar="NAME", help="the source to send to (default: the one named like the provider)"
    )
    providers.set_defaults(run=_providers)

    for module in (
        status,
        doctor,
        stored,
        issues,
        duplicates,
        handlers,
        dry_run,
        replays,
        dead,
        ledger,
        reconcile,
        refusals,
        source_secrets,
        drift,
        export,
        play,
        listen,
        storage,
        tokens,
        mcp,
        new,
    ):
        module.add_commands(commands, deployed)

    completion = commands.add_parser(
        "completion",
        help="print a shell's completion script",
        description="Prints a completion script. bash: postern completion bash > "
        "~/.local/share/bash-completion/completions/postern; zsh: a file _postern in a folder of $fpath.",
    )
    completion.add_argument("shell", choices=["bash", "zsh", "tcsh"])
    completion.set_defaults(run=_completion)

    migrate = commands.add_parser("migrate", parents=[deployed], help="migrate the database to this version")
    migrate.set_defaults(run=_migrate)
    return parser


def _providers(options: argparse.Namespace) -> int:
    if options.name is None:
        print(catalogue.listing())
        return 0
    if options.name not in provider_names():
        raise PosternError(f"There is no provider '{options.name}'; `postern providers` lists them.")
    print(catalogue.description(options.name, _address(options.source or options.name)))
    return 0


def _address(source: str) -> str:
    try:
        return f"{LocalRun.find().url}/webhooks/{source}"
    except NotRunning:
        return f"https://…/webhooks/{source}"


def _completion(options: argparse.Namespace) -> int:
    import shtab

    print(shtab.complete(_parser(), options.shell))
    return 0


def _migrate(options: argparse.Namespace) -> int:
    applied = operator().perform({"action": "migrate"})["applied"]
    print(f"Migrated: {', '.join(applied)}." if applied else "The database is up to date.")
    return 0
