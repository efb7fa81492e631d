"""What each function's role grants, what it has to grant, and the difference in words."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

from deployment.project import FUNCTIONS
from deployment.template import SHARED, load
from tests.unit.aws_calls import PROJECT, AwsCall, derive

Policy = dict[str, Any]

# Operations that are permitted under another action's name: a batch by the single one, a look at an object's head by
# reading it, a listing by the bucket's.
ACTION_OF = {
    "sqs:SendMessageBatch": "sqs:SendMessage",
    "sqs:DeleteMessageBatch": "sqs:DeleteMessage",
    "sqs:ChangeMessageVisibilityBatch": "sqs:ChangeMessageVisibility",
    "s3:HeadObject": "s3:GetObject",
    "s3:DeleteObjects": "s3:DeleteObject",
    "s3:HeadBucket": "s3:ListBucket",
    "s3:ListObjects": "s3:ListBucket",
    "s3:ListObjectsV2": "s3:ListBucket",
    "lambda:Invoke": "lambda:InvokeFunction",
}

# A type of resource that AWS names for an action and that what we ask for is none of: the metrics of namespaces are in
# no dataset.
ELSEWHERE = {("cloudwatch:ListMetrics", "dataset")}

# Lambda makes and removes a function's network interfaces in the name of its role; its guide ("Giving Lambda functions
# access to resources in an Amazon VPC") lists the actions. It refuses a role that has them for some resources only
# (terraform-provider-aws#20698), and AWS's own policy has them for all.
NETWORK_INTERFACES = (
    "ec2:AssignPrivateIpAddresses",
    "ec2:CreateNetworkInterface",
    "ec2:DeleteNetworkInterface",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSubnets",
    "ec2:UnassignPrivateIpAddresses",
)


@dataclass(frozen=True, order=True)
class Grant:
    """One action on one resource. `when` is the template's condition, `limits` the statement's own."""

    action: str
    resource: str
    when: str = ""
    limits: str = ""
    effect: str = "Allow"

    def __str__(self) -> str:
        extra = f" when {self.when}" * bool(self.when) + f" if {self.limits}" * bool(self.limits)
        return f"{self.effect} {self.action} on {self.resource}{extra}"


# What has to be granted, and why.
Needs = dict[Grant, str]


@cache
def read_template() -> dict[str, Any]:
    return load(*(PROJECT / "infra" / name for name in (*SHARED, "application.yaml")))


@dataclass(frozen=True)
class Infrastructure:
    """The template as it is deployed, but for what Chalice adds to it."""

    template: dict[str, Any] = field(default_factory=read_template)

    def function(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.template["Resources"][FUNCTIONS[name][0]]
        return found

    def named_by(self, function: str, variable: str) -> str:
        """The logical name of the resource, or the parameter, that the function's variable names."""
        variables = self.function(function)["Properties"]["Environment"]["Variables"]
        match self._when(variables.get(variable))[1]:
            case {"Ref": str(name)} | {"Fn::GetAtt": [str(name), _]}:
                return name
            case {"Fn::Sub": str(name)} if called := self._functions().get(name):
                return called
            case other:
                raise AssertionError(f"{function} is not told by {variable} which resource to use: {other!r}")

    def condition_of(self, function: str, variable: str) -> str:
        """Under which it names anything; empty where it always does."""
        return self._when(self.function(function)["Properties"]["Environment"]["Variables"][variable])[0]

    def _when(self, value: Any) -> tuple[str, Any]:
        match value:
            case {"Fn::If": [str(condition), inner, ""]}:
                return condition, inner
        return "", value

    def _functions(self) -> dict[str, str]:
        """The functions' logical names, by what they are called."""
        return {plain(self.function(name)["Properties"]["FunctionName"]): FUNCTIONS[name][0] for name in FUNCTIONS}

    def arn(self, name: str, action: str) -> str:
        """As a policy names that resource."""
        if name in self.template["Parameters"]:
            return f"${{{name}}}"
        if name in (called := {logical: text for text, logical in self._functions().items()}):
            return f"arn:${{AWS::Partition}}:lambda:${{AWS::Region}}:${{AWS::AccountId}}:function:{called[name]}"
        match self.template["Resources"][name]["Type"]:
            case "AWS::SQS::Queue":
                return f"${{{name}.Arn}}"
            case "AWS::S3::Bucket":
                return f"${{{name}.Arn}}" + "/*" * ("object" in resource_types(action))
            case "AWS::SecretsManager::Secret":
                return f"${{{name}.Id}}"
            case kind:
                raise AssertionError(f"How does a policy name {name}, which is a {kind}?")


@cache
def reference() -> dict[str, Any]:
    """cfn-lint's copy of AWS's service authorization reference."""
    file = files("cfnlint") / "data" / "AdditionalSpecs" / "Policies.json"
    found: dict[str, Any] = json.loads(file.read_text("utf-8"))
    return found


def resource_types(action: str) -> list[str]:
    """The types of resource that AWS lets a policy name for this action; none for an action that takes `*` alone."""
    service, _, name = action.partition(":")
    actions = reference()[service]["Actions"]
    assert name.lower() in actions, f"IAM knows no action {action}; what permits it belongs into ACTION_OF."
    found: list[str] = actions[name.lower()].get("Resources", [])
    return [kind for kind in found if (action, kind) not in ELSEWHERE]


def read_policies() -> dict[str, Policy]:
    config = json.loads((PROJECT / ".chalice" / "config.json").read_text("utf-8"))
    return {
        name: json.loads((PROJECT / ".chalice" / function["iam_policy_file"]).read_text("utf-8"))
        for name, function in config["lambda_functions"].items()
    }


