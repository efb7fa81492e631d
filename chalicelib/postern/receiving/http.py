"""The one place where an outcome becomes an HTTP answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chalicelib.postern.contract.answers import Answer, error
from chalicelib.postern.contract.deliveries import Greeting
from chalicelib.postern.contract.errors import Refusal
from chalicelib.postern.receiving.ingest import Receipt

# Whatever the answer is, this header of it names the event.
EVENT_ID = "Postern-Event-Id"

_TEXT = {"Content-Type": "text/plain; charset=utf-8"}


def accepted(receipt: Receipt) -> Answer:
    """The id is the first event's; a delivery that brought several has them all. It stands in a header, too, since some
    senders want another body.
    """
    named = {EVENT_ID: str(receipt.id)}
    if (reply := receipt.answer) is not None:
        text = reply.body.replace("{id}", str(receipt.id))
        return Answer(reply.status, text, {"Content-Type": reply.content_type, **named})
    body: dict[str, Any] = {"status": "accepted", "id": str(receipt.id)}
    if len(receipt.ids) > 1:
        body["ids"] = [str(id) for id in receipt.ids]
    return Answer(202, body, named)


def greeted(greeting: Greeting) -> Answer:
    headers = {} if isinstance(greeting.body, Mapping) else _TEXT
    return Answer(greeting.status, greeting.body, {**headers, **greeting.headers})


def refused(refusal: Refusal) -> Answer:
    return error(refusal.status, refusal.code, refusal.message, details=refusal.details, headers=refusal.headers)


def framework_error(status: int) -> Answer:
    """Chalice's own answers (405, 415, 500, …) in the shape of ours."""
    code, message = _FRAMEWORK_ERRORS.get(status, (Refusal.code, Refusal.message))
    return error(status, code, message)


_FRAMEWORK_ERRORS = {
    405: ("method_not_allowed", "This route does not take this method."),
    415: ("unsupported_media_type", "This route does not take this content type."),
}
