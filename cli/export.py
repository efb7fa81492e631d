"""`postern export`: a stored event as something to work with: files, a curl command, a pytest fixture."""

from __future__ import annotations

import argparse
import base64
import keyword
import re
import shlex
import sys
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from chalicelib.postern.contract.deliveries import Delivery, Headers
from chalicelib.postern.contract.errors import InvalidSignature, PosternError
from chalicelib.postern.receiving.sources import Source, load_sources
from cli import output, scenarios
from cli.arguments import Commands, url
from cli.filters import add_filters, filters_of
from cli.forwarding import reading, sendable
from cli.local import LocalRun, NotRunning, Operator, operator

_LINE = 88  # as ruff and black have it
_PIECE = 72
_SHORT_BODY = 65_536
_CHUNK = 4_096
# Of one scenario: somebody is to read it.
_MOST = 500


def add_commands(commands: Commands, deployed: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "export",
        parents=[deployed],
        help="export an event: its bytes, a curl command, a pytest fixture; or several, as a scenario",
    )
    parser.add_argument("ids", type=UUID, nargs="*", metavar="ID", help="the id that the sender got, or an event's")
    add_filters(parser)
    form = parser.add_mutually_exclusive_group(required=True)
    form.add_argument(
        "--raw", type=Path, metavar="DIR", help="write body, headers.json and event.json into this folder"
    )
    form.add_argument("--curl", action="store_true", help="print a curl command that sends it to the local run again")
    form.add_argument("--pytest", action="store_true", help="print a fixture that gives the Event to a handler's tests")
    form.add_argument(
        "--scenario",
        type=Path,
        metavar="FILE",
        help="write the deliveries of these events, or of all that match, into FILE, for `postern play`",
    )
    parser.add_argument("--to", type=url, metavar="URL", help="with --curl: send it there instead")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=export)


def export(options: argparse.Namespace) -> int:
    on = operator()
    if options.scenario:
        return _scenario(options, on)
    if len(options.ids) != 1 or filters_of(options):
        raise PosternError("Export which event? Name one; several make a --scenario FILE.")
    event = _event(str(options.ids[0]), on)
    source = _sources().get(event["source"])
    if options.pytest:
        text = fixture(event, source)
        print(output.as_json({"fixture": text}) if options.json else text, end="\n" if options.json else "")
        return 0
    event = _as_delivered(event, on)
    if options.raw:
        written = [str(file) for file in _write(event, options.raw)]
        print(output.as_json({"files": written}) if options.json else "\n".join(map(output.plain, written)))
        return 0
    command = curl(event, options.to or f"{LocalRun.find().url}/webhooks/{event['source']}")
    notes = _notes(event, source)
    if options.json:
        print(output.as_json({"command": command, "notes": notes}))
        return 0
    print(command)
    for note in notes:
        print(output.plain(f"Note: {note}"), file=sys.stderr)
    return 0


def _event(id: str, on: Operator) -> dict[str, Any]:
    event: dict[str, Any] | None = on.perform({"action": "show", "id": id})["event"]
    if event is None:
        raise PosternError(f"There is no event {id}; an accepted one may still be in the queue.")
    return event


def _scenario(options: argparse.Namespace, on: Operator) -> int:
    filters = filters_of(options)
    if bool(options.ids) == bool(filters):
        raise PosternError("Say which events, or what they have in common (--source, --contains, …): not both.")
    ids = [str(id) for id in options.ids]
    if filters:
        ids = _matching(filters, on)
    if options.scenario.exists():
        raise PosternError(f"{options.scenario} is there already; name another file.")
    bar = output.Progress()
    deliveries: dict[str, dict[str, Any]] = {}
    for number, id in enumerate(ids):
        event = _event(id, on)
        # Of a delivery that brought several events it is written once, and whole.
        deliveries.setdefault(event["delivery_id"] or event["id"], _as_delivered(event, on))
        bar.show(number + 1, len(ids))
    bar.end()
    scenes = scenarios.scenes_of(list(deliveries.values()))
    scenarios.write(options.scenario, scenes)
    if options.json:
        print(output.as_json({"file": str(options.scenario), "deliveries": len(scenes)}))
    else:
        seconds = sum(scene.after for scene in scenes)
        print(f"{options.scenario}: {len(scenes):,} deliveries of {len(ids):,} events, {seconds:,.0f} s. It holds what")
        print("was sent, personal data and all. `postern play` sends it, and so does the pytest fixture `play`.")
    return 0


