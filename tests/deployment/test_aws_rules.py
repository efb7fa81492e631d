"""What AWS asks of a template and the emulator does not: each rule with the document that it comes from."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from deployment.deploy import end_provisioned_concurrency
from deployment.session import Session
from devstack.settings import PROJECT
from tests.deployment.cloud import Cloud
from tests.deployment.installation import Installation
from tests.unit.roles import NETWORK_INTERFACES

FUNCTIONS = ("Processor", "Maintenance", "Store", "Reader", "Backend")

IN_VPC = {*NETWORK_INTERFACES}


@pytest.fixture(scope="module")
def template(packaged: Any) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((packaged / "dist" / "prod" / "template.yaml").read_text("utf-8"))
    return found


@pytest.mark.parametrize("function", FUNCTIONS)
def test_lambda_may_attach_it_to_the_vpc_and_its_code_may_not(template: dict[str, Any], function: str) -> None:
    """Lambda refuses a function whose role has these for some resources only (terraform-provider-aws#20698), as
    AWSLambdaVPCAccessExecutionRole has them for all. So they are denied to the function's own code by name: "Using
    Lambda function ARNs in policies", the same chapter.
    """
    (policy,) = template["Resources"][f"{function}Role"]["Properties"]["Policies"]
    within_vpc = [s["Fn::If"][1] for s in policy["PolicyDocument"]["Statement"] if s.get("Fn::If", [""])[0] == "InVpc"]
    allowed, denied = sorted(within_vpc, key=lambda statement: statement["Effect"])
    assert (allowed["Effect"], {*allowed["Action"]}, allowed["Resource"]) == ("Allow", IN_VPC, "*")
    assert (denied["Effect"], {*denied["Action"]}, denied["Resource"]) == ("Deny", IN_VPC, "*")
    assert "Condition" not in allowed
    assert list(denied["Condition"]["ArnEquals"]) == ["lambda:SourceFunctionArn"]


def test_a_layer_that_is_no_longer_used_is_deleted(template: dict[str, Any]) -> None:
    """A region keeps 75 GB of archives of an account ("Lambda quotas"), and SAM keeps every layer by default
    (AWS::Serverless::LayerVersion, RetentionPolicy). Functions that use a deleted one go on (Lambda's manual, "Deleting
    a layer version").
    """
    assert template["Resources"]["ManagedLayer"]["Properties"]["RetentionPolicy"] == "Delete"


def test_webhooks_are_taken_from_the_allowed_addresses_and_health_from_everywhere(template: dict[str, Any]) -> None:
    """ "API Gateway resource policy examples": what is denied by address is denied whatever else is allowed."""
    policy = template["Resources"]["RestAPI"]["Properties"]["DefinitionBody"]["x-amazon-apigateway-policy"]["Fn::If"]
    assert (policy[0], policy[2]) == ("IpRangesAllowed", {"Ref": "AWS::NoValue"})
    allowed, denied = policy[1]["Statement"]
    assert (allowed["Effect"], allowed["Resource"]) == ("Allow", "execute-api:/*")
    assert (denied["Effect"], denied["Resource"]) == ("Deny", "execute-api:/*/*/webhooks/*")
    assert denied["Condition"] == {"NotIpAddress": {"aws:SourceIp": {"Ref": "AllowedIpRanges"}}}


def test_a_name_of_ones_own_and_a_web_acl_are_made_only_where_they_are_asked_for(template: dict[str, Any]) -> None:
    conditions = {name: template["Resources"][name]["Condition"] for name in ("WebAclOfApi", "Domain", "DomainOfApi")}
    assert conditions == {"WebAclOfApi": "BehindWebAcl", "Domain": "Named", "DomainOfApi": "Named"}


def test_a_version_that_an_update_made_goes_with_it(template: dict[str, Any]) -> None:
    """SAM keeps versions by default (AWS::Serverless::Function, VersionDeletionPolicy). One that is left of an update
    that was rolled back is what Lambda answers the same release's next try with: it publishes no version without a
    change ("Manage Lambda function versions").
    """
    assert template["Resources"]["APIHandler"]["Properties"]["VersionDeletionPolicy"] == "Delete"


def test_dead_letters_are_kept_for_longer_than_what_may_become_one() -> None:
    """A message keeps its first time in a standard queue's dead letters ("Using dead-letter queues", SQS's manual)."""
    resources = yaml.safe_load((PROJECT / "infra" / "resources.yaml").read_text("utf-8"))["Resources"]
    kept = {name: resources[name]["Properties"]["MessageRetentionPeriod"] for name in resources if name[-5:] == "Queue"}
    assert kept["WebhookDeadLetterQueue"] > kept["WebhookQueue"]


def test_functions_are_kept_warm_no_longer_than_the_parameters_say(
    cloud: Cloud, installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deleting a scalable target leaves the capacity that it had set (aws-cdk#31507)."""
    client = cloud.client("lambda")
    alias = {"FunctionName": installation.name, "Qualifier": "live"}
    client.put_provisioned_concurrency_config(**alias, ProvisionedConcurrentExecutions=3)
    for name, value in cloud.environ().items():
        monkeypatch.setenv(name, value)
    said: list[str] = []
    for _ in range(2):
        end_provisioned_concurrency(Session(), installation.name, said.append)
    assert said == ["API functions are no longer kept warm."]
    with pytest.raises(client.exceptions.ProvisionedConcurrencyConfigNotFoundException):
        client.get_provisioned_concurrency_config(**alias)
