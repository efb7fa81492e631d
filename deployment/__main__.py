"""`python -m deployment`: what the Makefile's deployment targets call."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable

from deployment.deploy import deploy, roll_back
from deployment.destroy import destroy
from deployment.errors import DeploymentError
from deployment.native import migrate_stage, prepare, set_partial_responses
from deployment.package import package
from deployment.project import Stage, read_stage

_COMMANDS: dict[str, Callable[[Stage], object]] = {
    "package": lambda stage: package(stage, stage.package_folder, say),
    "deploy": lambda stage: deploy(stage, stage.package_folder, say),
    "native": lambda stage: prepare(stage, say),
    "rollback": lambda stage: roll_back(stage, say, _confirm),
    "destroy": lambda stage: destroy(stage, say, _confirm),
    "migrate": lambda stage: migrate_stage(stage, say),
    "partial-responses": lambda stage: set_partial_responses(stage, say),
}


def say(line: str) -> None:
    print(line, flush=True)


def _confirm(question: str, answer: str) -> bool:
    """Whether a person types the answer, or CONFIRM in the environment is it."""
    if confirmed := os.environ.get("CONFIRM"):
        return confirmed == answer
    if not sys.stdin.isatty():
        print(f"Nobody is here to ask: say CONFIRM={answer}.", file=sys.stderr)
        return False
    print(f"{question}: ", end="", flush=True)
    return sys.stdin.readline().strip() == answer


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m deployment", description=__doc__)
    parser.add_argument("command", choices=list(_COMMANDS))
    parser.add_argument("--stage", default="")
    options = parser.parse_args(arguments)
    try:
        _COMMANDS[options.command](read_stage(options.stage))
    except DeploymentError as exc:
        print(f"{options.command}: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{options.command}: stopped", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
