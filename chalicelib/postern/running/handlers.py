"""What handlers ask of the installation that they run in."""

from __future__ import annotations

import os
import re
import time
from functools import cache
from typing import Any

from chalicelib.postern.adapters.secrets import KeptSecret
from chalicelib.postern.contract.errors import RetryLater, SecretUnavailable
from chalicelib.postern.running import wiring

_SECONDS = 60


def secrets(name: str) -> Any:
    """A secret of your own: what stands under this name in the secret that the parameter HandlersSecretArn names.

    That is fetched when it is first asked for, and kept: what is changed there holds within 45 seconds. Where no
    secret is named, as in a local run and in tests, it is the environment's `HANDLER_SECRET_<NAME>`. Raises RetryLater
    where it cannot be had, or is not there: that is no event's fault, and whoever can mend it sees what waits.
    """
    id = wiring.config().handlers_secret_id
    if id is None:
        variable = "HANDLER_SECRET_" + re.sub(r"[^A-Za-z0-9]", "_", name).upper()
        if not (found := os.environ.get(variable)):
            raise RetryLater(_SECONDS, f"there is no secret '{name}': {variable} is not set")
        return found
    try:
        content = _kept(id).content()
    except SecretUnavailable as exc:
        raise RetryLater(_SECONDS, f"the handlers' secret cannot be had: {exc.reason}") from None
    if content.get(name) in (None, ""):
        raise RetryLater(_SECONDS, f"the handlers' secret has no '{name}'")
    return content[name]


@cache
def _kept(id: str) -> KeptSecret:
    return KeptSecret(id, time.monotonic)
