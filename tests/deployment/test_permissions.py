"""Every permission of every role is needed: without it, its function fails the deployment's own test."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import pytest

from tests.deployment.acceptance import FUNCTIONS, Unacceptable, accept, probe
from tests.deployment.installation import Installation


@pytest.fixture(scope="module")
def accepted(installation: Installation) -> Installation:
    """With all permissions."""
    accept(installation)
    return installation


@pytest.mark.timeout(600)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_without_any_one_permission_it_is_not_accepted(accepted: Installation, function: str) -> None:
    not_needed = []
    for sid, action in permissions(accepted, function):
        with without(accepted, function, sid, action):
            try:
                probe(accepted, function, patience_seconds=10)
            except Unacceptable as exc:
                print(f"{function} without {action}: {exc}")
            else:
                not_needed.append(f"{sid}: {action}")
    assert not_needed == []


def permissions(installation: Installation, function: str) -> list[tuple[str, str]]:
    _, document = _policy(installation, function)
    return [(s["Sid"], action) for s in document["Statement"] if s["Effect"] == "Allow" for action in _actions(s)]


@contextmanager
def without(installation: Installation, function: str, sid: str, action: str) -> Iterator[None]:
    name, document = _policy(installation, function)
    reduced = deepcopy(document)
    (statement,) = [s for s in reduced["Statement"] if s["Sid"] == sid]
    statement["Action"] = [other for other in _actions(statement) if other != action]
    reduced["Statement"] = [s for s in reduced["Statement"] if s["Action"]]
    _put(installation, function, name, reduced)
    try:
        yield
    finally:
        _put(installation, function, name, document)


def _policy(installation: Installation, function: str) -> tuple[str, dict[str, Any]]:
    """The role's only one."""
    iam, role = installation.cloud.client("iam"), installation.role_of(function).rsplit("/", 1)[1]
    assert iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"] == []
    (name,) = iam.list_role_policies(RoleName=role)["PolicyNames"]
    return name, iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]


def _put(installation: Installation, function: str, name: str, document: dict[str, Any]) -> None:
    role = installation.role_of(function).rsplit("/", 1)[1]
    installation.cloud.client("iam").put_role_policy(
        RoleName=role, PolicyName=name, PolicyDocument=json.dumps(document)
    )
    # What it had read before, it would still know.
    installation.cloud.end_containers(installation.lambda_name(function))


def _actions(statement: dict[str, Any]) -> list[str]:
    action = statement["Action"]
    return [action] if isinstance(action, str) else list(action)
