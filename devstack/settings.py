"""What a person may set for a local run, and the environment that each of its processes gets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from devstack.errors import StartError

PROJECT = Path(__file__).parent.parent

# Like a function's timeout in a deployment: a worker that takes longer is gone, and its messages come back.
PROCESSOR_TIMEOUT_SECONDS = 20
# AWS asks for six times the timeout; here nobody wants to wait for that.
VISIBILITY_TIMEOUT_SECONDS = 60

_AWS_IDENTITY = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_REGION": "us-east-1",
    # Neither a profile's settings nor an instance's role may find their way in.
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    "AWS_EC2_METADATA_DISABLED": "true",
}

# What the app reads; a local run sets these itself.
_APP_VARIABLES = (
    "QUEUE_URL",
    "DEAD_LETTER_QUEUE_URL",
    "SOURCES_SECRET_ID",
    "BODIES_BUCKET",
    "BACKEND_FUNCTION",
    "STORE_FUNCTION",
    "RECONCILER_FUNCTION",
    "TOKENS_SECRET_ID",
    "DATABASE_URL",
    "DATABASE_SECRET_ID",
    "HANDLERS_SECRET_ID",
)


@dataclass(frozen=True)
class Settings:
    """`state`: the folder that outlives a run. `database_url`: the user's own server, instead of the embedded one."""

    state: Path
    port: int
    database_url: str | None
    sources_file: Path | None
    secrets_file: Path | None
    workers: int
    partial_batch_response: bool
    max_receives: int
    maintenance_every_seconds: int  # in a deployment it is 300; here somebody is looking
    with_api: bool = True  # else the API is `chalice local`

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Settings:
        return cls(
            state=Path(environ.get("POSTERN_STATE_DIR") or PROJECT / ".local").resolve(),
            port=_number(environ, "PORT", 8000, 1, 65535),
            database_url=environ.get("DATABASE_URL") or None,
            sources_file=_file(environ, "SOURCES_FILE"),
            secrets_file=_file(environ, "SECRETS_FILE"),
            workers=_number(environ, "PROCESSORS", 2, 1, 32),
            partial_batch_response=environ.get("PARTIAL_BATCH_RESPONSE", "true") == "true",
            max_receives=_number(environ, "MAX_RECEIVES", 100, 1, 1000),
            maintenance_every_seconds=_number(environ, "MAINTENANCE_EVERY_SECONDS", 60, 1, 3600),
        )


def base_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """The user's environment without their AWS: no process of a local run may reach a real account."""
    kept = {
        name: value for name, value in environ.items() if not name.startswith("AWS_") and name not in _APP_VARIABLES
    }
    return {**kept, **_AWS_IDENTITY, "PYTHONUNBUFFERED": "1"}


def _number(environ: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    text = environ.get(name) or str(default)
    if not (text.isascii() and text.isdigit() and low <= int(text) <= high):
        raise StartError(f"{name} is '{text}', not a number from {low} to {high}.")
    return int(text)


def _file(environ: Mapping[str, str], name: str) -> Path | None:
    text = environ.get(name)
    if not text:
        return None
    file = Path(text).resolve()
    if not file.is_file():
        raise StartError(f"{name} is '{text}', and there is no such file.")
    return file
