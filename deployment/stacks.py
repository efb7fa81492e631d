"""CloudFormation: creates a stack or brings it up to date, and says on the way what happens.

A stack that could not be created is removed before the next try; one that could not be updated is as it was before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from deployment.errors import DeploymentError

if TYPE_CHECKING:
    from mypy_boto3_cloudformation import CloudFormationClient
    from mypy_boto3_cloudformation.type_defs import StackEventTypeDef, StackTypeDef

# Left behind by a creation that failed, or by a change set that was never carried out: CloudFormation updates neither.
_NEVER_CREATED = {"ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "CREATE_FAILED", "DELETE_FAILED", "REVIEW_IN_PROGRESS"}
# A deployment takes minutes; CloudFormation itself waits for some resources for an hour.
_WITHIN_SECONDS = 2 * 3600.0
_NOTHING_TO_DO = ("didn't contain changes", "No updates are to be performed")


class Stack:
    """One stack, by its name."""

    def __init__(self, client: CloudFormationClient, name: str, say: Callable[[str], None]) -> None:
        self._client = client
        self._name = name
        self._say = say

    def settle(self) -> str | None:
        """Its status, once nobody else is at work on it; None where there is none."""
        stack = self._settled()
        return stack and stack["StackStatus"]

    def outputs(self, *, of_any: bool = False) -> dict[str, str] | None:
        """The outputs of a stack that is there, or None; `of_any`: of what is left of one, too."""
        stack = self._describe()
        if stack is None or (stack["StackStatus"] in _NEVER_CREATED and not of_any):
            return None
        return {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", [])}

    def deploy(self, template: Mapping[str, str], parameters: Mapping[str, str]) -> dict[str, str]:
        """The outputs, once the stack is what the template says.

        `template` is `{"TemplateURL": …}` or `{"TemplateBody": …}`. Raises DeploymentError with what CloudFormation
        gave as the cause, after it has rolled back.
        """
        stack = self._settled()
        if stack is not None and stack["StackStatus"] in _NEVER_CREATED:
            self._say(f"  Removing what a deployment left behind that failed ({stack['StackStatus']}) …")
            self._remove()
            stack = None
        if stack is not None and stack["StackStatus"] == "UPDATE_ROLLBACK_FAILED":
            raise DeploymentError(
                f"Stack {self._name} could not be rolled back (UPDATE_ROLLBACK_FAILED). See its events in the "
                "CloudFormation console, then 'aws cloudformation continue-update-rollback'."
            )
        kind = "CREATE" if stack is None else "UPDATE"
        change_set = self._change_set(kind, template, parameters)
        if change_set is None:
            self._say(f"  Stack {self._name} is up to date.")
        else:
            self._carry_out(change_set)
        outputs = self.outputs()
        assert outputs is not None  # it was created, or this was not reached
        return outputs

    def _describe(self) -> StackTypeDef | None:
        try:
            return self._client.describe_stacks(StackName=self._name)["Stacks"][0]
        except ClientError as exc:
            if "does not exist" in str(exc):
                return None
            raise DeploymentError(f"CloudFormation refuses to show stack {self._name}: {_reason(exc)}") from None

    def _settled(self) -> StackTypeDef | None:
        """The stack, once nobody else is at work on it."""
        stack = self._describe()
        if stack is not None and _is_moving(stack):
            self._say(f"  Another deployment is at work ({stack['StackStatus']}); waiting for it …")
            for _ in _pauses():
                stack = self._describe()
                if stack is None or not _is_moving(stack):
                    break
        return stack

    def delete(self) -> None:
        """Returns once it is gone. What it is to keep stays. Raises DeploymentError with what stood in the way."""
        stack = self._settled()
        if stack is not None:
            self._remove()

    def _remove(self) -> None:
        stack = self._describe()
        assert stack is not None
        # By its id a stack is found when it is gone, too.
        id = stack["StackId"]
        seen = self._seen(id)
        failures: list[str] = []
        try:
            self._client.delete_stack(StackName=self._name)
        except ClientError as exc:
            raise DeploymentError(f"Stack {self._name} cannot be removed: {_reason(exc)}") from None
        for _ in _pauses():
            for event in self._news(seen, id):
                self._report(event, failures)
            stack = self._describe()
            if stack is None or stack["StackStatus"] == "DELETE_COMPLETE":
                return
            if stack["StackStatus"] == "DELETE_FAILED":
                causes = "".join(f"\n  {failure}" for failure in failures)
                raise DeploymentError(f"Stack {self._name} cannot be removed.{causes}")

    def _change_set(self, kind: Any, template: Mapping[str, str], parameters: Mapping[str, str]) -> str | None:
        """The id of a change set that is ready, or None when there is nothing to change."""
        arguments: dict[str, Any] = {
            "StackName": self._name,
            "ChangeSetName": f"postern-{int(time.time() * 1000)}",
            "ChangeSetType": kind,
            "Capabilities": ["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"],
            "Parameters": [{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()],
            **template,
        }
        try:
            id = self._client.create_change_set(**arguments)["Id"]
        except ClientError as exc:
            if any(text in str(exc) for text in _NOTHING_TO_DO):
                return None
            raise DeploymentError(f"CloudFormation refuses the template or its parameters: {_reason(exc)}") from None
        for _ in _pauses():
            made = self._client.describe_change_set(ChangeSetName=id)
            if made["Status"] == "CREATE_COMPLETE":
                return id
            if made["Status"] == "FAILED":
                reason = made.get("StatusReason", "")
                self._client.delete_change_set(ChangeSetName=id)
                if any(text in reason for text in _NOTHING_TO_DO):
                    return None
                raise DeploymentError(f"CloudFormation refuses the template or its parameters: {reason}")
        raise AssertionError("the pauses end with an exception")

    def _carry_out(self, change_set: str) -> None:
        seen = self._seen()
        failures: list[str] = []
        self._client.execute_change_set(ChangeSetName=change_set)
        self._say(f"  Stack {self._name}:")
        try:
            for _ in _pauses():
                stack = self._describe()
                for event in self._news(seen):
                    self._report(event, failures)
                # Between the call and its first event the status is still the old one.
                if stack is not None and not _is_moving(stack) and self._has_ended(change_set):
                    status = stack["StackStatus"]
                    break
        except KeyboardInterrupt:
            raise DeploymentError(
                "Stopped watching; the deployment goes on in AWS. The next one waits for it."
            ) from None
        if status not in ("CREATE_COMPLETE", "UPDATE_COMPLETE"):
            causes = "".join(f"\n  {failure}" for failure in failures)
            raise DeploymentError(f"The deployment failed and was rolled back ({status}).{causes}")

    def _has_ended(self, change_set: str) -> bool:
        """Whether the change set was carried out, one way or the other; one that failed may be gone."""
        try:
            status = self._client.describe_change_set(ChangeSetName=change_set)["ExecutionStatus"]
        except ClientError:
            return True
        return status in ("EXECUTE_COMPLETE", "EXECUTE_FAILED", "OBSOLETE")

    def _seen(self, id: str | None = None) -> set[str]:
        """The newest events: one of them at least stands behind whatever comes."""
        return {event["EventId"] for event in next(self._pages(id))}

    def _news(self, seen: set[str], id: str | None = None) -> list[StackEventTypeDef]:
        """What has happened since, the oldest first. A page has a hundred, and more may happen between two looks."""
        news: list[StackEventTypeDef] = []
        for page in self._pages(id):
            fresh = [event for event in page if event["EventId"] not in seen]
            news += fresh
            if len(fresh) < len(page):
                break
        seen |= {event["EventId"] for event in news}
        return news[::-1]

    def _pages(self, id: str | None) -> Iterator[list[StackEventTypeDef]]:
        """The newest first."""
        for page in self._client.get_paginator("describe_stack_events").paginate(StackName=id or self._name):
            yield page["StackEvents"]

    def _report(self, event: StackEventTypeDef, failures: list[str]) -> None:
        status, resource = event["ResourceStatus"], event["LogicalResourceId"]
        if status.endswith("_COMPLETE") and "CLEANUP" not in status:
            self._say(f"    {status.replace('_', ' ').lower():<26} {resource}")
        if status.endswith("_FAILED"):
            reason = event.get("ResourceStatusReason", "")
            self._say(f"    {status.replace('_', ' ').lower():<26} {resource}: {reason}")
            # What was given up because of another failure explains nothing.
            if "cancelled" not in reason:
                failures.append(f"{resource}: {reason}")


def _pauses() -> Iterator[None]:
    """Short at first, for what is soon done, and then as often as AWS likes to be asked. Raises DeploymentError when
    it has been too long for anything that ends.
    """
    seconds, until = 0.1, time.monotonic() + _WITHIN_SECONDS
    while True:
        if time.monotonic() > until:
            raise DeploymentError(
                f"CloudFormation has not ended within {_WITHIN_SECONDS / 3600:.0f} hours: see its console. What it is "
                "at goes on, and the next deployment waits for it."
            )
        time.sleep(seconds)
        yield
        seconds = min(2 * seconds, 2.0)


def _is_moving(stack: StackTypeDef) -> bool:
    return stack["StackStatus"].endswith("_IN_PROGRESS") and stack["StackStatus"] != "REVIEW_IN_PROGRESS"


def _reason(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Message", error))
