"""JSON as senders write it: what is refused for good, and what passes and is kept."""

from __future__ import annotations

import contextlib
import itertools
import json
import traceback
import tracemalloc
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qsl, urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chalicelib.postern.contract import payloads
from chalicelib.postern.contract.errors import InvalidPayload
from chalicelib.postern.contract.payloads import items_of


def parse(body: bytes, form_field: str | None = None) -> Any:
    return payloads.parse(payloads.text_of(body, form_field))


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


def reason(body: bytes, form_field: str | None = None) -> str:
    with pytest.raises(InvalidPayload) as caught:
        parse(body, form_field)
    return caught.value.reason


@pytest.mark.parametrize(
    "body",
    [b"", b" ", b" \r\n\t", b"\xef\xbb\xbf", b"\xef\xbb\xbf \n"],
    ids=["none", "space", "lines", "BOM", "BOM, space"],
)
def test_an_empty_body_is_refused(body: bytes) -> None:
    assert reason(body) == "empty"


@pytest.mark.parametrize(
    "body",
    [
        b"hello",
        b"<xml/>",
        b"a=1&b=2",
        b"{",
        b"}",
        b'{"a"}',
        b"{'a': 1}",
        b'{"a": 1,}',
        b"[1,]",
        b"[1 2]",
        b"[1] [2]",
        b'{"a": 1}{"b": 2}',
        b'{"a": 1} // why',
        b"{a: 1}",
        b'"open',
        b"\x00{}",
        b"{}\x00",
        rb'"\x41"',
        rb'"\u12"',
        rb'"\uZZZZ"',
        b"01",
        b"+1",
        b".5",
        b"1.",
        b"0x10",
        b"1_000",
        "١".encode(),
        b"True",
        b"None",
        b"undefined",
        b"\xc2\xa0{}",
        b"\xef\xbb\xbf\xef\xbb\xbf{}",
        b"NaN",
        b'{"a": NaN}',
        b"nan",
        b"Infinity",
        b"[Infinity]",
        b"[-Infinity]",
        b"-NaN",
        b"[" * 400,
    ],
    ids=lambda body: ascii(body[:12])[1:],
)
def test_what_is_not_json_is_refused(body: bytes) -> None:
    assert reason(body) == "not_json"


def test_a_long_string_costs_no_more_memory_than_it_has() -> None:
    """A match that could be taken back would remember every character: 4 MB of base64 were 500 MB."""
    text = json.dumps({"attachment": "a" * 4_000_000, "n": "\\" * 1000}) + "\n"
    tracemalloc.start()
    try:
        assert payloads.jsonb_text(text) == text
        assert tracemalloc.get_traced_memory()[1] < 40_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("between", ["\n", "\t", "\r\n", "\x00", "\x1f"], ids=ascii)
def test_a_text_may_have_line_breaks_in_it_as_templates_write_them(between: str) -> None:
    """GLPI, Typebot and Jira's automation do, and sign it. RFC 8259 has them escaped, and so has jsonb."""
    text = f'{{\n\t"a\\"": "first{between}second",\n"b": []}}'
    assert payloads.parse(text) == {'a"': f"first{between}second", "b": []}
    stored = payloads.jsonb_text(text)
    kept = "\ufffd" if between == "\x00" else between
    assert json.loads(stored) == {'a"': f"first{kept}second", "b": []}
    assert stored.startswith('{\n\t"a')  # blanks between values are left alone
    assert payloads.items_of(f'["x{between}y", 1]', "") == [f'"x{between}y"', "1"]


