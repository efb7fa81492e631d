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

VERSION = 1

# SQS takes 1 MiB a message, attributes and all; the processor adds some when it moves one to the dead letters.
MAX_MESSAGE_BYTES = 1_048_576 - 4_096

# A year: keys are not kept for longer.
MAX_WINDOW_SECONDS = 366 * 86_400

_COMPRESS_FROM_BYTES = 2_048


@dataclass(frozen=True)
class Accepted:
    """An event between the two functions. `body` is None while the bytes lie in the bucket under `body_key`.

    - `secret`: the fingerprint of the secret that verified it.
    - `origin`: how it came, where its sender did not bring it: `reconciled`.
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
    origin: str | None = None


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
    if event.origin is not None:
        envelope["origin"] = event.origin
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
