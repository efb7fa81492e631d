"""JSON as senders write it: strict where RFC 8259 is, generous where PostgreSQL is not.

Pure. What is refused here is refused for good; what passes is stored, whatever a database thinks of it.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from enum import StrEnum
from typing import Any
from urllib.parse import unquote_to_bytes

from chalicelib.postern.contract.bounds import MAX_BODY_BYTES
from chalicelib.postern.contract.errors import InvalidPayload, PayloadTooLarge
from chalicelib.postern.contract.numbers import exact

# Deep enough for any real payload, shallow enough for every parser that will ever read the row
# (PostgreSQL's stack, for one, ends at some thousands).
DEEPEST_NESTING = 512


class Format(StrEnum):
    """How a body is read. BYTES are kept and have no payload; LINES are a JSON value each, and an event each."""

    JSON = "json"
    FORM = "form"
    BYTES = "bytes"
    LINES = "json-lines"


# Each costs some hundredths of a millisecond, and may hold nothing.
_MAX_MEMBERS = 1_000
_UNPACKED_AT_ONCE = 65_536

_MAX_FIELDS = 1_000
_UNQUOTED_AT_ONCE = 65_536

FORM_TYPE = "application/x-www-form-urlencoded"


def format_of(content_type: str) -> Format:
    """`content_type` in lower case and without parameters. Some senders call their JSON text/plain."""
    if content_type == FORM_TYPE:
        return Format.FORM
    kind = content_type.partition("/")[2]
    return Format.JSON if kind == "json" or kind.endswith("+json") or content_type == "text/plain" else Format.BYTES


def text_of(body: bytes, form_field: str | None = None, format: str = Format.JSON) -> str | None:
    """The JSON text that `body` is, or that stands in this field of the form that it is, or that says what the form
    holds; None for bytes. Raises InvalidPayload.
    """
    if format == Format.BYTES:
        return None
    text = _decoded(body)
    if form_field is not None:
        fields = [value for name, value in form_of(text) if name == form_field]
        if len(fields) != 1:
            raise InvalidPayload("form_field_missing", message=f"The form has no single field '{form_field}'.")
        text = fields[0]
    elif format == Format.FORM:
        return _form_as_json(text)
    if not text.strip():
        raise InvalidPayload("empty", message="The body is empty.")
    return text


def _decoded(body: bytes) -> str:
    try:
        # RFC 8259, section 8.1: UTF-8, and a reader may ignore a byte order mark.
        return body.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InvalidPayload("not_utf8", message="The body is not UTF-8.") from None


def content_of(body: bytes, headers: Mapping[str, str | list[str]], most: int = MAX_BODY_BYTES) -> bytes:
    """What is inside of a body that the headers call compressed (gzip, or deflate as RFC 9110 has it) and that is; else
    the body. Raises PayloadTooLarge for more than `most` bytes.
    """
    encoding = headers.get("content-encoding", "")
    if not isinstance(encoding, str) or encoding.strip().lower() not in ("gzip", "x-gzip", "deflate"):
        return body
    content, at = bytearray(), 0
    for _ in range(_MAX_MEMBERS):  # a gzip file may have several (RFC 1952, section 2.2)
        unpacker = zlib.decompressobj(wbits=47)  # either, by its first bytes
        while not unpacker.eof:
            part = body[at : at + _UNPACKED_AT_ONCE]
            if not part:
                return body  # cut off
            try:
                content += unpacker.decompress(part, most + 1 - len(content))
            except zlib.error:
                return body
            if len(content) > most:
                raise PayloadTooLarge("too_large_inside", message=f"What is inside is larger than {most:,} bytes.")
            at += len(part) - len(unpacker.unused_data)
        if at == len(body):
            return bytes(content)
    return body


def lines_of(text: str) -> list[str]:
    """The lines of JSON Lines, without those that are blank."""
    return [line.strip() for line in text.split("\n") if line.strip()]


def form_field_in(body: bytes, name: str | None) -> str | None:
    """The form's field that holds the JSON: this name; with a `?` behind it, only if the form has such a field."""
    if name is None or not name.endswith("?"):
        return name
    name = name[:-1]
    return name if any(field == name for field, _ in form_of(_decoded(body))) else None


def form_of(text: str) -> list[tuple[str, str]]:
    """The fields of a form, blank ones too, in their order. Raises InvalidPayload.

    In the memory of a few copies of it: `urllib.parse` takes ninety times as much for escapes alone, and forms are read
    before they are verified.
    """
    if text.count("&") >= _MAX_FIELDS:
        raise InvalidPayload("not_a_form", message=f"The form has more than {_MAX_FIELDS:,} fields.")
    try:
        fields = [part.partition("=") for part in text.split("&") if part]
        return [(_unquoted(name), _unquoted(value)) for name, _, value in fields]
    except ValueError:
        raise InvalidPayload("not_a_form", message="The body is not a form.") from None


def _unquoted(text: str) -> str:
    """A part at a time, none of which ends within an escape."""
    data, found, at = text.replace("+", " ").encode(), bytearray(), 0
    if b"%" not in data:
        return data.decode()
    while at < len(data):
        end = min(at + _UNQUOTED_AT_ONCE, len(data))
        cut = data.rfind(b"%", end - 2, end) if end < len(data) else -1
        end = cut if cut > at else end
        found += unquote_to_bytes(data[at:end])
        at = end
    return found.decode()


