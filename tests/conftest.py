"""The real parts, PostgreSQL and the emulated AWS: started once, on free ports, in folders of their own."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import psycopg2
import pytest

from chalicelib.adapters.migrations import migrate
from devstack.aws import EmulatedAws, Resources
from devstack.postgres import Server

# A developer's own AWS, database and settings stay out of it.
for name in list(os.environ):
    if name.startswith(("AWS_", "PG")) or name in ("DATABASE_URL", "SOURCES_FILE", "SECRETS_FILE", "PORT"):
        del os.environ[name]

_TEMPLATE = "postern_template"


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("postgres"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatedAws]:
    emulator = EmulatedAws(tmp_path_factory.mktemp("aws"))
    emulator.start()
    yield emulator
    emulator.stop()


@pytest.fixture
def resources(aws: EmulatedAws) -> Resources:
    """A stack of the test's own."""
    return aws.ensure_stack(f"test-{uuid.uuid4().hex[:12]}", {})


@pytest.fixture(scope="session")
def template_database(postgres_server: Server) -> str:
    administer(postgres_server, f"CREATE DATABASE {_TEMPLATE}")
    migrate(url_of(postgres_server, _TEMPLATE))
    return _TEMPLATE


@pytest.fixture
def database_url(postgres_server: Server, template_database: str) -> Iterator[str]:
    """A migrated database of the test's own."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    administer(postgres_server, f"CREATE DATABASE {name} TEMPLATE {template_database}")
    yield url_of(postgres_server, name)
    administer(postgres_server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def empty_database_url(postgres_server: Server) -> Iterator[str]:
    """A database without a schema."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    administer(postgres_server, f"CREATE DATABASE {name}")
    yield url_of(postgres_server, name)
    administer(postgres_server, f"DROP DATABASE {name} WITH (FORCE)")


def url_of(server: Server, database: str) -> str:
    return server.url.rsplit("/", 1)[0] + f"/{database}"


def administer(server: Server, statement: str) -> None:
    connection = psycopg2.connect(server.url)
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)
    finally:
        connection.close()
