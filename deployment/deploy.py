"""`make deploy`: packages a stage, brings its stack up to date, migrates the database, and says where to POST to."""

from __future__ import annotations

import hashlib
import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from chalicelib.postern.receiving.sources import load_sources
from deployment import parameters as parameter_files
from deployment import secrets
from deployment import template as templates
from deployment.checks import check
from deployment.deployed import address_of
from deployment.errors import DeploymentError
from deployment.package import Package, package, with_uploaded_code
from deployment.project import Stage
from deployment.releases import Notes
from deployment.session import Session
from deployment.stacks import Stack
from deployment.store import ask, migrate

Say = Callable[[str], None]

_PATIENCE_SECONDS = 60.0
_BOOTSTRAP = "postern-bootstrap"


def deploy(stage: Stage, folder: Path, say: Say) -> str:
    """The address of the API, `https://…/<stage>/`. Nothing is created before all that can be checked was checked."""
    values = parameter_files.read(stage.parameters_file)
    declared = templates.load(*(stage.project / "infra" / name for name in templates.PACKAGED))
    templates.set_stage(declared, stage.name, stage.timeout_of("processor"), templates.this_python())
    parameter_files.check(values, declared)
    session = Session()
    values = check(session, stage.project, values, say)
    packaged = package(stage, folder, say)
    say(f"Deploying into account {session.account}, region {session.region} …")
    bucket = _bootstrapped(session, stage.project, say)
    template = _upload(session, bucket, packaged, say)
    stack = Stack(session.client("cloudformation"), stage.stack, say)
    stack.settle()
    before = (stack.outputs() or {}).get("Release")
    outputs = _bring(session, stage, bucket, template, values, say)
    try:
        Notes(session.client("s3"), bucket, stage.name).add(packaged.release, template, values, before)
    except DeploymentError as exc:
        say(f"{exc} `make rollback` will not know it.")

    say("Migrating the database …")
    applied = migrate(session, outputs["StoreFunctionName"])
    say(f"  {', '.join(applied) if applied else 'nothing to migrate'}")

    address = address_of(outputs)
    _check_release(session, address, outputs["StoreFunctionName"], packaged.release)
    _check_handlers(session, outputs["StoreFunctionName"])
    if target := outputs.get("DomainTarget"):
        say(f"The DNS name of {outputs['DomainURL']} has to point to {target}.")
    announce(session, stage, outputs.get("DomainURL") or address, outputs, say)
    return address


def roll_back(stage: Stage, say: Say, confirm: Callable[[str, str], bool]) -> None:
    """Has the stack be what it was before its last release: code, template and parameters. No migration is undone."""
    session = Session()
    stack = Stack(session.client("cloudformation"), stage.stack, say)
    status = stack.settle()
    current = (stack.outputs() or {}).get("Release")
    bucket = (Stack(session.client("cloudformation"), _BOOTSTRAP, say).outputs() or {}).get("PackagesBucket")
    if current is None or bucket is None:
        raise DeploymentError(f"Stage '{stage.name}' was not deployed by `make deploy`: deploy an older checkout.")
    release = Notes(session.client("s3"), bucket, stage.name).before(current)
    if status == "UPDATE_ROLLBACK_COMPLETE":
        say(f"The last deployment failed, and was rolled back by itself: release {current} is what was before it.")
        if not confirm(f"To go back further, to {release.name} of {release.at}, type the stage's name", stage.name):
            raise DeploymentError("Nothing was changed.")
    say(f"From release {current} back to {release.name}, deployed at {release.at} …")
    outputs = _bring(session, stage, bucket, release.template, release.parameters, say)
    _check_release(session, address_of(outputs), outputs["StoreFunctionName"], release.name)
    say(
        f"Release {release.name} answers. The database stays as it is migrated, and your files as they are: the next "
        "`make deploy` brings what is in them."
    )


def _bring(
    session: Session, stage: Stage, bucket: str, template: str, values: Mapping[str, str], say: Say
) -> Mapping[str, str]:
    """The stack's outputs, once it is of this template, whose key it is."""
    url = f"{session.client('s3').meta.endpoint_url}/{bucket}/{template}"
    outputs = Stack(session.client("cloudformation"), stage.stack, say).deploy({"TemplateURL": url}, values)
    if not int(values.get("ProvisionedConcurrency", 0)):
        end_provisioned_concurrency(session, stage.function_name("api_handler"), say)
    return outputs


