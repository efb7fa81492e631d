from __future__ import annotations

import hashlib
from typing import Any

import pytest

from chalicelib.deliveries import Headers
from chalicelib.naming import UNKNOWN_TYPE, Locator, dedup_key, event_type


@pytest.mark.parametrize(
    ("place", "found"),
    [
        ("header:X-ID", "h-1"),
        ("header:X-None", None),
        ("header:X-Twice", None),
        ("header:X-Empty", None),
        ("body:id", "7"),
        ("body:a.b", "deep"),
        ("body:a.b.c", None),
        ("body:none", None),
        ("body:list", None),
        ("body:truth", None),
        ("body:nothing", None),
        ("body:empty", None),
    ],
)
def test_a_place_gives_its_text_or_nothing(place: str, found: str | None) -> None:
    headers = Headers([("x-id", "h-1"), ("X-Twice", "a"), ("X-Twice", "b"), ("X-Empty", "")])
    payload = {"id": 7, "a": {"b": "deep"}, "list": [1], "truth": True, "nothing": None, "empty": ""}
    assert Locator.parse(place).find(headers, payload) == found


@pytest.mark.parametrize("payload", [None, [], "text", 7])
def test_a_payload_without_keys_has_nothing_at_any_path(payload: Any) -> None:
    assert Locator.parse("body:id").find(Headers([]), payload) is None


@pytest.mark.parametrize("place", ["", "id", "header:", "body:", "body:a..b", "query:x"])
def test_what_is_no_place_is_refused(place: str) -> None:
    with pytest.raises(ValueError, match="is not 'header:NAME'"):
        Locator.parse(place)


def test_without_an_id_the_bytes_are_the_key() -> None:
    assert dedup_key(None, b"body") == "sha256:" + hashlib.sha256(b"body").hexdigest()


@pytest.mark.parametrize("found", ["x" * 201, "a\0b", "\ud800", "line\nbreak"])
def test_an_id_that_no_index_should_hold_is_hashed(found: str) -> None:
    assert dedup_key(found, b"").startswith("id-sha256:")
    assert dedup_key(found, b"") == dedup_key(found, b"other body")
    assert event_type(found) == UNKNOWN_TYPE
