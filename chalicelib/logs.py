"""One wide JSON line for each delivery and each event; never a body, never a secret."""

from __future__ import annotations

from functools import cache
from typing import Any

from aws_lambda_powertools import Logger

SERVICE = "postern"


@cache
def logger() -> Logger:
    # The place of the call would be this module in every line.
    return Logger(service=SERVICE, location=None)


def line(name: str, /, *, failed: bool = False, **fields: Any) -> None:
    """Logs `name` with these fields; those that are None are left out."""
    known = {key: value for key, value in fields.items() if value is not None}
    log = logger()
    (log.warning if failed else log.info)(name, extra=known)