@pytest.mark.parametrize(
    "body",
    [
        '{"a": "é"}'.encode("latin-1"),
        '{"a": "\u201c"}'.encode("cp1252"),
        '{"a": 1}'.encode("utf-16"),
        '{"a": "é"}'.encode("utf-16-be"),
        '{"a": 1}'.encode("utf-32"),
        b'"\xff"',
        b'"\xc3"',
        b'"\xc0\x80"',
        b'"\xed\xa0\x80"',
        b'"\xf4\x90\x80\x80"',
        b"\x1f\x8b\x08\x00",
    ],
    ids=[
        "latin-1",
        "cp1252",
        "UTF-16",
        "UTF-16 without a BOM",
        "UTF-32",
        "a byte that is never UTF-8",
        "half a letter",
        "an overlong NUL",
        "a surrogate in UTF-8",
        "beyond Unicode",
        "gzip",
    ],
)
def test_another_encoding_than_utf8_is_refused(body: bytes) -> None:
    assert reason(body) == "not_utf8"


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le"])
def test_wide_ascii_without_a_byte_order_mark_is_refused(encoding: str) -> None:
    """It is UTF-8 full of NULs, which JSON does not allow between its tokens."""
    assert reason('{"a": 1}'.encode(encoding)) == "not_json"


@pytest.mark.parametrize(
    "body",
    [
        nested(513),
        nested(100_000),
        b"[" * 100_000,
        b'{"a":' * 513 + b"1" + b"}" * 513,
        b'{"a":' * 100_000,
        b'[{"a":' * 257 + b"1" + b"}]" * 257,
        b"[" * 3_000_000,
        b'[1, "[", {"a": ' + nested(511) + b"}]",
    ],
    ids=[
        "513 lists",
        "100,000 lists",
        "100,000 open lists",
        "513 objects",
        "100,000 open objects",
        "514 of both",
        "3 MB of brackets",
        "513 at one place",
    ],
)
def test_what_is_nested_deeper_than_512_levels_is_refused(body: bytes) -> None:
    assert reason(body) == "too_deep"


@pytest.mark.parametrize(
    "body",
    [
        nested(512),
        b'{"a":' * 512 + b"1" + b"}" * 512,
        b'[{"a":' * 256 + b"1" + b"}]" * 256,
        b'[1, "[", {"a": ' + nested(510) + b"}]",
        b"[" + b",".join([nested(511)] * 50) + b"]",
    ],
    ids=["lists", "objects", "both", "at one place", "often"],
)
def test_512_levels_pass(body: bytes) -> None:
    assert parse(body)


def test_a_refusal_says_where_and_quotes_nothing() -> None:
    with pytest.raises(InvalidPayload) as caught:
        parse(b'{"a": 1,\n "canary"}')
    assert "line 2" in caught.value.message
    assert "canary" not in caught.value.message


@pytest.mark.parametrize(
    "body",
    [
        b"canary",
        b'{"canary": canary}',
        b'{"canary": NaN}',
        b"[" * 600 + b'"canary"' + b"]" * 600,
        b'"canary\xff"',
        b'"canary',
        b'{"canary": 1, "canary"}',
    ],
    ids=["word", "value", "NaN", "deep", "bytes", "open text", "key"],
)
def test_a_refusal_quotes_nothing_that_a_log_would_print(body: bytes) -> None:
    with pytest.raises(InvalidPayload) as caught:
        parse(body)
    assert "canary" not in f"{caught.value.message} {''.join(traceback.format_exception_only(caught.value))}"
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


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
        (rb'"\udc00\ud800"', "\udc00\ud800"),
        (rb'{"\u0000": "\u0000"}', {"\0": "\0"}),
        (b"-" + b"9" * 5000, Decimal("-" + "9" * 5000)),
        (b"[1, " + b"9" * 5000 + b"]", [1, Decimal("9" * 5000)]),
        (b"1" * 4300, int("1" * 4300)),
        (b"1" * 4301, Decimal("1" * 4301)),
        (b"[-1e999999]", [float("-inf")]),
        (b"1e-999999", 0.0),
        (b"0." + b"3" * 5000, Decimal("0." + "3" * 5000)),
        (b'"' + b"x" * 1_000_000 + b'"', "x" * 1_000_000),
        (('"' + "🦊" * 250_000 + '"').encode(), "🦊" * 250_000),
        (rb'"\ud83e\udd8a"', "🦊"),
        (b'"NaN"', "NaN"),
        (b'{"": ""}', {"": ""}),
        (b'"\xc2\x85\xe2\x80\xa8"', "\x85\u2028"),
        (b'"\x7f"', "\x7f"),
        (b"false", False),
        (b"0", 0),
        (b'""', ""),
    ],
    ids=lambda value: ascii(value)[:16] if isinstance(value, bytes) else "",
)
def test_odd_but_legal_json_passes(body: bytes, payload: Any) -> None:
    parsed = parse(body)
    assert (type(parsed), parsed) == (type(payload), payload)


