"""Use case: accept a delivery. The order is the promise: cheap checks, then the signature, and only then JSON.

What is answered before that (`receiving.handshakes`, unsigned ones) reveals nothing and is never an event.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlencode
from uuid import UUID

from chalicelib.postern.contract import payloads
from chalicelib.postern.contract.bounds import MAX_BODY_BYTES
from chalicelib.postern.contract.deliveries import (
    REDACTED,
    Delivery,
    Greeting,
    Headers,
    Reply,
    holds,
    is_credential,
    new_event_id,
    spellings_of,
)
from chalicelib.postern.contract.envelope import MAX_MESSAGE_BYTES, Accepted, Rejected, to_message
from chalicelib.postern.contract.errors import (
    InvalidPayload,
    InvalidSignature,
    MethodNotAllowed,
    PayloadTooLarge,
    QueueUnavailable,
    SecretUnavailable,
    UnknownSource,
    UnsupportedMediaType,
)
from chalicelib.postern.contract.payloads import Format
from chalicelib.postern.receiving import naming
from chalicelib.postern.receiving.quarantine import MAX_KEPT_BYTES
from chalicelib.postern.receiving.schemes.base import Fetch, Proof, fetch_nothing
from chalicelib.postern.receiving.sources import Source

if TYPE_CHECKING:
    from marshmallow import Schema

# More than any provider sends at once; each is a message of its own.
_MAX_ITEMS = 10_000


class Queue(Protocol):
    """Takes messages for the processor. `group` keeps one busy source from delaying the others."""

    def send(self, message: str, *, group: str, trace: str | None) -> None:
        """Returns once the message is durable; raises QueueUnavailable otherwise."""

    def send_all(self, messages: Sequence[str], *, group: str, trace: str | None) -> None:
        """Returns once all of them are durable; raises QueueUnavailable otherwise, when some of them may be."""


class Bodies(Protocol):
    """Keeps the bodies that no message can carry."""

    def put(self, key: str, body: bytes) -> None:
        """Returns once the body is durable; raises QueueUnavailable otherwise."""


@dataclass(frozen=True)
class Inbox:
    """What accepting a delivery needs.

    `secrets_of` gives a source's valid secrets, or raises SecretUnavailable; `fetch` gets certificates; `may_keep` says
    whether one more refused delivery of a source is kept, which was `verified` or not.
    """

    sources: Mapping[str, Source]
    secrets_of: Callable[[str], list[str]]
    queue: Queue
    bodies: Bodies
    fetch: Fetch = fetch_nothing
    may_keep: Callable[[str, bool], bool] = lambda source, verified: False


@dataclass(frozen=True)
class Receipt:
    """What the sender and the log are told about an accepted delivery: about its first event, and how many it brought.

    `answer`: what the provider wants to hear, where it wants something else than we say.
    """

    ids: Sequence[UUID]
    type: str
    dedup_key: str
    secret: int | None
    fingerprint: str | None = None
    answer: Reply | None = None

    @property
    def id(self) -> UUID:
        return self.ids[0]


def accept(delivery: Delivery, inbox: Inbox, id: UUID | None = None) -> Receipt | Greeting:
    """Verifies, validates and queues a delivery; returns only when each of its events is durable.

    A handshake is answered instead. `id` is the first event's, where that is known already: those of any others follow
    from it, so that accepting it again changes nothing. Raises a Refusal, whose class says what the sender is answered.
    """
    source = inbox.sources.get(delivery.source)
    if source is None:
        raise UnknownSource("unknown_source")
    came = delivery
    if source.url is not None:
        delivery = replace(delivery, url=source.address_of(delivery))
    if len(delivery.body) > MAX_BODY_BYTES:
        raise PayloadTooLarge("too_large", message=f"The body is larger than {MAX_BODY_BYTES:,} bytes.")
    if greeting := _greet(delivery, source, inbox, signed=False):
        return greeting
    if delivery.method != "POST":
        raise MethodNotAllowed("method")
    unread = None
    try:
        format = _reading(delivery, source)
    except UnsupportedMediaType as refusal:
        unread = refusal
    try:
        proof, fingerprint, inside = _verify_either(delivery, source, inbox)
        signed = delivery.body if inside is None else inside
        came_signed = delivery if inside is None else replace(delivery, body=inside)
        greeting = _greet(came_signed, source, inbox, signed=True)
    except InvalidSignature as refusal:
        if source.quarantine:
            refusal.kept, refusal.not_kept = _keep(came, source, refusal.reason, inbox)
        if unread is not None:
            unread.kept, unread.not_kept = refusal.kept, refusal.not_kept
            raise unread from None
        raise
    if greeting:
        return greeting
    try:
        if unread is not None:
            raise unread
        content = _content(delivery, source) if inside is None else inside
        headers = _stored_headers(delivery, source, _known_secrets(source, inbox))
        events = _events(delivery, headers, signed, content, source, proof, fingerprint, format, id)
    except (InvalidPayload, PayloadTooLarge, UnsupportedMediaType) as refusal:
        # Its sender is who he says, and may never come again: what he sent is there when the mistake is mended.
        if source.needs_secret or source.quarantine:
            refusal.kept, refusal.not_kept = _keep(
                came, source, refusal.reason, inbox, proof=proof if source.needs_secret else None
            )
        refusal.verified = source.needs_secret
        raise
    if not events:
        return Greeting(200)
    _enqueue(events, inbox, delivery.trace)
    first, ids = events[0], [event.id for event in events]
    return Receipt(ids, first.type, first.dedup_key, proof.secret, fingerprint, source.answer)


def _keep(
    delivery: Delivery, source: Source, reason: str, inbox: Inbox, *, proof: Proof | None = None, share: str = ""
) -> tuple[UUID | None, str | None]:
    """Keeps a delivery to be explained, if it may: under which id, or why not. `proof`: of one that was verified.
    `share`: whose share of what may be kept it takes, if it is not the source's.

    Whatever comes of it changes nothing for the sender.
    """
    if len(delivery.body) > MAX_KEPT_BYTES and proof is None:
        return None, "too_large"
    try:
        if not inbox.may_keep(share or source.name, proof is not None):
            return None, "too_many"
        rejected = _rejected(delivery, source, reason, inbox, proof)
        message = to_message(rejected)
        if len(message) > MAX_MESSAGE_BYTES:
            return None, "too_large"
        # A group of its own: forgeries delay no event of the source.
        inbox.queue.send(message, group=f"{source.name}.rejected", trace=delivery.trace)
    except QueueUnavailable as exc:
        return None, f"queue_unavailable: {exc.reason}"
    except Exception as exc:  # a mistake of ours here would be a 500 for what is a 401
        return None, type(exc).__name__
    return rejected.id, None


def _rejected(delivery: Delivery, source: Source, reason: str, inbox: Inbox, proof: Proof | None) -> Rejected:
    known = _known_secrets(source, inbox)
    query = [
        (REDACTED, v)
        if holds(n, known)
        else (n, REDACTED)
        if n in source.scheme.credential_parameters or holds(v, known) or is_credential(n.lower())
        else (n, v)
        for n, v in delivery.query
    ]
    url = delivery.url
    if query != list(delivery.query):
        url = f"{url.partition('?')[0]}?{urlencode(query)}"
    return Rejected(
        id=new_event_id(delivery.received_at),
        source=source.name,
        received_at=delivery.received_at,
        reason=reason,
        method=delivery.method,
        url=REDACTED if holds(url, known) else url,
        query=query,
        headers=_stored_headers(delivery, source, known),
        body=delivery.body,
        request_id=delivery.request_id,
        verified=proof is not None,
        signed_id=proof.signed_id if proof is not None else None,
    )


def _known_secrets(source: Source, inbox: Inbox) -> list[str]:
    """How the source's secrets may be written in what is kept."""
    try:
        known = inbox.secrets_of(source.name) if source.needs_secret else []
        return spellings_of(filter(None, map(source.scheme.confidential, known)))
    except SecretUnavailable:
        return []


