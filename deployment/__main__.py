"""`python -m deployment`: what the Makefile's deployment targets call."""

from __future__ import annotations

import argparse
import sys

from deployment.deploy import deploy
from deployment.errors import DeploymentError
from deployment.package import package
from deployment.project import PROJECT, read_stage


def say(line: str) -> None:
    print(line, flush=True)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m deployment", description=__doc__)
    parser.add_argument("command", choices=["package", "deploy"])
    parser.add_argument("--stage", default="")
    options = parser.parse_args(arguments)
    try:
        stage = read_stage(options.stage)
        folder = PROJECT / "dist" / stage.name
        if options.command == "package":
            package(stage, folder, say)
        else:
            deploy(stage, folder, say)
    except DeploymentError as exc:
        print(f"{options.command}: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{options.command}: stopped", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