def _matching(filters: Mapping[str, Any], on: Operator) -> list[str]:
    """All of them: a search that has no time left says from where it goes on. Raises PosternError."""
    ids: list[str] = []
    before = None
    while True:
        asked = {"action": "events", **filters, "before": before, "limit": _MOST + 1 - len(ids)}
        found = on.perform(asked)
        ids += [each["id"] for each in found["events"]]
        before = found["searched_to"]
        if len(ids) > _MOST:
            raise PosternError(f"More than {_MOST} events match: narrow it down.")
        if before is None:
            break
    if not ids:
        raise PosternError("Nothing matches.")
    return ids


def curl(event: Mapping[str, Any], to: str) -> str:
    """A command for any POSIX shell that sends the exact bytes; whatever is in them, it does no more than that."""
    body = base64.b64decode(event["body"])
    headers = sendable(event["headers"]).headers
    # What curl would say of itself.
    given = {name for name, _ in headers}
    silence = [name for name in ("content-type", "user-agent", "accept", "expect") if name not in given]
    options = [
        *(f"{name}: {value}" if value.strip() else f"{name};" for name, value in headers),
        *(f"{name}:" for name in silence),
    ]
    lines = [f"{_bytes(body)} | curl -i --data-binary @- --url {shlex.quote(to)}"]
    return " \\\n".join([*lines, *(f"  -H {shlex.quote(option)}" for option in options)])


def fixture(event: Mapping[str, Any], source: Source | None) -> str:
    """A Python module of ASCII with a fixture that is the Event which handlers got."""
    format, form_field = reading(event, source)
    facts = {
        "id": f"UUID({_quoted(event['id'])})",
        "source": _quoted(event["source"]),
        "type": _quoted(event["type"]),
        "dedup_key": _quoted(event["dedup_key"]),
        "received_at": f"datetime.fromisoformat({_quoted(datetime.fromisoformat(event['received_at']).isoformat())})",
        "headers": "HEADERS",
        "payload": "None",
        "body": "BODY",
        "request_id": _quoted(event["request_id"]),
        "format": _quoted(format),
        "form_field": _quoted(form_field),
    }
    headers = "".join(f"    {_quoted(name)}: {_quoted(value)},\n" for name, value in event["headers"].items())
    lines = [
        f'"""Event {UUID(event["id"])}, as its handlers get it. It holds what was sent: mind who may read that."""',
        "",
        "from dataclasses import replace",
        "from datetime import datetime",
        "from uuid import UUID",
        "",
        "import pytest",
        "",
        "from chalicelib.postern import Event",
        "",
        f"HEADERS = {{\n{headers}}}" if headers else "HEADERS = {}",
        "",
        f"BODY = {_literal(base64.b64decode(event['body']))}",
        "",
        "",
        "@pytest.fixture",
        f"def {_name(event)}() -> Event:",
        "    event = Event(",
        *(f"        {key}={value}," for key, value in facts.items()),
        "    )",
        "    return replace(event, payload=event.json())",
        "",
    ]
    text = "\n".join(lines)
    if any(len(line) > _LINE for line in text.splitlines()):
        text = text.replace("\n\nfrom", "\n\n# ruff: noqa: E501\n\nfrom", 1)
    return text


def _as_delivered(event: dict[str, Any], on: Operator) -> dict[str, Any]:
    """With the headers and the exact body of the delivery, where the event was a part of it."""
    if not event["delivery_id"]:
        return event
    delivery = on.perform({"action": "show_delivery", "id": event["delivery_id"]})["delivery"]
    return event if delivery is None else {**event, "headers": delivery["headers"], "body": delivery["body"]}