def _form_as_json(text: str) -> str:
    """An object of the fields: a text each, or a list of them where a field is repeated."""
    fields: dict[str, str | list[str]] = {}
    for name, value in form_of(text):
        if name not in fields:
            fields[name] = value
        else:
            known = fields[name]
            fields[name] = [*known, value] if isinstance(known, list) else [known, value]
    return json.dumps(fields)


def items_of(text: str, path: str) -> list[str]:
    """The text of each element of the list at this dotted path of a JSON text, exactly as it stands there.

    Raises InvalidPayload where there is no list.
    """
    try:
        at = _find(text, _skip(text, 0), path.split(".") if path else [])
        if text[at] != "[":
            raise ValueError
        return [text[start:end] for start, end in _elements(text, at)]
    except (ValueError, IndexError, RecursionError):
        raise InvalidPayload("no_items", message=f"The body has no list at '{path}'.") from None


_DECODER = json.JSONDecoder(parse_int=str, parse_float=str, strict=False)
_SPACE = re.compile(r"[ \t\n\r]*")


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _find(text: str, at: int, steps: Sequence[str]) -> int:
    """Where the value at these keys begins. Of a key that comes twice the last counts, as it does to json.loads."""
    for step in steps:
        if text[at] != "{":
            raise ValueError
        starts = dict(_members(text, at))
        if step not in starts:
            raise ValueError
        at = starts[step]
    return at


def _members(text: str, at: int) -> Iterator[tuple[str, int]]:
    at = _skip(text, at + 1)
    while text[at] != "}":
        key, at = _DECODER.raw_decode(text, at)
        start = _skip(text, _skip(text, at) + 1)
        yield key, start
        at = _skip(text, _DECODER.raw_decode(text, start)[1])
        at = _skip(text, at + 1) if text[at] == "," else at


def _elements(text: str, at: int) -> Iterator[tuple[int, int]]:
    at = _skip(text, at + 1)
    while text[at] != "]":
        _, end = _DECODER.raw_decode(text, at)
        yield at, end
        at = _skip(text, end)
        at = _skip(text, at + 1) if text[at] == "," else at


def parse(text: str) -> Any:
    """The payload that this JSON text is, numbers with a fraction as `exact` has them. Raises InvalidPayload."""
    try:
        payload = loads(text, parse_constant=_refuse_constant)
    except InvalidPayload:
        raise
    except json.JSONDecodeError as exc:
        # The position only: the message must not quote the body.
        where = f"line {exc.lineno}, column {exc.colno}"
        raise InvalidPayload("not_json", message=f"The body is not JSON ({where}).") from None
    except RecursionError:
        raise _too_deep() from None
    # Counting brackets is a bound that costs nothing; only a body above it is worth walking.
    if text.count("[") + text.count("{") > DEEPEST_NESTING and _deeper_than(payload, DEEPEST_NESTING):
        raise _too_deep()
    return payload


def loads(text: str, **options: Any) -> Any:
    """As json.loads with these options, and as parse reads it: see `exact`."""
    # Not strict: templates put texts with line breaks and tabs into JSON as they are, and sign them.
    given = {"parse_float": exact, "strict": False, **options}
    try:
        return json.loads(text, **given)
    except json.JSONDecodeError:
        raise
    except ValueError:
        if "parse_int" in given:
            raise
        # Python converts no more than 4,300 digits to an int (CVE-2020-10735); JSON has no such limit.
        return json.loads(text, parse_int=_long_int, **given)


def _long_int(digits: str) -> int | Decimal:
    return int(digits) if len(digits) <= 4300 else Decimal(digits)


def _refuse_constant(name: str) -> Any:
    raise InvalidPayload("not_json", message=f"{name} is not JSON.")


def _too_deep() -> InvalidPayload:
    return InvalidPayload("too_deep", message=f"The body is nested more than {DEEPEST_NESTING} levels deep.")


def _deeper_than(value: Any, limit: int) -> bool:
    """Level by level, because a recursion is what such a body is after."""
    containers = [value] if isinstance(value, dict | list) else []
    depth = 0
    while containers:
        depth += 1
        if depth > limit:
            return True
        containers = [
            child
            for parent in containers
            for child in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(child, dict | list)
        ]
    return False


# One alternative per kind of escape, so that each is consumed whole and `\\u0000` (a backslash, then text) is left
# alone: a surrogate pair, what jsonb has no room for, any other escape.
_ESCAPE = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    r"|(?P<unstorable>\\u(?:0000|[dD][89a-fA-F][0-9a-fA-F]{2}))"
    r"|\\."
)
_MAYBE_UNSTORABLE = re.compile(r"\\u(?:0000|[dD][89a-fA-F])")


# A string, whole, so that the blanks between values are left alone.
# Possessive: a match that could be taken back would be remembered, a hundred bytes for each character of a long string.
_STRING = re.compile(r'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_CONTROL = re.compile(r"[\x00-\x1f]")


def jsonb_text(text: str) -> str:
    """The same JSON with U+FFFD for what jsonb cannot hold, `\\u0000` and lone surrogates, and with escapes for the
    control characters that a string has in it.

    The exact bytes stay in the event's body.
    """
    if _CONTROL.search(text):
        escaped = _STRING.sub(lambda found: _CONTROL.sub(lambda c: f"\\u{ord(c[0]):04x}", found[0]), text)
        text = text if escaped == text else escaped
    if not _MAYBE_UNSTORABLE.search(text):
        return text
    return _ESCAPE.sub(lambda m: "\\ufffd" if m["unstorable"] else m[0], text)