def _stored_headers(delivery: Delivery, source: Source, known: Sequence[str]) -> dict[str, str | list[str]]:
    return delivery.headers.as_stored(hidden=source.scheme.credentials | source.hidden_headers, spellings=known)


def _greet(delivery: Delivery, source: Source, inbox: Inbox, *, signed: bool) -> Greeting | None:
    if not source.handshakes:
        return None
    from chalicelib.postern.receiving import handshakes

    greeting = handshakes.greet(delivery, source, signed=signed, secrets_of=inbox.secrets_of, fetch=inbox.fetch)
    if greeting is not None and greeting.kept_as is not None:
        kept, why = _keep(delivery, source, greeting.kept_as, inbox, share=f"{source.name}/{greeting.kept_as}")
        if kept is None:
            raise QueueUnavailable(f"not_kept: {why}")  # the operator has to see it: let it come again
    return greeting


def _reading(delivery: Delivery, source: Source) -> Format:
    """How the body is read."""
    content_type = _content_type(delivery.headers)
    if content_type not in source.content_types:
        taken = ", ".join(sorted(source.content_types))
        raise UnsupportedMediaType("content_type", message=f"This source takes {taken}.")
    return source.format or payloads.format_of(content_type)


def _content_type(headers: Headers) -> str:
    values = headers.all("content-type")
    if not values:
        # Senders that leave it out send JSON; Chalice and API Gateway take it for JSON, too.
        return "application/json"
    return values[0].partition(";")[0].strip().lower() if len(values) == 1 else "repeated"


