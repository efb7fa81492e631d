"""Retries, handlers' registry, configuration, ids and headers: small modules, a few outcomes each."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from chalicelib import handling
from chalicelib.config import SHIPPED_SOURCES, Config
from chalicelib.deliveries import REDACTED, Headers, new_event_id
from chalicelib.errors import ConfigurationError, Refusal
from chalicelib.handling import Handler
from chalicelib.retries import RetryPolicy

POLICY = RetryPolicy(max_attempts=3, base_seconds=30, max_seconds=300)


def test_waits_double_up_to_the_longest() -> None:
    assert [POLICY.delay(n, lambda: 1.0) for n in (1, 2, 3, 4, 5, 1000)] == [30, 60, 120, 240, 300, 300]


def test_the_last_quarter_of_a_wait_is_chance() -> None:
    assert [POLICY.delay(1, lambda: 0.0), POLICY.delay(1, lambda: 0.5), POLICY.delay(1, lambda: 1.0)] == [22, 26, 30]
    assert RetryPolicy(3, 1, 1).delay(1, lambda: 0.0) == 1


def test_the_third_attempt_is_the_last() -> None:
    assert [POLICY.is_last(n) for n in (1, 2, 3, 4)] == [False, False, True, True]


@pytest.mark.parametrize(
    ("source", "type", "takes"),
    [("stripe", "invoice.*", True), ("stripe", "invoice.paid", True), ("*", "*", True), ("github", "*", False)],
)
def test_a_star_in_a_handler_stands_for_anything(source: str, type: str, takes: bool) -> None:
    assert Handler(source, type, lambda event, db: None).takes("stripe", "invoice.paid") is takes


def test_a_handler_module_that_cannot_be_imported_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "broken_handlers"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "invoices.py").write_text("import no_such_library\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigurationError, match=r"broken_handlers\.invoices .*no_such_library"):
        handling.discover("broken_handlers")
    sys.modules.pop("broken_handlers")


def test_the_shipped_handlers_are_found() -> None:
    assert [(h.source, h.type) for h in handling.discover()] == [("github", "push")]


def test_a_failure_is_told_in_its_first_line_and_by_the_end_of_its_traceback() -> None:
    def fail(depth: int) -> None:
        if depth:
            fail(depth - 1)
        raise ValueError("no such customer\nsecond line")

    with pytest.raises(ValueError, match="no such") as caught:
        fail(400)
    text = handling.describe(caught.value)
    assert text.startswith("ValueError: no such customer\n\n")
    assert text.rstrip().endswith("second line")
    assert len(text) < 10_000


def test_a_failure_without_a_message_has_a_first_line() -> None:
    assert handling.describe(SystemExit()).startswith("SystemExit: \n\n")


@pytest.mark.parametrize("value", ["0", "-1", "ten", "1.5", "٣", "99999999"])
def test_a_setting_that_is_no_number_is_named(value: str) -> None:
    with pytest.raises(ConfigurationError, match="MAX_ATTEMPTS"):
        Config.from_environ({"MAX_ATTEMPTS": value})


def test_a_setting_that_is_missing_is_named_when_it_is_needed() -> None:
    config = Config.from_environ({})
    assert config.sources_file == SHIPPED_SOURCES
    with pytest.raises(ConfigurationError, match="QUEUE_URL is not set"):
        config.need("queue_url")


def test_the_safe_mode_is_the_default() -> None:
    assert Config.from_environ({}).partial_batch_response is False
    with pytest.raises(ConfigurationError, match="PARTIAL_BATCH_RESPONSE"):
        Config.from_environ({"PARTIAL_BATCH_RESPONSE": "yes"})


def test_the_configurations_repr_holds_no_password() -> None:
    assert "canary" not in repr(Config.from_environ({"DATABASE_URL": "postgresql://u:canary@h/d"}))


def test_ids_are_uuid7_and_sort_by_time() -> None:
    start = datetime(2026, 11, 23, tzinfo=UTC)
    ids = [new_event_id(start + timedelta(milliseconds=n)) for n in range(50)]
    assert ids == sorted(ids)
    assert {(id.version, id.variant) for id in ids} == {(7, "specified in RFC 4122")}
    assert ids[0].int >> 80 == int(start.timestamp() * 1000)


def test_headers_are_found_in_any_case_and_a_repeated_one_has_no_single_value() -> None:
    headers = Headers([("X-One", "1"), ("x-two", "a"), ("X-Two", "b")])
    assert headers["x-ONE"] == "1"
    assert headers.get("X-Two") is None
    assert headers.all("X-TWO") == ["a", "b"]


def test_credentials_are_stored_as_redacted() -> None:
    headers = Headers([("Authorization", "Basic x"), ("Cookie", "c"), ("X-Token", "t"), ("X-Two", "a"), ("X-Two", "b")])
    assert headers.as_stored(hidden={"x-token"}) == {
        "authorization": REDACTED,
        "cookie": REDACTED,
        "x-token": REDACTED,
        "x-two": ["a", "b"],
    }


def test_every_refusal_has_a_code_and_an_error_of_ours_is_no_4xx() -> None:
    statuses = {refusal.code: refusal.status for refusal in Refusal.__subclasses__()}
    assert statuses == {
        "unknown_source": 404,
        "method_not_allowed": 405,
        "payload_too_large": 413,
        "unsupported_media_type": 415,
        "invalid_signature": 401,
        "invalid_payload": 400,
        "queue_unavailable": 503,
        "secret_unavailable": 503,
    }
