"""A stage's parameters: read from its file and held against the template before anything is created."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from deployment.errors import DeploymentError
from deployment.template import Template

Parameters = dict[str, str]


def read(file: Path) -> Parameters:
    """`{"Parameters": {NAME: VALUE}}`, as `aws cloudformation deploy --parameter-overrides file://…` takes it, too."""
    try:
        content = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        raise DeploymentError(
            f"{file} does not exist. Begin it with: "
            '{"Parameters": {"DatabaseSecretArn": "arn:aws:secretsmanager:…"}}; docs/deploy.md lists the parameters.'
        ) from None
    except (OSError, ValueError) as exc:
        raise DeploymentError(f"{file} is not JSON: {exc}") from None
    values = content.get("Parameters") if isinstance(content, dict) else None
    if not isinstance(values, dict):
        raise DeploymentError(f'{file} is not of the form {{"Parameters": {{"NAME": "VALUE"}}}}.')
    return {str(name): _text(file, name, value) for name, value in values.items()}


def check(parameters: Mapping[str, str], template: Template) -> None:
    """Raises DeploymentError with every misfit in a sentence of its own."""
    declared: dict[str, dict[str, Any]] = template["Parameters"]
    problems = []
    for name, value in parameters.items():
        if name not in declared:
            near = get_close_matches(name, declared, 1)
            problems.append(f"There is no parameter '{name}'." + (f" Did you mean '{near[0]}'?" if near else ""))
        elif problem := _misfit(declared[name], value):
            problems.append(f"{name} is '{value}', not {problem}.")
    problems += [
        f"{name} is needed: {about['Description']}."
        for name, about in declared.items()
        if "Default" not in about and name not in parameters
    ]
    if not problems:
        problems = _disagreements(
            {name: about.get("Default", "") for name, about in declared.items()} | dict(parameters)
        )
    if problems:
        raise DeploymentError("\n".join(["The parameters do not fit:", *(f"  {problem}" for problem in problems)]))


def _text(file: Path, name: str, value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise DeploymentError(f"{name} in {file} is neither a text nor a whole number.")
    return str(value)


def _misfit(about: Mapping[str, Any], value: str) -> str | None:
    """What the value should have been, or None when it fits."""
    if allowed := about.get("AllowedValues"):
        if value not in map(str, allowed):
            return str(about.get("ConstraintDescription") or "one of " + ", ".join(map(str, allowed)))
    elif about["Type"] == "Number":
        low, high = about.get("MinValue", 0), about.get("MaxValue")
        if not re.fullmatch(r"\d{1,12}", value) or not (low <= int(value) and (high is None or int(value) <= high)):
            return f"a whole number from {low}" + (f" to {high}" if high is not None else " up")
    elif (pattern := about.get("AllowedPattern")) and not re.fullmatch(pattern, value):
        return str(about["ConstraintDescription"])
    return None


def _disagreements(values: Mapping[str, Any]) -> list[str]:
    """What fits by itself and not together; the template's rules repeat what CloudFormation can say of it."""
    problems = []
    if bool(values.get("SubnetIds")) != bool(values.get("SecurityGroupIds")):
        problems.append("SubnetIds and SecurityGroupIds need each other.")
    if int(values.get("BatchSize", 1)) > 10 and int(values.get("BatchingWindowSeconds", 1)) < 1:
        problems.append("A BatchSize over 10 needs a BatchingWindowSeconds of 1 or more.")
    if values.get("SnapStart") == "on" and int(values.get("ProvisionedConcurrency", 0)):
        problems.append("SnapStart and ProvisionedConcurrency exclude each other; use one of them.")
    return problems
