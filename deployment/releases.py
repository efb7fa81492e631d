"""Which release a stage had before each of those that it has had: noted beside its packages, so that it can be had
again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from deployment.errors import DeploymentError
from deployment.parameters import Parameters


@dataclass(frozen=True)
class Release:
    """`template` is the key of its template, which names its archives; `before` the release that it came after."""

    name: str
    template: str
    parameters: Parameters
    before: str | None
    at: str


@dataclass(frozen=True)
class Notes:
    """Of one stage, in the bucket for packages. Raises DeploymentError where it cannot be reached."""

    s3: Any
    bucket: str
    stage: str

    def add(self, name: str, template: str, parameters: Mapping[str, str], before: str | None) -> None:
        """The first note of a release stays: one that comes back did not come after what it replaces."""
        if before == name or self.find(name) is not None:
            return
        release = Release(name, template, dict(parameters), before, datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"))
        try:
            self.s3.put_object(Bucket=self.bucket, Key=self._key(name), Body=json.dumps(asdict(release)).encode())
        except (BotoCoreError, ClientError) as exc:
            raise DeploymentError(f"Release {name} cannot be noted in bucket {self.bucket}: {exc}") from None

    def find(self, name: str) -> Release | None:
        try:
            return Release(**json.loads(self.s3.get_object(Bucket=self.bucket, Key=self._key(name))["Body"].read()))
        except ClientError as exc:
            # Who may not list a bucket is told so of what is not in it.
            if exc.response["Error"]["Code"] in ("NoSuchKey", "AccessDenied"):
                return None
            raise DeploymentError(f"The note of release {name} cannot be read: {exc}") from None
        except (BotoCoreError, ValueError, TypeError) as exc:
            raise DeploymentError(f"The note of release {name} cannot be read: {exc}") from None

    def before(self, current: str) -> Release:
        """What the stack was before it became `current`. Raises DeploymentError where nobody noted it."""
        noted = self.find(current)
        if noted is not None and noted.before is None:
            raise DeploymentError(f"Release {current} is the stage's first: there is none before it.")
        found = noted and noted.before and self.find(noted.before)
        if not found:
            raise DeploymentError(
                f"What was before release {current} was not noted, as `make deploy` does: check it out, and deploy it."
            )
        return found

    def _key(self, name: str) -> str:
        return f"releases/{self.stage}/{name}.json"
