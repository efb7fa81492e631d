"""One role per function, which grants what the function's code calls and what AWS does in its name, and no more."""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest

from deployment.project import FUNCTIONS
from tests.unit.aws_calls import PROJECT, AwsCall, doors, read_sources
from tests.unit.roles import (
    NETWORK_INTERFACES,
    RUN_HANDLERS,
    Infrastructure,
    Policy,
    granted,
    listed,
    needed_by_code,
    problems,
    read_policies,
    read_template,
    resource_types,
    statements,
)

SOURCES = read_sources()
POLICIES = read_policies()
CONFIG: dict[str, Any] = json.loads((PROJECT / ".chalice" / "config.json").read_text("utf-8"))

# The only actions of the functions' own on `*`: AWS's service authorization reference has no resource type for any.
ON_EVERYTHING = {
    "cloudwatch:GetMetricStatistics",  # metrics are no resource
    "cloudwatch:ListMetrics",  # a listing
    "xray:PutTraceSegments",  # goes to the account's traces, which are no resource
    "xray:PutTelemetryRecords",  # as before
}

# Who may do what with what holds events and secrets. Nobody may anything else with it, and nobody else may this.
ON_DATABASE = ("processor", "maintenance", "store", "reader", "backend")
BACKEND = "arn:${AWS::Partition}:lambda:${AWS::Region}:${AWS::AccountId}:function:postern-${Stage}-backend"
MAY = {
    ("sqs:SendMessage", "${WebhookQueue.Arn}"): {"api_handler", "processor", "store", "backend", "reconciler"},
    ("sqs:ReceiveMessage", "${WebhookQueue.Arn}"): {"processor"},
    ("sqs:GetQueueAttributes", "${WebhookQueue.Arn}"): {"processor", "store", "backend"},
    ("sqs:DeleteMessage", "${WebhookQueue.Arn}"): {"processor"},
    ("sqs:ChangeMessageVisibility", "${WebhookQueue.Arn}"): {"processor"},
    ("sqs:SendMessage", "${WebhookDeadLetterQueue.Arn}"): {"processor"},
    ("sqs:GetQueueAttributes", "${WebhookDeadLetterQueue.Arn}"): {"store", "backend"},
    ("sqs:ReceiveMessage", "${WebhookDeadLetterQueue.Arn}"): {"store", "backend"},
    ("sqs:DeleteMessage", "${WebhookDeadLetterQueue.Arn}"): {"store", "backend"},
    ("sqs:ChangeMessageVisibility", "${WebhookDeadLetterQueue.Arn}"): {"store", "backend"},
    ("s3:PutObject", "${LargeBodies.Arn}/*"): {"api_handler", "reconciler"},
    ("s3:GetObject", "${LargeBodies.Arn}/*"): {"processor"},
    ("secretsmanager:GetSecretValue", "${SourcesSecret.Id}"): {"api_handler", "reconciler"},
    ("secretsmanager:GetSecretValue", "${DatabaseSecretArn}"): {*ON_DATABASE},
    ("secretsmanager:GetSecretValue", "${TokensSecret.Id}"): {"backend"},
    ("secretsmanager:GetSecretValue", "${HandlersSecretArn}"): {*RUN_HANDLERS},
    ("kms:Decrypt", "${HandlersSecretKeyArn}"): {*RUN_HANDLERS},
    ("lambda:InvokeFunction", BACKEND): {"api_handler"},
    ("lambda:InvokeFunction", BACKEND.replace("backend", "reconciler")): {"api_handler"},
    ("lambda:InvokeFunction", BACKEND.replace("backend", "store")): {"reconciler"},
    ("cloudwatch:GetMetricStatistics", "*"): {"maintenance"},
    ("cloudwatch:ListMetrics", "*"): {"maintenance"},
    ("kms:Decrypt", "${DatabaseSecretKeyArn}"): {*ON_DATABASE},
}


def test_every_role_grants_what_its_function_needs_and_no_more() -> None:
    assert problems(POLICIES, SOURCES) == []


def test_nobody_may_do_what_is_anothers() -> None:
    holders: dict[tuple[str, str], set[str]] = {}
    for function, policy in POLICIES.items():
        for grant in granted(policy):
            if grant.effect == "Allow" and grant.action.split(":")[0] not in ("logs", "xray", "ec2"):
                holders.setdefault((grant.action, grant.resource), set()).add(function)
    assert holders == MAY