def test_brackets_in_a_text_or_beside_each_other_are_no_depth() -> None:
    assert parse(json.dumps("[{" * 10_000).encode()) == "[{" * 10_000
    assert parse(json.dumps([[1]] * 10_000).encode())


def test_a_forms_field_holds_the_json() -> None:
    assert parse(b"payload=%7B%22a%22%3A%22%C3%A9%22%7D&x=1", "payload") == {"a": "é"}


@pytest.mark.parametrize(
    "body",
    [
        b'payload={"a":"%2B+%26%3D"}',
        b"x=1&payload=%7B%22a%22%3A%22%2B%20%26%3D%22%7D&y=&=z",
        b"payload=%7b%22a%22:%22%2b+%26%3d%22%7d",
        b"\xef\xbb\xbfpayload=%7B%22a%22%3A%22%2B+%26%3D%22%7D",
    ],
    ids=["barely escaped", "among others", "lower-case escapes", "BOM"],
)
def test_a_form_is_read_as_browsers_write_it(body: bytes) -> None:
    assert parse(body, "payload") == {"a": "+ &="}


@given(st.dictionaries(st.text(), st.text() | st.integers() | st.none(), max_size=4))
def test_whatever_a_form_can_carry_arrives(payload: dict[str, Any]) -> None:
    body = urlencode({"first": "1", "payload": json.dumps(payload, ensure_ascii=True), "last": "é"}).encode()
    assert parse(body, "payload") == payload


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "form_field_missing"),
        (b"other=1", "form_field_missing"),
        (b"payload", "empty"),
        (b"payload=", "empty"),
        (b"payload=+", "empty"),
        (b"payload=1&payload=2", "form_field_missing"),
        (b"Payload=1", "form_field_missing"),
        (b"payload%00=1", "form_field_missing"),
        (b'{"payload": 1}', "form_field_missing"),
        (b"payload=%FF", "not_a_form"),
        (b"payload=%ED%A0%80", "not_a_form"),
        (b"a=%FF&payload=1", "not_a_form"),
        (b"&".join([b"a=1"] * 1001) + b"&payload=1", "not_a_form"),
        (b"payload=\xff", "not_utf8"),
        (b"payload=%7B", "not_json"),
        (b"payload=NaN", "not_json"),
        (b"payload=" + b"%5B" * 100_000, "too_deep"),
    ],
    ids=lambda value: value[:20].decode("latin-1") if isinstance(value, bytes) else value,
)
def test_a_form_without_that_one_field_of_json_is_refused(body: bytes, why: str) -> None:
    assert reason(body, "payload") == why


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
    written = json.dumps(text)
    assert json.loads(payloads.jsonb_text(written)) == as_jsonb_holds_it(json.loads(written))


names = st.text(st.characters(), max_size=4)
numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4),
)


@given(value=values, ascii_only=st.booleans(), indent=st.none() | st.integers(0, 2))
def test_any_json_means_the_same_but_for_what_is_replaced(value: Any, ascii_only: bool, indent: int | None) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    if ascii_only or text.encode("utf-8", "replace").decode() == text:
        assert json.loads(payloads.jsonb_text(text)) == as_jsonb_holds_it(json.loads(text))


