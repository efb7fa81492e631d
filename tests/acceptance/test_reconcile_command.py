"""`postern reconcile` as a person runs it: what GitHub sent while nobody was there."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from tests import commands
from tests.acceptance.conftest import Run
from tests.providers_stand_in import HOOK, Providers
from tests.support import eventually


class Terminal:
    def __init__(self, run: Run, providers: Providers, folder: Path) -> None:
        self.run, self.providers = run, providers
        sources = folder / "sources.toml"
        sources.write_text(f'[github]\nprovider = "github"\nreconcile = {{ url = "{providers.url}{HOOK}" }}\n')
        self.environ = {**run.environ, "SOURCES_FILE": str(sources)}

    def reconcile(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return commands.postern("reconcile", *arguments, environ=self.environ)

    def sent(self) -> str:
        guid = str(uuid4())
        body = json.dumps({"n": guid}, separators=(",", ":")).encode()
        at = datetime.now(UTC) - timedelta(hours=1)
        self.providers.deliver(guid, body, at, self.run.secret("github"), event="star")
        return guid

    def arrives(self, guid: str) -> None:
        request = next(each["request"] for each in self.providers.deliveries if each["guid"] == guid)
        assert self.run.post("/webhooks/github", request["payload"].encode(), request["headers"])[0] == 202
        eventually(lambda: self.events(guid))

    def events(self, guid: str) -> list[tuple[str, str | None]]:
        return self.run.query("SELECT status, origin FROM postern.events WHERE dedup_key = %s", guid)  # type: ignore[return-value]


@pytest.fixture
def terminal(run: Run, tmp_path: Path) -> Iterator[Terminal]:
    secrets = run.state / "secrets.json"
    before = secrets.read_text("utf-8")
    with Providers().running() as providers:
        secrets.write_text(json.dumps({**json.loads(before), "github.api_token": providers.token}), "utf-8")
        yield Terminal(run, providers, tmp_path)
    secrets.write_text(before, "utf-8")


def test_what_never_arrived_is_shown_then_fetched_and_then_there_is_nothing(terminal: Terminal) -> None:
    here, lost = terminal.sent(), terminal.sent()
    terminal.arrives(here)
    plan = terminal.reconcile("github", "--since", "2h", "--plan")
    assert plan.returncode == 1  # there are gaps
    assert "the provider lists 2, of which 1 never arrived, 0 arrived and were refused, 0 arrived and are dead." in (
        plan.stdout
    )
    assert lost in plan.stdout
    assert here not in plan.stdout
    assert "`postern reconcile github` fetches what never arrived or was refused." in plan.stdout
    done = terminal.reconcile("github", "--since", "2h")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "1 fetched and accepted.")
    assert eventually(lambda: terminal.events(lost)) == [("processed", "reconciled")]
    again = terminal.reconcile("github", "--since", "2h")
    assert (again.returncode, "lists 2, of which none is missing.\n" in again.stdout) == (0, True)
    id = terminal.run.query("SELECT id FROM postern.events WHERE dedup_key = %s", lost)[0][0]
    assert "from its provider's history" in terminal.run.postern("show", str(id)).stdout
    listed = json.loads(terminal.reconcile("--json").stdout)
    assert [(each["source"], each["missing"], each["fetched"]) for each in listed[:3]] == [
        ("github", 0, 0),
        ("github", 1, 1),
        ("github", 1, 0),
    ]
    gaps = json.loads(terminal.reconcile("--gaps", listed[1]["id"], "--json").stdout)
    assert [(gap["key"], gap["state"]) for gap in gaps] == [(lost, "fetched")]


def test_what_cannot_be_done_is_a_sentence(terminal: Terminal) -> None:
    long = terminal.reconcile("github", "--since", "9d")
    assert (long.returncode, long.stderr) == (
        1,
        "postern: github's provider remembers 3 days, and no more: ask for no longer.\n",
    )
    terminal.providers.token = "ghp_another"
    refused = terminal.reconcile("github")
    assert (refused.returncode, "postern: The API token is refused (401).\n" in refused.stderr) == (1, True)
    assert "canary" not in refused.stdout + refused.stderr
    assert terminal.reconcile("nobody").returncode == 1
    nothing = terminal.reconcile("github", "--cancel")
    assert (nothing.returncode, nothing.stderr) == (1, "None of github is under way.\n")


def test_one_that_was_interrupted_goes_on_with_the_same_command(terminal: Terminal) -> None:
    lost = [terminal.sent() for _ in range(130)]
    terminal.providers.instead = [(429, {"Retry-After": "600"})]
    with pytest.raises(TimeoutError):
        commands.postern("reconcile", "github", environ=terminal.environ, timeout=3)
    [running] = [each for each in json.loads(terminal.reconcile("--json").stdout) if each["state"] == "listing"]
    done = json.loads(terminal.reconcile("github", "--json").stdout)
    assert (done["id"], done["fetched"]) == (running["id"], 130)
    eventually(lambda: all(terminal.events(guid) for guid in lost))
