"""What handlers ask of the installation that they run in."""

from __future__ import annotations

import os
import re
import time
from functools import cache
from typing import Any

from chalicelib.postern.adapters.secrets import KeptSecret
from chalicelib.postern.contract.errors import HandlersSecretUnavailable, SecretUnavailable
from chalicelib.postern.running import wiring


def secrets(name: str) -> Any:
    """A secret of your own: what stands under this name in the secret that the parameter HandlersSecretArn names.

    That is fetched when it is first asked for, and kept: what is changed there holds within 45 seconds. Where no
    secret is named, as in a local run and in tests, it is the environment's `HANDLER_SECRET_<NAME>`. Raises
    HandlersSecretUnavailable where it cannot be had, or is not there: events wait then, uncharged, as for a database.
    """
    id = wiring.config().handlers_secret_id
    if id is None:
        variable = "HANDLER_SECRET_" + re.sub(r"[^A-Za-z0-9]", "_", name).upper()
        if not (found := os.environ.get(variable)):
            raise HandlersSecretUnavailable(f"there is no secret '{name}': {variable} is not set")
        return found
    try:
        content = _kept(id).content()
    except SecretUnavailable as exc:
        raise HandlersSecretUnavailable(f"the handlers' secret cannot be had: {exc.reason}") from None
    if content.get(name) in (None, ""):
        raise HandlersSecretUnavailable(f"the handlers' secret has no '{name}'")
    return content[name]


@cache
def _kept(id: str) -> KeptSecret:
    return KeptSecret(id, time.monotonic)
