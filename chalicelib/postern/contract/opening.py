"""Opens the envelope: what the processor, and whoever looks at dead letters, makes of a message's text.

Read by hand: a schema would take a fifth of a small batch's time. tests/unit/envelope_schema.py has one that says the
same, and every test of malformed messages asks both.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, NoReturn
from uuid import UUID

from chalicelib.postern.contract.envelope import MAX_WINDOW_SECONDS, VERSION, Accepted, Rejected, Replay
from chalicelib.postern.contract.errors import MalformedMessage

# A body never unpacks to more than the API function takes; the margin is for a limit raised on one side first.
_MAX_UNPACKED_BYTES = 10_000_000

# What JSON has under a key -> what it means. Raises ValueError, TypeError or zlib.error.
_Reader = Callable[[Any], Any]


def from_message(text: str) -> Accepted | Rejected | Replay:
    """What the message says. Raises MalformedMessage for whatever `to_message` did not write.

    Unknown keys pass: a newer API function may add one, as long as an older processor may ignore it.
    """
    try:
        envelope = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise MalformedMessage(f"not JSON: {type(exc).__name__}") from None
    if not isinstance(envelope, dict):
        raise MalformedMessage("not an envelope: not an object")
    # As they are written: what is beside the version decides on the kind.
    if text.startswith(_REJECTED):
        return Rejected(**_read(envelope, _OF_REJECTED))
    if text.startswith(_REPLAY):
        return Replay(**_read(envelope, _OF_REPLAY))
    return _accepted(_read(envelope, _OF_ACCEPTED))


_REJECTED, _REPLAY = (f'{{"v":{VERSION},"{kind}":' for kind in ("rejected", "replay"))


def _read(envelope: Mapping[str, Any], fields: Mapping[str, tuple[str, _Reader, bool]]) -> dict[str, Any]:
    """By the names that they have here; what may be missing, and is, is left out."""
    found, wrong = {}, []
    for key, (name, read, is_needed) in fields.items():
        if key in envelope:
            try:
                found[name] = read(envelope[key])
            except (ValueError, TypeError, zlib.error):
                wrong.append(key)
        elif is_needed:
            wrong.append(key)
    if wrong:
        _refuse(wrong)
    del found["v"]
    return found


def _refuse(keys: list[str]) -> NoReturn:
    """Says which keys are wrong, and nothing of what they hold: it came from a sender."""
    raise MalformedMessage(f"not an envelope: {', '.join(sorted(keys))}")


def _accepted(found: dict[str, Any]) -> Accepted:
    bodies = [name for name in ("body", "zbody", "body_key") if name in found]
    if len(bodies) != 1:
        _refuse(["body"])
    found["body"] = found.pop("zbody", found.get("body"))
    claim = found.get("claim")
    if claim is not None and claim.startswith("sha256:"):
        # From an API function of before 0.2, which claimed the bytes where the id is not signed.
        found["claim"], found["same_bytes"] = None, claim
    return Accepted(**found)


def _version(value: Any) -> int:
    if type(value) is not int or value != VERSION:
        raise ValueError("another version")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value


def _name(value: Any) -> str:
    """What PostgreSQL's text can hold; its driver raises for anything else, and would for the whole batch."""
    text = _text(value)
    if not text or "\0" in text:
        raise ValueError("not a name")
    text.encode()  # no half of a surrogate pair
    return text


def _place(value: Any) -> str:
    text = _text(value)
    if not text:
        raise ValueError("empty")
    return text


def _id(value: Any) -> UUID:
    return UUID(_text(value))


def _moment(value: Any) -> datetime:
    moment = datetime.fromisoformat(_text(value))
    if moment.tzinfo is None:
        raise ValueError("no time zone")
    return moment


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError("not a flag")
    return value


def _window(value: Any) -> int:
    if type(value) is not int or not 1 <= value <= MAX_WINDOW_SECONDS:
        raise ValueError("no window")
    return value


def _format(value: Any) -> str:
    if value not in ("json", "form", "bytes"):
        raise ValueError("no format")
    return _text(value)


def _headers(value: Any) -> dict[str, str | list[str]]:
    if not isinstance(value, dict):
        raise TypeError("no headers")
    for each in value.values():
        if not isinstance(each, str) and not (isinstance(each, list) and all(isinstance(one, str) for one in each)):
            raise TypeError("not a text or a list of texts")
    return value


def _query(value: Any) -> list[tuple[str, str]]:
    if not isinstance(value, list):
        raise TypeError("no list")
    return [(_text(name), _text(content)) for name, content in map(_pair, value)]


def _pair(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError("no pair")
    return value


def _bytes(value: Any) -> bytes:
    return base64.b64decode(_text(value), validate=True)


def _unpacked(value: Any) -> bytes:
    unpacker = zlib.decompressobj()
    body = unpacker.decompress(_bytes(value), _MAX_UNPACKED_BYTES)
    if not unpacker.eof:
        raise ValueError("truncated, or larger than any body")
    return body


def _or_none(read: _Reader) -> _Reader:
    return lambda value: None if value is None else read(value)


# Key -> the name that it has here, how it is read, and whether it is needed.
_OF_ACCEPTED: Mapping[str, tuple[str, _Reader, bool]] = {
    "v": ("v", _version, True),
    "id": ("id", _id, True),
    "source": ("source", _name, True),
    "type": ("type", _name, True),
    "key": ("dedup_key", _name, True),
    "at": ("received_at", _moment, True),
    "headers": ("headers", _headers, True),
    "form_field": ("form_field", _or_none(_text), False),
    "request": ("request_id", _or_none(_name), False),
    "secret": ("secret", _or_none(_name), False),
    "format": ("format", _format, False),
    "claim": ("claim", _or_none(_name), False),
    "window": ("window", _or_none(_window), False),
    "same": ("same_bytes", _or_none(_name), False),
    "refuse_same": ("refuse_same_bytes", _flag, False),
    "delivery": ("delivery", _or_none(_id), False),
    "delivery_body": ("delivery_body", _or_none(_unpacked), False),
    "delivery_body_key": ("delivery_body_key", _or_none(_place), False),
    "origin": ("origin", _or_none(_name), False),
    "body": ("body", _bytes, False),
    "zbody": ("zbody", _unpacked, False),
    "body_key": ("body_key", _place, False),
}
_OF_REJECTED: Mapping[str, tuple[str, _Reader, bool]] = {
    "v": ("v", _version, True),
    "rejected": ("reason", _name, True),
    "id": ("id", _id, True),
    "source": ("source", _name, True),
    "at": ("received_at", _moment, True),
    "method": ("method", _text, True),
    "url": ("url", _text, True),
    "query": ("query", _query, True),
    "headers": ("headers", _headers, True),
    "request": ("request_id", _or_none(_name), False),
    "verified": ("verified", _flag, False),
    "signed_id": ("signed_id", _or_none(_text), False),
    "zbody": ("body", _unpacked, True),
}
_OF_REPLAY: Mapping[str, tuple[str, _Reader, bool]] = {
    "v": ("v", _version, True),
    "replay": ("replay_id", _id, True),
    "id": ("id", _id, True),
    "source": ("source", _name, True),
    "type": ("type", _name, True),
}
