"""`make destroy`: removes a stage, and says what stays because events may be in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from botocore.exceptions import ClientError

from deployment import deployed
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
    """Deletes the stage's stack once `confirm` says so. Raises DeploymentError."""
    session = Session()
    outputs = deployed.outputs(session, stage)
    packaged = "EndpointURL" in outputs
    name = stage.stack if packaged else stage.resources_stack
    if not packaged and _exists(session, stage.function_name("processor")):
        raise DeploymentError(
            f"The functions of stage '{stage.name}' are Chalice's: remove them first with "
            f"`.venv/bin/chalice delete --stage {stage.name}`, and say this again."
        )
    waiting, dead = (_messages(session, outputs[queue]) for queue in ("QueueUrl", "DeadLetterQueueUrl"))
    say(
        f"Stage '{stage.name}', account {session.account}, region {session.region}. This deletes stack {name}: its "
        "functions, API, alarms and logs. A new deployment has another address.\n\n"
        "These stay, for there may be events in them:"
    )
    for line in _kept(outputs, waiting, dead):
        say(f"  {line}")
    say("The database is not touched.\n")
    if waiting:
        say(
            f"{waiting} messages are accepted events that are not in the database yet. Once the stage is gone nobody "
            "takes them from the queue, and SQS deletes them after ten days."
        )
    if not confirm(f"To delete it, type the stage's name, {stage.name}", stage.name):
        raise DeploymentError("Nothing was deleted.")
    Stack(session.client("cloudformation"), name, say).delete()
    say(f"\nStage '{stage.name}' is deleted. To remove what stayed, once it is empty or not wanted:")
    for command in _removals(outputs):
        say(f"  {command}")


def _kept(outputs: Mapping[str, str], waiting: int, dead: int) -> list[str]:
    return [
        f"queue         {outputs['QueueUrl']}, about {waiting} messages",
        f"dead letters  {outputs['DeadLetterQueueUrl']}, about {dead} messages",
        f"large bodies  s3://{outputs['BodiesBucket']}",
        f"secrets       {outputs['SourcesSecretArn']}",
    ]


def _removals(outputs: Mapping[str, str]) -> list[str]:
    return [
        f"aws sqs delete-queue --queue-url {outputs['QueueUrl']}",
        f"aws sqs delete-queue --queue-url {outputs['DeadLetterQueueUrl']}",
        f"aws s3 rb --force s3://{outputs['BodiesBucket']}",
        f"aws secretsmanager delete-secret --secret-id {outputs['SourcesSecretArn']}",
    ]


def _messages(session: Session, url: str) -> int:
    try:
        found: dict[str, Any] = session.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=[*_COUNTS])
    except ClientError as exc:
        raise DeploymentError(f"How many events wait in {url} cannot be seen: {exc}") from None
    return sum(int(found["Attributes"][name]) for name in _COUNTS)


def _exists(session: Session, function: str) -> bool:
    client = session.client("lambda")
    try:
        client.get_function_configuration(FunctionName=function)
    except client.exceptions.ResourceNotFoundException:
        return False
    return True
