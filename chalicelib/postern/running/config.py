"""What an installation sets, as one frozen object built from an environ that is passed in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from chalicelib.postern.adapters.teams_room import SHIPPED_SOURCES
from chalicelib.postern.contract.bounds import QUEUES_KEEP_DAYS
from chalicelib.postern.contract.errors import ConfigurationError

_LOCAL = "local"
_MIN_RETENTION_DAYS = QUEUES_KEEP_DAYS + 1


@dataclass(frozen=True)
class Config:
    """Each function is given only what it needs: a name that is missing raises when it is asked for.

    Secrets travel by name (`sources_secret_id`, `database_secret_id`); `database_url`, which holds a password,
    is for a database without a secret, such as a local one. `database_host`, `_port` and `_name` go before what
    the secret says.
    """

    stage: str
    release: str | None  # which package it is of, as `make package` named it; a native deployment's has no name
    sources_file: Path
    queue_url: str | None
    dead_letter_queue_url: str | None
    sources_secret_id: str | None
    bodies_bucket: str | None
    handlers_secret_id: str | None
    backend_function: str | None
    store_function: str | None
    reconciler_function: str | None
    tokens_secret_id: str | None
    database_secret_id: str | None
    database_host: str | None
    database_port: int | None
    database_name: str | None
    database_url: str | None = field(repr=False)
    partial_batch_response: bool
    max_attempts: int
    retry_base_seconds: int
    retry_max_seconds: int
    max_uncharged: int
    handler_timeout_seconds: int
    max_receives: int
    retention_days: int
    dedup_days: int
    unresolved_days: int

    @property
    def is_deployed(self) -> bool:
        """Whether it is reached by https, as everything at AWS is, and no local run is."""
        return self.stage != _LOCAL

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Config:
        """Raises ConfigurationError when a value does not fit, or does not fit the others."""
        found = cls(
            stage=environ.get("STAGE") or _LOCAL,
            release=environ.get("RELEASE") or None,
            sources_file=Path(environ.get("SOURCES_FILE") or SHIPPED_SOURCES),
            queue_url=environ.get("QUEUE_URL"),
            dead_letter_queue_url=environ.get("DEAD_LETTER_QUEUE_URL"),
            sources_secret_id=environ.get("SOURCES_SECRET_ID"),
            bodies_bucket=environ.get("BODIES_BUCKET"),
            handlers_secret_id=environ.get("HANDLERS_SECRET_ID") or None,
            backend_function=environ.get("BACKEND_FUNCTION") or None,
            store_function=environ.get("STORE_FUNCTION") or None,
            reconciler_function=environ.get("RECONCILER_FUNCTION") or None,
            tokens_secret_id=environ.get("TOKENS_SECRET_ID") or None,
            database_secret_id=environ.get("DATABASE_SECRET_ID"),
            database_host=environ.get("DATABASE_HOST") or None,
            database_port=_port(environ, "DATABASE_PORT"),
            database_name=environ.get("DATABASE_NAME") or None,
            database_url=environ.get("DATABASE_URL"),
            partial_batch_response=_switch(environ, "PARTIAL_BATCH_RESPONSE"),
            max_attempts=_number(environ, "MAX_ATTEMPTS", default=3),
            retry_base_seconds=_number(environ, "RETRY_BASE_SECONDS", default=30),
            retry_max_seconds=_number(environ, "RETRY_MAX_SECONDS", default=300),
            max_uncharged=_number(environ, "MAX_UNCHARGED", default=5),
            handler_timeout_seconds=_number(environ, "HANDLER_TIMEOUT_SECONDS", default=10),
            max_receives=_number(environ, "MAX_RECEIVES", default=100),
            retention_days=_days(environ, "RETENTION_DAYS", default=90, least=_MIN_RETENTION_DAYS),
            dedup_days=_days(environ, "DEDUP_DAYS", default=180),
            unresolved_days=_days(environ, "UNRESOLVED_DAYS", default=365),
        )
        if found.retry_max_seconds < found.retry_base_seconds:
            raise ConfigurationError(
                f"RETRY_MAX_SECONDS is {found.retry_max_seconds}, less than RETRY_BASE_SECONDS, "
                f"{found.retry_base_seconds}."
            )
        if found.max_receives <= found.max_attempts:
            raise ConfigurationError(
                f"MAX_RECEIVES is {found.max_receives}, not more than MAX_ATTEMPTS, {found.max_attempts}: SQS would "
                "give events up that have attempts left."
            )
        return found

    def need(self, name: str) -> str:
        """The value of a name that this function cannot work without."""
        value = getattr(self, name)
        if not value:
            raise ConfigurationError(f"{name.upper()} is not set.")
        return str(value)


def _number(environ: Mapping[str, str], name: str, default: int) -> int:
    text = environ.get(name) or str(default)
    # Twelve hours: the longest that SQS keeps a message hidden.
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= 43200):
        raise ConfigurationError(f"{name} is '{text}', not a whole number from 1 to 43200.")
    return int(text)


def _days(environ: Mapping[str, str], name: str, default: int, least: int = 1) -> int:
    text = environ.get(name) or str(default)
    if not (text.isascii() and text.isdigit() and len(text) <= 4 and 1 <= int(text) <= 3650):
        raise ConfigurationError(f"{name} is '{text}', not a whole number of days up to 3650.")
    if int(text) < least:
        raise ConfigurationError(
            f"{name} is '{text}', but must be {least} at least: the queue and the dead letters may bring an event back "
            f"for {least - 1} days, and without its row it would be processed once more."
        )
    return int(text)


def _port(environ: Mapping[str, str], name: str) -> int | None:
    text = environ.get(name) or None
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= 65535):
        raise ConfigurationError(f"{name} is '{text}', not a port from 1 to 65535.")
    return int(text)


def _switch(environ: Mapping[str, str], name: str) -> bool:
    text = environ.get(name) or "false"
    if text not in ("true", "false"):
        raise ConfigurationError(f"{name} is '{text}', not 'true' or 'false'.")
    return text == "true"
