"""How results look on a terminal; `--json` is for pipes."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any


def as_json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> str:
    """`columns`: key -> heading. Nothing that senders wrote can move the cursor: it is shown as text."""
    lines = [list(columns.values()), *([_cell(row[key]) for key in columns] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def event_page(event: Mapping[str, Any]) -> str:
    """One event, whole: its facts, headers, error and payload."""
    facts = {
        "id": event["id"],
        "source": event["source"],
        "type": event["type"],
        "dedup key": event["dedup_key"],
        "status": event["status"],
        "attempts": event["attempts"],
        "received": event["received_at"],
        "processed": event["processed_at"] or "-",
        "request": event["request_id"] or "-",
        "repeated": "".join(f"\n  {d['received_at']}  {d['id']}" for d in event["duplicates"]) or "never",
    }
    sections = ["\n".join(f"{name:<10} {_text(value)}" for name, value in facts.items())]
    if event["error"]:
        sections.append(f"Error\n{_indented(event['error'])}")
    headers = "\n".join(f"{name}: {value}" for name, value in sorted(event["headers"].items()))
    sections.append(f"Headers\n{_indented(headers)}")
    sections.append(f"Body\n{_indented(_readable(base64.b64decode(event['body'])))}")
    return "\n\n".join(sections)


def plain(what: bytes | str) -> str:
    """As text that cannot move the cursor."""
    return _text(what if isinstance(what, str) else what.decode("utf-8", "backslashreplace"))


def _readable(body: bytes) -> str:
    text = body.decode("utf-8", "backslashreplace")
    try:
        return as_json(json.loads(text))
    except (ValueError, RecursionError):
        return text


def _cell(value: Any) -> str:
    text = "-" if value is None else str(value)
    return _text(text if len(text) <= 60 else text[:59] + "…")


def _indented(text: str) -> str:
    return "\n".join(f"  {_text(line)}" for line in text.splitlines())


def _text(value: Any) -> str:
    return "".join(c if c.isprintable() or c == "\n" else f"\\x{ord(c):02x}" for c in str(value))
