"""Secrets Manager: fetched when first needed, kept per container, never shown."""

from __future__ import annotations

import json
from collections.abc import Callable
from threading import Lock
from typing import Any

from chalicelib.adapters import aws
from chalicelib.errors import ConfigurationError, DatabaseUnavailable, SecretUnavailable

# A new secret takes effect within this time, and no traffic, forged or real, asks more often.
_FRESH_SECONDS = 45.0


class SourceSecrets:
    """The valid secrets of each source, from one secret that holds a JSON object: name -> secret or list of them."""

    def __init__(self, secret_id: str, clock: Callable[[], float]) -> None:
        self._secret_id = secret_id
        self._clock = clock
        self._lock = Lock()
        self._secrets: dict[str, Any] | None = None
        self._asked_at = float("-inf")
        self._problem = ""

    def of(self, source: str) -> list[str]:
        """At least one secret; raises SecretUnavailable when there is none, or what is there is not one."""
        found = self._current().get(source)
        secrets: list[Any] = found if isinstance(found, list) else [found]
        if not secrets or not all(isinstance(s, str) and s.strip() for s in secrets):
            raise SecretUnavailable("secret_missing" if found is None else "secret_malformed")
        return secrets

    def _current(self) -> dict[str, Any]:
        with self._lock:
            now = self._clock()
            if self._secrets is None or now - self._asked_at >= _FRESH_SECONDS:
                self._refresh(now)
            if self._secrets is None:
                raise SecretUnavailable(f"secrets_unreachable: {self._problem}")
            return self._secrets

    def _refresh(self, now: float) -> None:
        """Secrets that we have stay good while new ones cannot be had: an outage must not refuse deliveries."""
        if self._secrets is None and now - self._asked_at < 1.0:
            return  # a second's rest between failures, or every delivery of a storm would wait for its own
        self._asked_at = now
        try:
            with aws.failing_as(SecretUnavailable):
                answer = aws.secretsmanager().get_secret_value(SecretId=self._secret_id)
            secrets = json.loads(answer["SecretString"])
            if not isinstance(secrets, dict):
                raise SecretUnavailable("not_an_object")
        except SecretUnavailable as exc:
            self._problem = exc.reason
        except (KeyError, ValueError) as exc:
            self._problem = type(exc).__name__  # its text could quote a secret
        else:
            self._secrets = secrets


def database_dsn(secret_id: str) -> str:
    """A libpq connection string from a secret as RDS writes it: username, password, host, port, dbname.

    Raises DatabaseUnavailable, or ConfigurationError when the secret has another shape.
    """
    with aws.failing_as(lambda code: DatabaseUnavailable(f"database secret: {code}")):
        answer = aws.secretsmanager().get_secret_value(SecretId=secret_id)
    try:
        secret = json.loads(answer["SecretString"])
        # A certificate that is not checked protects from nobody.
        sslmode = secret.get("sslmode", "verify-full")
        parts = {
            "host": secret["host"],
            "port": secret.get("port", 5432),
            "dbname": secret.get("dbname", "postgres"),
            "user": secret["username"],
            "password": secret["password"],
            "sslmode": sslmode,
        }
        # `sslrootcert` may name RDS's bundle; libpq takes the system's certificates for nothing weaker.
        if root := secret.get("sslrootcert", "system" if sslmode == "verify-full" else None):
            parts["sslrootcert"] = root
    except (KeyError, ValueError, TypeError, AttributeError):
        raise ConfigurationError(
            "The database's secret is not a JSON object with host, username and password."
        ) from None
    return " ".join(f"{name}={_quoted(str(value))}" for name, value in parts.items())


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
