"""The envelope as a schema: what contract.opening reads by hand, said again, to be held against it."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping
from typing import Any

from marshmallow import EXCLUDE, Schema, ValidationError, fields, post_load, validate

from chalicelib.postern.contract.envelope import MAX_WINDOW_SECONDS, VERSION, Accepted, Rejected, Replay
from chalicelib.postern.contract.errors import MalformedMessage

# A body never unpacks to more than the API function takes; the margin is for a limit raised on one side first.
_MAX_UNPACKED_BYTES = 10_000_000


def from_message(text: str) -> Accepted | Rejected | Replay:
    """As contract.opening has it."""
    try:
        # A fresh schema costs more than the check; one instance of each serves every message.
        schema = next((schema for start, schema in _BY_START.items() if text.startswith(start)), ENVELOPE)
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


class EnvelopeSchema(Schema):
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
    origin = fields.String(load_default=None, validate=_storable)
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
            origin=data["origin"],
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


ENVELOPE = EnvelopeSchema()
_BY_START = {f'{{"v":{VERSION},"rejected":': _RejectedSchema(), f'{{"v":{VERSION},"replay":': _ReplaySchema()}


def _keys(error: ValidationError) -> str:
    """Which keys are wrong, and none of what they hold: it came from a sender."""
    messages = error.messages
    return ", ".join(sorted(map(str, messages))) if isinstance(messages, dict) else "not an object"
