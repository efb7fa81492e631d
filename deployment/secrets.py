"""Secrets of a stage in Secrets Manager, JSON objects: read and changed with the rights of whoever asks."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from chalicelib.postern.adapters.secrets import parsed
from deployment.errors import DeploymentError
from deployment.session import Session

Content = dict[str, Any]

_CURRENT = "AWSCURRENT"
_TRIES = 5


def read(session: Session, arn: str) -> tuple[Content, str]:
    """What it holds, and the version that this is. Raises DeploymentError, which quotes nothing of it."""
    try:
        answer = session.client("secretsmanager").get_secret_value(SecretId=arn)
    except (BotoCoreError, ClientError) as exc:
        raise DeploymentError(f"The secret {arn} cannot be read: {exc}") from None
    try:
        found = parsed(answer["SecretString"])
    except (KeyError, ValueError):
        found = None
    if not isinstance(found, dict):
        raise DeploymentError(
            f"The secret {arn} is not a JSON object; docs/operate.md says how to put the previous one back."
        )
    return found, answer["VersionId"]


def change(session: Session, arn: str, edit: Callable[[Content], Content]) -> None:
    """Whole or not at all, and nobody else's change is lost: a version that is made becomes the current one only if it
    was made of the current one, or else it is made anew. The one before stays as AWSPREVIOUS. Raises DeploymentError.
    """
    client = session.client("secretsmanager")
    made = ""
    for _ in range(_TRIES):
        before, version = read(session, arn)
        if version == made:
            return  # it was done, and the answer was lost
        made = str(uuid.uuid4())
        label = f"POSTERN-{made[:8]}"
        text = json.dumps(edit(before))
        try:
            client.put_secret_value(SecretId=arn, ClientRequestToken=made, SecretString=text, VersionStages=[label])
        except (BotoCoreError, ClientError) as exc:
            raise DeploymentError(f"The secret {arn} cannot be written ({_said(exc)}).") from None
        try:
            # Refused where the label is no longer with the version that it is to be taken from.
            client.update_secret_version_stage(
                SecretId=arn, VersionStage=_CURRENT, MoveToVersionId=made, RemoveFromVersionId=version
            )
        except ClientError as exc:
            if exc.response["Error"]["Code"] not in ("InvalidParameterException", "InvalidRequestException"):
                raise DeploymentError(f"The secret {arn} cannot be changed ({_said(exc)}).") from None
        except BotoCoreError as exc:
            raise DeploymentError(f"Whether it was changed is not known ({_said(exc)}): have it listed.") from None
        else:
            return
        finally:
            with suppress(BotoCoreError, ClientError):
                client.update_secret_version_stage(SecretId=arn, VersionStage=label, RemoveFromVersionId=made)
    raise DeploymentError("Somebody else changes it all the time; nothing was changed. Try again.")


def _said(error: BotoCoreError | ClientError) -> str:
    """Without what was sent."""
    return error.response["Error"]["Code"] if isinstance(error, ClientError) else type(error).__name__
