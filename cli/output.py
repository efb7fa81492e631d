"""How results look on a terminal; `--json` is for pipes."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

from chalicelib.postern.contract.errors import PosternError
from chalicelib.postern.contract.numbers import Number, dumps

# What JSON may have as it is, and a terminal takes for a command: DEL, C1 controls, and marks that turn text around.
_CONTROLS = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")

# A column that is cut to less than this says nothing.
_NARROWEST = 12


def command(arguments: str) -> str:
    """What to type next, on the same stage."""
    stage = os.environ.get("POSTERN_STAGE")
    return f"postern {arguments}" + (f" --stage {stage}" if stage else "")


def as_json(value: Any) -> str:
    """Nothing that senders wrote can move the cursor: it is escaped."""
    return _escaped(dumps(value, indent=2, ensure_ascii=False))


def _escaped(text: str) -> str:
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> str:
    """`columns`: key -> heading. Nothing that senders wrote can move the cursor: it is shown as text. On a terminal the
    last column, an error mostly, is cut where the line would be broken.
    """
    lines = [list(columns.values()), *([_cell(row[key]) for key in columns] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    if sys.stdout.isatty():
        room = shutil.get_terminal_size().columns - sum(widths[:-1]) - 2 * len(widths[:-1])
        if _NARROWEST <= room < widths[-1]:
            lines = [[*line[:-1], line[-1] if len(line[-1]) <= room else line[-1][: room - 1] + "…"] for line in lines]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def as_json_line(value: Any) -> str:
    return _escaped(json.dumps(value, ensure_ascii=False))


def row(values: Mapping[str, Any], columns: Mapping[str, str], widths: dict[str, int]) -> str:
    """A line of a table that has no end: `widths` grow as they have to."""
    cells = []
    for key in columns:
        cell = _cell(values[key])
        widths[key] = max(widths.get(key, 0), len(cell))
        cells.append(cell.ljust(widths[key]))
    return "  ".join(cells).rstrip()


def facts(named: Mapping[str, Any]) -> str:
    """A line each."""
    width = max(map(len, named))
    return "\n".join(f"{name:<{width}}  {plain(str(value))}" for name, value in named.items())


def as_line(value: Any) -> str:
    """Small JSON, for a cell."""
    return _escaped(json.dumps(value, ensure_ascii=False, separators=(",", ":"))) if value else "-"


class Progress:
    """One line on a terminal that is written over again and again; nothing where there is no terminal."""

    _WIDTH = 30

    def __init__(self) -> None:
        self._shown = False

    def show(self, done: int, total: int, note: str = "") -> None:
        if sys.stderr.isatty():
            full = self._WIDTH * done // max(total, 1)
            bar = "█" * full + "░" * (self._WIDTH - full)
            print(f"\r\x1b[K{bar} {done:,} of {total:,}  {note}", end="", file=sys.stderr, flush=True)
            self._shown = True

    def note(self, text: str) -> None:
        """In the place of the bar, where nobody knows how much there is to do."""
        if sys.stderr.isatty():
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
            self._shown = True

    def end(self) -> None:
        if self._shown:
            print(file=sys.stderr)
            self._shown = False

    @contextmanager
    def resumed_by(self, arguments: str) -> Iterator[None]:
        """Around work that another command can go on with: whatever ends it before it is done, that is said."""
        try:
            yield
        except (KeyboardInterrupt, PosternError):
            self.end()
            print(f"It is not done. It goes on with: {command(arguments)}", file=sys.stderr)
            raise
        self.end()


# Why a delivery was taken for a repetition.
WHY = {
    "same_id": "same id",
    "same_id_other_bytes": "same id, other bytes",
    "same_bytes": "same bytes",
    None: "not kept",
}


def event_page(event: Mapping[str, Any]) -> str:
    """One event, whole: its facts, headers, error and payload."""
    named = {
        "id": event["id"],
        "source": event["source"],
        "type": event["type"],
        "dedup key": event["dedup_key"],
        "status": event["status"],
        "attempts": event["attempts"],
        "received": event["received_at"],
        "processed": event["processed_at"] or "-",
        "request": event["request_id"] or "-",
        "repeated": f"{len(event['duplicates'])} times" if event["duplicates"] else "never",
    }
    if event.get("origin"):
        named["came"] = "from its provider's history (postern reconcile)"
    if event["same_body_as"]:
        named["same bytes"] = f"as event {event['same_body_as']}, under another id"
    sections = [facts(named), f"Timeline\n{indented(_timeline(event))}"]
    if event["error"]:
        sections.append(f"Error\n{indented(event['error'])}")
    headers = "\n".join(f"{name}: {value}" for name, value in sorted(event["headers"].items()))
    sections.append(f"Headers\n{indented(headers)}")
    sections.append(f"Body\n{indented(_readable(base64.b64decode(event['body'])))}")
    if repetition := event["repetition"]:
        sections.insert(0, _repetition(repetition))
    return "\n\n".join(sections)


def _repetition(again: Mapping[str, Any]) -> str:
    """Of what was asked for by an id of its own, and is no event."""
    named = {
        "type": again["type"] or "not kept",
        "dedup key": again["dedup_key"] or "not kept",
        "received": again["received_at"],
        "why": f"{WHY[again['why']]} as the event below",
    }
    headers = "\n".join(f"{name}: {value}" for name, value in sorted((again["headers"] or {}).items()))
    accept = command(f"duplicates accept {again['id']}")
    return (
        f"{again['id']} was taken for a repetition:\n{indented(facts(named))}\n{indented(indented(headers))}\n"
        f"`{accept}` makes it an event of its own.\n\nThe event:"
    )


def _timeline(event: Mapping[str, Any]) -> str:
    """What happened to it, in order."""
    # An older stage does not say when.
    queued = f"in {_milliseconds(event)} ms" if event.get("queued_at") else ""
    moments = [(event["received_at"], "received, verified, queued", queued)]
    for each in event["duplicates"]:
        became = ", let through since" if each["accepted_at"] else ""
        detail = f"as {each['id']}, {each['type'] or '-'}  ({WHY[each['why']]}{became})"
        moments.append((each["received_at"], "received again", detail))
    for attempt in event["attempts_made"]:
        what = f"attempt {attempt['number']} ({attempt['trigger']}) {attempt['outcome']}"
        detail = f"{attempt['duration_ms']:.0f} ms"
        if attempt["issue_id"]:
            detail += f"  {attempt['error_class']}: {attempt['message']}  (issue {attempt['issue_id']})"
        moments.append((attempt["started_at"], what, detail))
    moments.sort(key=lambda moment: moment[0])
    width = max(len(what) for _, what, _ in moments)
    return "\n".join(f"{at}  {what:<{width}}  {detail}".rstrip() for at, what, detail in moments)


def _milliseconds(event: Mapping[str, Any]) -> int:
    received, queued = (datetime.fromisoformat(event[name]) for name in ("received_at", "queued_at"))
    # Two machines' clocks: never less than nothing.
    return max(0, round((queued - received) / timedelta(milliseconds=1)))


def plain(what: bytes | str) -> str:
    """As text that cannot move the cursor."""
    return _text(what if isinstance(what, str) else what.decode("utf-8", "backslashreplace"))


def _readable(body: bytes) -> str:
    text = body.decode("utf-8", "backslashreplace")
    try:
        # Its numbers as they came: 0.10 is not 0.1 to whoever looks for it.
        return as_json(json.loads(text, parse_float=Number, parse_int=Number, strict=False))
    except (ValueError, RecursionError):
        return text


def _cell(value: Any) -> str:
    text = "-" if value is None else str(value)
    return _text(text if len(text) <= 60 else text[:59] + "…")


def indented(text: str) -> str:
    return "\n".join(f"  {_text(line)}" for line in text.splitlines())


def _text(value: Any) -> str:
    return "".join(c if c.isprintable() or c == "\n" else f"\\x{ord(c):02x}" for c in str(value))
