"""What the doors answer over HTTP: webhooks and the API have one shape for what goes wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Answer:
    """A status, a body (a JSON object, or text) and headers, for whichever framework serves it."""

    status: int
    body: Mapping[str, Any] | str
    headers: Mapping[str, str] = field(default_factory=dict)


def error(
    status: int,
    code: str,
    message: str,
    *,
    details: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """`code` is for programs, `message` a sentence for people, `details` what is wrong with each field."""
    return Answer(status, {"error": code, "message": message, "details": dict(details or {})}, dict(headers or {}))
