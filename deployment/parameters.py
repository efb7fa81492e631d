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
        content = json.loads(file.read_text("utf-8-sig"))
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
        values = {name: about.get("Default", "") for name, about in declared.items()} | dict(parameters)
        problems = _disagreements(values) + _retries_that_disagree(values, declared)
    if problems:
        raise DeploymentError("\n".join(["The parameters do not fit:", *(f"  {problem}" for problem in problems)]))


def as_arguments(parameters: Mapping[str, str], template: Template) -> str:
    """NAME=VALUE of every parameter, a NUL after each. Of those that are left out, too: `aws cloudformation deploy`
    gives a stack the value that it had, and not the template's.
    """
    values = {name: str(about.get("Default", "")) for name, about in template["Parameters"].items()} | dict(parameters)
    return "".join(f"{name}={value}\0" for name, value in values.items())


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
    if bool(values.get("DomainName")) != bool(values.get("CertificateArn")):
        problems.append("DomainName and CertificateArn need each other.")
    if int(values.get("BatchSize", 1)) > 10 and int(values.get("BatchingWindowSeconds", 1)) < 1:
        problems.append("A BatchSize over 10 needs a BatchingWindowSeconds of 1 or more.")
    if values.get("SnapStart") == "on" and int(values.get("ProvisionedConcurrency", 0)):
        problems.append("SnapStart and ProvisionedConcurrency exclude each other; use one of them.")
    return problems


# What an invocation keeps for its own statements (processing.limits), and the second that it begins with.
_KEPT_SECONDS = 4


def _retries_that_disagree(values: Mapping[str, Any], declared: Mapping[str, Any]) -> list[str]:
    """Numbers of the retry policy that would not do together what each of them promises."""
    if "MaxAttempts" not in values or "MaxReceiveCount" not in values:
        return []
    problems = []
    base, longest = int(values["RetryBaseSeconds"]), int(values["RetryMaxSeconds"])
    if longest < base:
        problems.append(f"RetryMaxSeconds is {longest}, less than RetryBaseSeconds, {base}.")
    attempts, uncharged, receives = (int(values[n]) for n in ("MaxAttempts", "MaxUncharged", "MaxReceiveCount"))
    # A tenth of the receives is kept for sending a message anew.
    least = attempts + uncharged + 1
    if receives - max(1, receives // 10) < least:
        problems.append(
            f"MaxReceiveCount is {receives}: nine tenths of it must be more than MaxAttempts and MaxUncharged "
            f"together, {attempts} + {uncharged}, or SQS gives events up that have attempts left."
        )
    # The template asks for a visibility timeout of six times the processor's own.
    timeout = int(declared["VisibilityTimeout"].get("MinValue", 0)) // 6
    handler = int(values["HandlerTimeoutSeconds"])
    if timeout > 1 and handler + _KEPT_SECONDS > timeout:
        problems.append(
            f"HandlerTimeoutSeconds is {handler}, and the processor's own timeout {timeout}: it needs "
            f"{_KEPT_SECONDS} s besides. Set lambda_timeout of the processor in .chalice/config.json."
        )
    return problems
