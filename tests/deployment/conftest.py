"""One emulated account for all of these tests, and one packaged installation in it."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg2.extensions
import pytest

from chalicelib.postern.api import access
from chalicelib.postern.receiving.sources import load_sources
from devstack.postgres import Server, administer, url_of
from devstack.secrets import ensure_development_secrets, read_secrets
from tests.deployment.cloud import Cloud, checkout, package, run
from tests.deployment.installation import Installation
from tests.providers_stand_in import HOOK, Providers
from tests.support import EVERY_SOURCE


@pytest.fixture(scope="session")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    emulator = Cloud(tmp_path_factory.mktemp("cloud"))
    emulator.start()
    yield emulator
    emulator.stop()


@pytest.fixture(scope="session")
def database_secret(cloud: Cloud, new_database: str) -> str:
    """The secret of an empty database, as RDS writes it."""
    return make_database_secret(cloud, new_database)


@pytest.fixture(scope="session")
def new_database(postgres_server: Server) -> str:
    name = f"deployed_{uuid.uuid4().hex[:12]}"
    administer(postgres_server, f"CREATE DATABASE {name}")
    return url_of(postgres_server, name)


def make_database_secret(cloud: Cloud, url: str) -> str:
    dsn = psycopg2.extensions.parse_dsn(url)
    secret = {
        "engine": "postgres",
        "username": dsn["user"],
        "password": dsn["password"],
        "host": dsn["host"],
        "port": int(dsn["port"]),
        "dbname": dsn["dbname"],
        "sslmode": "disable",  # the embedded server has no certificate
    }
    arn: str = cloud.client("secretsmanager").create_secret(
        Name=f"database-{uuid.uuid4().hex[:8]}", SecretString=json.dumps(secret)
    )["ARN"]
    return arn


@pytest.fixture(scope="session")
def packaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of which stage prod was packaged, from nothing. The others take its layer."""
    made = checkout(tmp_path_factory.mktemp("packaged"))
    package(made)
    return made


@pytest.fixture(scope="session")
def providers() -> Iterator[Providers]:
    with Providers().running() as made:
        yield made


@pytest.fixture(scope="session")
def project(packaged: Path, tmp_path_factory: pytest.TempPathFactory, providers: Providers) -> Path:
    """Whose source `github` keeps some of what it refuses, and whose source `code` can be reconciled."""
    made = checkout(tmp_path_factory.mktemp("project"), packaged)
    sources = made / "chalicelib" / "sources.toml"
    sources.write_text(sources.read_text("utf-8").replace("[github]\n", "[github]\nquarantine = true\n"), "utf-8")
    with sources.open("a", encoding="utf-8") as file:
        file.write(f'\n[code]\nprovider = "github"\nreconcile = {{ url = "{providers.url}{HOOK}", hourly = true }}\n')
    return made


@pytest.fixture(scope="session")
def installation(
    cloud: Cloud, project: Path, database_secret: str, new_database: str, providers: Providers
) -> Installation:
    """`make deploy STAGE=prod`, with secrets for every source."""
    given = {"DatabaseSecretArn": database_secret, "HandlersSecretArn": cloud.handlers_secret()}
    write_parameters(project, "prod", **given, MaxAttempts="2", RetryBaseSeconds="1", Console="on")
    deployed = run(cloud, project, "deploy", "--stage", "prod")
    assert deployed.returncode == 0, deployed.stdout + deployed.stderr
    return describe(cloud, project, "prod", "postern-prod", new_database, providers)


def describe(
    cloud: Cloud,
    project: Path,
    stage: str,
    stack_name: str,
    database_url: str,
    providers: Providers | None = None,
) -> Installation:
    """What is deployed, with secrets for its sources and a token for its API, where it has one."""
    (stack,) = cloud.client("cloudformation").describe_stacks(StackName=stack_name)["Stacks"]
    outputs = {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}
    secrets_file = project / "secrets.json"
    ensure_development_secrets(secrets_file, load_sources(EVERY_SOURCE))
    secrets = {source: secret for source, secret in read_secrets(secrets_file).items() if isinstance(secret, str)}
    if providers is not None:
        secrets |= {"code": "the secret of code", "code.api_token": providers.token}
    cloud.client("secretsmanager").put_secret_value(
        SecretId=outputs["SourcesSecretArn"], SecretString=json.dumps(secrets)
    )
    token = access.make_token(os.urandom(32))
    tokens = {"tokens": {"test": {"sha256": access.hashed(token), "role": "operate"}}}
    if "TokensSecretArn" in outputs:
        cloud.client("secretsmanager").put_secret_value(
            SecretId=outputs["TokensSecretArn"], SecretString=json.dumps(tokens)
        )
    return Installation(cloud, project, stage, database_url, outputs, secrets, token, providers)


def write_parameters(project: Path, stage: str, **parameters: str) -> None:
    file = project / "infra" / "parameters" / f"{stage}.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps({"Parameters": parameters}), "utf-8")
