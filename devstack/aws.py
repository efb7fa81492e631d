"""The emulated AWS (`ministack`), and Postern's resources in it, made from the template that a deployment uses."""

from __future__ import annotations

import json
import os
import secrets
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from chalicelib.postern.api import access
from devstack.emulated_aws import HEALTH, KEY_VARIABLE
from devstack.errors import StartError
from devstack.processes import Child, remembered_port
from devstack.settings import PROJECT, base_environ

if TYPE_CHECKING:
    from mypy_boto3_cloudformation import CloudFormationClient
    from mypy_boto3_cloudformation.type_defs import WaiterConfigTypeDef

TEMPLATE = PROJECT / "infra" / "resources.yaml"
_SERVICES = "sqs,secretsmanager,s3,cloudformation,sts,monitoring"
_STARTS_WITHIN_SECONDS = 60.0


@dataclass(frozen=True)
class Resources:
    """What the template makes, by the names that the app uses."""

    queue_url: str
    dead_letter_queue_url: str
    sources_secret_id: str
    bodies_bucket: str
    tokens_secret_id: str


class EmulatedAws:
    """One emulator and its state, which is saved when it is stopped, queued messages included."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._child: Child | None = None
        self._port = 0
        self._clients: dict[str, Any] = {}
        # A run's own. Not twelve digits, which it would take for an account.
        self.access_key = "LOCAL" + secrets.token_hex(16).upper()

    @property
    def endpoint_url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def child(self) -> Child:
        assert self._child is not None, "The emulator was not started."
        return self._child

    def start(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        self._port = self._port or remembered_port(self._directory / "port")
        self._child = Child(
            [sys.executable, "-m", "devstack.emulated_aws"],
            log=self._directory / "aws.log",
            environ={
                **base_environ(os.environ),
                KEY_VARIABLE: self.access_key,
                "BIND_HOST": "127.0.0.1",
                "MINISTACK_HOST": "127.0.0.1",
                "GATEWAY_PORT": str(self._port),
                "IOT_MTLS_ENABLED": "false",
                "SERVICES": _SERVICES,
                "PERSIST_STATE": "1",
                "STATE_DIR": str(self._directory / "state"),
                "S3_PERSIST": "1",
                "S3_DATA_DIR": str(self._directory / "s3"),
                "TMPDIR": str(self._directory),
                "LOG_LEVEL": "WARNING",
            },
        )
        deadline = time.monotonic() + _STARTS_WITHIN_SECONDS
        while not self._answers():
            if self.child.exit_code is not None or time.monotonic() > deadline:
                self.stop()
                raise StartError(f"The emulated AWS does not start; its log ends with:\n{self.child.last_lines()}")
            time.sleep(0.05)

    def stop(self) -> None:
        if self._child is not None:
            self._child.stop()

    def kill(self) -> None:
        self.child.kill()

    def environ(self) -> dict[str, str]:
        """What a process needs to speak to it, and to nothing else."""
        return {
            **base_environ(os.environ),
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "AWS_ACCESS_KEY_ID": self.access_key,
        }

    def client(self, service: str) -> Any:
        """The same one each time: making one takes longer than most of what is asked of it."""
        if service not in self._clients:
            self._clients[service] = boto3.client(
                service,  # type: ignore[call-overload]
                endpoint_url=self.endpoint_url,
                region_name="us-east-1",
                aws_access_key_id=self.access_key,
                aws_secret_access_key="test",
                config=Config(retries={"total_max_attempts": 3}, max_pool_connections=32),
            )
        return self._clients[service]

    def ensure_stack(self, name: str, parameters: Mapping[str, str]) -> Resources:
        """Creates the stack, or brings it to the template's present state. Raises StartError."""
        stacks: CloudFormationClient = self.client("cloudformation")
        arguments: dict[str, Any] = {
            "StackName": name,
            "TemplateBody": TEMPLATE.read_text("utf-8"),
            "Parameters": [
                {"ParameterKey": key, "ParameterValue": value} for key, value in {"Console": "on", **parameters}.items()
            ],
        }
        patience: WaiterConfigTypeDef = {"Delay": 1, "MaxAttempts": 30}
        try:
            if not self._exists(stacks, name):
                stacks.create_stack(**arguments)
                stacks.get_waiter("stack_create_complete").wait(StackName=name, WaiterConfig=patience)
            else:
                stacks.update_stack(**arguments)
                stacks.get_waiter("stack_update_complete").wait(StackName=name, WaiterConfig=patience)
        except ClientError as exc:
            if "No updates" not in str(exc):
                raise StartError(f"The stack cannot be made in the emulated AWS: {exc}") from exc
        except BotoCoreError as exc:
            raise StartError(f"The stack cannot be made in the emulated AWS: {exc}") from exc
        described = stacks.describe_stacks(StackName=name)["Stacks"][0].get("Outputs", [])
        outputs = {output["OutputKey"]: output["OutputValue"] for output in described}
        return Resources(
            queue_url=self._at_this_port(outputs["QueueUrl"]),
            dead_letter_queue_url=self._at_this_port(outputs["DeadLetterQueueUrl"]),
            sources_secret_id=outputs["SourcesSecretArn"],
            bodies_bucket=outputs["BodiesBucket"],
            tokens_secret_id=outputs["TokensSecretArn"],
        )

    def put_secrets(self, resources: Resources, secrets: Mapping[str, Any]) -> None:
        self.client("secretsmanager").put_secret_value(
            SecretId=resources.sources_secret_id, SecretString=json.dumps(dict(secrets))
        )

    def let_in(self, resources: Resources, name: str, token: str) -> None:
        """Beside those who may use the API already."""
        secrets = self.client("secretsmanager")
        known = json.loads(secrets.get_secret_value(SecretId=resources.tokens_secret_id)["SecretString"])
        mine = {"sha256": access.hashed(token), "role": access.Role.OPERATE.value}
        tokens = {**known.get("tokens", {}), name: mine}
        secrets.put_secret_value(SecretId=resources.tokens_secret_id, SecretString=json.dumps({"tokens": tokens}))

    def _exists(self, stacks: CloudFormationClient, name: str) -> bool:
        try:
            stacks.describe_stacks(StackName=name)
        except ClientError:
            return False
        return True

    def _at_this_port(self, queue_url: str) -> str:
        """A saved queue keeps the address that the emulator had when the queue was made."""
        account_and_name = queue_url.split("/", 3)[3]
        return f"{self.endpoint_url}/{account_and_name}"

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.endpoint_url}{HEALTH}", timeout=2) as answer:
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError):
            return False