def _verify_either(delivery: Delivery, source: Source, inbox: Inbox) -> tuple[Proof, str | None, bytes | None]:
    """Of a compressed body senders sign what is sent, or what is inside: that is the third then. What is not verified
    is unpacked within bounds, and read no further.
    """
    try:
        return *_verify(delivery, source, inbox), None
    except InvalidSignature as refusal:
        try:
            inside = _content(delivery, source)
        except PayloadTooLarge:
            raise refusal from None
        if inside == delivery.body:
            raise
    return *_verify(replace(delivery, body=inside), source, inbox), inside


def _content(delivery: Delivery, source: Source) -> bytes:
    """What the body holds. A word that a handshake signs could be a compressed event, written in letters and digits."""
    return delivery.body if source.signs_words else payloads.content_of(delivery.body, delivery.headers)


def _verify(delivery: Delivery, source: Source, inbox: Inbox) -> tuple[Proof, str | None]:
    """The proof, and the fingerprint of the secret that gave it."""
    secrets = inbox.secrets_of(source.name) if source.needs_secret else []
    proof = source.scheme.verify(delivery, secrets, inbox.fetch)
    return proof, None if proof.secret is None else naming.fingerprint(source.name, secrets[proof.secret])


def _validate(payload: object, schema: Schema) -> None:
    from marshmallow import ValidationError

    try:
        schema.load(payload)  # type: ignore[arg-type]  # whatever is no mapping is a ValidationError
    except ValidationError as exc:
        details = exc.messages if isinstance(exc.messages, dict) else {"_schema": exc.messages}
        raise InvalidPayload("schema", message="The payload does not fit its schema.", details=details) from None


@dataclass(frozen=True)
class _Part:
    """What becomes one event: a whole delivery, or an item of it. `signed_id` is under the signature; `signed` is the
    body, or what it holds where that was signed; `item` is its place among several, and `equal_before` how many of
    these have the same bytes before it.
    """

    id: UUID
    body: bytes
    signed: bytes
    payload: object
    format: Format
    form_field: str | None
    signed_id: str | None
    item: int | None = None
    equal_before: int = 0


