"""`secrets` on the command line: set, rotate and list a deployed stage's secrets. None of them is ever shown."""

from __future__ import annotations

import argparse
import getpass
import json
import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from chalicelib.postern.contract.deliveries import Delivery, Headers
from chalicelib.postern.contract.errors import PosternError, Refusal, SecretUnavailable
from chalicelib.postern.receiving import naming
from chalicelib.postern.receiving.histories import PROVIDERS, history_of
from chalicelib.postern.receiving.sources import (
    API_TOKEN,
    AWAITED_UNTIL,
    SIGNING_KEY,
    VERIFY_TOKEN,
    Source,
    load_sources,
)
from chalicelib.postern.running.config import Config
from cli import kept, output, samples
from cli.arguments import Commands
from cli.guides import guide


def add_commands(commands: Commands, deployed: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "secrets",
        help="set, rotate and list the sources' secrets of a deployed stage",
        description="Sets, rotates and lists the sources' secrets of a deployed stage, with your own rights. Functions "
        "see a change within a minute. A local run's secrets lie in .local/secrets.json.",
    )
    actions = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    listing = actions.add_parser("list", parents=[deployed], help="list sources, and the fingerprints of their secrets")
    listing.add_argument("--json", action="store_true", help="print JSON")
    listing.set_defaults(run=_list, needs_secrets=True)

    setting = actions.add_parser(
        "set",
        parents=[deployed],
        help="set a source's secret",
        description="Sets a source's secret. It is asked for without being shown, or read from standard input where "
        "that is a file or a pipe.",
    )
    setting.add_argument("source", help=f"a source, such as github; or what else it needs, such as meta{VERIFY_TOKEN}")
    setting.add_argument("--replace", action="store_true", help="replace the secrets that it has")
    setting.set_defaults(run=_set, needs_secrets=True)

    rotating = actions.add_parser(
        "rotate",
        parents=[deployed],
        help="add a new secret beside those in use, and later drop those",
        description="Adds a new secret before those in use: what is signed with any of them is taken. Change it at the "
        "provider then. `postern sources --stage NAME` says when nothing is signed with the old ones any more; --done "
        "drops them.",
    )
    rotating.add_argument("source", help="a source, such as github")
    rotating.add_argument("--done", action="store_true", help="keep the newest secret, and drop the others")
    rotating.set_defaults(run=_rotate, needs_secrets=True)


def _list(options: argparse.Namespace) -> int:
    known = kept.read(_arn())
    rows = [_row(source, known.get(name)) for name, source in _sources().items() if source.needs_secret]
    if options.json:
        print(output.as_json(rows))
    else:
        shown = [row | {"secrets": " ".join(row["secrets"]) or "-"} for row in rows]
        print(output.table(shown, {"source": "SOURCE", "secrets": "FINGERPRINTS, NEWEST FIRST", "state": "STATE"}))
    return 0


def _row(source: Source, found: Any) -> dict[str, Any]:
    try:
        secrets = _listed(found)
        for secret in secrets:
            check(source, secret)
        state = "ok" if secrets else "missing: deliveries are answered 503"
    except PosternError as exc:
        secrets, state = [], str(exc)
    return {
        "source": source.name,
        "secrets": [naming.fingerprint(source.name, each) for each in secrets],
        "state": state,
    }


def _set(options: argparse.Namespace) -> int:
    source = _named(options.source)
    return _put(source, options.source.removeprefix(source.name), replace=options.replace)


def ask_for(source: Source, stage: str) -> int:
    """The secret of a source that was added just now; an exit code."""
    if not sys.stdin.isatty():
        print(f"Then: postern secrets set {source.name} --stage {stage}")
        return 0
    return _put(source, "", replace=False)


def _put(source: Source, what: str, *, replace: bool) -> int:
    """`what` follows the source's name where it is not the secret itself."""
    name = source.name + what
    if not replace and kept.read(_arn()).get(name):
        other = "" if what else f" `postern secrets rotate {name}` adds one beside it;"
        raise PosternError(f"{name} has a secret already:{other} --replace puts this one in its place.")
    secret = _asked_for(source, what)
    if not what:
        check(source, secret)

    def edit(known: dict[str, Any]) -> dict[str, Any]:
        if not replace and known.get(name):
            raise PosternError(f"{name} has got a secret meanwhile; nothing was changed.")
        return known | {name: secret}

    kept.change(_arn(), edit)
    print(f"{name} has the secret {naming.fingerprint(source.name, secret)}, within a minute.")
    if not what and (address := os.environ.get("POSTERN_ADDRESS")):
        print(f"Its webhook URL: {address}webhooks/{source.name}")
    return 0


