"""Chalice's own commands: `chalice local` works on what runs here, `chalice deploy` on a stage that is prepared."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from threading import Lock
from typing import Any

from chalicelib.postern.contract.errors import SecretUnavailable

_NOT_RUNNING = "Postern's services do not run here. Start them with `make services` in another terminal."

# Chalice's dev server has a thread for each request, and botocore takes what the environment says at that moment.
_adopting = Lock()


def adopt_local_run(environ: MutableMapping[str, str]) -> None:
    """Has this process work on the local run, as the API of `make run` does, and never in an account.

    Where the environment names a stage's resources (`chalice local --stage`, after `make native`), it works on those.
    Raises SecretUnavailable where nothing runs, and says so in the terminal.
    """
    with _adopting:
        if environ.get("SOURCES_SECRET_ID"):
            return
        run = _local_run(Path(environ.get("POSTERN_STATE_DIR") or ".local"))
        for name in [name for name in environ if name.startswith("AWS_") and name != "AWS_CHALICE_CLI_MODE"]:
            del environ[name]
        environ.update(run)


def _local_run(state: Path) -> dict[str, str]:
    """The environment of the API of what runs here."""
    try:
        run: dict[str, Any] = json.loads((state / "run.json").read_text("utf-8"))
        os.kill(run["pid"], 0)  # one that was killed leaves its file behind
    except (FileNotFoundError, ProcessLookupError):
        print(_NOT_RUNNING, file=sys.stderr)
        raise SecretUnavailable(_NOT_RUNNING) from None
    environ: dict[str, str] = run["api_environ"]
    return environ


def refuse_unprepared(environ: Mapping[str, str]) -> None:
    """Ends `chalice deploy` in a sentence where `make native` has not configured the stage: its policies would still
    be templates, which AWS refuses after Chalice has made half of its resources.
    """
    import click  # with which Chalice reads its command line; no function has it

    command = click.get_current_context(silent=True)
    if command is None or command.info_name != "deploy":
        return
    if not environ.get("QUEUE_URL"):
        sys.exit(
            "This stage is not prepared for `chalice deploy`: run `make native STAGE=…` first, or deploy it as one "
            "stack with `make deploy STAGE=…` (docs/deploy.md). Nothing was made."
        )
    if new := unprepared_functions(
        json.loads(Path(".chalice/config.json").read_text("utf-8")), command.params["stage"]
    ):
        sys.exit(
            f"This stage was prepared for an earlier version, which had no function {', '.join(new)}: run `make native "
            f"STAGE={command.params['stage']}` again. Nothing was made."
        )


def unprepared_functions(config: Mapping[str, Any], stage: str) -> list[str]:
    """The functions that `make native` has not configured for this stage of Chalice's configuration."""
    prepared = config["stages"][stage].get("lambda_functions", {})
    return [name for name in config["lambda_functions"] if "iam_policy_file" not in prepared.get(name, {})]
