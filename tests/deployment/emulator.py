"""The emulator, where it differs from AWS in what a deployment stands on; run as a process of its own.

- A batch call of SQS needs the permission of the single one; there are no actions of the batches' names.
- CloudFormation hands a parameter on as a text, and the service reads it as the number that it asks for.
- The definition of a REST API can be imported, and put in the place of one that is there, as Chalice does it. The
  emulator can do so for CloudFormation only.
- An invocation that runs while its function is updated ends as it began, by the old code.
- A function has no environment but its own: the emulator's level of logging is not the functions'.
- Nothing but the given port is listened to.

And where it takes long: it unpacks a function and its layer for every copy of it; here for the first one alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
import threading
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ministack import app
from ministack.core import iam_actions, lambda_runtime
from ministack.services import apigateway_v1
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


_handle_apigateway = apigateway_v1.handle_request


async def handle_apigateway(method: str, path: str, headers: Any, body: bytes, query: Any) -> Any:
    place = re.fullmatch(r"/restapis(?:/([^/]+))?", path)
    if place and method in ("POST", "PUT"):
        definition = json.loads(body)
        if "paths" in definition:
            return _import_api(definition, place[1])
    if place and method == "PATCH":
        operations = json.loads(body)["patchOperations"]
        # No size means no compression.
        body = json.dumps({"patchOperations": [o for o in operations if o.get("value") != ""]}).encode()
    return await _handle_apigateway(method, path, headers, body, query)


def _import_api(definition: dict[str, Any], id: str | None) -> Any:
    if id is None:
        about = {"binaryMediaTypes": definition.get("x-amazon-apigateway-binary-media-types", [])}
        id = apigateway_v1._import_rest_api(definition, about)
    else:
        places = apigateway_v1._resources[id]
        for resource in [key for key, value in places.items() if value["path"] != "/"]:
            del places[resource]
        for path, methods in definition["paths"].items():
            apigateway_v1._import_path_item(id, path, methods)
    return apigateway_v1._v1_response(apigateway_v1._rest_api_view(apigateway_v1._rest_apis[id]), 201)


_kill_workers = lambda_runtime.kill_workers
_MAX_INVOCATION_SECONDS = 20


def retire_workers(workers: list[Any]) -> None:
    """They are out of the pool already, so none gets another invocation. Nobody waits: they may call the emulator."""

    def retire() -> None:
        deadline = time.monotonic() + _MAX_INVOCATION_SECONDS
        while any(worker.in_use for worker in workers if worker) and time.monotonic() < deadline:
            time.sleep(0.01)
        _kill_workers(workers)

    threading.Thread(target=retire, daemon=True).start()


class UnpackedOnce(zipfile.ZipFile):
    """Its second copy are links to what the first one's files are. They cannot be written to in AWS, either."""

    _unpacking = threading.Lock()

    def namelist(self) -> list[str]:
        """Which the emulator asks for to see whether a path leads out of the archive: these are our own."""
        return []

    def extractall(self, path: Any = None, members: Any = None, pwd: bytes | None = None) -> None:
        assert self.filename is not None
        digest = hashlib.sha256(Path(self.filename).read_bytes()).hexdigest()
        unpacked = Path(tempfile.gettempdir()) / f"unpacked-{digest}"
        with self._unpacking:
            if not unpacked.exists():
                super().extractall(unpacked, super().namelist())
        for each in unpacked.iterdir():
            (Path(path) / each.name).symlink_to(each)


def main() -> None:
    os.environ.pop("LOG_LEVEL", None)
    lambda_runtime.zipfile = SimpleNamespace(**vars(zipfile) | {"ZipFile": UnpackedOnce})
    lambda_runtime.kill_workers = retire_workers
    lambda_runtime.Worker.kill = lambda worker: _kill_workers([worker])
    apigateway_v1.handle_request = handle_apigateway
    iam_actions.extract_iam_action = extract_iam_action
    app._port_is_bindable = lambda host, port: False
    mapping = provisioners._RESOURCE_HANDLERS["AWS::Lambda::EventSourceMapping"]
    create, update = mapping["create"], mapping["update"]
    mapping["create"] = lambda id, properties, stack: create(id, with_numbers(properties), stack)
    mapping["update"] = lambda id, old, new, stack: update(id, old, with_numbers(new), stack)
    app.main()


if __name__ == "__main__":
    main()
