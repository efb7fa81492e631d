"""`--stage NAME`: makes the environment say of a deployed stage what the commands need of one."""

from __future__ import annotations

import os
from contextlib import suppress

from chalicelib.postern.contract.errors import PosternError


def enter(name: str, *, with_secrets: bool) -> None:
    """Names the stage's `store` and `reader` functions, and, for commands that need them, its secrets, its queue
    and, where it is known here, its address.

    The latter are read from its stack. Raises PosternError with a sentence.
    """
    from deployment import deployed
    from deployment.errors import DeploymentError
    from deployment.project import read_stage
    from deployment.session import Session

    try:
        stage = read_stage(name)
        os.environ["POSTERN_STAGE"] = name
        os.environ["STORE_FUNCTION"] = stage.function_name("store")
        os.environ["READER_FUNCTION"] = stage.function_name("reader")
        os.environ["RECONCILER_FUNCTION"] = stage.function_name("reconciler")
        if with_secrets:
            found = deployed.outputs(Session(), stage)
            os.environ |= {"SOURCES_SECRET_ID": found["SourcesSecretArn"], "QUEUE_URL": found["QueueUrl"]}
            os.environ["TOKENS_SECRET_ID"] = found.get("TokensSecretArn", "")
            # Chalice alone knows a native stage's, and not everybody has what it wrote down.
            with suppress(DeploymentError):
                os.environ["POSTERN_ADDRESS"] = deployed.address(stage, found)
    except DeploymentError as exc:
        raise PosternError(str(exc)) from None