# Every kind of piece next to every other, twice over: what an escape is depends on what stands before it.
PIECES = [r"\u0000", r"\\", r"\"", r"\ud83e", r"\uDD8A", r"\u00e9", r"\n", "u0000", "d83e", "x", "🦊"]


@pytest.mark.parametrize("first", PIECES)
def test_every_run_of_escapes_means_the_same_but_for_what_is_replaced(first: str) -> None:
    for rest in itertools.product(PIECES, repeat=3):
        text = f'"{first}{"".join(rest)}"'
        assert json.loads(payloads.jsonb_text(text)) == as_jsonb_holds_it(json.loads(text)), text


def test_a_text_without_anything_to_replace_is_not_touched() -> None:
    text = '{"b": 1.10, "a": 1E5,\n "a":"\\u00e9\\/"}'
    assert payloads.jsonb_text(text) is text


def as_jsonb_holds_it(value: Any) -> Any:
    """The value with U+FFFD for what jsonb has no room for, by way of the value rather than of the text."""
    if isinstance(value, str):
        return "".join("\ufffd" if c == "\0" or "\ud800" <= c <= "\udfff" else c for c in value)
    if isinstance(value, list):
        return [as_jsonb_holds_it(item) for item in value]
    if isinstance(value, dict):
        return {as_jsonb_holds_it(key): as_jsonb_holds_it(item) for key, item in value.items()}
    return value


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


@settings(deadline=None)
@given(
    items=st.lists(values, max_size=5),
    beside=st.dictionaries(st.text(max_size=4), values, max_size=3),
    indent=st.sampled_from([None, 0, 3]),
    ascii=st.booleans(),
)
def test_the_items_are_those_that_every_reader_finds_each_as_it_stands_there(
    items: list[Any], beside: dict[str, Any], indent: int | None, ascii: bool
) -> None:
    text = json.dumps({**beside, "a": {"b": items}}, indent=indent, ensure_ascii=ascii)
    parts = items_of(text, "a.b")
    assert [json.loads(part) for part in parts] == items
    at = 0
    for part in parts:
        at = text.index(part, at) + len(part)
    assert [json.loads(part) for part in items_of(json.dumps(items, indent=indent), "")] == items


@settings(deadline=None)
@given(text=st.text(alphabet='[]{}",:ab1 \n\t.e-', max_size=40))
def test_no_text_makes_the_reader_of_items_fall(text: str) -> None:
    """It only ever reads what was parsed before; still, it answers or refuses."""
    for path in ("", "a", "a.b"):
        with contextlib.suppress(InvalidPayload):
            for part in items_of(text, path):
                json.loads(part)


def test_a_form_is_read_in_the_memory_of_a_few_copies_of_it() -> None:
    """It is read before it is verified: a stranger's must not end the function."""
    text = "a=" + "%41" * 1_960_000
    tracemalloc.start()
    try:
        assert payloads.form_of(text) == [("a", "A" * 1_960_000)]
        assert tracemalloc.get_traced_memory()[1] < 40_000_000
    finally:
        tracemalloc.stop()


@given(st.lists(st.tuples(st.text(), st.text()), max_size=8))
def test_a_form_is_read_as_the_standard_library_reads_it(fields: list[tuple[str, str]]) -> None:
    try:
        written = urlencode(fields)
    except UnicodeEncodeError:
        return
    assert payloads.form_of(written) == parse_qsl(written, keep_blank_values=True)


@pytest.mark.parametrize(
    "text",
    ["", "&", "a", "a&b=", "=b", "a=b=c", "a=%", "a=%4", "a=%zz", "a=1;b=2", "é=%C3%A9", "a=" + "%41" * 70_000 + "x"],
)
def test_odd_forms_too(text: str) -> None:
    assert payloads.form_of(text) == parse_qsl(text, keep_blank_values=True)


@pytest.mark.parametrize("text", ["a=%ff", "a=%c3", "&" * 1_000])
def test_what_is_no_form_is_refused(text: str) -> None:
    with pytest.raises(InvalidPayload):
        payloads.form_of(text)
