"""What of a stage is there already, whichever way it was deployed."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping

from deployment.errors import DeploymentError
from deployment.project import Stage
from deployment.session import Session
from deployment.stacks import Stack


def outputs(session: Session, stage: Stage) -> Mapping[str, str]:
    """Of its stack. Raises DeploymentError where there is none."""
    names = (stage.stack, stage.resources_stack)
    for name in names:
        found = Stack(session.client("cloudformation"), name, lambda line: None).outputs()
        if found is not None:
            return found
    raise DeploymentError(f"There is no stack {' or '.join(names)}: deploy stage '{stage.name}' first.")


def address(stage: Stage, outputs: Mapping[str, str]) -> str:
    """Of the API, `https://…/<stage>/`. Raises DeploymentError where `chalice deploy` has not made one yet."""
    return address_of(outputs) if "EndpointURL" in outputs else _natives_address(stage)


def address_of(outputs: Mapping[str, str]) -> str:
    """Of a packaged stage's API, as AWS has it; an emulator answers for every API at its own address."""
    if emulator := os.environ.get("AWS_ENDPOINT_URL"):
        stage = outputs["EndpointURL"].rstrip("/").rsplit("/", 1)[1]
        return f"{emulator}/restapis/{outputs['RestAPIId']}/{stage}/_user_request_/"
    return outputs["EndpointURL"]


def _natives_address(stage: Stage) -> str:
    file = stage.project / ".chalice" / "deployed" / f"{stage.name}.json"
    try:
        deployed = json.loads(file.read_text("utf-8"))["resources"]
        api = next(r for r in deployed if r["resource_type"] == "rest_api")
    except (OSError, ValueError, KeyError, StopIteration):
        raise DeploymentError(f"{file} names no API: run 'chalice deploy --stage {stage.name}' first.") from None
    if emulator := os.environ.get("AWS_ENDPOINT_URL"):
        return f"{emulator}/restapis/{api['rest_api_id']}/{stage.name}/_user_request_/"
    address: str = api["rest_api_url"]
    return address
