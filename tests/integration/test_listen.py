"""`postern listen`, as a process, between a real database and a real server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from uuid import UUID

import pytest

from chalicelib.postern.contract.envelope import Accepted
from chalicelib.postern.contract.opening import from_message
from cli import listen as command
from cli.targets import Address, LocalHandlers, Sent
from devstack.aws import EmulatedAws, Resources
from devstack.processes import free_port
from devstack.settings import PROJECT
from tests.integration.world import World, work
from tests.support import eventually

Request = tuple[str, dict[str, str], bytes]


class Hook:
    """A developer's server, which can be away."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/hook?a=1"
        self.came: list[Request] = []
        self.status = 200
        self._server: ThreadingHTTPServer | None = None

    def start(self) -> None:
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                hook.came.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
                self.send_response(hook.status)
                self.send_header("Location", "/elsewhere")
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


class Listener:
    """`postern listen …` in a terminal of its own."""

    def __init__(self, folder: Path, world: World, *arguments: str, **environ: str) -> None:
        self.out, self.err = folder / "out", folder / "err"
        with self.out.open("w") as out, self.err.open("w") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "cli", "listen", *arguments],
                cwd=PROJECT,
                env={**os.environ, "DATABASE_URL": world.url, "POSTERN_STATE_DIR": str(folder), **environ},
                stdout=out,
                stderr=err,
            )
        eventually(lambda: "Ctrl-C stops it" in self.err.read_text() or self.process.poll() is not None)

    @property
    def lines(self) -> list[str]:
        return self.out.read_text().splitlines()

    def stop(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(20)


@pytest.fixture
def hook() -> Iterator[Hook]:
    made = Hook()
    made.start()
    yield made
    made.stop()


@pytest.fixture
def listen(world: World, tmp_path: Path) -> Iterator[Callable[..., Listener]]:
    started: list[Listener] = []

    def start(*arguments: str, **environ: str) -> Listener:
        started.append(Listener(tmp_path, world, *arguments, **environ))
        return started[-1]

    yield start
    for each in started:
        if each.process.poll() is None:
            each.process.kill()
            each.process.wait()


def test_each_event_from_now_on_is_posted_with_its_bytes_and_its_headers(
    world: World, hook: Hook, listen: Callable[..., Listener]
) -> None:
    world.processor().process([work()])
    listener = listen("--to", hook.url)
    headers: dict[str, str | list[str]] = {
        "content-type": "text/x; charset=\u00e9",
        "x-signature": "sha256=00",
        "authorization": "[redacted]",
        "host": "elsewhere.example",
        "x-bad": "a\r\nx-injected: 1",
        "x-forwarded-for": "203.0.113.1",
    }
    body = b"\x00\xff{ odd }\r\n"
    new = work(body=body, headers=headers, format="bytes")
    world.processor().process([new, work(source="other")])
    eventually(lambda: len(listener.lines) == 2)
    assert (listener.stop(), listener.lines[0].endswith("ms")) == (130, True)
    assert "Stopped after 2 events." in listener.err.read_text()
    assert "Traceback" not in listener.err.read_text()
    [(path, sent, sent_body)] = [request for request in hook.came if "x-signature" in request[1]]
    assert (path, sent_body) == ("/hook?a=1", body)
    assert sent.items() >= {"x-signature": "sha256=00", "x-postern-id": str(new.event.id)}.items()
    assert sent["host"] == f"127.0.0.1:{hook.port}"
    assert not sent.keys() & {"authorization", "x-bad", "x-injected", "x-forwarded-for", "accept-encoding"}


def test_one_source_can_be_chosen_and_lines_can_be_json(
    world: World, hook: Hook, listen: Callable[..., Listener]
) -> None:
    hook.status = 307
    listener = listen("--source", "shop", "--json", "--to", hook.url)
    world.processor().process([work(source="other"), wanted := work(type="\u202e")])
    [line] = eventually(lambda: [json.loads(line) for line in listener.lines])
    assert (line["id"], line["ok"], line["sent"][:3]) == (str(wanted.event.id), False, "307")
    assert len(hook.came) == 1, "no redirect is followed"


def test_without_a_target_it_prints_what_comes_and_nothing_moves_the_cursor(
    world: World, listen: Callable[..., Listener]
) -> None:
    listener = listen()
    world.processor().process([work(type="\x1b[2J\nsecond\u202e")])
    [line] = eventually(lambda: listener.lines)
    assert line.isprintable()
    assert line.endswith("processed")


def test_a_server_that_is_away_is_said_to_be_and_gets_the_event_when_it_is_back(hook: Hook) -> None:
    hook.stop()
    said: list[str] = []
    waited: list[float] = []

    def wait(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 2:
            hook.start()

    sent = Address(hook.url, said.append, wait).send(EVENT)
    assert (sent.ok, waited, len(hook.came)) == (True, [1, 2], 1)
    assert all("does not answer (ConnectionRefusedError" in sentence for sentence in said)


def test_a_server_that_stays_away_has_the_event_skipped(hook: Hook) -> None:
    hook.stop()
    waited: list[float] = []
    sent = Address(hook.url, lambda _: None, waited.append).send(EVENT)
    assert (sent.ok, sent.outcome.startswith("skipped: ConnectionRefusedError"), waited) == (False, True, [1, 2, 4])


EVENT: dict[str, Any] = {
    "id": "01a20930-264b-7374-9235-790ab6932faf",
    "source": "shop",
    "type": "order",
    "dedup_key": "k",
    "received_at": "2026-11-23T16:14:40.697967Z",
    "headers": {"content-type": "application/x-www-form-urlencoded; charset=utf-8"},
    "body": "cGF5bG9hZD17fQ==",
    "request_id": None,
    "delivery_id": None,
}


def test_events_are_put_into_the_local_queue_as_the_api_function_would(
    world: World, listen: Callable[..., Listener], aws: EmulatedAws, resources: Resources, tmp_path: Path
) -> None:
    run = {
        "url": "http://127.0.0.1:1",
        "database_url": "postgresql://nobody@127.0.0.1:1/none",
        "queue_url": resources.queue_url,
        "dead_letter_queue_url": resources.dead_letter_queue_url,
        "aws_endpoint_url": aws.endpoint_url,
        "aws_access_key_id": aws.access_key,
    }
    (tmp_path / "run.json").write_text(json.dumps(run))
    listener = listen("--handlers", AWS_ACCESS_KEY_ID="the-stage's", AWS_ENDPOINT_URL="http://127.0.0.1:1")
    form = {"content-type": "application/x-www-form-urlencoded"}
    push = work(body=b"payload=%7B%7D", source="github", type="push", headers=form, format="form", form_field="payload")
    part = work(body=b'{"n": 2}', headers=form, delivery=push.event.id)
    # What no message can carry: random, so that it cannot be compressed.
    huge = work(body=os.urandom(1_000_000), headers={"content-type": "image/png"}, format="bytes")
    world.processor().process([push, part, huge])
    eventually(lambda: len(listener.lines) == 3)
    assert sorted(line.partition(str(huge.event.id))[2] for line in listener.lines) == [
        "",
        "",
        "  skipped: larger than a message of the queue",
    ]
    answer = aws.client("sqs").receive_message(QueueUrl=resources.queue_url, MaxNumberOfMessages=10)
    got = {}
    for message in answer["Messages"]:
        event = from_message(message["Body"])
        assert isinstance(event, Accepted)
        got[event.id] = event
    assert got == {
        push.event.id: push.event,
        part.event.id: Accepted(**{**part.event.__dict__, "delivery": None}),
    }


def test_the_local_runs_own_events_are_not_sent_to_it_again(tmp_path: Path) -> None:
    run = [sys.executable, "-m", "cli", "listen", "--handlers"]
    environ = {**os.environ, "POSTERN_STATE_DIR": str(tmp_path)}
    done = subprocess.run(run, cwd=PROJECT, env=environ, capture_output=True, text=True, timeout=60)
    assert (done.returncode, "name a stage with --stage" in done.stderr) == (1, True)


def test_a_local_queue_that_is_away_skips_the_event(tmp_path: Path) -> None:
    from cli.local import LocalRun

    run = LocalRun(
        "", "", tmp_path, tmp_path, "http://127.0.0.1:1/q", "http://127.0.0.1:1/d", "http://127.0.0.1:1", "KEY"
    )
    sent = LocalHandlers(run, {}).send(EVENT)
    assert (sent.ok, "queue does not take it" in sent.outcome) == (False, True)


def test_first_comes_what_was_missed_and_then_what_comes(world: World, listen: Callable[..., Listener]) -> None:
    missed = [work(), work(), work()]
    for each in missed:
        world.processor().process([each])
    listener = listen("--from", str(missed[1].event.id))
    eventually(lambda: len(listener.lines) == 2)
    world.processor().process([new := work()])
    eventually(lambda: len(listener.lines) == 3)
    wanted = [str(each.event.id) for each in (*missed[1:], new)]
    assert [line.split()[3] for line in listener.lines] == wanted


def test_a_cursor_goes_on_where_it_was(world: World, listen: Callable[..., Listener]) -> None:
    world.processor().process([work()])
    first = listen("--cursor", "laptop")
    eventually(lambda: (first.out.parent / "cursors" / "local" / "laptop").exists())
    world.processor().process([heard := work()])
    eventually(lambda: len(first.lines) == 1)
    assert first.stop() == 130
    world.processor().process([missed := work()])
    second = listen("--cursor", "laptop", "--since", "1d")
    eventually(lambda: len(second.lines) == 1)
    assert (str(heard.event.id) in second.lines[0], str(missed.event.id) in second.lines[0]) == (False, True)
    assert "goes on where it was; to begin anew, delete" in second.err.read_text()


def test_a_cursor_waits_for_an_address_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "_AGAIN_SECONDS", 0.0)
    answers = [Sent("skipped: nobody", ok=False, arrived=False)] * 2 + [Sent("200 in 1 ms")]
    moved: list[str] = []

    class Target:
        def send(self, event: object) -> Sent:
            return answers.pop(0)

    class Kept:
        def move(self, cursor: str) -> None:
            moved.append(cursor)

    class Stage:
        def show(self, id: str) -> dict[str, Any]:
            return EVENT

    said: list[str] = []
    monkeypatch.setattr(command, "_say", said.append)
    command._hand_over(Stage(), {**EVENT, "status": "processed", "cursor": "1"}, Target(), Kept(), as_json=True)  # type: ignore[arg-type]
    assert (moved, answers, len(said)) == (["1"], [], 2)


def test_one_process_at_a_time_goes_on_with_a_cursor(
    world: World, listen: Callable[..., Listener], tmp_path: Path
) -> None:
    listen("--cursor", "laptop")
    environ = {**os.environ, "DATABASE_URL": world.url, "POSTERN_STATE_DIR": str(tmp_path)}
    run = [sys.executable, "-m", "cli", "listen", "--cursor", "laptop"]
    second = subprocess.run(run, cwd=PROJECT, env=environ, capture_output=True, text=True, timeout=60)
    assert (second.returncode, second.stdout) == (1, "")
    assert "Another `postern listen` goes on with the cursor laptop." in second.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--cursor", "../x"], "must be letters, digits"),
        (["--since", "soon"], "must be such as"),
        (["--from", "last"], "invalid UUID value"),
        (["--from", "01a20930-264b-7374-9235-790ab6932faf"], "There is no event 01a20930"),
        (["--from", "01a20930-264b-7374-9235-790ab6932faf", "--since", "1h"], "not allowed with"),
    ],
)
def test_where_it_cannot_begin_is_a_sentence(world: World, tmp_path: Path, arguments: list[str], said: str) -> None:
    environ = {**os.environ, "DATABASE_URL": world.url, "POSTERN_STATE_DIR": str(tmp_path)}
    run = [sys.executable, "-m", "cli", "listen", *arguments]
    done = subprocess.run(run, cwd=PROJECT, env=environ, capture_output=True, text=True, timeout=60)
    assert done.returncode in (1, 2)
    assert said in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("kept", "said"),
    [(f"1.700.{UUID(int=0)}", "another server's"), ("", "none that this API gave out"), ("\u00e9", "cannot be used")],
)
def test_a_kept_cursor_of_which_nothing_can_be_made_is_refused_and_not_taken_for_a_new_one(
    world: World, tmp_path: Path, kept: str, said: str
) -> None:
    (tmp_path / "cursors" / "local").mkdir(parents=True)
    (tmp_path / "cursors" / "local" / "laptop").write_text(kept)
    environ = {**os.environ, "DATABASE_URL": world.url, "POSTERN_STATE_DIR": str(tmp_path)}
    run = [sys.executable, "-m", "cli", "listen", "--cursor", "laptop"]
    done = subprocess.run(run, cwd=PROJECT, env=environ, capture_output=True, text=True, timeout=60)
    assert (done.returncode, said in done.stderr, "Traceback" in done.stderr) == (1, True, False)
