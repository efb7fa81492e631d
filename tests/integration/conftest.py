"""Postern's adapters on the real parts, and looks into what they left there."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import boto3
import pytest

from chalicelib.postern.adapters import aws as aws_adapter
from devstack.aws import EmulatedAws
from tests.integration.world import World


@pytest.fixture
def point_aws_at(aws: EmulatedAws, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Points Postern's own clients at the emulator, and single services elsewhere: `point_aws_at(sqs="http://…")`."""

    def point(**endpoints: str) -> None:
        for service, url in endpoints.items():
            monkeypatch.setenv(f"AWS_ENDPOINT_URL_{service.upper()}", url)
        aws_adapter._clients.clear()

    for name, value in aws.environ().items():
        if name.startswith("AWS_"):
            monkeypatch.setenv(name, value)
    # It would remember another test's environment.
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    point()
    yield point
    aws_adapter._clients.clear()


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    world = World(database_url, [])
    world.query("CREATE TABLE effects (event uuid, n integer)")
    yield world
    for database in world.open:
        database.close()