def test_every_function_has_a_policy_of_its_own_and_nothing_beside_it() -> None:
    assert set(doors(SOURCES)) == set(CONFIG["lambda_functions"]) == set(FUNCTIONS)
    assert CONFIG["autogen_policy"] is False
    files = [function["iam_policy_file"] for function in CONFIG["lambda_functions"].values()]
    assert len(set(files)) == len(FUNCTIONS)
    assert all((PROJECT / ".chalice" / file).exists() for file in files)
    # Nor is there a role, or a second policy, for the app or a stage; `make native` writes those of its functions.
    outside = {key: value for key, value in CONFIG.items() if key != "stages"}
    assert [key for key in keys(outside) if "iam" in key] == ["iam_policy_file"] * len(FUNCTIONS)
    assert not [key for stage in CONFIG["stages"].values() for key in stage if "iam" in key]


def test_the_template_adds_nothing_to_a_role() -> None:
    resources: dict[str, Any] = Infrastructure().template["Resources"]
    assert not [name for name, resource in resources.items() if resource.get("Type", "").startswith("AWS::IAM::")]
    for function in FUNCTIONS:
        assert not {"Role", "Policies", "PermissionsBoundary"} & set(Infrastructure().function(function)["Properties"])


@pytest.mark.parametrize("function", FUNCTIONS)
def test_no_action_is_a_wildcard(function: str) -> None:
    assert not [grant for grant in granted(POLICIES[function]) if "*" in grant.action or "?" in grant.action]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_grant_on_everything_is_of_an_action_that_takes_no_resource(function: str) -> None:
    wide = {g.action for g in granted(POLICIES[function]) if g.effect == "Allow" and g.resource == "*"}
    assert wide <= ON_EVERYTHING | {*NETWORK_INTERFACES}


def test_aws_takes_no_resource_for_those_actions() -> None:
    assert {action: resource_types(action) for action in ON_EVERYTHING} == {action: [] for action in ON_EVERYTHING}


@pytest.mark.parametrize("function", FUNCTIONS)
def test_every_granted_action_exists_and_is_on_a_resource_when_aws_takes_one(function: str) -> None:
    for grant in granted(POLICIES[function]):
        if grant.effect == "Allow" and grant.action not in NETWORK_INTERFACES:
            assert bool(resource_types(grant.action)) == (grant.resource != "*"), grant


def test_the_functions_log_groups_are_made_by_the_template() -> None:
    """So that no role needs logs:CreateLogGroup, and no group is kept for ever."""
    resources = Infrastructure().template["Resources"]
    for function in FUNCTIONS:
        definition = Infrastructure().function(function)
        [group] = definition["DependsOn"]
        name = definition["Properties"]["FunctionName"]["Fn::Sub"]
        assert resources[group]["Properties"]["LogGroupName"] == {"Fn::Sub": f"/aws/lambda/{name}"}


# From here on: that the comparison notices what it has to.


def keys(tree: Any) -> Iterator[str]:
    if isinstance(tree, dict):
        yield from tree
    for child in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else []:
        yield from keys(child)


def numbered(policies: dict[str, Policy]) -> Iterator[tuple[str, int, dict[str, Any]]]:
    for function, policy in policies.items():
        for number, (_, statement) in enumerate(statements(policy)):
            yield function, number, statement


def copied(function: str, number: int) -> tuple[dict[str, Policy], dict[str, Any]]:
    """A copy of all policies, and one statement in it."""
    policies = deepcopy(POLICIES)
    return policies, list(statements(policies[function]))[number][1]


def changed(module: str, old: str, new: str) -> dict[str, str]:
    """The sources with one change."""
    assert SOURCES[module].count(old) == 1, f"{module} has no single {old!r}."
    return {**SOURCES, module: SOURCES[module].replace(old, new)}


ACTIONS = [(f, n, action) for f, n, statement in numbered(POLICIES) for action in listed(statement["Action"])]
STATEMENTS = [(function, number) for function, number, _ in numbered(POLICIES)]