def announce(session: Session, stage: Stage, address: str, outputs: Mapping[str, str], say: Say) -> None:
    """Where to POST to, and which sources have no secret yet: their senders would hear 503. Where the API is."""
    sources = load_sources(stage.project / "chalicelib" / "sources.toml").values()
    say(f"\nPostern '{stage.name}' is deployed at {address}.")
    try:
        known, _ = secrets.read(session, outputs["SourcesSecretArn"])
    except DeploymentError as exc:
        say(f"{exc} A source without a secret answers 503.")
        known = {source.name: "perhaps" for source in sources}
    ready = [source.name for source in sources if not source.needs_secret or known.get(source.name)]
    missing = [source.name for source in sources if source.name not in ready]
    if ready:
        say("Webhook URLs:")
    for name in ready:
        say(f"  {name:<20} {address}webhooks/{name}")
    if missing:
        say(f"Without a secret yet, and so answering 503: {', '.join(missing)}. To set one:")
        say(f"  .venv/bin/postern secrets set {missing[0]} --stage {stage.name}")
    if "TokensSecretArn" in outputs:
        say(f"Its API is {address}api, for tokens that this makes:")
        say(f"  .venv/bin/postern tokens make NAME --stage {stage.name}")


def _bootstrapped(session: Session, project: Path, say: Say) -> str:
    """The name of the bucket for packages, whose stack is made when the region has none."""
    stack = Stack(session.client("cloudformation"), _BOOTSTRAP, say)
    outputs = stack.outputs()
    if outputs is None:
        has_log_role = bool(session.client("apigateway").get_account().get("cloudwatchRoleArn"))
        outputs = stack.deploy(
            {"TemplateBody": (project / "infra" / "bootstrap.yaml").read_text("utf-8")},
            {"CreateApiGatewayLogRole": "false" if has_log_role else "true"},
        )
    return outputs["PackagesBucket"]


def _upload(session: Session, bucket: str, packaged: Package, say: Say) -> str:
    """The key of the uploaded template. What has the same content has the same key, and is uploaded once."""
    s3 = session.client("s3")

    def put(content: bytes, name: str) -> str:
        key = f"{hashlib.sha256(content).hexdigest()}/{name}"
        try:
            s3.head_object(Bucket=bucket, Key=key)
        except ClientError:
            s3.put_object(Bucket=bucket, Key=key, Body=content)
            say(f"  Uploaded {name}.")
        return key

    try:
        function, layer = (put(file.read_bytes(), file.name) for file in (packaged.function, packaged.layer))
        text = with_uploaded_code(packaged, bucket, function, layer)
        return put(text.encode(), "template.json")
    except (BotoCoreError, ClientError) as exc:
        raise DeploymentError(f"The package cannot be uploaded to bucket {bucket}: {exc}") from None


def end_provisioned_concurrency(session: Session, function: str, say: Say) -> None:
    """What the schedule had started goes on, and is paid for, after the schedule has gone (aws-cdk#31507)."""
    client = session.client("lambda")
    alias: dict[str, Any] = {"FunctionName": function, "Qualifier": "live"}
    try:
        client.get_provisioned_concurrency_config(**alias)
        client.delete_provisioned_concurrency_config(**alias)
    except client.exceptions.ProvisionedConcurrencyConfigNotFoundException:
        return
    except (BotoCoreError, ClientError) as exc:
        say(f"Whether API functions are kept warm could not be seen to: {exc}")
    else:
        say("API functions are no longer kept warm.")


def _check_release(session: Session, address: str, store: str, release: str) -> None:
    """Raises DeploymentError unless senders and operators are answered by the release that was deployed."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    # API Gateway and the alias turn to what is new a moment after CloudFormation has said so.
    while (said := _health(address)) != f"200, release {release}":
        if time.monotonic() > deadline:
            raise DeploymentError(
                f"The stack is there, and {address}health answers {said}, not 200, release {release}."
            )
        time.sleep(1)
    if (answers := ask(session, store, {"action": "version"}).get("release")) != release:
        raise DeploymentError(f"The stack is there, and function {store} is of release {answers}, not {release}.")


def _check_handlers(session: Session, store: str) -> None:
    try:
        ask(session, store, {"action": "handlers"})
    except DeploymentError as exc:
        raise DeploymentError(
            f"The stack is there, and events wait in its queue, for no handler is run: {exc} Mend it and deploy again, "
            "or `make rollback`."
        ) from None


def _health(address: str) -> str:
    try:
        with urllib.request.urlopen(f"{address}health", timeout=30) as answer:
            said = json.load(answer)
            return f"{answer.status}, release {said.get('release') if isinstance(said, dict) else None}"
    except urllib.error.HTTPError as exc:
        return str(exc.code)
    except (OSError, ValueError, http.client.HTTPException) as exc:
        return f"nothing ({exc})"
