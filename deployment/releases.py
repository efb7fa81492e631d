"""Which releases a stage has had: written down beside its packages, so that one can be had again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from deployment.errors import DeploymentError
from deployment.parameters import Parameters


@dataclass(frozen=True)
class Release:
    """`template` is the key of its template, which names its archives."""

    name: str
    template: str
    parameters: Parameters
    at: str


def note(s3: Any, bucket: str, stage: str, name: str, template: str, parameters: Mapping[str, str]) -> None:
    """Once the stack has it; the same release once more is no other."""
    known = released(s3, bucket, stage)
    if known and known[0].name == name:
        return
    at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    content = {"release": name, "template": template, "parameters": dict(parameters), "at": at}
    s3.put_object(Bucket=bucket, Key=f"releases/{stage}/{at}-{name}.json", Body=json.dumps(content).encode())


def released(s3: Any, bucket: str, stage: str) -> list[Release]:
    """The newest first."""
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"releases/{stage}/")
    keys = sorted((item["Key"] for page in pages for item in page.get("Contents", [])), reverse=True)
    found = (json.loads(s3.get_object(Bucket=bucket, Key=key)["Body"].read()) for key in keys)
    return [Release(each["release"], each["template"], each["parameters"], each["at"]) for each in found]


def before(releases: list[Release], current: str) -> Release:
    """The one that the current one came after; the newest, where the current one is not known. Raises DeploymentError
    where there is none.
    """
    names = [release.name for release in releases]
    since = names.index(current) + 1 if current in names else 0
    older = [release for release in releases[since:] if release.name != current]
    if not older:
        raise DeploymentError(f"No release before {current} is known: `make deploy` notes each that it deploys.")
    return older[0]
