"""Lambda: another of our functions, asked for what this one cannot do itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from chalicelib.postern.adapters import aws


@dataclass(frozen=True)
class Function:
    """Invoked by its name. `error` is raised where it does not answer, with AWS's short code, and where it ended in an
    error, with "FunctionError".
    """

    name: str
    error: Callable[[str], Exception]

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        with aws.failing_as(self.error):
            answer = aws.lambda_().invoke(FunctionName=self.name, Payload=json.dumps(dict(request)).encode())
            text = answer["Payload"].read()
        if "FunctionError" in answer:
            raise self.error("FunctionError")  # its own log says more
        found: dict[str, Any] = json.loads(text)
        return found
