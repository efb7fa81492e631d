"""What an installation sets: defaults, and a sentence for what does not fit."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from chalicelib.postern.adapters.teams_room import SHIPPED_SOURCES
from chalicelib.postern.contract.errors import ConfigurationError
from chalicelib.postern.running.config import Config

NUMBERS = {"MAX_ATTEMPTS": "max_attempts", "RETRY_BASE_SECONDS": "retry_base_seconds"}
NUMBERS |= {"RETRY_MAX_SECONDS": "retry_max_seconds", "MAX_UNCHARGED": "max_uncharged"}
DAYS = {"RETENTION_DAYS": "retention_days", "DEDUP_DAYS": "dedup_days", "UNRESOLVED_DAYS": "unresolved_days"}
ADDRESS = ("DATABASE_HOST", "DATABASE_PORT", "DATABASE_NAME")


def test_nothing_set_gives_the_defaults_that_the_documents_promise() -> None:
    config = Config.from_environ({})
    assert (config.sources_file, config.stage) == (SHIPPED_SOURCES, "local")
    assert (config.max_attempts, config.retry_base_seconds, config.retry_max_seconds) == (3, 30, 300)
    assert (config.retention_days, config.dedup_days, config.unresolved_days) == (90, 180, 365)


def test_the_shipped_sources_file_is_there() -> None:
    assert SHIPPED_SOURCES.is_file()


def test_the_safe_mode_is_the_default() -> None:
    assert Config.from_environ({}).partial_batch_response is False


def test_what_is_set_is_taken() -> None:
    config = Config.from_environ(
        {
            "STAGE": "prod",
            "SOURCES_FILE": "/etc/sources.toml",
            "QUEUE_URL": "https://sqs/1/q",
            "PARTIAL_BATCH_RESPONSE": "true",
            "MAX_ATTEMPTS": "5",
            "DATABASE_URL": "postgresql://h/d",
            "DATABASE_HOST": "proxy.example.com",
            "DATABASE_PORT": "6432",
            "DATABASE_NAME": "inbox",
        }
    )
    assert (config.stage, config.sources_file) == ("prod", Path("/etc/sources.toml"))
    assert (config.queue_url, config.database_url) == ("https://sqs/1/q", "postgresql://h/d")
    assert (config.database_host, config.database_port, config.database_name) == ("proxy.example.com", 6432, "inbox")
    assert config.partial_batch_response is True
    assert config.max_attempts == 5


@pytest.mark.parametrize("name", [*NUMBERS, *DAYS, *ADDRESS, "PARTIAL_BATCH_RESPONSE", "SOURCES_FILE", "STAGE"])
def test_a_setting_that_is_empty_is_not_set(name: str) -> None:
    """So a template may leave a parameter blank."""
    assert Config.from_environ({name: ""}) == Config.from_environ({})


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize(
    "value",
    ["0", "-1", "+1", "ten", "1.5", "1e3", "0x10", "1_0", " 1", "1 ", "1\n", "٣", "²", "43201", "9" * 5_000],
    ids=lambda value: ascii(value[:8]),
)
def test_a_setting_that_is_no_number_from_1_to_43200_is_named(name: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=name):
        Config.from_environ({name: value})


@pytest.mark.parametrize(("name", "attribute"), NUMBERS.items())
@pytest.mark.parametrize("value", ["1", "007", "43200"])
def test_a_number_at_its_bounds_is_taken(name: str, attribute: str, value: str) -> None:
    # What they have to agree with.
    others = {"MAX_RECEIVES": "43200"} if int(value) < 43200 else {}
    others |= {"RETRY_BASE_SECONDS": value, "RETRY_MAX_SECONDS": value} if name.startswith("RETRY") else {}
    if name == "MAX_ATTEMPTS" and not others:
        with pytest.raises(ConfigurationError, match="SQS would give events up that have attempts left"):
            Config.from_environ({name: value, "MAX_RECEIVES": value})
        return
    assert getattr(Config.from_environ({**others, name: value}), attribute) == int(value)


def test_the_longest_wait_is_not_shorter_than_the_first() -> None:
    with pytest.raises(ConfigurationError, match="RETRY_MAX_SECONDS is 300, less than RETRY_BASE_SECONDS, 3600"):
        Config.from_environ({"RETRY_BASE_SECONDS": "3600"})


@pytest.mark.parametrize("name", DAYS)
@pytest.mark.parametrize(
    "value", ["0", "-1", "90.5", "3651", " 90", "90d", "٣٠", "9" * 5_000], ids=lambda v: ascii(v[:8])
)
def test_a_number_of_days_that_is_none_is_named(name: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{name} is '.*', not a whole number of days up to 3650"):
        Config.from_environ({name: value})


def test_events_are_kept_for_longer_than_their_messages_may_come_back() -> None:
    assert Config.from_environ({"RETENTION_DAYS": "25"}).retention_days == 25
    with pytest.raises(ConfigurationError, match="must be 25 at least: the queue and the dead letters may bring"):
        Config.from_environ({"RETENTION_DAYS": "24"})


@pytest.mark.parametrize(
    "value", ["0", "-1", "65536", "5432 ", "postgresql", "٣", "9" * 5_000], ids=lambda v: ascii(v[:8])
)
def test_a_port_that_is_none_is_named(value: str) -> None:
    with pytest.raises(ConfigurationError, match="DATABASE_PORT"):
        Config.from_environ({"DATABASE_PORT": value})


@pytest.mark.parametrize("value", ["1", "5432", "65535"])
def test_a_port_at_its_bounds_is_taken(value: str) -> None:
    assert Config.from_environ({"DATABASE_PORT": value}).database_port == int(value)


@pytest.mark.parametrize("value", ["yes", "1", "True", "TRUE", "on", " true"])
def test_a_switch_that_is_neither_true_nor_false_is_named(value: str) -> None:
    with pytest.raises(ConfigurationError, match="PARTIAL_BATCH_RESPONSE"):
        Config.from_environ({"PARTIAL_BATCH_RESPONSE": value})


@pytest.mark.parametrize("environ", [{}, {"QUEUE_URL": ""}], ids=["missing", "empty"])
def test_a_setting_that_is_missing_is_named_when_it_is_needed(environ: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="QUEUE_URL is not set"):
        Config.from_environ(environ).need("queue_url")


def test_a_setting_that_is_there_is_given_when_it_is_needed() -> None:
    assert Config.from_environ({"QUEUE_URL": "q"}).need("queue_url") == "q"


def test_the_configurations_repr_holds_no_password() -> None:
    assert "canary" not in repr(Config.from_environ({"DATABASE_URL": "postgresql://u:canary@h/d"}))


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        Config.from_environ({}).max_attempts = 9  # type: ignore[misc]
