"""What the command works on: the local run, as `make run` leaves it in `.local/run.json` while it runs, or a deployed
stage that the environment names.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from chalicelib.postern.adapters.teams_room import SHIPPED_SOURCES
from chalicelib.postern.contract.errors import PosternError, SecretUnavailable, UnknownAction
from chalicelib.postern.operating.operator import VIEWS
from chalicelib.postern.receiving.sources import SIGNING_KEY
from chalicelib.postern.running import wiring

if TYPE_CHECKING:
    from deployment.session import Session

_STATE = Path(__file__).parent.parent / ".local"


class NotRunning(Exception):
    """There is no local run to talk to."""


def state_directory() -> Path:
    return Path(os.environ.get("POSTERN_STATE_DIR") or _STATE)


@dataclass(frozen=True)
class LocalRun:
    url: str
    database_url: str
    sources_file: Path
    secrets_file: Path
    queue_url: str
    dead_letter_queue_url: str
    aws_endpoint_url: str
    aws_access_key_id: str
    tokens_secret_id: str = ""
    bodies_bucket: str = ""
    logs: Path = _STATE / "logs"

    @classmethod
    def find(cls) -> LocalRun:
        """Raises NotRunning with a sentence."""
        state = state_directory()
        try:
            run: dict[str, Any] = json.loads((state / "run.json").read_text("utf-8"))
        except FileNotFoundError:
            raise NotRunning("Postern does not run here. Start it with `make run` in another terminal.") from None
        return cls(
            url=run["url"],
            database_url=run["database_url"],
            sources_file=Path(run.get("sources_file") or SHIPPED_SOURCES),
            secrets_file=Path(run.get("secrets_file") or state / "secrets.json"),
            queue_url=run["queue_url"],
            dead_letter_queue_url=run["dead_letter_queue_url"],
            aws_endpoint_url=run["aws_endpoint_url"],
            aws_access_key_id=run.get("aws_access_key_id", ""),
            tokens_secret_id=run.get("tokens_secret_id", ""),
            bodies_bucket=run.get("api_environ", {}).get("BODIES_BUCKET", ""),
            logs=state / "logs",
        )

    def environ(self) -> dict[str, str]:
        """What leads to its queue, as a function of it is told."""
        return {
            "QUEUE_URL": self.queue_url,
            "DEAD_LETTER_QUEUE_URL": self.dead_letter_queue_url,
            "AWS_ENDPOINT_URL": self.aws_endpoint_url,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": self.aws_access_key_id,
            "AWS_SECRET_ACCESS_KEY": "test",
        }

    def secrets(self) -> dict[str, list[str]]:
        """The secrets of each source, by its name."""
        try:
            found = json.loads(self.secrets_file.read_text("utf-8-sig"))
        except FileNotFoundError:
            found = {}
        listed = {name: known if isinstance(known, list) else [known] for name, known in found.items()}
        # A key that is a JSON object itself may stand there as one.
        return {
            name: [json.dumps(each) if isinstance(each, dict) else each for each in known]
            for name, known in listed.items()
        }

    def secrets_of(self) -> Callable[[str], list[str]]:
        """As an inbox asks for them: raises SecretUnavailable where there are none."""
        known = self.secrets()

        def of(name: str) -> list[str]:
            if not known.get(name):
                raise SecretUnavailable("secret_missing")
            return known[name]

        return of

    def secret(self, source: str) -> str:
        """What the source's sender signs with: its first secret, mostly; empty when it has none."""
        known = self.secrets()
        return (known.get(source + SIGNING_KEY) or known.get(source) or [""])[0]


class Operator(Protocol):
    def perform(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """As operating.operator's."""


@dataclass(frozen=True)
class StoreFunction:
    """A deployed stage's database, by the functions that are the only way to it: what changes nothing by `reader`, if
    that is known, so that who may look and no more needs no right to the other.
    """

    name: str
    reader: str | None = None

    def perform(self, request: Mapping[str, Any]) -> dict[str, Any]:
        from deployment.errors import DeploymentError, Refused
        from deployment.store import ask

        function = self.reader if self.reader and request["action"] in VIEWS else self.name
        try:
            return ask(self._session, function, dict(request))
        except Refused as exc:
            raise UnknownAction(str(exc)) from None
        except DeploymentError as exc:
            raise PosternError(str(exc)) from None

    @cached_property
    def _session(self) -> Session:
        from deployment.session import Session

        return Session()


@dataclass(frozen=True)
class WholeBodies:
    """An operator that fetches bodies which are too large for one answer, in parts."""

    on: Operator

    def perform(self, request: Mapping[str, Any]) -> dict[str, Any]:
        result = self.on.perform(request)
        of = {"show": "event", "show_delivery": "delivery"}.get(request["action"])
        found = result[of] if of else None
        if of and found and found["body"] is None:
            found["body"] = base64.b64encode(self._body(found["id"], of, found["bytes"])).decode()
        return result

    def _body(self, id: str, of: str, size: int) -> bytes:
        body = b""
        while len(body) < size:
            asked = {"action": "body", "id": id, "of": of, "offset": len(body)}
            part = base64.b64decode(self.on.perform(asked)["part"])
            if not part:
                raise PosternError(f"{id} has been dropped meanwhile.")
            body += part
        return body


def operator(run: LocalRun | None = None) -> Operator:
    """On the database of the stage, or the one, that the environment names, or else on the local run's."""
    if name := os.environ.get("STORE_FUNCTION"):
        return WholeBodies(StoreFunction(name, os.environ.get("READER_FUNCTION")))
    named = os.environ.get("DATABASE_URL") or os.environ.get("DATABASE_SECRET_ID")
    if not named:
        _enter(run or LocalRun.find())
    elif "QUEUE_URL" not in os.environ:
        # `make run` on a server of one's own, whose address is set here as well.
        with suppress(NotRunning):
            here = run or LocalRun.find()
            if here.database_url == named:
                _enter(here)
    return WholeBodies(wiring.operator())


def running_here() -> LocalRun | None:
    """The local run, where that is what `operator` works on."""
    if "STORE_FUNCTION" in os.environ:
        return None
    with suppress(NotRunning):
        run = LocalRun.find()
        return run if os.environ.get("DATABASE_URL") in (None, run.database_url) else None
    return None


def _enter(run: LocalRun) -> None:
    # Its queues, too, and nobody's real account with them.
    os.environ |= {"DATABASE_URL": run.database_url, **run.environ()}
    os.environ.setdefault("SOURCES_FILE", str(run.sources_file))
