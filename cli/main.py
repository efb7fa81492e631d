"""The `postern` command: reads its arguments, calls one function, prints."""

from __future__ import annotations

import argparse
import os
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from datetime import UTC, datetime
from pathlib import Path

from chalicelib.postern.contract.errors import PosternError
from chalicelib.postern.receiving.http import EVENT_ID
from chalicelib.postern.receiving.providers import provider_names
from chalicelib.postern.receiving.sources import load_sources
from chalicelib.postern.running.version import VERSION
from cli import (
    arguments,
    catalogue,
    dead,
    drift,
    dry_run,
    duplicates,
    export,
    issues,
    ledger,
    listen,
    refusals,
    replays,
    samples,
    status,
    storage,
    stored,
)
from cli.local import LocalRun, NotRunning, Operator, operator
from cli.stage import enter

_STORED_WITHIN_SECONDS = 10.0


def main(argv: list[str] | None = None) -> int:
    """Exit codes: 0 done, 1 not done (the reason is on standard error), 2 not understood."""
    options = _parser().parse_args(argv)
    try:
        if options.stage:
            enter(options.stage, with_secrets=options.needs_secrets)
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

    send = commands.add_parser("send", help="sign a sample as a provider does and POST it to the local run")
    send.add_argument("source", help="a source of the sources file, such as github")
    send.add_argument("type", nargs="?", help="an event type, such as push; the provider's most common one if left out")
    send.add_argument("--body", type=Path, metavar="FILE", help="send the bytes of FILE instead of the sample's")
    send.add_argument(
        "--times", type=arguments.count, default=1, metavar="N", help="send the identical delivery N times"
    )
    send.add_argument("--no-wait", action="store_true", help="return without waiting for the event to be stored")
    send.set_defaults(run=_send)

    providers = commands.add_parser("providers", help="list providers, or show how to set one up")
    providers.add_argument("name", nargs="?", help="a provider, such as github")
    providers.add_argument(
        "--source", metavar="NAME", help="the source to send to (default: the one named like the provider)"
    )
    providers.set_defaults(run=_providers)

    for module in (
        status,
        stored,
        issues,
        duplicates,
        dry_run,
        replays,
        dead,
        ledger,
        refusals,
        drift,
        export,
        listen,
        storage,
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


def _send(options: argparse.Namespace) -> int:
    run = LocalRun.find()
    sources = load_sources(run.sources_file)
    source = sources.get(options.source)
    if source is None:
        raise PosternError(f"There is no source '{options.source}'; there are {', '.join(sources)}.")
    secret = run.secret(source.name)
    if source.needs_secret and not secret:
        raise PosternError(f"There is no secret for '{source.name}' in {run.secrets_file}.")
    type = options.type or samples.default_type(source.provider)
    body = _read(options.body) if options.body else None
    url = f"{run.url}/webhooks/{source.name}"
    sample = samples.sample(source, type, secret, datetime.now(UTC), body, url)

    ids = []
    for _ in range(options.times):
        started = time.perf_counter()
        status, answer, id = _post(url, sample)
        milliseconds = (time.perf_counter() - started) * 1000
        print(f"{status}  {answer}  ({source.name} {type}, {len(sample.body):,} bytes, {milliseconds:.0f} ms)")
        if not 200 <= status < 300:
            return 1
        ids += [id] if id else []
    if not ids:
        print("A handshake: it was answered, and is no event.")
        return 0
    if options.no_wait:
        return 0
    return _report_stored(ids[0], operator(run))


def _report_stored(id: str, on: Operator) -> int:
    deadline = time.monotonic() + _STORED_WITHIN_SECONDS
    while time.monotonic() < deadline:
        event = on.perform({"action": "show", "id": id})["event"]
        if event is not None:
            print(f"{event['status']}: {_command()} show {event['id']}")
            return 0
        time.sleep(0.05)
    print(f"Accepted, but not stored within {_STORED_WITHIN_SECONDS:.0f} s; `make run` shows why.", file=sys.stderr)
    return 1


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


def _command() -> str:
    """This command as it was called, so that what is printed can be pasted."""
    return sys.argv[0] if Path(sys.argv[0]).name == "postern" else "postern"


def _post(url: str, sample: samples.Sample) -> tuple[int, str, str | None]:
    """The answer's status and text, and the event that it names."""
    if sample.query:
        url += "?" + urllib.parse.urlencode(sample.query)
    request = urllib.request.Request(url, sample.body, dict(sample.headers), method="POST")
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read().decode("utf-8", "replace"), answer.headers.get(EVENT_ID)
    except urllib.error.HTTPError as exc:
        return exc.code, exc.read().decode("utf-8", "replace"), None
    except OSError as exc:
        raise PosternError(f"{url} does not answer: {exc}.") from exc


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as exc:
        raise PosternError(f"{file} cannot be read: {exc.strerror}.") from exc