@pytest.mark.parametrize(("function", "number", "action"), ACTIONS)
def test_an_action_that_is_taken_away_is_missed(function: str, number: int, action: str) -> None:
    policies, statement = copied(function, number)
    statement["Action"] = [other for other in listed(statement["Action"]) if other != action]
    found = problems(policies, SOURCES)
    assert found
    assert all(f"{function} has too little: {statement['Effect']} {action} on " in problem for problem in found)


@pytest.mark.parametrize(("function", "number"), STATEMENTS)
@pytest.mark.parametrize("action", ["sqs:PurgeQueue", "s3:DeleteObject", "secretsmanager:PutSecretValue", "sqs:*"])
def test_an_action_that_is_added_is_found(function: str, number: int, action: str) -> None:
    policies, statement = copied(function, number)
    statement["Action"] = [*listed(statement["Action"]), action]
    found = problems(policies, SOURCES)
    assert found
    assert all(f"{function} has too much: {statement['Effect']} {action} on " in problem for problem in found)


@pytest.mark.parametrize(
    ("function", "number"), [(f, n) for f, n, statement in numbered(POLICIES) if statement["Resource"] != "*"]
)
@pytest.mark.parametrize("resource", ["*", "arn:aws:sqs:*:*:*"])
def test_a_resource_that_is_widened_is_found(function: str, number: int, resource: str) -> None:
    policies, statement = copied(function, number)
    statement["Resource"] = resource
    found = problems(policies, SOURCES)
    for action in listed(statement["Action"]):
        assert any(f"{function} has too much: Allow {action} on {resource}" in problem for problem in found)
        assert any(f"{function} has too little: Allow {action} on " in problem for problem in found)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_statement_whose_condition_is_dropped_is_found(function: str) -> None:
    policies = deepcopy(POLICIES)
    policies[function]["Statement"] = [statement for _, statement in statements(policies[function])]
    assert any(f"{function} has too much: Allow xray:PutTraceSegments on *" in p for p in problems(policies, SOURCES))


@pytest.mark.parametrize("other", [name for name in FUNCTIONS if name != "processor"])
def test_the_policy_of_another_function_is_found(other: str) -> None:
    found = problems({**POLICIES, "processor": POLICIES[other]}, SOURCES)
    assert any("processor has too little" in problem for problem in found)
    assert any("processor has too much" in problem for problem in found)


def test_another_resource_in_a_functions_environment_is_found() -> None:
    infrastructure = Infrastructure(deepcopy(read_template()))
    variables = infrastructure.function("processor")["Properties"]["Environment"]["Variables"]
    variables["DEAD_LETTER_QUEUE_URL"] = {"Ref": "WebhookQueue"}
    [much] = problems(POLICIES, SOURCES, infrastructure)
    assert "processor has too much: Allow sqs:SendMessage on ${WebhookDeadLetterQueue.Arn}" in much


def test_a_use_case_that_needs_a_resource_its_function_is_not_told_is_found() -> None:
    calls = {AwsCall("s3", "GetObject", "BODIES_BUCKET", "chalicelib/postern/adapters/s3.py:1")}
    with pytest.raises(AssertionError, match="store is not told by BODIES_BUCKET"):
        needed_by_code("store", calls, Infrastructure())


def test_a_new_call_in_the_application_is_missed_in_the_roles_of_those_who_reach_it() -> None:
    """The one whole way from a line of code to a sentence; how calls are found is in test_aws_calls.py."""
    sources = changed(
        "chalicelib.postern.adapters.sqs",
        "        if group:\n",
        "        client = aws.sqs()\n        client.get_queue_attributes(QueueUrl=self.url)\n        if group:\n",
    )
    missed = {
        "api_handler": "sqs:GetQueueAttributes on ${WebhookQueue.Arn}",
        "processor": "sqs:GetQueueAttributes on ${WebhookDeadLetterQueue.Arn}",
        "reconciler": "sqs:GetQueueAttributes on ${WebhookQueue.Arn}",
    }
    found = problems(POLICIES, sources)
    assert len(found) == len(missed)
    for function, grant in missed.items():
        [problem] = [problem for problem in found if problem.startswith(f"{function} ")]
        assert problem.startswith(f"{function} has too little: Allow {grant} (chalicelib/postern/adapters/")
