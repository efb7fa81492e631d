"""The template of the optional database: what has to be so, whatever else is changed in it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

FILE = Path(__file__).parents[2] / "infra" / "database.yaml"
DOCUMENT = (FILE.parents[1] / "docs" / "database.md").read_text("utf-8")
TEMPLATE: dict[str, Any] = yaml.safe_load(FILE.read_text("utf-8"))
RESOURCES: dict[str, Any] = TEMPLATE["Resources"]
DATABASE: dict[str, Any] = RESOURCES["Database"]["Properties"]
OF_FUNCTIONS = {"Fn::GetAtt": ["FunctionsSecurityGroup", "GroupId"]}
OF_DATABASE = {"Fn::GetAtt": ["DatabaseSecurityGroup", "GroupId"]}
NOWHERE = [{"IpProtocol": "-1", "CidrIp": "127.0.0.1/32", "Description": "nowhere"}]


def of_type(kind: str) -> dict[str, Any]:
    return {name: resource for name, resource in RESOURCES.items() if resource["Type"] == kind}


def nodes(tree: Any) -> Iterator[Any]:
    """Everything in it, at any depth."""
    yield tree
    for child in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else []:
        yield from nodes(child)


def test_the_database_is_not_public() -> None:
    assert DATABASE["PubliclyAccessible"] is False
    assert DATABASE["DBSubnetGroupName"] == {"Ref": "DatabaseSubnets"}
    assert RESOURCES["DatabaseSubnets"]["Properties"]["SubnetIds"] == {"Ref": "SubnetIds"}


def test_the_database_is_encrypted_and_speaks_nothing_but_tls() -> None:
    assert DATABASE["StorageEncrypted"] is True
    assert DATABASE["DBParameterGroupName"] == {"Ref": "DatabaseParameters"}
    assert RESOURCES["DatabaseParameters"]["Properties"]["Parameters"]["rds.force_ssl"] == "1"


def test_only_the_functions_group_reaches_the_database_and_only_its_port() -> None:
    assert DATABASE["VPCSecurityGroups"] == [OF_DATABASE]
    [rule] = RESOURCES["DatabaseSecurityGroup"]["Properties"]["SecurityGroupIngress"]
    assert (rule["FromPort"], rule["ToPort"], rule["SourceSecurityGroupId"]) == (5432, 5432, OF_FUNCTIONS)
    assert not of_type("AWS::EC2::SecurityGroupIngress")


def test_nothing_reaches_the_functions_and_they_reach_aws_and_the_database() -> None:
    functions = RESOURCES["FunctionsSecurityGroup"]["Properties"]
    assert "SecurityGroupIngress" not in functions
    assert [(rule["FromPort"], rule["ToPort"]) for rule in functions["SecurityGroupEgress"]] == [(443, 443)]
    [out] = [resource["Properties"] for resource in of_type("AWS::EC2::SecurityGroupEgress").values()]
    assert (out["GroupId"], out["DestinationSecurityGroupId"]) == (OF_FUNCTIONS, OF_DATABASE)
    assert (out["FromPort"], out["ToPort"]) == (5432, 5432)


@pytest.mark.parametrize("group", ["DatabaseSecurityGroup", "EndpointsSecurityGroup"])
def test_what_only_answers_begins_no_connection(group: str) -> None:
    assert RESOURCES[group]["Properties"]["SecurityGroupEgress"] == NOWHERE


def test_no_data_is_deleted_with_the_stack() -> None:
    kept = {"Database": "Snapshot", "DatabaseSecret": "RetainExceptOnCreate", "DatabaseLogs": "RetainExceptOnCreate"}
    assert {name: RESOURCES[name]["DeletionPolicy"] for name in kept} == kept
    assert RESOURCES["Database"]["UpdateReplacePolicy"] == "Snapshot"
    assert {RESOURCES[name]["UpdateReplacePolicy"] for name in kept if name != "Database"} == {"Retain"}
    assert DATABASE["DeleteAutomatedBackups"] is False


def test_nobody_deletes_the_database_who_did_not_say_so_before() -> None:
    assert DATABASE["DeletionProtection"] == {"Ref": "DeletionProtection"}
    assert TEMPLATE["Parameters"]["DeletionProtection"]["Default"] == "true"


def test_a_week_of_backups_is_kept() -> None:
    assert DATABASE["BackupRetentionPeriod"] == 7


def test_the_password_is_made_by_aws_and_is_nowhere_in_the_template() -> None:
    made = RESOURCES["DatabaseSecret"]["Properties"]
    assert "SecretString" not in made
    assert made["GenerateSecretString"]["PasswordLength"] >= 32
    assert json.loads(made["GenerateSecretString"]["SecretStringTemplate"]) == {"username": "postern"}
    password = DATABASE["MasterUserPassword"]
    assert password == {"Fn::Sub": "{{resolve:secretsmanager:${DatabaseSecret}:SecretString:password}}"}
    assert not [name for name in TEMPLATE["Parameters"] if re.search("password|secret", name, re.I)]


def test_no_output_shows_the_password() -> None:
    assert "resolve:" not in json.dumps(TEMPLATE["Outputs"])


def test_the_outputs_are_called_as_the_main_templates_parameters() -> None:
    values = {name: output["Value"] for name, output in TEMPLATE["Outputs"].items()}
    assert values == {
        # The attachment's reference is the secret's ARN, and the secret is complete by then.
        "DatabaseSecretArn": {"Ref": "DatabaseSecretAttachment"},
        "SubnetIds": {"Fn::Join": [",", {"Ref": "SubnetIds"}]},
        "SecurityGroupIds": OF_FUNCTIONS,
    }


def test_the_secret_is_completed_with_the_databases_address() -> None:
    assert RESOURCES["DatabaseSecretAttachment"]["Properties"] == {
        "SecretId": {"Ref": "DatabaseSecret"},
        "TargetId": {"Ref": "Database"},
        "TargetType": "AWS::RDS::DBInstance",
    }


def test_the_log_group_exists_before_rds_would_make_one_that_keeps_lines_for_ever() -> None:
    logs = RESOURCES["DatabaseLogs"]["Properties"]
    assert logs["RetentionInDays"] == 30
    assert logs["LogGroupName"] == {"Fn::Sub": "/aws/rds/instance/${DatabaseIdentifier}/postgresql"}
    assert DATABASE["DBInstanceIdentifier"] == {"Ref": "DatabaseIdentifier"}
    assert RESOURCES["Database"]["DependsOn"] == "DatabaseLogs"


@pytest.mark.parametrize("name", ["QueueEndpoint", "SecretsEndpoint", "MetricsEndpoint"])
def test_an_endpoint_serves_the_functions_only(name: str) -> None:
    assert RESOURCES[name]["Condition"] == "HasEndpoints"
    endpoint = RESOURCES[name]["Properties"]
    assert endpoint["PrivateDnsEnabled"] is True
    assert endpoint["SecurityGroupIds"] == [{"Fn::GetAtt": ["EndpointsSecurityGroup", "GroupId"]}]
    [rule] = RESOURCES["EndpointsSecurityGroup"]["Properties"]["SecurityGroupIngress"]
    assert (rule["FromPort"], rule["ToPort"], rule["SourceSecurityGroupId"]) == (443, 443, OF_FUNCTIONS)


SPEAKS_OF_NO_RESOURCE = (
    "secretsmanager:GetRandomPassword",
    ["cloudwatch:GetMetricStatistics", "cloudwatch:ListMetrics"],
)


@pytest.mark.parametrize("name", of_type("AWS::EC2::VPCEndpoint"))
def test_no_endpoint_is_a_way_into_another_account(name: str) -> None:
    account = {"Ref": "AWS::AccountId"}
    for statement in RESOURCES[name]["Properties"]["PolicyDocument"]["Statement"]:
        if statement["Action"] in SPEAKS_OF_NO_RESOURCE:
            assert statement["Condition"] == {"StringEquals": {"aws:PrincipalAccount": account}}
            continue
        bounds = statement["Condition"]["StringEquals"]
        resource = statement["Resource"]
        assert bounds.get("aws:ResourceAccount") == account or ":${AWS::AccountId}:" in resource["Fn::Sub"]


def test_what_the_processor_calls_is_allowed_through() -> None:
    def actions(name: str) -> set[str]:
        [statement, *_] = RESOURCES[name]["Properties"]["PolicyDocument"]["Statement"]
        return set(statement["Action"])

    assert {"sqs:ChangeMessageVisibility", "sqs:DeleteMessage", "sqs:SendMessage"} <= actions("QueueEndpoint")
    assert "secretsmanager:GetSecretValue" in actions("SecretsEndpoint")


def test_every_reference_is_to_something_in_the_template() -> None:
    names = {*TEMPLATE["Parameters"], *RESOURCES, "AWS::AccountId"}
    for node in nodes(TEMPLATE):
        if isinstance(node, dict) and set(node) == {"Ref"}:
            assert node["Ref"] in names
        if isinstance(node, dict) and set(node) == {"Fn::If"}:
            assert node["Fn::If"][0] in TEMPLATE["Conditions"]


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("DatabaseIdentifier", "Postern"),
        ("DatabaseIdentifier", "two--hyphens"),
        ("DatabaseIdentifier", "hyphen-"),
        ("InstanceClass", "t4g.micro"),
        ("RouteTableIds", "rtb-1, rtb-2"),
        ("RouteTableIds", "vpc-1"),
    ],
)
def test_a_parameter_that_does_not_fit_is_refused_before_anything_is_made(parameter: str, value: str) -> None:
    definition = TEMPLATE["Parameters"][parameter]
    assert not re.fullmatch(definition["AllowedPattern"], value)
    assert re.fullmatch(definition["AllowedPattern"], definition["Default"])
    assert definition["ConstraintDescription"]


def test_subnets_of_another_vpc_are_refused_before_anything_is_made() -> None:
    [assertion] = TEMPLATE["Rules"]["SubnetsAreInTheVpc"]["Assertions"]
    assert assertion["Assert"] == {"Fn::EachMemberEquals": [{"Fn::ValueOf": ["SubnetIds", "VpcId"]}, {"Ref": "VpcId"}]}


@pytest.mark.parametrize("name", [name for name, p in TEMPLATE["Parameters"].items() if p.get("Default")])
def test_the_document_knows_the_parameter_and_its_default(name: str) -> None:
    assert f"| `{name}` | `{TEMPLATE['Parameters'][name]['Default']}` |" in DOCUMENT


def test_the_document_knows_the_outputs() -> None:
    assert all(f"`{name}`" in DOCUMENT for name in TEMPLATE["Outputs"])
