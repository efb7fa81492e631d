"""`send` on the command line: a sample, signed as its provider signs, to the local run or to a deployed stage."""

from __future__ import annotations

import argparse
import http.client
import os
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from chalicelib.postern.adapters.secrets import SourceSecrets
from chalicelib.postern.contract.deliveries import Delivery, Headers
from chalicelib.postern.contract.errors import PosternError, Refusal, SecretUnavailable
from chalicelib.postern.receiving.http import EVENT_ID
from chalicelib.postern.receiving.sources import Source, load_sources
from chalicelib.postern.running.config import Config
from cli import arguments, samples, storm
from cli.arguments import Commands
from cli.local import LocalRun, Operator, operator
from cli.sources import unknown

# A deployed stage's functions may have to be started first.
_STORED_WITHIN_SECONDS = {"local": 10.0, "stage": 60.0}


def add_commands(commands: Commands, deployed: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "send",
        parents=[deployed],
        help="sign a sample as a provider does and POST it to the local run, or to a stage",
        description="Signs a sample as a provider does, and POSTs it. With --stage it is signed with the stage's own "
        "secret, and is a real event: its handlers run.",
    )
    parser.add_argument("source", nargs="?", help="a source of the sources file, such as github")
    parser.add_argument("type", nargs="?", help="an event type, such as push (default: the provider's most common)")
    parser.add_argument("--body", type=Path, metavar="FILE", help="send the bytes of FILE instead of the sample's")
    parser.add_argument(
        "--times", type=arguments.count, default=1, metavar="N", help="send the identical delivery N times"
    )
    parser.add_argument(
        "--storm",
        type=arguments.count,
        nargs="?",
        const=storm.DELIVERIES,
        metavar="N",
        help="send N deliveries (default 500) from every source, with repetitions, forgeries and failures among them, "
        "to the local run",
    )
    parser.add_argument("--no-wait", action="store_true", help="return without waiting for the event to be stored")
    parser.add_argument("--yes", action="store_true", help="do not ask before sending to a stage")
    parser.set_defaults(run=_send, needs_secrets=True)


@dataclass(frozen=True)
class _Place:
    """Where to send to, and what is there."""

    address: str
    source: Source
    secret: str
    kind: str

    @property
    def url(self) -> str:
        return f"{self.address.rstrip('/')}/webhooks/{self.source.name}"


def _send(options: argparse.Namespace) -> int:
    if options.storm is not None:
        if options.stage or options.source:
            raise PosternError("A storm is of every source, and for a local run only: `postern send --storm`.")
        return storm.storm(options.storm, LocalRun.find(), post)
    if not options.source:
        raise PosternError("Send what? `postern send github push`, or `postern send --storm`.")
    run = None if options.stage else LocalRun.find()
    place = _here(run, options.source) if run else _of_stage(options.source)
    type = options.type or samples.default_type(place.source.provider)
    body = _read(options.body) if options.body else None
    sample = _signed(place, type, body)
    if not run and not options.yes:
        question = f"Send {place.source.name} {type} to stage {options.stage}, whose handlers will run?"
        if not arguments.confirmed(question):
            return 1

    ids = []
    for _ in range(options.times):
        started = time.perf_counter()
        status, answer, id = post(place.url, sample)
        milliseconds = (time.perf_counter() - started) * 1000
        print(f"{status}  {answer}  ({place.source.name} {type}, {len(sample.body):,} bytes, {milliseconds:.0f} ms)")
        if not 200 <= status < 300:
            return 1
        ids += [id] if id else []
    if not ids:
        print("A handshake: it was answered, and is no event.")
        return 0
    if options.no_wait:
        return 0
    return _report_stored(ids[0], operator(run), place.kind, options.stage)


def _here(run: LocalRun, name: str) -> _Place:
    source = _declared(load_sources(run.sources_file), name)
    secret = run.secret(source.name)
    if source.needs_secret and not secret:
        raise PosternError(f"There is no secret for '{source.name}' in {run.secrets_file}.")
    return _Place(run.url, source, secret, "local")


def _of_stage(name: str) -> _Place:
    """As `--stage` has named it in the environment."""
    config = Config.from_environ(os.environ)
    source = _declared(load_sources(config.sources_file), name)
    secret = ""
    if source.needs_secret:
        try:
            secret = SourceSecrets(config.need("sources_secret_id"), time.monotonic).of(name)[0]
        except SecretUnavailable as exc:
            raise PosternError(f"The stage has no secret of '{name}' to sign with ({exc.reason}).") from None
    address = os.environ.get("POSTERN_ADDRESS")
    if not address:
        raise PosternError("The stage has no API yet, or .chalice/deployed/, which names it, is not here.")
    return _Place(address, source, secret, "stage")


def _declared(sources: Mapping[str, Source], name: str) -> Source:
    if name not in sources:
        raise unknown(name, sources)
    return sources[name]


def _signed(place: _Place, type: str, body: bytes | None) -> samples.Sample:
    """Raises PosternError where the stage's secret only verifies: the provider alone can sign."""
    now = datetime.now(UTC)
    if place.kind == "local":
        return samples.sample(place.source, type, place.secret, now, body, place.url)
    try:
        sample = samples.sample(place.source, type, place.secret, now, body, place.url)
        headers, query = Headers(sample.headers.items()), [*sample.query.items()]
        delivery = Delivery(place.source.name, headers, sample.body, now, url=place.url, query=query)
        if place.source.needs_secret:
            place.source.scheme.verify(delivery, [place.secret])
    except (Refusal, ValueError, TypeError) as exc:
        raise PosternError(
            f"'{place.source.name}' cannot be signed with what the stage has ({exc.__class__.__name__}): its provider "
            "signs with a key of its own, or the secret is not of the right form (`postern secrets list`)."
        ) from None
    return sample


def _report_stored(id: str, on: Operator, kind: str, stage: str | None) -> int:
    seconds = _STORED_WITHIN_SECONDS[kind]
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        event = on.perform({"action": "show", "id": id})["event"]
        if event is not None:
            print(f"{event['status']}: {_command()} show {event['id']}" + (f" --stage {stage}" if stage else ""))
            return 0 if event["status"] in ("processed", "stale") else 1
        time.sleep(1.0 if stage else 0.05)
    hint = f"`postern status --stage {stage}`" if stage else "`make run`"
    print(f"Accepted, but not stored within {seconds:.0f} s; {hint} shows why.", file=sys.stderr)
    return 1


def _command() -> str:
    """This command as it was called, so that what is printed can be pasted."""
    return sys.argv[0] if Path(sys.argv[0]).name == "postern" else "postern"


def post(url: str, sample: samples.Sample) -> tuple[int, str, str | None]:
    """The answer's status and text, and the event that it names."""
    if sample.query:
        url += "?" + urllib.parse.urlencode(sample.query)
    request = urllib.request.Request(url, sample.body, dict(sample.headers), method="POST")
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read().decode("utf-8", "replace"), answer.headers.get(EVENT_ID)
    except urllib.error.HTTPError as exc:
        return exc.code, exc.read().decode("utf-8", "replace"), None
    except (OSError, http.client.HTTPException) as exc:
        raise PosternError(f"{url} does not answer: {exc}.") from exc


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as exc:
        raise PosternError(f"{file} cannot be read: {exc.strerror}.") from exc