def statements(policy: Policy) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each statement with the condition under which it is in the policy."""
    for statement in policy["Statement"]:
        match statement:
            case {"Fn::If": [condition, inner, {"Ref": "AWS::NoValue"}]}:
                yield condition, inner
            case {"Effect": _}:
                yield "", statement
            case _:
                raise AssertionError(f"What does this statement say? {statement}")


def granted(policy: Policy) -> set[Grant]:
    found: set[Grant] = set()
    for when, statement in statements(policy):
        assert set(statement) <= {"Sid", "Effect", "Action", "Resource", "Condition"}, statement
        limits = json.dumps(plain(statement["Condition"]), sort_keys=True) if "Condition" in statement else ""
        found |= {
            Grant(action, plain(resource), when, limits, statement["Effect"])
            for action in listed(statement["Action"])
            for resource in listed(statement["Resource"])
        }
    return found


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def plain(value: Any) -> Any:
    """References as they stand in a text: `${Name}` and `${Name.Attribute}`."""
    match value:
        case {"Ref": name}:
            return f"${{{name}}}"
        case {"Fn::GetAtt": [name, attribute]}:
            return f"${{{name}.{attribute}}}"
        case {"Fn::Sub": str(text)}:
            return text
        case dict():
            return {key: plain(inner) for key, inner in value.items()}
    return value


def needed_by_code(function: str, calls: set[AwsCall], infrastructure: Infrastructure) -> Needs:
    needs: Needs = {}
    for call in sorted(calls, key=lambda call: call.place):
        operation = f"{call.service}:{call.operation}"
        action = ACTION_OF.get(operation, operation)
        if not call.variable:
            needs[Grant(action, "*")] = f"{call.place} calls {call.operation}"
            continue
        name = infrastructure.named_by(function, call.variable)
        when = infrastructure.condition_of(function, call.variable)
        needs[Grant(action, infrastructure.arn(name, action), when)] = f"{call.place} calls {call.operation}"
        if name == "DatabaseSecretArn":
            # Secrets Manager decrypts in the name of who reads. A key of one's own has to permit it; AWS's does.
            needs[Grant("kms:Decrypt", "${DatabaseSecretKeyArn}", "DatabaseSecretHasKey")] = "the secret's own key"
    return needs


# The functions that run handlers: in earnest, and in dry runs.
RUN_HANDLERS = ("processor", "store", "backend")


def needed_by_handlers(function: str) -> Needs:
    """The team's code asks for its secrets, and is not here to be read."""
    if function not in RUN_HANDLERS:
        return {}
    read = Grant("secretsmanager:GetSecretValue", "${HandlersSecretArn}", "HandlersHaveSecret")
    decrypt = Grant("kms:Decrypt", "${HandlersSecretKeyArn}", "HandlersSecretHasKey")
    return {read: "handlers call secrets()", decrypt: "that secret's own key"}


def needed_by_aws(function: str, infrastructure: Infrastructure) -> Needs:
    """What AWS does in the role's name."""
    properties = infrastructure.function(function)["Properties"]
    name = plain(properties["FunctionName"])
    account = "${AWS::Region}:${AWS::AccountId}"
    needs: Needs = {}
    # Lambda writes what the function prints. The template makes the group, so that nobody else needs to.
    for action in ("logs:CreateLogStream", "logs:PutLogEvents"):
        group = f"arn:${{AWS::Partition}}:logs:{account}:log-group:/aws/lambda/{name}:*"
        needs[Grant(action, group)] = "Lambda writes the function's log"
    # The event source mapping takes messages from the queue, and removes those that the function did not fail.
    for event in properties.get("Events", {}).values():
        for action in ("sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"):
            needs[Grant(action, plain(event["Properties"]["Queue"]))] = "the event source mapping polls the queue"
    if properties["Tracing"] == {"Ref": "Tracing"}:
        for action in ("xray:PutTraceSegments", "xray:PutTelemetryRecords"):
            needs[Grant(action, "*", "Traced")] = "Lambda sends the function's traces"
    if "VpcConfig" in properties:
        arn = f"arn:${{AWS::Partition}}:lambda:{account}:function:{name}"
        by_code = json.dumps({"ArnEquals": {"lambda:SourceFunctionArn": arn}})
        for action in NETWORK_INTERFACES:
            needs[Grant(action, "*", "InVpc")] = "Lambda connects the function to its VPC"
            # Requests of the function's code carry its ARN; those that Lambda makes by itself do not.
            needs[Grant(action, "*", "InVpc", by_code, "Deny")] = "that is Lambda's business, not the code's"
    return needs


def problems(
    policies: Mapping[str, Policy], sources: Mapping[str, str], infrastructure: Infrastructure | None = None
) -> list[str]:
    """A sentence for each grant that a role lacks, and for each that nothing needs."""
    infrastructure = infrastructure or Infrastructure()
    calls = derive(sources)
    assert set(calls) == set(policies) == set(FUNCTIONS), "The doors, the policies and the functions differ."
    found = []
    for function, policy in policies.items():
        # The code's reasons last: they say where to look.
        needs = needed_by_aws(function, infrastructure) | needed_by_handlers(function)
        needs |= needed_by_code(function, calls[function], infrastructure)
        has = granted(policy)
        found += [f"{function} has too little: {grant} ({needs[grant]})" for grant in sorted(set(needs) - has)]
        found += [f"{function} has too much: {grant} (nothing needs it)" for grant in sorted(has - set(needs))]
    return found
