"""What goes through the queue comes out the same, and nothing else comes out at all."""

from __future__ import annotations

import base64
import contextlib
import json
import random
import traceback
import tracemalloc
import uuid
import zlib
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chalicelib.postern.contract import opening
from chalicelib.postern.contract.envelope import Accepted, Rejected, Replay, to_message
from chalicelib.postern.contract.errors import MalformedMessage
from tests.unit import envelope_schema


def from_message(text: str) -> Any:
    """What the processor makes of it, which must be what the schema makes of it."""
    try:
        expected = envelope_schema.from_message(text)
    except MalformedMessage:
        with pytest.raises(MalformedMessage):
            opening.from_message(text)
    else:
        assert opening.from_message(text) == expected
    return opening.from_message(text)


EVENT = Accepted(
    id=uuid.UUID("01a20901-fe79-7b92-b69b-7ce5a5da9b5d"),
    source="github",
    type="push",
    dedup_key="d-1",
    received_at=datetime(2026, 11, 23, 12, 0, 0, 123456, tzinfo=UTC),
    headers={"x-github-event": "push", "x-twice": ["a", "b"]},
    body=b'{"ref": "main"}',
)
texts = st.text(st.characters(), min_size=1, max_size=50)
# Keys and types are printable when they are accepted (chalicelib.postern.receiving.naming).
printable = st.text(st.characters(codec="utf-8"), min_size=1, max_size=50).filter(str.isprintable)


@given(
    body=st.binary(max_size=5000),
    type=printable,
    key=printable,
    headers=st.dictionaries(texts, texts | st.lists(texts, max_size=3), max_size=5),
    at=st.datetimes(timezones=st.just(UTC)),
    form_field=st.none() | texts,
    request_id=st.none() | printable,
)
def test_an_event_comes_out_as_it_went_in(
    body: bytes, type: str, key: str, headers: Any, at: datetime, form_field: str | None, request_id: str | None
) -> None:
    event = replace(EVENT, body=body, type=type, dedup_key=key, headers=headers, received_at=at)
    event = replace(event, form_field=form_field, request_id=request_id)
    message = to_message(event)
    assert from_message(message) == event
    # SQS takes XML's characters only; printable ASCII is safely among them.
    assert message.isascii() and message.isprintable()


@given(at=st.datetimes(timezones=st.timezones(), min_value=datetime(1971, 1, 1), allow_imaginary=False))  # noqa: DTZ001
def test_a_time_is_the_same_moment_in_whichever_zone_it_was_told(at: datetime) -> None:
    # As timestamps, because in the hour that clocks repeat Python calls no two zones' times equal.
    assert from_message(to_message(replace(EVENT, received_at=at))).received_at.timestamp() == at.timestamp()


@pytest.mark.parametrize("size", [0, 1, 2_047, 2_048, 2_049, 1_000_000])
def test_a_body_of_any_size_comes_out_byte_for_byte(size: int) -> None:
    body = random.Random(size).randbytes(size)
    assert from_message(to_message(replace(EVENT, body=body))).body == body


def test_a_body_that_does_not_compress_grows_by_no_more_than_base64_does() -> None:
    body = random.Random(7).randbytes(600_000)
    assert len(to_message(replace(EVENT, body=body))) < 600_000 * 4 / 3 + 1_500


def test_a_message_is_made_of_what_sqs_takes() -> None:
    """Its characters are those of XML 1.0; some are legal JSON and no XML."""
    awkward = "\0\x0b\x1f\x7f\x85\u2028\ufffe\uffff\ud800🦊<&"
    message = to_message(replace(EVENT, headers={awkward: [awkward]}))
    assert all(" " <= character <= "~" for character in message)
    assert from_message(message).headers == {awkward: [awkward]}


def test_a_body_in_the_bucket_travels_as_its_key() -> None:
    event = replace(EVENT, body=None, body_key="github/2026/11/23/x")
    assert from_message(to_message(event)) == event


def test_a_large_body_is_compressed() -> None:
    assert len(to_message(replace(EVENT, body=b"x" * 1_000_000))) < 10_000


