"""Where the parts of the project lie, and what Chalice's configuration says of a stage."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from deployment.errors import DeploymentError

PROJECT = Path(__file__).parents[1]

# The Chalice name of each function, its name in the template, and what its name ends with: `postern-<stage>…`.
FUNCTIONS = {
    "api_handler": ("APIHandler", ""),
    "processor": ("Processor", "-processor"),
    "maintenance": ("Maintenance", "-maintenance"),
    "store": ("Store", "-store"),
    "reader": ("Reader", "-reader"),
    "backend": ("Backend", "-backend"),
    "reconciler": ("Reconciler", "-reconciler"),
}

# A stage is part of the names of functions, alarms and log groups.
_STAGE = re.compile(r"[a-z][a-z0-9]{0,15}")

_DEFAULT_TIMEOUT_SECONDS = 60


@dataclass(frozen=True)
class Stage:
    """One stage of `.chalice/config.json`."""

    project: Path
    name: str
    config: dict[str, Any]

    @property
    def settings(self) -> dict[str, Any]:
        found: dict[str, Any] = self.config["stages"][self.name]
        return found

    @property
    def is_native(self) -> bool:
        """Whether `make native` prepared it for `chalice deploy`."""
        functions = self.settings.get("lambda_functions", {})
        return any("QUEUE_URL" in f.get("environment_variables", {}) for f in functions.values())

    @property
    def architecture(self) -> str:
        """Of the functions: Chalice's setting, and its default."""
        found: str = self.settings.get("lambda_architecture", self.config.get("lambda_architecture", "x86_64"))
        return found

    @property
    def parameters_file(self) -> Path:
        return self.project / "infra" / "parameters" / f"{self.name}.json"

    @property
    def package_folder(self) -> Path:
        return self.project / "dist" / self.name

    @property
    def stack(self) -> str:
        """The packaged deployment's one stack."""
        return f"{self.config['app_name']}-{self.name}"

    @property
    def resources_stack(self) -> str:
        """A native deployment's stack of what Chalice does not create."""
        return f"{self.stack}-resources"

    def check_functions(self) -> None:
        """Raises DeploymentError where a new version brought a function, and the team's configuration has none yet."""
        for name in FUNCTIONS:
            if name not in self.config.get("lambda_functions", {}):
                raise DeploymentError(
                    f".chalice/config.json has no function '{name}', which this version brings: take over its entry in "
                    f"lambda_functions, with policy-{name}.json (docs/upgrade.md)."
                )

    def function_name(self, function: str) -> str:
        return f"{self.config['app_name']}-{self.name}{FUNCTIONS[function][1]}"

    def timeout_of(self, function: str) -> int:
        """Seconds; the nearest of Chalice's places for it wins."""
        for place in (
            self.settings.get("lambda_functions", {}).get(function, {}),
            self.settings,
            self.config.get("lambda_functions", {}).get(function, {}),
            self.config,
        ):
            if "lambda_timeout" in place:
                return int(place["lambda_timeout"])
        return _DEFAULT_TIMEOUT_SECONDS


def read_stage(name: str, project: Path = PROJECT) -> Stage:
    """Raises DeploymentError when the stage is not one that can be deployed."""
    file = project / ".chalice" / "config.json"
    try:
        config = json.loads(file.read_text("utf-8"))
        stages = dict(config["stages"])
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise DeploymentError(f"{file} is no Chalice configuration with stages: {exc!r}") from None
    if not name:
        raise DeploymentError(f"Which stage? Say STAGE=NAME; there are {', '.join(stages)}.")
    if name not in stages:
        near = get_close_matches(name, stages, 1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        raise DeploymentError(
            f"There is no stage '{name}' in .chalice/config.json; there are {', '.join(stages)}.{hint}"
        )
    if not _STAGE.fullmatch(name):
        raise DeploymentError(
            f"The stage '{name}' cannot be part of AWS's names: use lower-case letters and digits, 16 at most."
        )
    if stages[name].get("api_gateway_stage") != name:
        raise DeploymentError(
            f'Stage \'{name}\' needs "api_gateway_stage": "{name}" in .chalice/config.json; alarms find the API by it.'
        )
    return Stage(project, name, config)
