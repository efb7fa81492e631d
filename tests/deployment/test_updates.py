"""Deployments over a running installation, and ones that fail."""

from __future__ import annotations

import json
import re
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployment.project import FUNCTIONS
from devstack.postgres import Server, administer, url_of
from tests.deployment.acceptance import probe
from tests.deployment.cloud import Cloud, checkout, run
from tests.deployment.conftest import describe, make_database_secret, write_parameters
from tests.deployment.installation import Answer, Installation, fetch
from tests.support import eventually

SENDERS = 2
# Between two deliveries of a sender: enough of them in every second of a deployment, and the machine's for the rest.
PAUSE_SECONDS = 0.1


class Traffic:
    """Signed deliveries all the time, each of them another."""

    def __init__(self, installation: Installation) -> None:
        self._installation = installation
        self._ended = threading.Event()
        self.answers: list[Answer] = []
        self.failures: list[str] = []

    @contextmanager
    def flowing(self) -> Iterator[None]:
        threads = [threading.Thread(target=self._send) for _ in range(SENDERS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._ended.set()
            for thread in threads:
                thread.join()

    def _send(self) -> None:
        while not self._ended.wait(PAUSE_SECONDS):
            body = json.dumps({"type": "order.created", "order": str(uuid.uuid4())}).encode()
            try:
                self.answers.append(self._installation.post("hmac", body))
            except OSError as exc:
                self.failures.append(repr(exc))


@dataclass(frozen=True)
class Change:
    """Of one file."""

    file: str
    change: Callable[[str], str]


HANDLER = Change("chalicelib/handlers/orders.py", lambda text: text + "\n\nRELEASE = 2\n")
POSTERN = Change("chalicelib/postern/running/version.py", lambda text: re.sub(r'"[\d.]+"', '"99.0.0"', text))
PARAMETER = Change(
    "infra/parameters/prod.json",
    lambda text: json.dumps({"Parameters": json.loads(text)["Parameters"] | {"Tracing": "PassThrough"}}),
)


EVERY = (HANDLER, POSTERN, PARAMETER)


def test_each_change_takes_effect_in_every_function_and_senders_see_nothing_but_202(installation: Installation) -> None:
    """Of a handler alone, of Postern alone (the layer), of a parameter alone; and the way back."""
    traffic = Traffic(installation)
    before = {change.file: (installation.project / change.file).read_text("utf-8") for change in EVERY}
    released = [_releases(installation)]
    try:
        with traffic.flowing():
            for change in EVERY:
                (installation.project / change.file).write_text(change.change(before[change.file]), "utf-8")
                _deploy(installation)
                released.append(_releases(installation))
            assert _health(installation)["version"] == "99.0.0"
            assert _tracing(installation) == {"PassThrough"}
            rolled_back = run(installation.cloud, installation.project, "rollback", "--stage", installation.stage)
            assert rolled_back.returncode == 0, rolled_back.stdout + rolled_back.stderr
            back = _releases(installation)
            assert _tracing(installation) == {"Active"}
    finally:
        for file, text in before.items():
            (installation.project / file).write_text(text, "utf-8")

    assert [len(releases) for releases in released] == [1, 1, 1, 1]
    assert len({*released}) == 4
    assert back == released[-2]
    assert traffic.failures == []
    assert {answer.status for answer in traffic.answers} == {202}
    assert len(traffic.answers) > 20
    ids = [answer.body["id"] for answer in traffic.answers]
    installation.processed(ids, timeout=60)
    assert installation.orders(ids) == len(ids)


def _deploy(installation: Installation) -> None:
    done = run(installation.cloud, installation.project, "deploy", "--stage", installation.stage)
    assert done.returncode == 0, done.stdout + done.stderr


def _health(installation: Installation) -> dict[str, Any]:
    return fetch(f"{installation.address}health", None, {}, installation.cloud.trust()).body


def _releases(installation: Installation) -> frozenset[str]:
    """Of what answers senders, of what answers operators, and of the others as they are configured."""
    client = installation.cloud.client("lambda")
    names = [installation.lambda_name(function) for function in FUNCTIONS if function != "api_handler"]
    configured = [client.get_function_configuration(FunctionName=name)["Environment"]["Variables"] for name in names]
    asked = installation.invoke(installation.lambda_name("store"), {"action": "version"})["result"]
    return frozenset({_health(installation)["release"], asked["release"], *(each["RELEASE"] for each in configured)})


def _tracing(installation: Installation) -> set[str]:
    """Of the version of the API function that answers, and of the others."""
    client = installation.cloud.client("lambda")
    names = [installation.lambda_name(function) for function in FUNCTIONS if function != "api_handler"]
    found = [client.get_function_configuration(FunctionName=name) for name in names]
    found.append(client.get_function_configuration(FunctionName=installation.name, Qualifier="live"))
    return {each["TracingConfig"]["Mode"] for each in found}


def test_deploying_what_is_deployed_changes_nothing(installation: Installation) -> None:
    assert run(installation.cloud, installation.project, "deploy", "--stage", "prod").returncode == 0
    version = _version(installation)

    again = run(installation.cloud, installation.project, "deploy", "--stage", "prod")

    assert again.returncode == 0, again.stderr
    assert "Stack postern-prod is up to date." in again.stdout
    assert "nothing to migrate" in again.stdout
    assert _version(installation) == version


def _version(installation: Installation) -> str:
    """The version of the API function that the alias names."""
    alias = installation.cloud.client("lambda").get_alias(FunctionName=installation.name, Name="live")
    version: str = alias["FunctionVersion"]
    return version


def with_trouble(template: str) -> str:
    """With a resource that CloudFormation begins to create, when much is there already, and cannot."""
    content = yaml.safe_load(template)
    content["Resources"]["Trouble"] = {
        "Type": "AWS::SQS::Queue",
        "DependsOn": ["Dashboard", "ProcessorErrorsAlarm"],
        "Properties": {"VisibilityTimeout": 999_999},
    }
    return yaml.safe_dump(content)


@pytest.fixture
def second(cloud: Cloud, packaged: Path, tmp_path: Path, postgres_server: Server) -> tuple[Path, str]:
    """A stage of its own, not deployed yet: its project and its database's address."""
    project = checkout(tmp_path, packaged)
    config = json.loads((project / ".chalice" / "config.json").read_text("utf-8"))
    config["stages"]["second"] = {"api_gateway_stage": "second"}
    (project / ".chalice" / "config.json").write_text(json.dumps(config), "utf-8")
    name = f"second_{uuid.uuid4().hex[:12]}"
    administer(postgres_server, f"CREATE DATABASE {name}")
    secret = make_database_secret(cloud, url_of(postgres_server, name))
    write_parameters(project, "second", DatabaseSecretArn=secret, MaxAttempts="2", RetryBaseSeconds="1")
    return project, url_of(postgres_server, name)


def test_a_stages_life(cloud: Cloud, second: tuple[Path, str]) -> None:
    """A first deployment that fails half-way leaves nothing, the next one works; a release is rolled back; in the end
    the stage is destroyed, and what may hold events stays.
    """
    project, database_url = second
    client = cloud.client("cloudformation")
    template = project / "infra" / "monitoring.yaml"
    sound = template.read_text("utf-8")
    template.write_text(with_trouble(sound), "utf-8")

    failed = run(cloud, project, "deploy", "--stage", "second")

    assert failed.returncode == 1
    assert "The deployment failed and was rolled back (ROLLBACK_COMPLETE)." in failed.stderr
    assert "Trouble: Invalid value for the parameter VisibilityTimeout" in failed.stderr
    left = client.list_stack_resources(StackName="postern-second")["StackResourceSummaries"]
    assert [r["LogicalResourceId"] for r in left if r["ResourceStatus"] != "DELETE_COMPLETE"] == []

    template.write_text(sound, "utf-8")
    deployed = run(cloud, project, "deploy", "--stage", "second")

    assert deployed.returncode == 0, deployed.stdout + deployed.stderr
    assert "Removing what a deployment left behind that failed (ROLLBACK_COMPLETE) …" in deployed.stdout
    installation = describe(cloud, project, "second", "postern-second", database_url)
    probe(installation, "processor")
    _check_rolling_back(installation)
    _check_destroying(installation)


def _check_a_handler_that_cannot_be_imported(installation: Installation) -> None:
    broken = installation.project / "chalicelib" / "handlers" / "broken.py"
    broken.write_text("import no_such_library\n", "utf-8")
    done = run(installation.cloud, installation.project, "deploy", "--stage", installation.stage)
    assert done.returncode == 1
    assert "events wait in its queue, for no handler is run" in done.stderr
    assert "No module named 'no_such_library'" in done.stderr
    broken.unlink()


def _check_rolling_back(installation: Installation) -> None:
    first = _releases(installation)
    cloud, project, stage = installation.cloud, installation.project, installation.stage
    nothing = run(cloud, project, "rollback", "--stage", stage)
    assert nothing.returncode == 1
    assert "is the stage's first: there is none before it." in nothing.stderr
    for change in (POSTERN, PARAMETER):
        file = project / change.file.replace("prod", stage)
        file.write_text(change.change(file.read_text("utf-8")), "utf-8")
    _check_a_handler_that_cannot_be_imported(installation)
    assert _releases(installation) != first

    back = run(cloud, project, "rollback", "--stage", stage)

    assert back.returncode == 0, back.stdout + back.stderr
    assert f"back to {next(iter(first))}, deployed at " in back.stdout
    assert _releases(installation) == first
    assert _health(installation)["version"] != "99.0.0"
    assert _tracing(installation) == {"Active"}
    probe(installation, "processor")
    further = run(cloud, project, "rollback", "--stage", stage)
    assert "is the stage's first" in further.stderr


def _check_destroying(installation: Installation) -> None:
    cloud, project, stage = installation.cloud, installation.project, installation.stage
    sqs, queue = cloud.client("sqs"), installation.outputs["QueueUrl"]
    unconfirmed = run(cloud, project, "destroy", "--stage", stage, environ={"CONFIRM": "prod"})
    assert unconfirmed.returncode == 1
    assert "Nothing was deleted." in unconfirmed.stderr
    assert _health(installation)["status"] == "ok"
    (mapping,) = cloud.client("lambda").list_event_source_mappings(FunctionName=f"{installation.name}-processor")[
        "EventSourceMappings"
    ]
    cloud.client("lambda").update_event_source_mapping(UUID=mapping["UUID"], Enabled=False)

    def waiting() -> int:
        """What was being taken when the mapping was paused may still be."""
        assert installation.post("hmac").status == 202
        asked = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["ApproximateNumberOfMessages"])
        return int(asked["Attributes"]["ApproximateNumberOfMessages"])

    before = eventually(waiting, timeout=30)

    destroyed = run(cloud, project, "destroy", "--stage", stage, environ={"CONFIRM": stage})

    assert destroyed.returncode == 0, destroyed.stdout + destroyed.stderr
    assert f"queue         {queue}\n" in destroyed.stdout
    assert f"about {before} in the queue, " in destroyed.stdout
    assert "accepted events that are not in the database yet" in destroyed.stdout
    assert f"aws sqs delete-queue --queue-url {queue}" in destroyed.stdout
    attributes = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["ApproximateNumberOfMessages"])
    assert int(attributes["Attributes"]["ApproximateNumberOfMessages"]) == before
    functions = cloud.client("lambda").list_functions()["Functions"]
    assert [f["FunctionName"] for f in functions if f["FunctionName"].startswith(installation.name)] == []
    gone = run(cloud, project, "destroy", "--stage", stage, environ={"CONFIRM": stage})
    assert "There is no stack postern-second or postern-second-resources" in gone.stderr


def test_an_update_that_fails_leaves_the_installation_as_it_was(installation: Installation) -> None:
    version = _version(installation)
    template = installation.project / "infra" / "monitoring.yaml"
    sound = template.read_text("utf-8")
    template.write_text(with_trouble(sound), "utf-8")
    try:
        failed = run(installation.cloud, installation.project, "deploy", "--stage", "prod")
    finally:
        template.write_text(sound, "utf-8")

    assert failed.returncode == 1
    assert "The deployment failed and was rolled back (UPDATE_ROLLBACK_COMPLETE)." in failed.stderr
    assert "Trouble: Invalid value for the parameter VisibilityTimeout" in failed.stderr
    assert _version(installation) == version
    probe(installation, "processor")