def _events(
    delivery: Delivery,
    headers: Mapping[str, str | list[str]],
    signed: bytes,
    content: bytes,
    source: Source,
    proof: Proof,
    fingerprint: str | None,
    format: Format,
    first_id: UUID | None,
) -> list[Accepted]:
    """One event, or one for each item of a delivery that brings several. `signed` is what was signed, `content` what it
    holds.
    """
    if source.empty_body and not content.strip():
        format = Format.BYTES  # all that there is to say is in the headers
    form_field = payloads.form_field_in(content, source.form_field) if format is Format.FORM else None
    text = payloads.text_of(content, form_field, format)
    items = None if text is None else _items(text, source, format)
    if items is None:
        payload = None if text is None else payloads.parse(text)
        [id] = _ids(delivery, 1, first_id)
        part = _Part(id, delivery.body, signed, payload, format, form_field, proof.signed_id)
        return [_event(delivery, source, part, headers, fingerprint)]
    if len(items) > _MAX_ITEMS:
        raise PayloadTooLarge("too_many_items", message=f"The body brings more than {_MAX_ITEMS:,} events.")
    ids = _ids(delivery, len(items), first_id)
    events = []
    equal: Counter[str] = Counter()
    for at, (id, item) in enumerate(zip(ids, items, strict=True)):
        signed_id = f"{proof.signed_id}:{at}" if proof.signed_id else None
        own = item.encode()
        part = _Part(id, own, own, payloads.parse(item), Format.JSON, None, signed_id, at, equal[item])
        equal[item] += 1
        event = _event(delivery, source, part, headers, fingerprint)
        events.append(replace(event, delivery=ids[0], delivery_body=None if at else delivery.body))
    return events


def _items(text: str, source: Source, format: Format) -> list[str] | None:
    """The texts of a delivery's events, where it brings several."""
    if format is Format.LINES:
        return payloads.lines_of(text)
    if source.items is None:
        return None
    payload = payloads.parse(text)
    if source.items == "" and isinstance(payload, dict):
        return [text.strip()]  # one where a list was expected, as of HubSpot's workflows
    return payloads.items_of(text, source.items)


def _ids(delivery: Delivery, number: int, first: UUID | None) -> list[UUID]:
    """In the order of the items, which were all received in one moment."""
    if first is not None:
        return [UUID(int=first.int + n) for n in range(number)]
    return sorted(new_event_id(delivery.received_at) for _ in range(number))


def _event(
    delivery: Delivery,
    source: Source,
    part: _Part,
    headers: Mapping[str, str | list[str]],
    fingerprint: str | None,
) -> Accepted:
    if source.schema is not None:
        _validate(part.payload, source.schema)
    topic, topic_in_header = source.type.find_where(delivery.headers, part.payload) if source.type else (None, False)
    identity = source.identity.of(
        part.id,
        delivery.headers,
        part.payload,
        part.signed,
        signed_id=part.signed_id,
        topic=topic if topic_in_header else None,
        item=part.item,
        equal_before=part.equal_before,
    )
    return Accepted(
        id=part.id,
        source=source.name,
        type=naming.event_type(topic),
        dedup_key=identity.key,
        window=identity.window,
        same_bytes=identity.same_bytes,
        refuse_same_bytes=identity.refuse_same_bytes,
        received_at=delivery.received_at,
        headers=headers,
        body=part.body,
        format=part.format.value,
        form_field=part.form_field,
        request_id=delivery.request_id,
        secret=fingerprint,
        origin=delivery.origin,
    )


def _enqueue(events: Sequence[Accepted], inbox: Inbox, trace: str | None) -> None:
    messages = [_message(event, inbox) for event in events]
    group = events[0].source
    if len(messages) == 1:
        inbox.queue.send(messages[0], group=group, trace=trace)
    else:
        inbox.queue.send_all(messages, group=group, trace=trace)


def _message(event: Accepted, inbox: Inbox) -> str:
    """Bodies too large for a message go to the bucket first."""
    message = to_message(event)
    if len(message) <= MAX_MESSAGE_BYTES:
        return message
    key = f"{event.source}/{event.received_at:%Y/%m/%d}/{event.id}"
    if event.delivery_body is not None:
        inbox.bodies.put(f"{key}.delivery", event.delivery_body)
        event = replace(event, delivery_body=None, delivery_body_key=f"{key}.delivery")
        message = to_message(event)
    if len(message) > MAX_MESSAGE_BYTES:
        assert event.body is not None
        inbox.bodies.put(key, event.body)
        message = to_message(replace(event, body=None, body_key=key))
    return message
