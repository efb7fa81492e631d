"""`--stage NAME`: makes the environment say of a deployed stage what the commands need of one."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from chalicelib.postern.contract.errors import PosternError

if TYPE_CHECKING:
    from deployment.session import Session


def enter(name: str, *, with_secrets: bool) -> None:
    """Names the stage's `store` and `reader` functions, and, for commands that need them, its secrets and its queue.

    The latter are read from its stack. Raises PosternError with a sentence.
    """
    from deployment.errors import DeploymentError
    from deployment.project import read_stage
    from deployment.session import Session

    try:
        stage = read_stage(name)
        os.environ["STORE_FUNCTION"] = stage.function_name("store")
        os.environ["READER_FUNCTION"] = stage.function_name("reader")
        if with_secrets:
            outputs = _outputs(Session(), stage.stack, stage.resources_stack)
            os.environ |= {"SOURCES_SECRET_ID": outputs["SourcesSecretArn"], "QUEUE_URL": outputs["QueueUrl"]}
    except DeploymentError as exc:
        raise PosternError(str(exc)) from None


def _outputs(session: Session, *stacks: str) -> dict[str, str]:
    """Of the first of these stacks that is there."""
    from botocore.exceptions import ClientError

    client = session.client("cloudformation")
    for name in stacks:
        try:
            [stack] = client.describe_stacks(StackName=name)["Stacks"]
        except ClientError as exc:
            if "does not exist" in str(exc):
                continue
            raise PosternError(f"Stack {name} cannot be looked at: {exc}") from None
        return {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", [])}
    raise PosternError(f"There is no stack {' or '.join(stacks)}: is the stage deployed here?")