def _write(event: Mapping[str, Any], folder: Path) -> list[Path]:
    facts = {key: value for key, value in event.items() if key not in ("headers", "body")}
    contents = {
        "body": base64.b64decode(event["body"]),
        "headers.json": output.as_json(event["headers"]).encode("utf-8", "backslashreplace") + b"\n",
        "event.json": output.as_json(facts).encode("utf-8", "backslashreplace") + b"\n",
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if taken := [name for name in contents if (folder / name).exists()]:
            raise PosternError(f"{folder / taken[0]} is there already; name another folder.")
        for name, content in contents.items():
            (folder / name).write_bytes(content)
    except OSError as exc:
        raise PosternError(f"{folder} cannot be written: {exc.strerror}.") from exc
    return [folder / name for name in contents]


def _notes(event: Mapping[str, Any], source: Source | None) -> list[str]:
    """Why what is sent again may be refused."""
    again = "`postern export ID --raw DIR` and `postern send SOURCE TYPE --body DIR/body` sign it anew."
    notes = [f"It is signed with the stage's secret; a local run that has another one refuses it. {again}"]
    if source is None:
        notes.append(f"The sources file here has no source '{event['source']}'.")
    elif _signed_time(event, source):
        notes.append("Its signature has a time in it and is refused once that is too old, mostly after five minutes.")
    if names := sendable(event["headers"]).credentials:
        notes.append(f"Not kept, and so not sent: {', '.join(names)}.")
    if event["duplicates"]:
        notes.append("It is the first of several deliveries of the event; the others' bytes are not kept.")
    notes.append(
        "Parameters of the URL are not kept with an event. Where the local run has the event, it is a duplicate."
    )
    return notes


def _signed_time(event: Mapping[str, Any], source: Source) -> str:
    headers = sendable(event["headers"]).headers
    received_at = datetime.fromisoformat(event["received_at"])
    delivery = Delivery(source.name, Headers(headers), base64.b64decode(event["body"]), received_at)
    try:
        return source.scheme.signed_time(delivery)
    except InvalidSignature:
        return ""


def _sources() -> Mapping[str, Source]:
    from chalicelib.postern.running import wiring

    try:
        return load_sources(LocalRun.find().sources_file)
    except NotRunning:
        return load_sources(wiring.config().sources_file)


def _bytes(body: bytes) -> str:
    """A command that writes these bytes: readable where that is safe to paste, and base64 where it is not."""
    text = body.decode("ascii", "replace")
    if all(line.isprintable() and line.isascii() for line in text.split("\n")):
        return f"printf %s {shlex.quote(text)}"
    return f"printf %s {base64.b64encode(body).decode()} | base64 --decode"


def _literal(body: bytes) -> str:
    """As its source text, in lines that one can read, or can at least leave alone."""
    if len(_quoted(body)) <= _LINE - len("BODY = "):
        return _quoted(body)
    size = _PIECE if len(body) <= _SHORT_BODY else _CHUNK
    lines = [f"    {_quoted(body[at : at + size])}" for at in range(0, len(body), size)]
    return "\n".join(["(", *lines, ")"])


def _quoted(value: Any) -> str:
    """As ascii() has it, in the quotes that formatters prefer."""
    if isinstance(value, list):
        return f"[{', '.join(map(_quoted, value))}]"
    text = ascii(value)
    if not isinstance(value, str | bytes) or not text.endswith("'") or '"' in text:
        return text
    before, _, inner = text[:-1].partition("'")
    return f'{before}"{inner}"'


def _name(event: Mapping[str, Any]) -> str:
    name = re.sub(r"\W+", "_", f"{event['source']}_{event['type']}".lower(), flags=re.ASCII).strip("_")[:60]
    return name if name.isidentifier() and not keyword.iskeyword(name) else "event"
