"""`sources add` on the command line: a source for a provider, its setup steps, and its secret."""

from __future__ import annotations

import argparse
import json
import os
import re
import tempfile
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path

from chalicelib.postern.contract.errors import PosternError
from chalicelib.postern.receiving.providers import provider_names
from chalicelib.postern.receiving.sources import Source, load_sources
from chalicelib.postern.running.config import Config
from cli import catalogue, source_secrets
from cli.arguments import Commands

# What these take has to be said; everybody else's is the provider's own.
_SETTINGS = {
    "hmac": 'header = "X-Signature"\nalgorithm = "sha256"\nencoding = "hex"\n',
    "token": (
        'header = "X-Webhook-Token"\n'
        "# What holds a token is often a small thing that says the same words each time: a second later they are\n"
        "# news.\n"
        'dedup_window = "1s"\n'
        "# Google's Drive and Calendar say all in headers.\n"
        "empty_body = true\n"
    ),
}


def add_commands(commands: Commands, deployed: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "add",
        parents=[deployed],
        help="add a source for a provider, and say how to set it up",
        description="Adds a source for a provider to the sources file, and prints the steps to set it up. With --stage "
        "it asks for the stage's secret, too; the next `make deploy` brings the source there.",
    )
    parser.add_argument("provider", help="a provider, such as shopify; `postern providers` lists them")
    parser.add_argument("--as", dest="name", metavar="NAME", help="the source's name (default: the provider's)")
    parser.set_defaults(run=_add, needs_secrets=True)


def table(provider: str, name: str) -> str:
    """The source as it stands in the file."""
    key = name if re.fullmatch("[a-z0-9-]+", name) else json.dumps(name)
    return f'[{key}]\nprovider = "{provider}"\n{_SETTINGS.get(provider, "")}'


def unknown(name: str, sources: Mapping[str, Source]) -> PosternError:
    """Of a source that is not declared: what may have been meant."""
    said = f"There is no source '{name}'; there are {', '.join(sources)}."
    if name in provider_names():
        return PosternError(f"{said} `postern sources add {name}` adds it.")
    near = get_close_matches(name, sources, 1)
    return PosternError(said + (f" Did you mean '{near[0]}'?" if near else ""))


def _add(options: argparse.Namespace) -> int:
    provider, name = options.provider, options.name or options.provider
    if provider not in provider_names() or provider == "none":
        near = get_close_matches(provider, provider_names(), 1)
        said = f" Did you mean '{near[0]}'?" if near else ""
        raise PosternError(f"There is no provider '{provider}'; `postern providers` lists them.{said}")
    file = Config.from_environ(os.environ).sources_file
    source = _append(file, name, table(provider, name))
    print(f"{file} has the source '{name}' now.\n")
    address = os.environ.get("POSTERN_ADDRESS", "https://…/").rstrip("/")
    print(catalogue.description(provider, f"{address}/webhooks/{name}"))
    if not options.stage:
        print(
            "\nTo use it here, start `make run` again, which makes a secret for it. On a stage: `make deploy STAGE=…`"
            + (f", and `postern secrets set {name} --stage …`." if source.needs_secret else ".")
        )
        return 0
    print(f"\n`make deploy STAGE={options.stage}` brings it there.")
    return source_secrets.ask_for(source, options.stage) if source.needs_secret else 0


def _append(file: Path, name: str, text: str) -> Source:
    """Whole or not at all, and only what can be read again."""
    before = load_sources(file)
    if name in before:
        raise PosternError(f"{file} has a source '{name}' already; --as NAME gives this one another name.")
    made = file.read_text("utf-8-sig").rstrip("\n") + "\n\n" + text
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=file.parent, suffix=".toml", delete=False) as new:
        new.write(made)
    try:
        source = load_sources(Path(new.name))[name]
        Path(new.name).chmod(file.stat().st_mode)
        Path(new.name).replace(file)
    finally:
        Path(new.name).unlink(missing_ok=True)
    return source
