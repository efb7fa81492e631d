"""The queue message: what the API function tells the processor about an accepted event.

One JSON object of ASCII (SQS takes only characters that XML allows). Its version changes when an older processor
could misread it. The body travels as base64; a large one is compressed, and one that no message can carry lies
in the bucket, with a pointer here (a claim check).
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from marshmallow import EXCLUDE, Schema, ValidationError, fields, post_load, validate

from chalicelib.postern.contract.errors import MalformedMessage

VERSION = 1

# SQS takes 1 MiB a message, attributes and all; the processor adds some when it moves one to the dead letters.
MAX_MESSAGE_BYTES = 1_048_576 - 4_096

# A year: keys are not kept for longer.
MAX_WINDOW_SECONDS = 366 * 86_400

_COMPRESS_FROM_BYTES = 2_048
# A body never unpacks to more than the API function takes; the margin is for a limit raised on one side first.
_MAX_UNPACKED_BYTES = 10_000_000


@dataclass(frozen=True)
class Accepted:
    """An event between the two functions. `body` is None while the bytes lie in the bucket under `body_key`.

    - `secret`: the fingerprint of the secret that verified it.
    - `claim`: what the event is claimed under, where that is not its dedup key.
    - `window`: for how many seconds the claim holds; None for as long as it is kept.
    - `same_bytes`: a hash of its bytes, where somebody could send them again under another id; by it a repetition is
      marked, or with `refuse_same_bytes` taken for the same event.
    - `delivery`: the id of the delivery that it is one event of several of: the first one's. That one has the
      `delivery_body`, or where it lies in the bucket.
    """

    id: UUID
    source: str
    type: str
    dedup_key: str
    received_at: datetime
    headers: Mapping[str, str | list[str]]
    body: bytes | None
    body_key: str | None = None
    form_field: str | None = None
    request_id: str | None = None
    secret: str | None = None
    format: str = "json"
    claim: str | None = None
    window: int | None = None
    same_bytes: str | None = None
    refuse_same_bytes: bool = False
    delivery: UUID | None = None
    delivery_body: bytes | None = None
    delivery_body_key: str | None = None


@dataclass(frozen=True)
class Rejected:
    """A delivery that was refused and is kept to be explained, between the two functions. `verified`: its sender is who
    he says, and `signed_id` is the id that the signature held, if it held one.
    """

    id: UUID
    source: str
    received_at: datetime
    reason: str
    method: str
    url: str
    query: Sequence[tuple[str, str]]
    headers: Mapping[str, str | list[str]]
    body: bytes
    request_id: str | None = None
    verified: bool = False
    signed_id: str | None = None


@dataclass(frozen=True)
class Replay:
    """A stored event that is to be processed once more, for the replay `replay_id`. `id` is the event's."""

    id: UUID
    source: str
    type: str
    replay_id: UUID
    request_id: str | None = None


def to_message(event: Accepted | Rejected | Replay) -> str:
    """The message's text. Its length in bytes is its length."""
    if isinstance(event, Replay):
        return json.dumps(
            {
                "v": VERSION,
                "replay": str(event.replay_id),
                "id": str(event.id),
                "source": event.source,
                "type": event.type,
            },
            separators=(",", ":"),
        )
    if isinstance(event, Rejected):
        return _rejected_to_message(event)
    envelope: dict[str, Any] = {
        "v": VERSION,
        "id": str(event.id),
        "source": event.source,
        "type": event.type,
        "key": event.dedup_key,
        "at": event.received_at.astimezone(UTC).isoformat(),
        "headers": dict(event.headers),
    }
    if event.form_field is not None:
        envelope["form_field"] = event.form_field
    if event.request_id is not None:
        envelope["request"] = event.request_id
    if event.secret is not None:
        envelope["secret"] = event.secret
    if event.format != "json":
        envelope["format"] = event.format
    if event.claim is not None:
        envelope["claim"] = event.claim
    if event.window is not None:
        envelope["window"] = event.window
    if event.same_bytes is not None:
        envelope["same"] = event.same_bytes
    if event.refuse_same_bytes:
        envelope["refuse_same"] = True
    if event.delivery is not None:
        envelope["delivery"] = str(event.delivery)
    if event.delivery_body_key is not None:
        envelope["delivery_body_key"] = event.delivery_body_key
    if event.delivery_body is not None:
        envelope["delivery_body"] = base64.b64encode(zlib.compress(event.delivery_body, 1)).decode()
    if event.body is None:
        envelope["body_key"] = event.body_key
    elif len(event.body) < _COMPRESS_FROM_BYTES:
        envelope["body"] = base64.b64encode(event.body).decode()
    else:
        envelope["zbody"] = base64.b64encode(zlib.compress(event.body, 1)).decode()
    return json.dumps(envelope, separators=(",", ":"))


