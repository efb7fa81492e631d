"""What goes through the queue comes out the same, and nothing else comes out at all."""

from __future__ import annotations

import base64
import json
import uuid
import zlib
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.envelope import Accepted, from_message, to_message
from chalicelib.errors import MalformedMessage

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


@given(
    body=st.binary(max_size=5000),
    type=texts,
    key=texts,
    headers=st.dictionaries(texts, texts | st.lists(texts, max_size=3), max_size=5),
    at=st.datetimes(timezones=st.just(UTC)),
    form_field=st.none() | texts,
)
def test_an_event_comes_out_as_it_went_in(
    body: bytes, type: str, key: str, headers: Any, at: datetime, form_field: str | None
) -> None:
    event = replace(EVENT, body=body, type=type, dedup_key=key, headers=headers, received_at=at, form_field=form_field)
    message = to_message(event)
    assert from_message(message) == event
    # SQS takes XML's characters only; printable ASCII is safely among them.
    assert message.isascii() and message.isprintable()


def test_a_body_in_the_bucket_travels_as_its_key() -> None:
    event = replace(EVENT, body=None, body_key="github/2026/11/23/x")
    assert from_message(to_message(event)) == event


def test_a_large_body_is_compressed() -> None:
    assert len(to_message(replace(EVENT, body=b"x" * 1_000_000))) < 10_000


def test_no_part_of_a_message_is_a_message() -> None:
    message = to_message(EVENT)
    for length in range(len(message)):
        with pytest.raises(MalformedMessage):
            from_message(message[:length])


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
        "[" * 100_000,
        '{"a":' * 100_000,
        altered(v=0),
        altered(v=2),
        altered(v="1"),
        altered(v=...),
        altered(id="seven"),
        altered(source=""),
        altered(source=7),
        altered(at="yesterday"),
        altered(at="2026-11-23T12:00:00"),
        altered(headers=[]),
        altered(body=...),
        altered(body="not base64!"),
        altered(body=7),
        altered(body_key="both"),
        altered(body=..., zbody=base64.b64encode(b"not zlib").decode()),
        altered(body=..., zbody=base64.b64encode(zlib.compress(b"x" * 100)[:-3]).decode()),
        altered(body=..., zbody=base64.b64encode(zlib.compress(b"\0" * 50_000_000)).decode()),
    ],
    ids=lambda message: message[:24],
)
def test_garbage_is_malformed_and_nothing_worse(message: str) -> None:
    with pytest.raises(MalformedMessage):
        from_message(message)


def test_what_is_malformed_is_not_quoted() -> None:
    with pytest.raises(MalformedMessage) as caught:
        from_message(altered(at="canary"))
    assert str(caught.value) == "not an envelope: at"


def test_a_key_that_this_version_does_not_know_passes() -> None:
    assert from_message(altered(trace="1-2-3")) == EVENT
