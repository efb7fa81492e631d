"""The one place where an outcome becomes an HTTP answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from chalicelib.errors import Refusal
from chalicelib.ingest import Receipt


@dataclass(frozen=True)
class Answer:
    """A status, a JSON body and headers, for whichever framework serves it."""

    status: int
    body: dict[str, Any]
    headers: dict[str, str] = field(default_factory=dict)


def accepted(receipt: Receipt) -> Answer:
    return Answer(202, {"status": "accepted", "id": str(receipt.id)})


def refused(refusal: Refusal) -> Answer:
    return Answer(
        refusal.status,
        {"error": refusal.code, "message": refusal.message, "details": dict(refusal.details)},
        dict(refusal.headers),
    )


def framework_error(status: int) -> Answer:
    """Chalice's own answers (405, 415, 500, …) in the shape of ours."""
    code, message = _FRAMEWORK_ERRORS.get(status, (Refusal.code, Refusal.message))
    return Answer(status, {"error": code, "message": message, "details": {}})


_FRAMEWORK_ERRORS = {
    405: ("method_not_allowed", "This route does not take this method."),
    415: ("unsupported_media_type", "This route does not take this content type."),
}
