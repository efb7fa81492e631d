"""The sources' secrets in Secrets Manager, read and changed with the rights of whoever asks."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from deployment.errors import DeploymentError
from deployment.session import Session

# Source name -> secret, or a list of secrets that are all valid.
Secrets = dict[str, Any]

_CURRENT = "AWSCURRENT"
_TRIES = 5


def read(session: Session, arn: str) -> tuple[Secrets, str]:
    """All of them, and the version that they are. Raises DeploymentError, which quotes none."""
    try:
        answer = session.client("secretsmanager").get_secret_value(SecretId=arn)
    except (BotoCoreError, ClientError) as exc:
        raise DeploymentError(f"The sources' secrets cannot be read: {exc}") from None
    try:
        found = json.loads(answer["SecretString"])
    except (KeyError, ValueError):
        found = None
    if not isinstance(found, dict):
        raise DeploymentError(
            "The sources' secret is not a JSON object; docs/operate.md says how to put the previous one back."
        )
    return found, answer["VersionId"]


def change(session: Session, arn: str, edit: Callable[[Secrets], Secrets]) -> None:
    """Whole or not at all, and nobody else's change is lost: a version that is made becomes the current one only if it
    was made of the current one, or else it is made anew. The one before stays as AWSPREVIOUS. Raises DeploymentError.
    """
    client = session.client("secretsmanager")
    for _ in range(_TRIES):
        before, version = read(session, arn)
        made = str(uuid.uuid4())
        label = f"POSTERN-{made[:8]}"
        try:
            client.put_secret_value(
                SecretId=arn, ClientRequestToken=made, SecretString=json.dumps(edit(before)), VersionStages=[label]
            )
            try:
                # Refused where the label is no longer with the version that it is to be taken from.
                client.update_secret_version_stage(
                    SecretId=arn, VersionStage=_CURRENT, MoveToVersionId=made, RemoveFromVersionId=version
                )
            finally:
                with suppress(ClientError):
                    client.update_secret_version_stage(SecretId=arn, VersionStage=label, RemoveFromVersionId=made)
        except ClientError as exc:
            if exc.response["Error"]["Code"] in ("InvalidParameterException", "InvalidRequestException"):
                continue
            raise DeploymentError(f"The sources' secrets cannot be written: {exc}") from None
        except BotoCoreError as exc:
            raise DeploymentError(f"Secrets Manager cannot be reached: {exc}") from None
        return
    raise DeploymentError("Somebody else changes the sources' secrets all the time; nothing was changed. Try again.")