@pytest.mark.parametrize(
    "event",
    [EVENT, replace(EVENT, body=b"x" * 5_000, form_field="payload"), replace(EVENT, body=None, body_key="a/b")],
    ids=["plain", "compressed", "in the bucket"],
)
def test_no_part_of_a_message_is_a_message(event: Accepted) -> None:
    message = to_message(event)
    for length in range(len(message)):
        for part in (message[:length], message[length + 1 :]):
            with pytest.raises(MalformedMessage):
                from_message(part)


@given(text=st.text(st.characters()))
def test_no_text_is_a_message(text: str) -> None:
    with pytest.raises(MalformedMessage):
        from_message(text)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
)


# The schema takes 1 and "yes" for true, which nobody writes.
FLAGS = {"refuse_same", "verified"}
keys = st.sampled_from(sorted({*opening._OF_ACCEPTED, *opening._OF_REJECTED, *opening._OF_REPLAY} - FLAGS))


@given(key=keys, value=json_values)
def test_any_value_under_any_key_is_the_right_one_or_malformed(key: str, value: Any) -> None:
    try:
        event = from_message(altered(**{key: value}))
    except MalformedMessage:
        return
    for text in (event.source, event.type, event.dedup_key):
        assert isinstance(text, str)
        assert text
    assert (type(event.id), type(event.received_at), type(event.body)) == (uuid.UUID, datetime, bytes)
    assert isinstance(event.form_field, str | None)
    assert event.request_id is None or isinstance(event.request_id, str)


def altered(**changes: Any) -> str:
    envelope = {**json.loads(to_message(EVENT)), **changes}
    return json.dumps({key: value for key, value in envelope.items() if value is not ...})


@pytest.mark.parametrize(
    "message",
    [
        "null",
        "[]",
        "7",
        '"text"',
        "{}",
        '{"Type": "Notification"}',
        "",
        " ",
        "\0",
        "NaN",
        "\ufeff{}",
        "\ud800",
        "9" * 5_000,
        "[" * 100_000,
        '{"a":' * 100_000,
        '{"v": 1, "headers": ' + "[" * 900 + "]" * 900 + "}",
        '{"Records": [{"eventSource": "aws:s3", "eventName": "ObjectCreated:Put"}]}',
        '{"version": "0", "id": "1", "detail-type": "x", "source": "aws.ec2", "detail": {}}',
        '{"__type__": "os.system", "v": 1}',
        altered(v=0),
        altered(v=2),
        altered(v="1"),
        altered(v=...),
        altered(v=True),
        altered(v=1.0),
        altered(v=None),
        altered(v=10**400),
        altered(id="seven"),
        altered(id=7),
        altered(id=["a"]),
        altered(id=...),
        altered(source=""),
        altered(source=7),
        altered(source=None),
        altered(source=...),
        altered(type=""),
        altered(type=["push"]),
        altered(type=...),
        altered(key=""),
        altered(key={}),
        altered(key=...),
        altered(form_field=7),
        altered(request=7),
        altered(request=""),
        altered(request=["a"]),
        altered(at=...),
        altered(at=1700000000),
        altered(at="2026-02-30T00:00:00+00:00"),
        altered(at="2026-11-23T12:00:00+99:99"),
        altered(headers=...),
        altered(headers=None),
        altered(headers="x"),
        altered(at="yesterday"),
        altered(at="2026-11-23T12:00:00"),
        altered(headers=[]),
        altered(body=...),
        altered(body="not base64!"),
        altered(body=7),
        altered(body=None),
        altered(body="é"),
        altered(body="QQ"),
        altered(body="QQ==\n"),
        altered(body=..., body_key=""),
        altered(body=..., body_key=7),
        altered(body=..., zbody=""),
        altered(zbody="QQ=="),
        altered(body_key="both"),
        altered(body=..., zbody=base64.b64encode(b"not zlib").decode()),
        altered(body=..., zbody=base64.b64encode(zlib.compress(b"x" * 100)[:-3]).decode()),
        altered(body=..., zbody=base64.b64encode(zlib.compress(b"x" * 100)[:-1] + b"\0").decode()),
        altered(body=..., zbody=base64.b64encode(zlib.compress(b"\0" * 50_000_000)).decode()),
        altered(body=..., zbody=base64.b64encode(zlib.compress(b"x" * 100, wbits=31)).decode()),
    ],
    ids=lambda message: message[:24],
)
def test_garbage_is_malformed_and_nothing_worse(message: str) -> None:
    with pytest.raises(MalformedMessage):
        from_message(message)


