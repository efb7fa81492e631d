"""What the commands work on: the local run, or a deployed stage, with the rights of whoever calls them."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from chalicelib import wiring
from chalicelib.adapters.sqs import SqsQueue
from chalicelib.config import SHIPPED_SOURCES
from chalicelib.errors import PosternError
from cli.local import LocalRun


class Target(Protocol):
    """`perform` asks what `chalicelib.operate` answers; `secrets` are each source's, by its name."""

    @property
    def sources_file(self) -> Path: ...
    def perform(self, request: Mapping[str, Any]) -> dict[str, Any]: ...
    def secrets(self) -> Mapping[str, list[str]]: ...
    def queue(self) -> SqsQueue: ...


def target(options: argparse.Namespace) -> Target:
    """The stage that `--stage` names, or else the local run. Raises NotRunning and PosternError with a sentence."""
    return DeployedStage(options.stage) if getattr(options, "stage", None) else Local()


class Local:
    """The local run; its database is the one that the environment names, if it names one."""

    @cached_property
    def run(self) -> LocalRun:
        return LocalRun.find()

    @property
    def sources_file(self) -> Path:
        return self.run.sources_file

    def perform(self, request: Mapping[str, Any]) -> dict[str, Any]:
        if not (os.environ.get("DATABASE_URL") or os.environ.get("DATABASE_SECRET_ID")):
            os.environ["DATABASE_URL"] = self.run.database_url
        return wiring.operator().perform(request)

    def secrets(self) -> Mapping[str, list[str]]:
        return self.run.secrets()

    def queue(self) -> SqsQueue:
        os.environ |= {
            "AWS_ENDPOINT_URL": self.run.aws_endpoint_url,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
        }
        return SqsQueue(self.run.queue_url)


@dataclass(frozen=True)
class DeployedStage:
    """A stage, by way of its `store` function: nobody needs a path to the database.

    It takes `lambda:InvokeFunction` on that function; what reads secrets, also `cloudformation:DescribeStacks` and
    `secretsmanager:GetSecretValue`; what lets something through, also `sqs:SendMessage`.
    """

    name: str

    @property
    def sources_file(self) -> Path:
        """This checkout's: the stage has what was deployed from it."""
        return SHIPPED_SOURCES

    def perform(self, request: Mapping[str, Any]) -> dict[str, Any]:
        from deployment.store import ask

        return ask(self._session, self._stage.function_name("store"), dict(request))

    def secrets(self) -> Mapping[str, list[str]]:
        answer = self._session.client("secretsmanager").get_secret_value(SecretId=self._outputs["SourcesSecretArn"])
        found: dict[str, Any] = json.loads(answer["SecretString"])
        return {name: known if isinstance(known, list) else [known] for name, known in found.items()}

    def queue(self) -> SqsQueue:
        os.environ.setdefault("AWS_DEFAULT_REGION", self._session.region)
        return SqsQueue(self._outputs["QueueUrl"])

    @cached_property
    def _stage(self) -> Any:
        from deployment.project import read_stage

        return read_stage(self.name)

    @cached_property
    def _session(self) -> Any:
        from deployment.session import Session

        return Session()

    @cached_property
    def _outputs(self) -> Mapping[str, str]:
        from botocore.exceptions import ClientError

        client = self._session.client("cloudformation")
        for stack in (self._stage.stack, self._stage.resources_stack):
            try:
                [found] = client.describe_stacks(StackName=stack)["Stacks"]
            except ClientError as exc:
                if "does not exist" not in str(exc):
                    raise PosternError(f"Stack {stack} cannot be looked at: {exc}") from None
                continue
            return {output["OutputKey"]: output["OutputValue"] for output in found.get("Outputs", [])}
        raise PosternError(f"Stage '{self.name}' is not deployed: there is no stack {self._stage.stack}.")
