"""Who is let in by which token and session, and who is not."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.postern.api import access
from chalicelib.postern.api.access import Role, Token

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
TEXT = access.make_token(bytes(range(32)))
TOKEN = Token("anna", access.hashed(TEXT), Role.READ)
OTHER = Token("bert", access.hashed(access.make_token(bytes(32))), Role.OPERATE)


def test_a_token_lets_its_own_name_in() -> None:
    caller = access.caller_by_token(TEXT, [OTHER, TOKEN])
    assert caller is not None
    assert (caller.token, caller.ends_at, caller.csrf) == (TOKEN, None, None)


def test_a_token_that_was_revoked_lets_nobody_in() -> None:
    assert access.caller_by_token(TEXT, [OTHER]) is None


@given(st.integers(0, len(TEXT) - 1), st.characters())
def test_a_token_with_one_other_character_lets_nobody_in(place: int, character: str) -> None:
    text = TEXT[:place] + character + TEXT[place + 1 :]
    assert (access.caller_by_token(text, [TOKEN]) is not None) == (text == TEXT)


def test_a_mistyped_token_is_known_as_none_without_asking_anybody() -> None:
    assert access.is_token(TEXT)
    assert not access.is_token(TEXT[:-1] + ("0" if TEXT[-1] != "0" else "1"))
    assert not access.is_token(TEXT + "\n")
    assert not access.is_token("")


def test_a_session_lets_its_tokens_name_in_for_twelve_hours() -> None:
    text, opened = access.open_session(TOKEN, NOW)
    assert access.is_session(text)
    assert access.caller_by_session(text, [OTHER, TOKEN], NOW + timedelta(hours=11, minutes=59)) == opened
    assert access.caller_by_session(text, [OTHER, TOKEN], NOW + timedelta(hours=12)) is None


def test_a_session_ends_with_its_token() -> None:
    text, _ = access.open_session(TOKEN, NOW)
    assert access.caller_by_session(text, [OTHER], NOW) is None


@given(st.integers(0, 139), st.sampled_from("0123456789abcdef."))
def test_a_session_with_one_other_character_lets_nobody_in(place: int, character: str) -> None:
    text, _ = access.open_session(TOKEN, NOW)
    forged = text[:place] + character + text[place + 1 :]
    assert (access.caller_by_session(forged, [TOKEN], NOW) is not None) == (forged == text)


def test_each_session_has_a_csrf_value_of_its_own_and_it_is_not_in_the_cookie() -> None:
    (first, one), (_, another) = (access.open_session(TOKEN, NOW + timedelta(seconds=n)) for n in range(2))
    assert one.csrf is not None
    assert one.csrf != another.csrf
    assert one.csrf not in first


def test_nothing_that_is_kept_or_sent_holds_the_token() -> None:
    text, caller = access.open_session(TOKEN, NOW)
    for shown in (text, repr(caller), TOKEN.fingerprint, repr(TOKEN)):
        assert TEXT not in shown
        assert TOKEN.sha256 not in shown
    assert str(caller.csrf) not in repr(caller)


@pytest.mark.parametrize(
    "secret",
    [
        {},
        {"tokens": None},
        {"tokens": ["anna"]},
        {"tokens": {"anna": None}},
        {"tokens": {"anna": {"sha256": TOKEN.sha256}}},
        {"tokens": {"anna": {"sha256": TOKEN.sha256, "role": "admin"}}},
        {"tokens": {"anna": {"sha256": TEXT, "role": "read"}}},
        {"tokens": {"anna": {"sha256": TOKEN.sha256.upper(), "role": "read"}}},
    ],
)
def test_what_is_no_token_in_the_secret_lets_nobody_in(secret: dict[str, object]) -> None:
    assert access.read_tokens(secret) == []


def test_tokens_are_read_from_the_secret() -> None:
    about = {"sha256": TOKEN.sha256, "role": "read", "made_at": "2026-11-29T12:00:00Z"}
    assert access.read_tokens({"tokens": {"anna": about}}) == [
        Token("anna", TOKEN.sha256, Role.READ, "2026-11-29T12:00:00Z")
    ]


def test_who_operates_may_read_and_not_the_other_way_round() -> None:
    assert [[role.may(needed) for needed in Role] for role in Role] == [[True, False], [True, True]]


def test_tokens_are_of_256_bits() -> None:
    assert len({access.make_token(os.urandom(32)) for _ in range(100)}) == 100
    assert len(TEXT) == len("postern_") + 43 + 6
