"""Where an event's key and type are found, and what they are stored as."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.postern.contract.deliveries import Headers
from chalicelib.postern.receiving.naming import UNKNOWN_TYPE, Locator, Place, dedup_key, event_type, request_id


@pytest.mark.parametrize(
    ("place", "found"),
    [
        ("header:X-ID", "h-1"),
        ("header:X-None", None),
        ("header:X-Twice", None),
        ("header:X-Empty", None),
        ("header:x-iD", "h-1"),
        ("body:id", "7"),
        ("body:a.b", "deep"),
        ("body:a.b.c", None),
        ("body:none", None),
        ("body:list", None),
        ("body:truth", None),
        ("body:nothing", None),
        ("body:empty", None),
        ("body:fraction", None),
        ("body:zero", "0"),
        ("body:list.0", "1"),
        ("body:list.1", None),
        ("body:list.-1", None),
        ("body:list.²", None),
        ("body:id.length", None),
        ("body:with:colon", "c"),
    ],
)
def test_a_place_gives_its_text_or_nothing(place: str, found: str | None) -> None:
    headers = Headers([("x-id", "h-1"), ("X-Twice", "a"), ("X-Twice", "b"), ("X-Empty", "")])
    payload = {"id": 7, "a": {"b": "deep"}, "list": [1], "truth": True, "nothing": None, "empty": ""}
    payload |= {"fraction": 1.5, "zero": 0, "with:colon": "c"}
    assert Locator.parse(place).find(headers, payload) == found


@pytest.mark.parametrize("payload", [None, [], "text", 7])
def test_a_payload_without_keys_has_nothing_at_any_path(payload: Any) -> None:
    assert Locator.parse("body:id").find(Headers([]), payload) is None


@pytest.mark.parametrize(
    "place", ["", "id", ":", "header:", "body:", "body:a..b", "body:.a", "body:a.", "query:x", "Body:id", " body:id"]
)
def test_what_is_no_place_is_refused(place: str) -> None:
    with pytest.raises(ValueError, match="is not 'header:NAME'"):
        Locator.parse(place)


def test_without_an_id_the_bytes_are_the_key() -> None:
    assert dedup_key(None, b"body") == "sha256:" + hashlib.sha256(b"body").hexdigest()


def test_different_bytes_are_different_keys_and_the_same_bytes_the_same() -> None:
    assert dedup_key(None, b"{}") == dedup_key(None, b"{}")
    assert dedup_key(None, b"{}") != dedup_key(None, b"{ }")


@pytest.mark.parametrize("found", ["evt_1", "a" * 200, "2f0f7e70-c1a5-11ee-8f5d-4d0a", "schlüssel 🗝", "a/b:c"])
def test_an_id_that_fits_is_the_key_as_it_is(found: str) -> None:
    assert dedup_key(found, b"body") == found
    assert event_type(found) == found


@given(st.text(st.characters(), min_size=1))
def test_any_id_gives_a_key_that_postgresql_can_index(found: str) -> None:
    key = dedup_key(found, b"body")
    assert 0 < len(key) <= 200
    assert key.isprintable()
    key.encode("utf-8")
    assert key == dedup_key(found, b"other body")


@given(st.none() | st.text(st.characters(), min_size=1))
def test_any_type_gives_a_name_that_postgresql_can_hold(found: str | None) -> None:
    name = event_type(found)
    assert 0 < len(name) <= 200
    assert name.isprintable()
    name.encode("utf-8")


def test_two_long_ids_that_start_alike_stay_apart() -> None:
    assert dedup_key("x" * 300 + "1", b"") != dedup_key("x" * 300 + "2", b"")


@pytest.mark.parametrize("found", ["x" * 201, "a\0b", "\ud800", "line\nbreak"])
def test_an_id_that_no_index_should_hold_is_hashed(found: str) -> None:
    assert dedup_key(found, b"").startswith("id-sha256:")
    assert dedup_key(found, b"") == dedup_key(found, b"other body")
    assert event_type(found) == UNKNOWN_TYPE


@pytest.mark.parametrize("found", ["c6af9ac6-7b61-11e6-9a41-93e8deadbeef", "x", "a" * 128])
def test_an_id_of_a_request_is_kept_as_it_is(found: str) -> None:
    assert request_id(found) == found


@pytest.mark.parametrize("found", [None, "", "a" * 129, "a\0b", "\ud800", "line\nbreak", 7, ["a"], {}])
def test_what_postgresql_could_not_hold_is_no_requests_id(found: object) -> None:
    assert request_id(found) is None


@pytest.mark.parametrize(
    ("place", "found"),
    [
        ("body:none or body:id", "7"),
        ("header:X-Id or body:id", "h-1"),
        (["body:id", "header:X-Id"], "7:h-1"),
        (["body:none", "header:X-Id"], ":h-1"),
        (["body:none", "header:X-None"], None),
    ],
)
def test_a_name_is_made_up_of_its_parts_each_from_the_first_place_that_has_it(place: Any, found: str | None) -> None:
    assert Place.parse(place).find(Headers([("X-Id", "h-1")]), {"id": 7}) == found