def _rejected_to_message(rejected: Rejected) -> str:
    envelope = {
        "v": VERSION,
        "rejected": rejected.reason,
        "id": str(rejected.id),
        "source": rejected.source,
        "at": rejected.received_at.astimezone(UTC).isoformat(),
        "method": rejected.method,
        "url": rejected.url,
        "query": [list(pair) for pair in rejected.query],
        "headers": dict(rejected.headers),
        "zbody": base64.b64encode(zlib.compress(rejected.body, 1)).decode(),
    }
    if rejected.request_id is not None:
        envelope["request"] = rejected.request_id
    if rejected.verified:
        envelope["verified"] = True
    if rejected.signed_id is not None:
        envelope["signed_id"] = rejected.signed_id
    return json.dumps(envelope, separators=(",", ":"))


def from_message(text: str) -> Accepted | Rejected | Replay:
    """Raises MalformedMessage for whatever `to_message` did not write."""
    try:
        # A fresh schema costs more than the check; one instance of each serves every message.
        schema = next((schema for start, schema in _BY_START.items() if text.startswith(start)), _ENVELOPE)
        event: Accepted | Rejected | Replay = schema.loads(text)
    except ValidationError as exc:
        raise MalformedMessage(f"not an envelope: {_keys(exc)}") from None
    except (ValueError, RecursionError) as exc:
        raise MalformedMessage(f"not JSON: {type(exc).__name__}") from None
    return event


class _Bytes(fields.Field[bytes]):
    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> bytes:
        try:
            return self._unpack(base64.b64decode(value, validate=True))
        except (TypeError, ValueError, zlib.error):
            raise ValidationError("not a body") from None

    def _unpack(self, packed: bytes) -> bytes:
        return packed


class _CompressedBytes(_Bytes):
    def _unpack(self, packed: bytes) -> bytes:
        unpacker = zlib.decompressobj()
        body = unpacker.decompress(packed, _MAX_UNPACKED_BYTES)
        if not unpacker.eof:
            raise ValueError("truncated, or larger than any body")
        return body


def _storable(text: str) -> None:
    """What PostgreSQL's text can hold; its driver raises for anything else, and would for the whole batch."""
    if not text or "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise ValidationError("not a name")


class _HeaderValue(fields.Field[str | list[str]]):
    def _deserialize(
        self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any
    ) -> str | list[str]:
        if isinstance(value, str) or (isinstance(value, list) and all(isinstance(item, str) for item in value)):
            return value
        raise ValidationError("not a text or a list of texts")


