"""Use case: accept a delivery. The order is the promise: cheap checks, then the signature, and only then JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol
from uuid import UUID

from marshmallow import Schema, ValidationError

from chalicelib import naming, payloads
from chalicelib.config import LARGEST_BODY_BYTES
from chalicelib.deliveries import Delivery, Headers, new_event_id
from chalicelib.envelope import LARGEST_MESSAGE_BYTES, Accepted, to_message
from chalicelib.errors import (
    InvalidPayload,
    PayloadTooLarge,
    UnknownSource,
    UnsupportedMediaType,
)
from chalicelib.signatures import Proof
from chalicelib.sources import Source


class Queue(Protocol):
    """Takes messages for the processor. `group` keeps one busy source from delaying the others."""

    def send(self, message: str, *, group: str, trace: str | None) -> None:
        """Returns once the message is durable; raises QueueUnavailable otherwise."""


class Bodies(Protocol):
    """Keeps the bodies that no message can carry."""

    def put(self, key: str, body: bytes) -> None:
        """Returns once the body is durable; raises QueueUnavailable otherwise."""


@dataclass(frozen=True)
class Inbox:
    """What accepting a delivery needs. `secrets_of` gives a source's valid secrets, or raises SecretUnavailable."""

    sources: Mapping[str, Source]
    secrets_of: Callable[[str], list[str]]
    queue: Queue
    bodies: Bodies


@dataclass(frozen=True)
class Receipt:
    """What the sender and the log are told about an accepted event."""

    id: UUID
    type: str
    dedup_key: str
    secret: int | None


def accept(delivery: Delivery, inbox: Inbox) -> Receipt:
    """Verifies, validates and queues a delivery; returns only when the event is durable.

    Raises a Refusal, whose class says what the sender is answered.
    """
    source = inbox.sources.get(delivery.source)
    if source is None:
        raise UnknownSource("unknown_source")
    form_field = _check_cheaply(delivery, source)
    proof = _verify(delivery, source, inbox)

    payload = payloads.parse(payloads.text_of(delivery.body, form_field))
    if source.schema is not None:
        _validate(payload, source.schema)

    event = _event(delivery, source, proof, payload, form_field)
    _enqueue(event, inbox, delivery.trace)
    return Receipt(event.id, event.type, event.dedup_key, proof.secret)


def _check_cheaply(delivery: Delivery, source: Source) -> str | None:
    """Size and content type; returns the form field to read when the body is a form."""
    if len(delivery.body) > LARGEST_BODY_BYTES:
        raise PayloadTooLarge("too_large", message=f"The body is larger than {LARGEST_BODY_BYTES:,} bytes.")
    content_type = _content_type(delivery.headers)
    if content_type not in source.content_types:
        taken = ", ".join(sorted(source.content_types))
        raise UnsupportedMediaType("content_type", message=f"This source takes {taken}.")
    return source.form_field if content_type == "application/x-www-form-urlencoded" else None


def _content_type(headers: Headers) -> str:
    values = headers.all("content-type")
    if not values:
        # Senders that leave it out send JSON; Chalice and API Gateway take it for JSON, too.
        return "application/json"
    return values[0].partition(";")[0].strip().lower() if len(values) == 1 else "repeated"


def _verify(delivery: Delivery, source: Source, inbox: Inbox) -> Proof:
    secrets = inbox.secrets_of(source.name) if source.needs_secret else []
    return source.scheme.verify(delivery.headers, delivery.body, secrets, delivery.received_at)


def _validate(payload: object, schema: Schema) -> None:
    try:
        schema.load(payload)  # type: ignore[arg-type]  # whatever is no mapping is a ValidationError
    except ValidationError as exc:
        details = exc.messages if isinstance(exc.messages, dict) else {"_schema": exc.messages}
        raise InvalidPayload("schema", message="The payload does not fit its schema.", details=details) from None


def _event(delivery: Delivery, source: Source, proof: Proof, payload: object, form_field: str | None) -> Accepted:
    found_key = proof.signed_id or (source.dedup.find(delivery.headers, payload) if source.dedup else None)
    found_type = source.type.find(delivery.headers, payload) if source.type else None
    return Accepted(
        id=new_event_id(delivery.received_at),
        source=source.name,
        type=naming.event_type(found_type),
        dedup_key=naming.dedup_key(found_key, delivery.body),
        received_at=delivery.received_at,
        headers=delivery.headers.as_stored(hidden=source.scheme.credentials),
        body=delivery.body,
        form_field=form_field,
        request_id=delivery.request_id,
    )


def _enqueue(event: Accepted, inbox: Inbox, trace: str | None) -> None:
    message = to_message(event)
    if len(message) > LARGEST_MESSAGE_BYTES:
        assert event.body is not None
        key = f"{event.source}/{event.received_at:%Y/%m/%d}/{event.id}"
        inbox.bodies.put(key, event.body)
        message = to_message(replace(event, body=None, body_key=key))
    inbox.queue.send(message, group=event.source, trace=trace)
