"""Postern's adapters on the real parts, and looks into what they left there."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import psycopg2
import psycopg2.extras
import pytest

from chalicelib.adapters import aws as aws_adapter
from chalicelib.adapters.postgres import Database
from devstack.aws import EmulatedAws
from tests.integration.world import World

Query = Callable[..., list[tuple[Any, ...]]]


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = Database(lambda fresh: database_url)
    yield database
    database.close()


@pytest.fixture
def query(database_url: str) -> Iterator[Query]:
    """Runs SQL beside Postern, on a connection that commits at once."""
    with contextlib.closing(psycopg2.connect(database_url)) as connection:
        connection.autocommit = True
        psycopg2.extras.register_uuid(conn_or_curs=connection)

        def run(sql: str, *values: Any) -> list[tuple[Any, ...]]:
            with connection.cursor() as cursor:
                cursor.execute(sql, values or None)
                return cursor.fetchall() if cursor.description else []

        yield run


@pytest.fixture
def effects(query: Query) -> Callable[[], list[Any]]:
    """A table for handlers to write to; the ids of the events that left something there, sorted."""
    query("CREATE TABLE effects (event_id uuid NOT NULL)")
    return lambda: [row[0] for row in query("SELECT event_id FROM effects ORDER BY event_id")]


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
