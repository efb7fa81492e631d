"""`make native`: what `chalice deploy` needs of us. The stack of what Chalice does not create, and its configuration.

Chalice knows no stack, so the addresses and the permissions that CloudFormation would have put in are written into
`.chalice/`: the stage's settings in config.json, and a policy for each of its functions.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from botocore.exceptions import ClientError

from deployment import deployed
from deployment import parameters as parameter_files
from deployment import template as templates
from deployment.checks import check
from deployment.deploy import announce
from deployment.errors import DeploymentError
from deployment.intrinsics import Resolver
from deployment.parameters import Parameters
from deployment.project import FUNCTIONS, Stage
from deployment.session import Session
from deployment.stacks import Stack
from deployment.store import migrate
from deployment.template import Template

Say = Callable[[str], None]

# Of application.yaml's parameters, those that Chalice's configuration can express.
_EXPRESSED = (
    "DatabaseSecretArn",
    "DatabaseSecretKeyArn",
    "DatabaseHost",
    "DatabasePort",
    "DatabaseName",
    "HandlersSecretArn",
    "HandlersSecretKeyArn",
    "SubnetIds",
    "SecurityGroupIds",
    "MaxAttempts",
    "RetryBaseSeconds",
    "RetryMaxSeconds",
    "MaxUncharged",
    "HandlerTimeoutSeconds",
    "RetentionDays",
    "DedupDays",
    "UnresolvedDays",
    "Tracing",
)
_PARTIAL_RESPONSES = ["ReportBatchItemFailures"]
_PATIENCE_SECONDS = 120.0


def prepare(stage: Stage, say: Say) -> None:
    """Creates the resources or brings them up to date, and configures the stage. Run again after a change."""
    stage.check_functions()
    infra = stage.project / "infra"
    resources = templates.load(*(infra / name for name in templates.SHARED))
    templates.set_stage(resources, stage.name, stage.timeout_of("processor"), templates.this_python())
    application = templates.load(infra / "application.yaml")
    values = parameter_files.read(stage.parameters_file)
    _check(values, resources, application)
    session = Session()
    check(session, stage.project, values, say, native=True)
    cloudformation = session.client("cloudformation")
    if Stack(cloudformation, stage.stack, say).outputs() is not None:
        raise DeploymentError(
            f"Stage '{stage.name}' is deployed as a package (stack {stage.stack}), whose functions have the names that "
            "Chalice would give its own. Take another stage."
        )
    say(f"Deploying into account {session.account}, region {session.region} …")
    outputs = Stack(cloudformation, stage.resources_stack, say).deploy(
        {"TemplateBody": json.dumps(resources, separators=(",", ":"))},
        {name: value for name, value in values.items() if name in resources["Parameters"]},
    )
    declared = {**resources["Parameters"], **application["Parameters"]}
    conditions = {**resources["Conditions"], **application["Conditions"]}
    _configure(stage, _resolver(session, stage, conditions, declared, values, outputs), application)
    say(
        f"\nStage '{stage.name}' is configured in .chalice/. Next:\n"
        f"  .venv/bin/chalice deploy --stage {stage.name}\n"
        f"  make migrate STAGE={stage.name}"
    )


def migrate_stage(stage: Stage, say: Say) -> None:
    """Migrates the database of a deployed stage, whichever way that was deployed, and says where to POST to."""
    session = Session()
    found = deployed.outputs(session, stage)
    say("Migrating the database …")
    applied = migrate(session, stage.function_name("store"))
    say(f"  {', '.join(applied) if applied else 'nothing to migrate'}")
    announce(session, stage, deployed.address(stage, found), found, say)


def set_partial_responses(stage: Stage, say: Say) -> None:
    """Has Lambda read which events of a batch failed, and the processor say it. In that order.

    A processor that reports to a mapping that does not listen loses the failed events; one that raises to a mapping
    that listens loses none. So the function's setting comes last here, and `chalice deploy`, which may make the
    mapping anew, takes it back.
    """
    client = Session().client("lambda")
    function = stage.function_name("processor")
    try:
        mappings = client.list_event_source_mappings(FunctionName=function)["EventSourceMappings"]
        mappings = [mapping for mapping in mappings if ":sqs:" in mapping.get("EventSourceArn", "")]
        if not mappings:
            raise DeploymentError(
                f"Function {function} takes messages from no queue; deploy stage '{stage.name}' first."
            )
        for mapping in mappings:
            client.update_event_source_mapping(UUID=mapping["UUID"], FunctionResponseTypes=_PARTIAL_RESPONSES)
            _wait(lambda uuid=mapping["UUID"]: _listens(client.get_event_source_mapping(UUID=uuid)))  # type: ignore[misc]
        say(f"The event source mapping of {function} reads partial batch responses.")
        settings = client.get_function_configuration(FunctionName=function)
        variables = settings.get("Environment", {}).get("Variables", {}) | {"PARTIAL_BATCH_RESPONSE": "true"}
        client.update_function_configuration(
            FunctionName=function, Environment={"Variables": variables}, RevisionId=settings["RevisionId"]
        )
        client.get_waiter("function_updated_v2").wait(FunctionName=function)
    except ClientError as exc:
        raise DeploymentError(
            f"Partial batch responses cannot be set: {exc.response['Error'].get('Message')}"
        ) from None
    say(f"{function} sends them. 'chalice deploy' takes this back, safely: run this again after each.")


def _check(values: Parameters, resources: Template, application: Template) -> None:
    only_packaged = [name for name in values if name in application["Parameters"] and name not in _EXPRESSED]
    if only_packaged:
        raise DeploymentError(
            f"{', '.join(only_packaged)}: `chalice deploy` cannot express it. Leave it out, or use 'make deploy'."
        )
    expressed = {name: application["Parameters"][name] for name in _EXPRESSED}
    parameter_files.check(values, {"Parameters": {**resources["Parameters"], **expressed}})


def _resolver(
    session: Session,
    stage: Stage,
    conditions: Mapping[str, Any],
    declared: Mapping[str, Any],
    values: Parameters,
    outputs: Mapping[str, str],
) -> Resolver:
    defaults = {name: str(about.get("Default", "")) for name, about in declared.items()}
    return Resolver(
        {
            **defaults,
            **values,
            "Stage": stage.name,
            "AWS::AccountId": session.account,
            "AWS::Partition": session.partition,
            "AWS::Region": session.region,
            "LargeBodies": outputs["BodiesBucket"],
            "LargeBodies.Arn": f"arn:{session.partition}:s3:::{outputs['BodiesBucket']}",
            "SourcesSecret.Id": outputs["SourcesSecretArn"],
            "TokensSecret.Id": outputs.get("TokensSecretArn", ""),
            "WebhookDeadLetterQueue": outputs["DeadLetterQueueUrl"],
            "WebhookDeadLetterQueue.Arn": outputs["DeadLetterQueueArn"],
            "WebhookQueue": outputs["QueueUrl"],
            "WebhookQueue.Arn": outputs["QueueArn"],
        },
        conditions,
    )


def _configure(stage: Stage, resolver: Resolver, application: Template) -> None:
    """Writes the policies first: a configuration never names one that is not there."""
    folder = stage.project / ".chalice"
    functions: dict[str, Any] = {}
    for name, (resource, _) in FUNCTIONS.items():
        policy = json.loads((folder / f"policy-{name}.json").read_text("utf-8"))
        resolved = folder / f"policy-{stage.name}-{name}.json"
        resolved.write_text(json.dumps(resolver.resolve(policy), indent=2) + "\n", "utf-8")
        properties = application["Resources"][resource]["Properties"]
        variables = resolver.resolve(properties["Environment"]["Variables"])
        if "PARTIAL_BATCH_RESPONSE" in variables:
            variables["PARTIAL_BATCH_RESPONSE"] = "false"  # Chalice's mapping does not read it
        functions[name] = {"iam_policy_file": resolved.name, "environment_variables": variables}
        if "VpcConfig" in properties and resolver.holds("InVpc"):
            functions[name] |= {
                "subnet_ids": resolver.values["SubnetIds"].split(","),
                "security_group_ids": resolver.values["SecurityGroupIds"].split(","),
            }
    settings = stage.settings
    kept = settings.get("lambda_functions", {})
    of_ours = {"iam_policy_file", "environment_variables", "subnet_ids", "security_group_ids"}
    for name, ours in functions.items():
        theirs = {key: value for key, value in kept.get(name, {}).items() if key not in of_ours}
        functions[name] = theirs | ours
    settings.pop("xray_tracing", None)  # which Chalice never read
    settings["xray"] = resolver.holds("Traced")
    settings["lambda_functions"] = kept | functions
    (folder / "config.json").write_text(json.dumps(stage.config, indent=2) + "\n", "utf-8")


def _listens(mapping: Mapping[str, Any]) -> bool:
    return mapping["State"] == "Enabled" and mapping.get("FunctionResponseTypes") == _PARTIAL_RESPONSES


def _wait(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not holds():
        if time.monotonic() > deadline:
            raise DeploymentError("The event source mapping does not become ready; try again in a minute.")
        time.sleep(0.5)
