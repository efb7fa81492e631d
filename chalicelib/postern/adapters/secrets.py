"""Secrets Manager: fetched when first needed, kept per container, never shown."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any

from chalicelib.postern.adapters import aws
from chalicelib.postern.adapters.teams_room import SHIPPED_AUTHORITIES
from chalicelib.postern.contract.errors import ConfigurationError, DatabaseUnavailable, SecretUnavailable

# A new secret takes effect within this time, and no traffic, forged or real, asks more often.
_FRESH_SECONDS = 45.0

# Amazon Linux, which Lambda runs; Debian; macOS and Alpine.
_SYSTEMS_AUTHORITIES = (
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/ssl/cert.pem",
)


class KeptSecret:
    """A secret that holds a JSON object, asked for again when what is known of it is older than `fresh_seconds`.

    `version` is Secrets Manager's label of one; AWSPREVIOUS is what was there before the last change. While it cannot
    be had, what is known stays good for `good_seconds`.
    """

    def __init__(
        self,
        secret_id: str,
        clock: Callable[[], float],
        version: str = "AWSCURRENT",
        *,
        fresh_seconds: float = _FRESH_SECONDS,
        good_seconds: float = float("inf"),
    ) -> None:
        self._secret_id = secret_id
        self._version = version
        self._clock = clock
        self._fresh_seconds = fresh_seconds
        self._good_seconds = good_seconds
        self._lock = Lock()
        self._content: dict[str, Any] | None = None
        self._asked_at = self._known_at = float("-inf")
        self._problem = ""

    def content(self, *, afresh: bool = False) -> dict[str, Any]:
        """`afresh`: as it was a second ago at most. Raises SecretUnavailable."""
        with self._lock:
            now = self._clock()
            if self._content is None or now - self._asked_at >= (1.0 if afresh else self._fresh_seconds):
                self._refresh(now)
            if self._content is None or now - self._known_at > self._good_seconds:
                raise SecretUnavailable(f"secrets_unreachable: {self._problem}")
            return self._content

    def _refresh(self, now: float) -> None:
        if self._content is None and now - self._asked_at < 1.0:
            return  # a second's rest between failures, or every delivery of a storm would wait for its own
        self._asked_at = now
        try:
            with aws.failing_as(SecretUnavailable):
                answer = aws.secretsmanager().get_secret_value(SecretId=self._secret_id, VersionStage=self._version)
            content = parsed(answer["SecretString"])
            if not isinstance(content, dict):
                raise SecretUnavailable("not_an_object")
        except SecretUnavailable as exc:
            self._problem = exc.reason
            self._asked_at = self._clock()  # it may have taken its time to fail
        except (KeyError, ValueError) as exc:
            self._problem = type(exc).__name__  # its text could quote a secret
        else:
            self._content, self._known_at = content, now


class SourceSecrets:
    """The valid secrets of each source, from one secret: name -> secret or list of them. Those that we have stay good
    while new ones cannot be had: an outage must not refuse deliveries.
    """

    def __init__(self, secret_id: str, clock: Callable[[], float], version: str = "AWSCURRENT") -> None:
        self._secret = KeptSecret(secret_id, clock, version)

    def of(self, source: str) -> list[str]:
        """At least one secret; raises SecretUnavailable when there is none, or what is there is not one."""
        found = self._secret.content().get(source)
        listed: list[Any] = found if isinstance(found, list) else [found]
        # A key that is a JSON object itself, Plaid's for one, may stand there as that.
        secrets = [json.dumps(each) if isinstance(each, dict) and each else each for each in listed]
        if not secrets or not all(isinstance(s, str) and s.strip() for s in secrets):
            raise SecretUnavailable("secret_missing" if found is None else "secret_malformed")
        return secrets


def parsed(text: str) -> Any:
    """What a secret says, which is JSON; a byte order mark before it is passed over. Raises ValueError."""
    return json.loads(text.removeprefix("\ufeff"))


def database_dsn(
    secret_id: str,
    *,
    host: str | None = None,
    port: int | None = None,
    dbname: str | None = None,
    authorities: Path = SHIPPED_AUTHORITIES,
) -> str:
    """A libpq connection string from a secret as RDS writes it: username, password, host, port, dbname.

    RDS's managed secrets hold only the first two. What is given here goes before what the secret says: RDS and
    rotation write the instance's own address there, and who sets another, a proxy's for one, means it. The file
    `authorities` is taken when it is there and the secret names no `sslrootcert`. Raises DatabaseUnavailable, or
    ConfigurationError when the secret has another shape.
    """
    with aws.failing_as(lambda code: DatabaseUnavailable(f"database secret: {code}")):
        answer = aws.secretsmanager().get_secret_value(SecretId=secret_id)
    try:
        secret = parsed(answer["SecretString"])
        # A certificate that is not checked protects from nobody.
        sslmode = secret.get("sslmode") or "verify-full"
        parts = {
            "host": host or secret.get("host"),
            "port": port or secret.get("port") or 5432,
            "dbname": dbname or secret.get("dbname") or "postgres",
            "user": secret["username"],
            "password": secret["password"],
            "sslmode": sslmode,
            "sslrootcert": secret.get("sslrootcert") or _trusted(sslmode, authorities),
        }
    except (KeyError, ValueError, TypeError, AttributeError):
        raise ConfigurationError("The database's secret is not a JSON object with username and password.") from None
    if not parts["host"]:
        raise ConfigurationError("The database's secret names no host, and DATABASE_HOST is not set.")
    return " ".join(f"{name}={_quoted(str(value))}" for name, value in parts.items() if value is not None)


def _trusted(sslmode: str, authorities: Path) -> str | None:
    """Who may sign the server's certificate, for a mode that checks it: libpq would check in weaker ones too."""
    if sslmode in ("verify-ca", "verify-full") and authorities.is_file():
        return str(authorities)
    if sslmode != "verify-full":
        return None  # libpq takes no system's authorities for anything weaker
    # `system` alone finds none: psycopg2-binary's OpenSSL looks where it was built.
    return next((bundle for bundle in _SYSTEMS_AUTHORITIES if Path(bundle).is_file()), "system")


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