def _rotate(options: argparse.Namespace) -> int:
    source = _named(options.source)
    before = _listed(kept.read(_arn()).get(source.name))
    if options.source != source.name:
        raise PosternError("Only a source's secret can be rotated; set the others with --replace.")
    if not before:
        raise PosternError(f"{source.name} has no secret yet: `postern secrets set {source.name}`.")
    if options.done:
        if len(before) == 1:
            raise PosternError(f"{source.name} has one secret, {_fingerprints(source, before)}: nothing to drop.")
        kept.change(_arn(), lambda known: known | {source.name: _same(known, source, before)[0]})
        print(f"{source.name} has the secret {_fingerprints(source, before[:1])} alone, within a minute.")
        return 0
    secret = _asked_for(source, "")
    check(source, secret)
    if secret in before:
        raise PosternError(f"{source.name} has this secret already ({_fingerprints(source, [secret])}).")
    kept.change(_arn(), lambda known: known | {source.name: [secret, *_same(known, source, before)]})
    print(
        f"{source.name} takes {_fingerprints(source, [secret])} and {_fingerprints(source, before)}, within a minute. "
        f"Change it at the provider; when `postern sources` shows no events by the old one, say\n"
        f"  postern secrets rotate {source.name} --done --stage {options.stage or 'NAME'}"
    )
    return 0


def problem(project: Path, known: Mapping[str, Any]) -> dict[str, str | None]:
    """What is wrong with which sources' secrets; None for those that have none."""
    sources = load_sources(project / "chalicelib" / "sources.toml").values()
    rows = [(_row(source, known.get(source.name)), source.name) for source in sources if source.needs_secret]
    return {name: row["state"] if known.get(name) else None for row, name in rows if row["state"] != "ok"}


def check(source: Source, secret: str) -> None:
    """Raises PosternError for what is not of the form that the provider's secrets have. It is never quoted."""
    from devstack.secrets import development_secrets

    made = development_secrets(source)
    now = datetime.now(UTC)
    # Signed with another secret of the right form: that it does not verify says nothing; that this one cannot be used
    # to find out does.
    sample = samples.sample(source, samples.default_type(source.provider), made.get(SIGNING_KEY, made[""]), now)
    delivery = Delivery(source.name, Headers(sample.headers.items()), sample.body, now, query=[*sample.query.items()])
    try:
        source.scheme.verify(delivery, [secret])
    except SecretUnavailable as exc:
        if exc.reason.startswith("secret_"):
            raise PosternError(
                f"This cannot be {source.name}'s secret ({exc.reason}). {guide(source.provider).secret}"
            ) from None
    except (Refusal, ValueError):
        pass


def _asked_for(source: Source, what: str) -> str:
    if not sys.stdin.isatty():
        secret = sys.stdin.read().strip("\r\n")
    else:
        print(_about(source, what), file=sys.stderr)
        secret = getpass.getpass(f"{source.name}{what}: ")
    if not secret.strip():
        raise PosternError("Nothing was given; nothing was changed.")
    return secret


def _about(source: Source, what: str) -> str:
    if what == API_TOKEN and source.provider in PROVIDERS:
        return f"A token {history_of(source.provider).right}."
    return guide(source.provider).secret


def _named(name: str) -> Source:
    """The source that this is a secret of."""
    sources = _sources()
    for suffix in ("", VERIFY_TOKEN, API_TOKEN, AWAITED_UNTIL):
        if (found := name.removesuffix(suffix)) in sources and name == found + suffix:
            return sources[found]
    raise PosternError(f"There is no source '{name}'; there are {', '.join(sources)}.")


def _sources() -> Mapping[str, Source]:
    return load_sources(Config.from_environ(os.environ).sources_file)


def _listed(found: Any) -> list[str]:
    """A key that is a JSON object itself may stand there as that."""
    listed = found if isinstance(found, list) else [found] if found else []
    secrets = [json.dumps(each) if isinstance(each, dict) and each else each for each in listed]
    if not all(isinstance(each, str) and each.strip() for each in secrets):
        raise PosternError("neither a text nor a list of texts")
    return secrets


def _same(known: Mapping[str, Any], source: Source, before: list[str]) -> list[str]:
    if _listed(known.get(source.name)) != before:
        raise PosternError(f"{source.name}'s secrets have changed meanwhile; nothing was changed.")
    return before


def _fingerprints(source: Source, secrets: list[str]) -> str:
    return ", ".join(naming.fingerprint(source.name, each) for each in secrets)


def _arn() -> str:
    found = os.environ.get("SOURCES_SECRET_ID")
    if not found:
        raise PosternError("Of which stage? Say --stage NAME. A local run's secrets lie in .local/secrets.json.")
    return found
