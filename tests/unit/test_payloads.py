"""JSON as senders write it: what is refused for good, and what passes and is kept."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib import payloads
from chalicelib.errors import InvalidPayload


def parse(body: bytes, form_field: str | None = None) -> Any:
    return payloads.parse(payloads.text_of(body, form_field))


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" \r\n",
        b"hello",
        b"{",
        b"{'a': 1}",
        b'{"a": 1,}',
        b"[1] [2]",
        b'"\x00"',
        b"NaN",
        b'{"a": NaN}',
        b"[Infinity]",
        b"[-Infinity]",
        b'"\xff"',
        '{"a": 1}'.encode("utf-16"),
        b'"\xed\xa0\x80"',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        nested(100_000),
        nested(513),
    ],
    ids=lambda body: repr(body[:12]),
)
def test_what_is_not_json_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidPayload):
        parse(body)


def test_a_refusal_says_where_and_quotes_nothing() -> None:
    with pytest.raises(InvalidPayload) as caught:
        parse(b'{"a": 1,\n "canary"}')
    assert "line 2" in caught.value.message
    assert "canary" not in caught.value.message


@pytest.mark.parametrize(
    ("body", "payload"),
    [
        (rb'"\u0000"', "\0"),
        (rb'"\ud800"', "\ud800"),
        (b"9" * 400, int("9" * 400)),
        (b"9" * 5000, Decimal("9" * 5000)),
        (b"[1e999999]", [float("inf")]),
        (b'{"a": 1, "a": 2}', {"a": 2}),
        ('"🦊"'.encode(), "🦊"),
        (b'\xef\xbb\xbf{"bom": true}', {"bom": True}),
        (b"null", None),
        (b'  [1]\r\n"'[:-1], [1]),
    ],
    ids=["nul", "surrogate", "400-digits", "5000-digits", "exponent", "twice", "emoji", "bom", "null", "space"],
)
def test_odd_but_legal_json_passes(body: bytes, payload: Any) -> None:
    assert parse(body) == payload


def test_512_levels_pass_and_brackets_in_a_text_are_none() -> None:
    assert parse(nested(512))
    assert parse(json.dumps("[{" * 10_000).encode()) == "[{" * 10_000
    assert parse(json.dumps([[1]] * 10_000).encode())


def test_a_forms_field_holds_the_json() -> None:
    assert parse(b"payload=%7B%22a%22%3A%22%C3%A9%22%7D&x=1", "payload") == {"a": "é"}


@pytest.mark.parametrize("body", [b"", b"other=1", b"payload=1&payload=2", b"payload=%FF", b"payload="])
def test_a_form_without_that_one_field_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidPayload):
        parse(body, "payload")


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        (r'"\u0000"', r'"\ufffd"'),
        (r'"\\u0000"', r'"\\u0000"'),
        (r'"\\\u0000"', r'"\\\ufffd"'),
        (r'"\ud83e\udd8a"', r'"\ud83e\udd8a"'),
        (r'"\uD83E\uDD8A"', r'"\uD83E\uDD8A"'),
        (r'"\ud83e"', r'"\ufffd"'),
        (r'"\udd8a\ud83e"', r'"\ufffd\ufffd"'),
        (r'"\ud83e\ud83e\udd8a"', r'"\ufffd\ud83e\udd8a"'),
        (r'"\ud83ex\udd8a"', r'"\ufffdx\ufffd"'),
        (r'{"\u0000k": "\n\""}', r'{"\ufffdk": "\n\""}'),
        ('{"n": 1.10}', '{"n": 1.10}'),
    ],
)
def test_what_jsonb_cannot_hold_is_replaced_and_nothing_else(text: str, stored: str) -> None:
    assert payloads.jsonb_text(text) == stored


@given(st.text(st.characters(), max_size=50))
def test_any_text_becomes_one_that_jsonb_can_hold(text: str) -> None:
    stored = json.loads(payloads.jsonb_text(json.dumps(text)))
    assert "\0" not in stored
    stored.encode("utf-8")
    assert len(stored) == len(json.loads(json.dumps(text)))
