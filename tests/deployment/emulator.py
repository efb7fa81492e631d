"""The emulator, where it differs from AWS in what a deployment stands on; run as a process of its own.

- A batch call of SQS needs the permission of the single one; there are no actions of the batches' names.
- CloudFormation hands a parameter on as a text, and the service reads it as the number that it asks for.
- Nothing but the given port is listened to.
"""

from __future__ import annotations

from typing import Any

from ministack import app
from ministack.core import iam_actions
from ministack.services.cloudformation import provisioners

_extract_iam_action = iam_actions.extract_iam_action


def extract_iam_action(service: str, *request: Any) -> str | None:
    action: str | None = _extract_iam_action(service, *request)
    return action.removesuffix("Batch") if action and service == "sqs" else action


def with_numbers(properties: dict[str, Any]) -> dict[str, Any]:
    scaling = properties.get("ScalingConfig")
    return (
        properties | {"ScalingConfig": {key: int(value) for key, value in scaling.items()}} if scaling else properties
    )


def main() -> None:
    iam_actions.extract_iam_action = extract_iam_action
    app._port_is_bindable = lambda host, port: False
    mapping = provisioners._RESOURCE_HANDLERS["AWS::Lambda::EventSourceMapping"]
    create, update = mapping["create"], mapping["update"]
    mapping["create"] = lambda id, properties, stack: create(id, with_numbers(properties), stack)
    mapping["update"] = lambda id, old, new, stack: update(id, old, with_numbers(new), stack)
    app.main()


if __name__ == "__main__":
    main()