# Nothing else checks these before they go to PostgreSQL, and the driver raises for the whole batch.
@pytest.mark.parametrize("key", ["source", "type", "key", "request"])
@pytest.mark.parametrize("text", ["a\0b", "a\ud800"], ids=["NUL", "half a surrogate pair"])
def test_a_name_that_postgresql_cannot_hold_is_malformed(key: str, text: str) -> None:
    with pytest.raises(MalformedMessage):
        from_message(altered(**{key: text}))


@pytest.mark.parametrize(
    "changes",
    [
        {"headers": {"x-number": 7}},
        {"headers": {"x-none": None}},
        {"headers": {"x-nan": float("nan")}},
        {"headers": {"x-deep": {"er": []}}},
        {"headers": {"x-list": [7]}},
    ],
    ids=lambda changes: str(changes["headers"]),
)
def test_headers_are_texts_or_lists_of_them(changes: dict[str, Any]) -> None:
    with pytest.raises(MalformedMessage):
        from_message(altered(**changes))


def test_a_bomb_is_not_unpacked_beyond_what_a_body_may_be() -> None:
    """50 MB of zeros are 50 KB on the queue."""
    bomb = altered(body=..., zbody=base64.b64encode(zlib.compress(b"\0" * 50_000_000)).decode())
    tracemalloc.start()
    with pytest.raises(MalformedMessage):
        from_message(bomb)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 25_000_000


def test_what_is_malformed_is_named_by_its_keys() -> None:
    with pytest.raises(MalformedMessage) as caught:
        from_message(altered(at="canary"))
    assert str(caught.value) == "not an envelope: at"
    with pytest.raises(MalformedMessage) as caught:
        from_message(altered(at="canary", v=9))
    assert str(caught.value) == "not an envelope: at, v"


@pytest.mark.parametrize(
    "message",
    [
        "canary",
        '"canary"',
        '["canary"]',
        '{"canary": 1',
        altered(v="canary"),
        altered(id="canary"),
        altered(at="canary"),
        altered(headers="canary"),
        altered(body="canary!"),
        altered(body=..., zbody="canarycanary"),
        altered(source=["canary"]),
    ],
    ids=lambda message: message[:14],
)
def test_what_is_malformed_is_not_quoted(message: str) -> None:
    """It came from a sender, and errors are logged."""
    with pytest.raises(MalformedMessage) as caught:
        from_message(message)
    error = caught.value
    assert "canary" not in "".join(traceback.format_exception_only(error))
    assert error.__cause__ is None
    assert error.__suppress_context__ or error.__context__ is None


def test_a_key_that_this_version_does_not_know_passes() -> None:
    assert from_message(altered(trace="1-2-3")) == EVENT


def test_a_message_of_an_api_function_that_knew_no_request_is_read() -> None:
    assert "request" not in json.loads(to_message(EVENT))
    assert from_message(to_message(EVENT)).request_id is None


def test_the_requests_id_is_one_more_key_that_an_older_processor_ignores() -> None:
    envelope = json.loads(to_message(replace(EVENT, request_id="c6af9ac6")))
    assert (envelope.pop("request"), envelope) == ("c6af9ac6", json.loads(to_message(EVENT)))


@pytest.mark.parametrize("value", [1, 0, "yes", "true", None, [], 1.0])
def test_a_flag_is_true_or_false(value: Any) -> None:
    with pytest.raises(MalformedMessage):
        opening.from_message(altered(refuse_same=value))


REJECTED = Rejected(
    EVENT.id, "shop", EVENT.received_at, "signature_mismatch", "POST", "https://x/", [("a", "b")], {"x": ["1"]}, b"{}"
)
REPLAY = Replay(EVENT.id, "shop", "order", uuid.uuid4())


@pytest.mark.parametrize("message", [REJECTED, REPLAY], ids=["rejected", "replay"])
@given(key=keys, value=json_values)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_of_the_other_kinds_any_value_is_the_right_one_or_malformed(
    message: Rejected | Replay, key: str, value: Any
) -> None:
    assert from_message(to_message(message)) == message
    with contextlib.suppress(MalformedMessage):
        from_message(json.dumps({**json.loads(to_message(message)), key: value}, separators=(",", ":")))
