"""Pure: what of a stored event is sent on: its headers as a request can have them, and how its body is read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from chalicelib.postern.contract.deliveries import REDACTED
from chalicelib.postern.contract.payloads import Format, format_of
from chalicelib.postern.receiving.sources import Source

# Of the connection that brought it (RFC 9110, section 7.6.1), or written anew for every request; and what proxies,
# API Gateway and Amazon's front added.
_OF_THE_CONNECTION = frozenset(
    {
        "host",
        "content-length",
        "connection",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "expect",
        "forwarded",
        "via",
        "cdn-loop",
    }
)
_OF_PROXIES = ("x-forwarded-", "x-amzn-", "x-amz-cf-", "cloudfront-")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# What a value cannot have in a request: line breaks and other control characters.
_UNSENDABLE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


@dataclass(frozen=True)
class Sendable:
    """`headers` as a request can have them; `credentials` are the names of those that were not kept."""

    headers: list[tuple[str, str]]
    credentials: list[str]


def sendable(headers: Mapping[str, str | list[str]]) -> Sendable:
    """Of an event's headers those that are its own, whoever wrote them: none can add a header or a line."""
    pairs = [(name, each) for name, value in headers.items() for each in ([value] if isinstance(value, str) else value)]
    named = {part.strip().lower() for name, value in pairs if name == "connection" for part in value.split(",")}
    own = [
        (name, value)
        for name, value in pairs
        if _TOKEN.fullmatch(name)
        and not _UNSENDABLE.search(value)
        and name not in _OF_THE_CONNECTION | named
        and not name.startswith(_OF_PROXIES)
    ]
    return Sendable(
        [(name, value) for name, value in own if value != REDACTED],
        sorted({name for name, value in own if value == REDACTED}),
    )


def reading(event: Mapping[str, Any], source: Source | None) -> tuple[str, str | None]:
    """How the event's body is read, and the form field that holds its JSON: as it was when the event came."""
    if event["delivery_id"]:
        return Format.JSON.value, None  # a part of a delivery, which was JSON
    given = event["headers"].get("content-type", "application/json")
    format = format_of(given.partition(";")[0].strip().lower() if isinstance(given, str) else "")
    return format.value, source.form_field if source and format is Format.FORM else None
