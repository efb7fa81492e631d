"""AWS, as the person at this machine: region and credentials are found where every AWS tool finds them."""

from __future__ import annotations

from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, TokenRetrievalError, UnauthorizedSSOTokenError

from deployment.errors import DeploymentError


class Session:
    """One account and region. Raises DeploymentError when there is none."""

    def __init__(self) -> None:
        try:
            self._session = boto3.Session()
        except BotoCoreError as exc:
            raise DeploymentError(f"AWS is not configured: {exc}") from None
        if not self._session.region_name:
            raise DeploymentError("In which region? Set AWS_REGION, or a region in your AWS profile.")
        self.region: str = self._session.region_name
        if self.region not in self._known_regions():
            raise DeploymentError(f"AWS has no region '{self.region}'.")
        self.partition: str = self._session.get_partition_for_region(self.region)
        try:
            self.account: str = self.client("sts").get_caller_identity()["Account"]
        except ClientError as exc:
            if "Expired" in exc.response["Error"]["Code"]:
                raise DeploymentError("Your AWS credentials have expired: sign in again (`aws sso login`).") from None
            raise DeploymentError(f"AWS does not take your credentials: {exc}") from None
        except (TokenRetrievalError, UnauthorizedSSOTokenError):
            raise DeploymentError("Your AWS sign-in has expired: sign in again (`aws sso login`).") from None
        except BotoCoreError as exc:
            raise DeploymentError(f"AWS does not take your credentials: {exc}") from None

    def client(self, service: str, *, read_timeout: int = 60) -> Any:
        retries: Any = {"mode": "standard", "total_max_attempts": 4}
        return self._session.client(
            service,  # type: ignore[call-overload]
            config=Config(retries=retries, read_timeout=read_timeout),
        )

    def _known_regions(self) -> set[str]:
        return {
            region
            for partition in self._session.get_available_partitions()
            for region in self._session.get_available_regions("lambda", partition)
        }
