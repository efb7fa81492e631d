"""`make destroy`: removes a stage, and says what stays because events may be in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from deployment.errors import DeploymentError
from deployment.project import Stage
from deployment.session import Session
from deployment.stacks import Stack

Say = Callable[[str], None]

_COUNTS = (
    "ApproximateNumberOfMessages",
    "ApproximateNumberOfMessagesNotVisible",
    "ApproximateNumberOfMessagesDelayed",
)


def destroy(stage: Stage, say: Say, confirm: Callable[[str, str], bool]) -> None:
    """Deletes the stage's stack, whatever state it is in, once `confirm` says so. Raises DeploymentError."""
    session = Session()
    name, outputs = _stack(session, stage, say)
    if name == stage.resources_stack and _exists(session, stage.function_name("processor")):
        raise DeploymentError(
            f"The functions of stage '{stage.name}' are Chalice's: remove them first with "
            f"`.venv/bin/chalice delete --stage {stage.name}`, and say this again."
        )
    say(
        f"Stage '{stage.name}', account {session.account}, region {session.region}. This deletes stack {name}, with "
        f"{'functions, API, ' if name == stage.stack else ''}alarms and logs. A new deployment has another address. "
        "The database is not touched."
    )
    removals = []
    if "QueueUrl" in outputs:
        waiting, dead = (_messages(session, outputs[queue]) for queue in ("QueueUrl", "DeadLetterQueueUrl"))
        removals = _removals(outputs)
        say(f"\nThese stay, for there may be events in them; about {waiting} in the queue, {dead} in the dead letters:")
        for kept, _ in removals:
            say(f"  {kept}")
        if waiting:
            say(
                "What is in the queue are accepted events that are not in the database yet. Once the stage is gone "
                "nobody takes them from there, and SQS deletes them after ten days."
            )
    if not confirm(f"\nTo delete it, type the stage's name, {stage.name}", stage.name):
        raise DeploymentError("Nothing was deleted.")
    Stack(session.client("cloudformation"), name, say).delete()
    say(f"\nStage '{stage.name}' is deleted.")
    if stage.is_native:
        say("Its settings are still in .chalice/config.json: take them out before you package a stage of this name.")
    if removals:
        say("To remove what stayed, once it is empty or not wanted:")
    for _, command in removals:
        say(f"  {command}")


def _stack(session: Session, stage: Stage, say: Say) -> tuple[str, Mapping[str, str]]:
    """The name of the stack that there is of the stage, or what is left of one, and its outputs."""
    names = (stage.stack, stage.resources_stack)
    for name in names:
        outputs = Stack(session.client("cloudformation"), name, say).outputs(of_any=True)
        if outputs is not None:
            return name, outputs
    raise DeploymentError(f"There is no stack {' or '.join(names)}: there is nothing to delete.")


def _removals(outputs: Mapping[str, str]) -> list[tuple[str, str]]:
    """What stays, each with the command that removes it."""
    queue, letters = outputs["QueueUrl"], outputs["DeadLetterQueueUrl"]
    bucket, secret = outputs["BodiesBucket"], outputs["SourcesSecretArn"]
    return [
        (f"queue         {queue}", f"aws sqs delete-queue --queue-url {queue}"),
        (f"dead letters  {letters}", f"aws sqs delete-queue --queue-url {letters}"),
        (f"large bodies  s3://{bucket}", f"aws s3 rb --force s3://{bucket}"),
        (f"secrets       {secret}", f"aws secretsmanager delete-secret --secret-id {secret}"),
    ]


def _messages(session: Session, url: str) -> int:
    try:
        found: dict[str, Any] = session.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=[*_COUNTS])
    except (BotoCoreError, ClientError) as exc:
        raise DeploymentError(f"How many events wait in {url} cannot be seen: {exc}") from None
    return sum(int(found["Attributes"][name]) for name in _COUNTS)


def _exists(session: Session, function: str) -> bool:
    client = session.client("lambda")
    try:
        client.get_function_configuration(FunctionName=function)
    except client.exceptions.ResourceNotFoundException:
        return False
    except (BotoCoreError, ClientError) as exc:
        raise DeploymentError(f"Whether function {function} is there cannot be seen: {exc}") from None
    return True
