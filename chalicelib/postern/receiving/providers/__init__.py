"""The kinds of senders: how each signs, greets, and names its events.

They are data: one entry each in `catalogue.toml`, on top of the schemes in `receiving.schemes`. An entry is read when
a source needs it, and by itself: fifty others cost nothing.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from chalicelib.postern.contract.deliveries import Reply
from chalicelib.postern.receiving.naming import Place

_CATALOGUE = Path(__file__).parent / "catalogue.toml"
_ENTRY = re.compile(r"^\[([a-z0-9-]+)\]\n((?:(?!\[).*\n)*)", re.MULTILINE)

JSON = "application/json"

# How much later than planned a provider's last attempt may come.
_SLACK_SECONDS = 900


@dataclass(frozen=True)
class Provider:
    """One kind of sender.

    - `scheme` names a class of `receiving.schemes`, `settings` are its parameters, and `options` those of them that
      a source may set itself.
    - `dedup` and `type` say where an event's id and type stand; without `dedup` the bytes decide, and "none" means that
      each delivery is an event of its own.
    - `items`: where the list of events stands in a delivery that brings several; places are then within an item.
    - `form_field`: the field that holds the JSON when the provider sends a form; with a `?` behind it, if the form has
      such a field.
    - `empty_body`: what happened stands in its headers, and the body may be empty.
    - `handshakes`: what it demands before or between its events (`receiving.handshakes`).
    - `resigns`: whether each attempt is signed with its own time; None where no time is signed, or nobody knows.
      `retries`: for how many seconds it repeats a delivery. What is not signed anew may be as old as that.
    - `answer`: what the provider wants to hear of an accepted delivery, where it is not our 202.
    """

    name: str
    scheme: str
    settings: Mapping[str, Any]
    options: frozenset[str] = frozenset()
    dedup: Place | Literal["none"] | None = None
    type: Place | None = None
    items: str | None = None
    content_types: tuple[str, ...] = (JSON,)
    form_field: str | None = None
    empty_body: bool = False
    handshakes: Sequence[Mapping[str, Any]] = ()
    resigns: bool | None = None
    retries: int | None = None
    answer: Reply | None = None
    needs_secret: bool = True


@cache
def _text() -> str:
    return _CATALOGUE.read_text("utf-8")


def provider_names() -> list[str]:
    """The names of all providers, in alphabetical order."""
    return sorted(found[1] for found in _ENTRY.finditer(_text()))


@cache
def provider(name: str) -> Provider:
    """The provider of this name; raises KeyError."""
    text = _text()
    at = f"\n{text}".find(f"\n[{name}]\n")
    found = _ENTRY.match(text, at) if at >= 0 else None
    if found is None:
        raise KeyError(name)
    entry = tomllib.loads(found[2])
    resigns, retries = entry.pop("resigns", None), entry.pop("retries", None)
    if resigns is False and retries is not None:
        entry["tolerance_seconds"] = retries + _SLACK_SECONDS
    return Provider(
        name=name,
        scheme=entry.pop("scheme"),
        options=frozenset(entry.pop("options", ())),
        dedup=_dedup(entry.pop("dedup", None)),
        type=Place.parse(entry.pop("type")) if "type" in entry else None,
        items=entry.pop("items", None),
        content_types=tuple(entry.pop("content_types", (JSON,))),
        form_field=entry.pop("form_field", None),
        empty_body=entry.pop("empty_body", False),
        handshakes=entry.pop("handshakes", ()),
        resigns=resigns,
        retries=retries,
        answer=Reply.of(entry.pop("answer")) if "answer" in entry else None,
        needs_secret=entry.pop("needs_secret", True),
        settings=entry,
    )


def _dedup(value: str | list[str] | None) -> Place | Literal["none"] | None:
    if value is None or value == "none":
        return value  # type: ignore[return-value]  # the literal
    return Place.parse(value)
