"""`postern play`: sends a scenario's deliveries, signed anew, with the time between them that there was."""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from chalicelib.postern.contract.errors import PosternError
from chalicelib.postern.receiving.sources import Source, load_sources
from cli import arguments, output, samples, scenarios
from cli.arguments import Commands
from cli.local import LocalRun
from cli.scenarios import Scene
from cli.send import post
from cli.sources import unknown


def add_commands(commands: Commands, deployed: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "play",
        help="send the deliveries of a scenario to the local run, signed anew",
        description="Sends the deliveries of a file that `postern export --scenario` wrote, in their order, with the "
        "time between them that there was. Each is signed anew with the local run's secret of its source, and has a "
        "new id where that stands in a header or in the signature.",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="the scenario")
    parser.add_argument(
        "--to",
        type=arguments.url,
        metavar="URL",
        help="an address that gets each, or, without a path, another inbox (default: the local run)",
    )
    parser.add_argument(
        "--speed", type=_speed, default=1.0, metavar="N", help="10x as fast; max for no wait at all (default 1x)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object per line")
    parser.set_defaults(run=_play)


def _play(options: argparse.Namespace) -> int:
    run = LocalRun.find()
    scenes = scenarios.read(options.file)
    sources = load_sources(run.sources_file)
    for scene in scenes:
        if scene.source not in sources:
            raise unknown(scene.source, sources)
    seconds = sum(scene.after for scene in scenes) / options.speed
    if seconds > 60:
        print(f"It takes {seconds / 60:,.0f} minutes; --speed makes it shorter.", file=sys.stderr)
    refused = 0
    for scene in scenes:
        time.sleep(scene.after / options.speed)
        refused += not _send(scene, sources, run, options)
    if not options.json:
        print(f"{len(scenes) - refused:,} of {len(scenes):,} accepted.")
    return 0 if not refused else 1


def _send(scene: Scene, sources: Mapping[str, Source], run: LocalRun, options: argparse.Namespace) -> bool:
    source, url = sources[scene.source], options.to or run.url
    if not urlsplit(url).path.strip("/"):
        url = f"{url.rstrip('/')}/webhooks/{source.name}"
    secret = run.secret(source.name)
    if source.needs_secret and not secret:
        raise PosternError(f"There is no secret for '{source.name}' in {run.secrets_file}.")
    status, answer, id = post(url, samples.anew(source, secret, datetime.now(UTC), scene.headers, scene.body, url))
    if options.json:
        facts = {"source": scene.source, "type": scene.type, "status": status, "id": id, "answer": answer}
        print(output.plain(json.dumps(facts)), flush=True)
    else:
        said = id if id and 200 <= status < 300 else answer
        print(output.plain(f"{status}  {scene.source} {scene.type}  {said}").replace("\n", " "), flush=True)
    return 200 <= status < 300


def _speed(text: str) -> float:
    if text == "max":
        return float("inf")
    found = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]{1,3})?)x?", text, re.ASCII)
    if found is None or float(found[1]) == 0:
        raise argparse.ArgumentTypeError("must be such as 1x, 10x, 0.5x or max")
    return float(found[1])
