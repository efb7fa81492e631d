"""Numbers of JSON keep their digits on every way: parsed, written, shown."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chalicelib.postern.contract.deliveries import Event, new_event_id
from chalicelib.postern.contract.numbers import Number, dumps, exact
from chalicelib.postern.contract.payloads import Format, parse
from cli.output import _readable

NOW = datetime(2026, 11, 23, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("19.99", 19.99),
        ("0.10", 0.1),
        ("1e2", 100.0),
        ("0.3", 0.3),
        ("1.7976931348623157e308", 1.7976931348623157e308),
        ("0e999999999999999999999", 0.0),
        ("1e400", float("inf")),
        ("-1e99999999999999999999999999", float("-inf")),
        ("1e-99999999999999999999999999", 0.0),
    ],
)
def test_what_a_float_holds_is_one(text: str, value: float) -> None:
    assert (type(exact(text)), exact(text)) == (float, value)


@pytest.mark.parametrize(
    "text", ["12345678901234567.89", "1.234567890123456789", "0.1000000000000000055", "123456789012345678e-3"]
)
def test_what_a_float_would_lose_is_a_decimal(text: str) -> None:
    assert (type(exact(text)), exact(text)) == (Decimal, Decimal(text))


JSON_NUMBERS = st.from_regex(r"-?(0|[1-9][0-9]{0,25})\.[0-9]{1,25}([eE][+-]?[0-9]{1,2})?", fullmatch=True)


@given(JSON_NUMBERS)
@example("9007199254740993.0")
@example("0.1e1")
def test_no_digit_is_lost(text: str) -> None:
    assert Decimal(str(exact(text))) == Decimal(text)
    assert Decimal(dumps(parse(f'{{"n": {text}}}'))[6:-1]) == Decimal(text)


@given(st.recursive(st.none() | st.text() | st.integers() | st.floats(allow_nan=False), st.lists))
def test_all_else_is_written_as_ever(value: Any) -> None:
    assert dumps(value, ensure_ascii=False) == json.dumps(value, ensure_ascii=False)


def test_numbers_among_other_things_are_written_as_numbers() -> None:
    value = {"a": [Decimal("0.10"), Number("-0"), '"1.5"', Decimal("NaN")], "b": "\\"}
    assert dumps(value) == '{"a": [0.10, -0, "\\"1.5\\"", "NaN"], "b": "\\\\"}'


def test_what_is_no_json_is_no_json_here_either() -> None:
    with pytest.raises(TypeError, match="set is not JSON"):
        dumps({"a": {1}})


def test_what_is_shown_of_a_body_has_the_numbers_that_came() -> None:
    body = b'{"fee": 0.10, "rate": 1.234567890123456789, "serial": 1152921506151679042, "e": 1E5, "z": -0}'
    assert json.loads(_readable(body), parse_int=str, parse_float=str) == {
        "fee": "0.10",
        "rate": "1.234567890123456789",
        "serial": "1152921506151679042",
        "e": "1E5",
        "z": "-0",
    }
    assert "9" * 5000 in _readable(b'{"n": ' + b"9" * 5000 + b"}")


def event(body: bytes, **how: Any) -> Event:
    return Event(new_event_id(NOW), "shop", "order", "1", NOW, {}, None, body, **how)


def test_a_handler_may_read_the_payload_otherwise() -> None:
    assert event(b'{"total": 19.99}').json(parse_float=Decimal) == {"total": Decimal("19.99")}
    assert event(b'{"total": 19.99, "tax": 1.234567890123456789}').json() == {
        "total": 19.99,
        "tax": Decimal("1.234567890123456789"),
    }
    form = event(b"payload=%7B%22a%22%3A1.5%7D", format=Format.FORM, form_field="payload")
    assert form.json(parse_float=str) == {"a": "1.5"}
    assert event(b"\xff", format=Format.BYTES).json() is None