class _EnvelopeSchema(Schema):
    """Unknown keys pass: a newer API function may add one, as long as an older processor may ignore it."""

    class Meta:
        unknown = EXCLUDE

    v = fields.Integer(required=True, strict=True, validate=validate.Equal(VERSION))
    id = fields.UUID(required=True)
    source = fields.String(required=True, validate=_storable)
    type = fields.String(required=True, validate=_storable)
    key = fields.String(required=True, validate=_storable)
    at = fields.AwareDateTime(required=True, format="iso")
    headers = fields.Dict(keys=fields.String(), values=_HeaderValue(), required=True)
    form_field = fields.String(load_default=None)
    request = fields.String(load_default=None, validate=_storable)
    secret = fields.String(load_default=None, validate=_storable)
    format = fields.String(load_default="json", validate=validate.OneOf(["json", "form", "bytes"]))
    claim = fields.String(load_default=None, validate=_storable)
    window = fields.Integer(load_default=None, strict=True, validate=validate.Range(1, MAX_WINDOW_SECONDS))
    same = fields.String(load_default=None, validate=_storable)
    refuse_same = fields.Boolean(load_default=False)
    delivery = fields.UUID(load_default=None)
    delivery_body = _CompressedBytes(load_default=None)
    delivery_body_key = fields.String(load_default=None, validate=validate.Length(min=1))
    body = _Bytes()
    zbody = _CompressedBytes()
    body_key = fields.String(validate=validate.Length(min=1))

    @post_load
    def _to_event(self, data: dict[str, Any], **kwargs: Any) -> Accepted:
        carriers = data.keys() & {"body", "zbody", "body_key"}
        if len(carriers) != 1:
            raise ValidationError("exactly one is needed", "body")
        claim, same_bytes = data["claim"], data["same"]
        if claim is not None and claim.startswith("sha256:"):
            # From an API function of before 0.2, which claimed the bytes where the id is not signed.
            claim, same_bytes = None, claim
        return Accepted(
            id=data["id"],
            source=data["source"],
            type=data["type"],
            dedup_key=data["key"],
            received_at=data["at"],
            headers=data["headers"],
            body=data.get("body", data.get("zbody")),
            body_key=data.get("body_key"),
            form_field=data["form_field"],
            request_id=data["request"],
            secret=data["secret"],
            format=data["format"],
            claim=claim,
            window=data["window"],
            same_bytes=same_bytes,
            refuse_same_bytes=data["refuse_same"],
            delivery=data["delivery"],
            delivery_body=data["delivery_body"],
            delivery_body_key=data["delivery_body_key"],
        )


class _RejectedSchema(Schema):
    class Meta:
        unknown = EXCLUDE

    v = fields.Integer(required=True, strict=True, validate=validate.Equal(VERSION))
    rejected = fields.String(required=True, validate=_storable)
    id = fields.UUID(required=True)
    source = fields.String(required=True, validate=_storable)
    at = fields.AwareDateTime(required=True, format="iso")
    method = fields.String(required=True)
    url = fields.String(required=True)
    query = fields.List(fields.Tuple((fields.String(), fields.String())), required=True)
    headers = fields.Dict(keys=fields.String(), values=_HeaderValue(), required=True)
    request = fields.String(load_default=None, validate=_storable)
    verified = fields.Boolean(load_default=False)
    signed_id = fields.String(load_default=None)
    zbody = _CompressedBytes(required=True)

    @post_load
    def _to_rejected(self, data: dict[str, Any], **kwargs: Any) -> Rejected:
        return Rejected(
            id=data["id"],
            source=data["source"],
            received_at=data["at"],
            reason=data["rejected"],
            method=data["method"],
            url=data["url"],
            query=data["query"],
            headers=data["headers"],
            body=data["zbody"],
            request_id=data["request"],
            verified=data["verified"],
            signed_id=data["signed_id"],
        )


class _ReplaySchema(Schema):
    class Meta:
        unknown = EXCLUDE

    v = fields.Integer(required=True, strict=True, validate=validate.Equal(VERSION))
    replay = fields.UUID(required=True)
    id = fields.UUID(required=True)
    source = fields.String(required=True, validate=_storable)
    type = fields.String(required=True, validate=_storable)

    @post_load
    def _to_replay(self, data: dict[str, Any], **kwargs: Any) -> Replay:
        return Replay(data["id"], data["source"], data["type"], data["replay"])


_ENVELOPE = _EnvelopeSchema()
_BY_START = {f'{{"v":{VERSION},"rejected":': _RejectedSchema(), f'{{"v":{VERSION},"replay":': _ReplaySchema()}


def _keys(error: ValidationError) -> str:
    """Which keys are wrong, and none of what they hold: it came from a sender."""
    messages = error.messages
    return ", ".join(sorted(map(str, messages))) if isinstance(messages, dict) else "not an object"
