"""Asks a deployed function, `store` or `reader`: the only way to a database in a private network."""

from __future__ import annotations

import json
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from deployment.errors import DeploymentError, Refused
from deployment.session import Session

# As long as a function may take.
_PATIENCE_SECONDS = 900


def ask(session: Session, function: str, request: dict[str, Any]) -> dict[str, Any]:
    """The function's answer. Raises DeploymentError with what went wrong in it."""
    client = session.client("lambda", read_timeout=_PATIENCE_SECONDS)
    try:
        answer = client.invoke(FunctionName=function, Payload=json.dumps(request).encode())
    except (BotoCoreError, ClientError) as exc:
        raise DeploymentError(f"Function {function} cannot be called: {exc}") from None
    result: dict[str, Any] = json.loads(answer["Payload"].read())
    if "FunctionError" in answer:
        raise DeploymentError(f"Function {function} failed: {result.get('errorType')}: {result.get('errorMessage')}")
    if "refused" in result:
        raise Refused(result["refused"])
    return result


def migrate(session: Session, function: str) -> list[str]:
    """Runs the migrations that have not run yet; their names."""
    applied: list[str] = ask(session, function, {"action": "migrate"})["applied"]
    return applied
