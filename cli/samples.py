"""Sample deliveries: what each provider would send, with ids of their own, so that each is a new event."""

from __future__ import annotations

import json
import secrets
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from string import Template
from typing import Any, Literal
from urllib.parse import quote_plus

from chalicelib.postern.contract.payloads import FORM_TYPE
from chalicelib.postern.receiving.naming import Locator, Place
from chalicelib.postern.receiving.schemes.base import Draft
from chalicelib.postern.receiving.sources import Source
from cli.guides import SampleText, guide


@dataclass(frozen=True)
class Sample:
    """A request as the provider would make it. `headers` are complete, signature and all."""

    body: bytes
    headers: Mapping[str, str]
    query: Mapping[str, str] = field(default_factory=dict)


def sample(source: Source, type: str, secret: str, now: datetime, body: bytes | None = None, url: str = "") -> Sample:
    """A delivery of this type from this source to `url`, signed the way its provider signs.

    `body` replaces the sample's. A type that has no sample of its own gets the provider's most common one, under that
    name.
    """
    known = guide(source.provider)
    text = known.samples.get(type) or known.samples[known.default_type]
    event_id = str(uuid.uuid4())
    headers = {"Content-Type": text.content_type, "User-Agent": "postern-send/1"}
    headers |= {name: _filled(value, event_id, now) for name, value in text.headers.items()}
    headers |= dict.fromkeys(_headers_of(source.identity.place), event_id) | dict.fromkeys(
        _headers_of(source.type), type
    )
    if body is None:
        body = _body(text, None if type in known.samples else source.type, type, event_id, now)
    draft = Draft(body, event_id, now, source.url or url, headers=headers)
    signed = source.scheme.sign(draft, secret)
    return Sample(signed.body, {**headers, **signed.headers}, signed.query)


def anew(
    source: Source, secret: str, now: datetime, headers: Sequence[tuple[str, str]], body: bytes, url: str
) -> Sample:
    """A delivery that came once, with these headers, as its provider would send it now: with an id of its own where
    that stands in a header or in the signature, and with another signature.
    """
    event_id = str(uuid.uuid4())
    # Who leaves it out sends JSON, as receiving/ingest.py has it; the library that sends this would say otherwise.
    given = {"content-type": "application/json"} | {name.lower(): value for name, value in headers}
    given |= {name.lower(): event_id for name in _headers_of(source.identity.place)}
    signed = source.scheme.sign(Draft(body, event_id, now, source.url or url, headers=given), secret)
    return Sample(signed.body, given | {name.lower(): value for name, value in signed.headers.items()}, signed.query)


def _body(text: SampleText, renamed: Place | None, type: str, event_id: str, now: datetime) -> bytes:
    if text.content_type == FORM_TYPE:
        fields = [line.partition("=") for line in text.body.strip().splitlines()]
        return "&".join(
            f"{quote_plus(name)}={quote_plus(_filled(value, event_id, now))}" for name, _, value in fields
        ).encode()
    filled = _filled(text.body, event_id, now)
    for locator in _in_body(renamed):
        payload = json.loads(filled)
        if isinstance(payload, dict) and "." not in locator.path:
            payload[locator.path] = type
            filled = json.dumps(payload, indent=2, ensure_ascii=False)
    return filled.encode()


def _filled(text: str, event_id: str, now: datetime) -> str:
    values: dict[str, Any] = {
        "uuid": event_id,
        "hex": event_id.replace("-", ""),
        "number": secrets.randbelow(9 * 10**9) + 10**9,
        "seconds": int(now.timestamp()),
        "millis": int(now.timestamp() * 1000),
        "iso": now.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
    }
    return Template(text).safe_substitute(values)


def _headers_of(place: Place | Literal["none"] | None) -> list[str]:
    if place is None or place == "none":
        return []
    return [part[0].path for part in place.parts if part[0].where == "header"]


def _in_body(place: Place | None) -> list[Locator]:
    return [part[0] for part in place.parts if part[0].where == "body"] if place else []


def default_type(provider: str) -> str:
    """The type to send when none is named: each provider's most common one."""
    return guide(provider).default_type
