"""`postern doctor`: what is broken is named in a sentence."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from cli.doctor import Patient, Weight, examine
from deployment.project import read_stage
from deployment.session import Session
from tests.deployment.cloud import Cloud
from tests.deployment.installation import Installation

Examine = Callable[[], dict[Weight, str]]


@pytest.fixture
def examined(cloud: Cloud, installation: Installation, monkeypatch: pytest.MonkeyPatch) -> Examine:
    """What is found now, by weight."""
    for name, value in cloud.environ().items():
        monkeypatch.setenv(name, value)

    def examine_now() -> dict[Weight, str]:
        found = examine(Patient(Session(), read_stage("prod", installation.project)))
        return {weight: "\n".join(f.sentence for f in found if f.weight == weight) for weight in Weight}

    return examine_now


@contextmanager
def mapping_changed(installation: Installation, **settings: Any) -> Iterator[None]:
    client = installation.cloud.client("lambda")
    (before,) = client.list_event_source_mappings(FunctionName=f"{installation.name}-processor")["EventSourceMappings"]
    client.update_event_source_mapping(UUID=before["UUID"], **settings)
    try:
        yield
    finally:
        client.update_event_source_mapping(
            UUID=before["UUID"], Enabled=True, FunctionResponseTypes=before["FunctionResponseTypes"]
        )


@contextmanager
def secrets_changed(installation: Installation, arn: str, **changes: Any) -> Iterator[None]:
    client = installation.cloud.client("secretsmanager")
    before = client.get_secret_value(SecretId=arn)["SecretString"]
    known = {name: value for name, value in (json.loads(before) | changes).items() if value is not None}
    client.put_secret_value(SecretId=arn, SecretString=json.dumps(known))
    try:
        yield
    finally:
        client.put_secret_value(SecretId=arn, SecretString=before)


def test_a_stage_that_is_well(installation: Installation, examined: Examine) -> None:
    found = examined()
    assert found[Weight.WRONG] == found[Weight.UNSEEN] == found[Weight.NATIVE] == ""
    assert "health answers, Postern" in found[Weight.OK]
    assert "The database is reached, and migrated." in found[Weight.OK]
    assert "Every source has its secret." in found[Weight.OK]
    assert "Nobody hears the alarms: set AlarmEmail" in found[Weight.LOOK]


def test_a_processor_whose_failures_nobody_reads(installation: Installation, examined: Examine) -> None:
    with mapping_changed(installation, FunctionResponseTypes=[]):
        assert "FAILED EVENTS ARE LOST" in examined()[Weight.WRONG]


def test_a_processor_that_is_paused(installation: Installation, examined: Examine) -> None:
    with mapping_changed(installation, Enabled=False):
        assert "The processor is paused (Disabled)" in examined()[Weight.LOOK]


def test_an_alias_that_is_behind(installation: Installation, examined: Examine) -> None:
    """As it was after an update of the layer alone."""
    client = installation.cloud.client("lambda")
    alias = {"FunctionName": installation.name, "Name": "live"}
    before = client.get_alias(**alias)["FunctionVersion"]
    settings = client.get_function_configuration(FunctionName=installation.name)["Environment"]["Variables"]
    client.update_function_configuration(
        FunctionName=installation.name, Environment={"Variables": settings | {"RELEASE": "000000000000"}}
    )
    other = client.publish_version(FunctionName=installation.name)["Version"]
    client.update_function_configuration(FunctionName=installation.name, Environment={"Variables": settings})
    client.update_alias(**alias, FunctionVersion=other)
    try:
        found = examined()
    finally:
        client.update_alias(**alias, FunctionVersion=before)
        installation.cloud.end_containers()
    assert "Senders are answered by release 000000000000, and " in found[Weight.WRONG]


def test_secrets_that_are_missing_or_malformed(installation: Installation, examined: Examine) -> None:
    arn = installation.outputs["SourcesSecretArn"]
    with secrets_changed(installation, arn, discord="hunter2", stripe=None, github=["", 7]):
        found = examined()
    assert "The secret of discord: This cannot be discord's secret (secret_is_not_hex)." in found[Weight.WRONG]
    assert "The secret of github: neither a text nor a list of texts" in found[Weight.WRONG]
    assert "Without a secret, and so answering 503: stripe." in found[Weight.LOOK]
    assert "hunter2" not in "".join(found.values())


def test_a_database_that_cannot_be_logged_in_to(
    installation: Installation, examined: Examine, database_secret: str
) -> None:
    with secrets_changed(installation, database_secret, port=1):
        installation.cloud.end_containers()
        found = examined()
    installation.cloud.end_containers()
    assert "The database is not reached, events wait in the queue" in found[Weight.WRONG]


def test_migrations_that_are_still_to_come(installation: Installation, examined: Examine) -> None:
    def rename(before: str, after: str) -> None:
        installation.query("UPDATE postern.migrations SET name = %s WHERE name = %s RETURNING 1", after, before)

    rename("0002_orders", "0002_of_another_day")
    try:
        assert "To be migrated: 0002_orders. `make migrate STAGE=prod`." in examined()[Weight.WRONG]
    finally:
        rename("0002_of_another_day", "0002_orders")


def test_the_command_says_it_in_order_of_weight(installation: Installation) -> None:
    with mapping_changed(installation, FunctionResponseTypes=[]):
        done = installation.postern("doctor")
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert lines[0].startswith("postern-prod, account 000000000000, region us-east-1")
    assert lines[2].startswith("wrong   The processor reports")
    assert lines[-1].startswith("ok ")
    other = replace(installation, stage="dev")
    assert "There is no stack postern-dev" in other.postern("doctor").stderr
    other = replace(installation, stage="")
    assert "Which stage? Say --stage NAME." in other.postern("doctor").stderr
