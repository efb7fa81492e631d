"""The native way: `make native`, `chalice deploy`, in an account that enforces its policies."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cli.doctor import Patient, Weight, examine
from deployment.project import FUNCTIONS, read_stage
from deployment.session import Session
from devstack.postgres import Server, administer, url_of
from tests.deployment.acceptance import accept
from tests.deployment.cloud import Cloud, checkout, run
from tests.deployment.conftest import describe, make_database_secret, write_parameters
from tests.deployment.installation import Installation
from tests.support import eventually


@pytest.fixture(scope="module")
def native(
    cloud: Cloud, packaged: Path, tmp_path_factory: pytest.TempPathFactory, postgres_server: Server
) -> Installation:
    """`make native`, `chalice deploy`, `make migrate` of stage dev."""
    project = checkout(tmp_path_factory.mktemp("native"), packaged)
    name = f"native_{uuid.uuid4().hex[:12]}"
    administer(postgres_server, f"CREATE DATABASE {name}")
    secret = make_database_secret(cloud, url_of(postgres_server, name))
    given = {"MaxAttempts": "2", "RetryBaseSeconds": "1", "Tracing": "Active", "Console": "on"}
    write_parameters(project, "dev", DatabaseSecretArn=secret, HandlersSecretArn=cloud.handlers_secret(), **given)
    prepared = run(cloud, project, "native", "--stage", "dev")
    assert prepared.returncode == 0, prepared.stdout + prepared.stderr
    deployed = chalice_deploy(cloud, project)
    assert deployed.returncode == 0, deployed.stdout + deployed.stderr
    migrated = run(cloud, project, "migrate", "--stage", "dev")
    assert migrated.returncode == 0, migrated.stdout + migrated.stderr
    found = describe(cloud, project, "dev", "postern-dev-resources", url_of(postgres_server, name))
    by_chalice = json.loads((project / ".chalice" / "deployed" / "dev.json").read_text("utf-8"))["resources"]
    (api,) = (resource["rest_api_id"] for resource in by_chalice if resource["resource_type"] == "rest_api")
    return replace(found, outputs={**found.outputs, "RestAPIId": api})


def chalice_deploy(cloud: Cloud, project: Path, stage: str = "dev") -> Any:
    return subprocess.run(
        [Path(sys.executable).parent / "chalice", "deploy", "--stage", stage],
        cwd=project,
        env=cloud.environ(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_a_stage_that_is_not_prepared_is_refused_before_anything_is_made(
    cloud: Cloud, packaged: Path, tmp_path: Path
) -> None:
    def layers() -> list[str]:
        return [layer["LayerName"] for layer in cloud.client("lambda").list_layers()["Layers"]]

    before = layers()
    refused = chalice_deploy(cloud, checkout(tmp_path, packaged), "prod")
    assert refused.returncode == 1
    assert refused.stderr.startswith("This stage is not prepared for `chalice deploy`: run `make native STAGE=…`")
    assert layers() == before


def test_it_is_accepted(native: Installation) -> None:
    accept(native)


def test_its_functions_are_traced_where_the_parameters_say_so(native: Installation) -> None:
    functions = native.cloud.client("lambda").get_paginator("list_functions").paginate()
    traced = {
        each["FunctionName"]: each.get("TracingConfig", {}).get("Mode")
        for page in functions
        for each in page["Functions"]
        if each["FunctionName"].startswith(native.name)
    }
    assert traced == dict.fromkeys(traced, "Active")
    assert len(traced) == len(FUNCTIONS)


def test_the_doctor_says_what_a_native_stage_has_nothing_of(
    native: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in native.cloud.environ().items():
        monkeypatch.setenv(name, value)
    found = examine(Patient(Session(), read_stage("dev", native.project)))
    said = {weight: [finding.sentence for finding in found if finding.weight == weight] for weight in Weight}
    assert (said[Weight.WRONG], said[Weight.UNSEEN]) == ([], [])
    assert any("health answers, Postern" in sentence for sentence in said[Weight.OK])
    assert "The database is reached, and migrated." in said[Weight.OK]
    assert [sentence.split(":")[0] for sentence in said[Weight.NATIVE]] == [
        "A native stage's releases have no names",
        "The processor is in safe mode",
    ]


def test_safe_mode_until_the_mapping_reads_partial_responses_and_after_a_deployment(native: Installation) -> None:
    """`chalice deploy` may make the mapping anew, without the flag."""
    assert (mapping(native)["FunctionResponseTypes"], partial_responses(native)) == ([], "false")
    check_a_batch_of_ten_with_two_poisoned(native)

    switched = run(native.cloud, native.project, "partial-responses", "--stage", "dev")
    assert switched.returncode == 0, switched.stdout + switched.stderr
    assert (mapping(native)["FunctionResponseTypes"], partial_responses(native)) == (
        ["ReportBatchItemFailures"],
        "true",
    )
    check_a_batch_of_ten_with_two_poisoned(native)

    deployed = chalice_deploy(native.cloud, native.project)
    assert deployed.returncode == 0, deployed.stdout + deployed.stderr
    assert partial_responses(native) == "false"
    check_a_batch_of_ten_with_two_poisoned(native)


def check_a_batch_of_ten_with_two_poisoned(installation: Installation) -> None:
    before, began = installation.dead_letters(), time.time()
    with installation.paused():
        answers = [
            installation.post("hmac", json.dumps({"type": f"order.{type}", "noise": random.random()}).encode())
            for type in ["created"] * 4 + ["poisoned"] + ["created"] * 4 + ["poisoned"]
        ]
        assert [answer.status for answer in answers] == [202] * 10
    ids = [answer.body["id"] for answer in answers]

    statuses = eventually(lambda: settled if len(settled := _settled(installation, ids)) == 10 else None, timeout=60)

    assert sorted(statuses) == ["dead"] * 2 + ["processed"] * 8
    assert installation.orders(ids) == 8
    eventually(lambda: installation.dead_letters() == before + 2)
    eventually(lambda: _waiting(installation) == 0)
    lines = installation.lines(f"{installation.name}-processor", since=began)
    assert max(line["batch_size"] for line in lines if line["message"] == "batch.consumed") == 10
    assert [line for line in lines if line["message"] == "event.duplicate"] == []


def _settled(installation: Installation, ids: list[str]) -> list[str]:
    return [row["status"] for row in installation.rows(ids) if row["status"] in ("processed", "dead")]


def _waiting(installation: Installation) -> int:
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    attributes = installation.cloud.client("sqs").get_queue_attributes(
        QueueUrl=installation.outputs["QueueUrl"], AttributeNames=names
    )["Attributes"]
    return sum(int(attributes[name]) for name in names)


def mapping(installation: Installation) -> dict[str, Any]:
    (found,) = installation.cloud.client("lambda").list_event_source_mappings(
        FunctionName=f"{installation.name}-processor"
    )["EventSourceMappings"]
    return {"FunctionResponseTypes": [], **found}


def partial_responses(installation: Installation) -> str:
    settings = installation.cloud.client("lambda").get_function_configuration(
        FunctionName=f"{installation.name}-processor"
    )
    value: str = settings["Environment"]["Variables"]["PARTIAL_BATCH_RESPONSE"]
    return value
