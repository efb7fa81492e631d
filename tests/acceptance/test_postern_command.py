"""What a person sees of the command line."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from tests.acceptance.conftest import Run
from tests.support import eventually


def test_send_says_what_became_of_it(run: Run) -> None:
    sent = run.postern("send", "stripe", "invoice.paid")
    assert sent.returncode == 0
    assert sent.stdout.startswith('202  {"status":"accepted","id":"')
    assert "\nprocessed: postern show " in sent.stdout


@pytest.mark.parametrize(("source", "status"), [("xero", "200"), ("twilio", "204")])
def test_send_takes_the_answer_that_the_provider_wants(run: Run, source: str, status: str) -> None:
    sent = run.postern("send", source)
    assert (sent.returncode, sent.stdout[:3]) == (0, status)
    assert "\nprocessed: postern show " in sent.stdout  # a header names the event


@pytest.mark.parametrize("source", ["discord", "sendgrid", "plaid", "sns", "square", "mailchimp", "microsoft-graph"])
def test_send_speaks_each_way_of_signing(run: Run, source: str) -> None:
    sent = run.postern("send", source)
    assert (sent.returncode, sent.stdout[:3]) == (0, "202")
    assert "\nprocessed: postern show " in sent.stdout


def test_the_same_delivery_several_times_is_one_event(run: Run) -> None:
    sent = run.postern("send", "github", "star", "--times", "3")
    ids = [json.loads(line.split("  ")[1])["id"] for line in sent.stdout.splitlines()[:3]]
    assert len(set(ids)) == 3
    # The one that came to the database first, which need not be the one that was sent first.
    [shown] = {json.loads(run.postern("show", id, "--json").stdout)["id"] for id in ids}
    assert shown in ids


def test_a_file_is_sent_and_comes_back_byte_for_byte(run: Run, tmp_path: Path) -> None:
    body = b'{ "odd":\t"spacing" ,"n":1.0 }\n'
    (tmp_path / "body.json").write_bytes(body)
    sent = run.postern("send", "hmac", "--body", str(tmp_path / "body.json"))
    id = sent.stdout.splitlines()[-1].split()[-1]
    assert run.postern("show", id, "--body").stdout.encode() == body


def test_events_can_be_filtered_and_paged(run: Run) -> None:
    kind = f"kind-{uuid.uuid4().hex[:8]}"
    for _ in range(3):
        assert run.postern("send", "token", kind).returncode == 0
    first = json.loads(run.postern("events", "--type", kind, "--limit", "2", "--json").stdout)
    rest = json.loads(run.postern("events", "--type", kind, "--before", first[-1]["id"], "--json").stdout)
    assert [len(first), len(rest)] == [2, 1]
    table = run.postern("events", "--source", "token", "--type", kind, "--status", "processed").stdout
    assert table.splitlines()[0].split() == ["RECEIVED", "SOURCE", "TYPE", "STATUS", "TRIES", "ID", "ERROR"]
    assert len(table.splitlines()) == 4


def test_what_senders_wrote_cannot_steer_the_terminal(run: Run, tmp_path: Path) -> None:
    (tmp_path / "evil.json").write_text('{"a": "\\u001b[2J", "b": "\\u202e"}')
    sent = run.postern("send", "hmac", "--body", str(tmp_path / "evil.json"))
    shown = run.postern("show", sent.stdout.split()[-1]).stdout
    assert "\x1b" not in shown
    assert "\u202e" not in shown


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["send", "nobody"], 1, "There is no source 'nobody'; there are github"),
        (["send", "github", "--body", "/no/such/file"], 1, "cannot be read"),
        (["show", str(uuid.uuid4())], 1, "Nothing is known of"),
        (["show", "seven"], 1, "Nothing is known of 'seven'"),
        (["events", "--limit", "0"], 2, "must lie between 1 and 1000"),
        (["events", "--limit", "many"], 2, "invalid"),
        ([], 2, "COMMAND"),
    ],
)
def test_a_mistake_is_a_sentence_and_an_exit_code(run: Run, arguments: list[str], code: int, sentence: str) -> None:
    done = run.postern(*arguments)
    assert (done.returncode, sentence in done.stderr) == (code, True), done.stderr
    assert "Traceback" not in done.stderr


def test_without_a_run_it_says_how_to_start_one(run: Run, tmp_path: Path) -> None:
    elsewhere = Run.__new__(Run)
    elsewhere.environ = {**run.environ, "POSTERN_STATE_DIR": str(tmp_path)}
    assert "Start it with `make run`" in elsewhere.postern("events").stderr


def test_migrating_again_changes_nothing(run: Run) -> None:
    assert run.postern("migrate").stdout == "The database is up to date.\n"


def test_help_names_every_command(run: Run) -> None:
    text = run.postern("--help").stdout
    assert all(command in text for command in ("send", "events", "show", "migrate"))


def test_status_says_on_one_screen_how_the_inbox_does(run: Run) -> None:
    run.postern("send", "github", "star")
    found = run.postern("status", "--json")
    status = json.loads(found.stdout)
    assert found.returncode == (0 if status["well"] else 1)
    [github] = [row for row in status["sources"] if row["source"] == "github"]
    assert github["hour"] >= 1
    screen = run.postern("status").stdout
    assert ["SOURCE", "LAST", "SEEN", "HOUR", "DAY", "STATE"] in [line.split() for line in screen.splitlines()]
    assert all(need["sentence"][:40] in screen for need in status["needs"] if need["weight"] == "wrong")
    assert "\nledger  balanced, checked " in screen


def test_the_ledger_is_kept_while_it_runs(run: Run) -> None:
    """Maintenance comes with the start, and each minute."""
    eventually(lambda: json.loads(run.postern("ledger", "--json").stdout)["checked_at"] is not None, timeout=30)
    assert json.loads(run.postern("ledger", "--since", "2h", "--json").stdout)["missing"] == 0
    refused = run.postern("ledger", "--since", "someday")
    assert (refused.returncode, "must be such as 90s" in refused.stderr) == (2, True)


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_is_a_script_that_knows_the_commands(run: Run, shell: str, tmp_path: Path) -> None:
    script = run.postern("completion", shell).stdout
    assert "dry-run" in script
    assert "--contains" in script


def test_a_replay_of_everything_has_to_be_asked_for(run: Run) -> None:
    refused = run.postern("replay")
    assert (refused.returncode, "say --all" in refused.stderr) == (1, True)
    # Nobody is at a terminal here, and nobody said --yes.
    asked = run.postern("replay", "--source", "no-such-source", "--all")
    assert (asked.returncode, "Nothing matches." in asked.stderr) == (1, True)


def test_an_event_that_is_not_there_cannot_be_replayed_nor_run_dry(run: Run) -> None:
    for command in ("replay", "dry-run"):
        refused = run.postern(command, str(uuid.uuid4()))
        assert (refused.returncode, "There is no event" in refused.stderr) == (1, True)


def test_filters_that_make_no_sense_are_not_understood(run: Run) -> None:
    for arguments in (["--since", "someday"], ["--contains", "{"], ["--status", "lost"], ["--attempts", "0"]):
        assert run.postern("events", *arguments).returncode == 2


def test_following_prints_what_comes(run: Run) -> None:
    command = [sys.executable, "-m", "cli", "events", "--follow", "--json", "--source", "token"]
    with subprocess.Popen(command, cwd=run.project, env=run.environ, stdout=subprocess.PIPE, text=True) as following:
        assert following.stdout is not None
        sent = run.postern("send", "token")
        id = json.loads(sent.stdout.split("  ")[1])["id"]
        seen = next(line for line in following.stdout if id in line)
        assert json.loads(seen)["status"] == "processed"
        following.send_signal(signal.SIGINT)
        assert following.wait(20) == 130
