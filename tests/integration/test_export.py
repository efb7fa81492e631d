"""An event as files, as a curl command and as a fixture: what is generated is run, whatever its sender wrote."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from _pytest.fixtures import FixtureFunctionDefinition

from chalicelib.postern.contract.deliveries import new_event_id
from chalicelib.postern.operating.events import actions as events
from chalicelib.postern.operating.events.queries import Events
from chalicelib.postern.operating.operator import Operator
from cli import export
from devstack.settings import PROJECT
from tests import commands
from tests.integration.world import World, now, work

Postern = Callable[..., subprocess.CompletedProcess[str]]

BODIES = [
    b'{"a": 1}',
    b"",
    b"@/etc/hostname",
    b"'; touch pwned; echo '",
    b'$(touch pwned) `touch pwned` \\ !! " %s %n',
    b'{"pretty":\n  "printed"\n}\n\n',
    b"\x00\xff\xfe\x1b[2J\r\n\xe2\x80\xae",
    b"\t--url\tfile:///etc/hostname",
    bytes(range(256)) * 600,
    b"\"\"\"\n'''\\",
]
HEADERS: dict[str, str | list[str]] = {
    "content-type": "application/json",
    "x-quote": 'it\'s; $(touch pwned) `touch pwned` "x" \\',
    "x-twice": ["one", "two"],
    "x-empty": "",
    "x-break": "a\r\nX-Injected: yes",
    "x-break\nx-injected": "yes",
    "@/etc/hostname": "x",
    "x-caf\u00e9": "x",
    "host": "elsewhere.example",
    "content-length": "7",
    "connection": "x-hop",
    "x-hop": "1",
    "x-forwarded-for": "203.0.113.1",
    "authorization": "[redacted]",
}


@pytest.fixture
def postern(world: World, tmp_path: Path) -> Postern:
    environ = {**os.environ, "DATABASE_URL": world.url, "POSTERN_STATE_DIR": str(tmp_path / "no local run")}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return commands.postern(*arguments, environ=environ)

    return run


@pytest.fixture
def shown(world: World) -> Callable[[str], dict[str, Any]]:
    """An event as the `show` action gives it."""
    operator = Operator(events.views(Events(world.database())), {})
    return lambda id: dict(operator.perform({"action": "show", "id": id})["event"])


@pytest.fixture
def store(world: World) -> Callable[..., str]:
    def keep(body: bytes, **changes: Any) -> str:
        event = work(body=body, **changes)
        world.processor().process([event])
        return str(event.event.id)

    return keep


@pytest.fixture
def hook() -> Iterator[tuple[str, list[tuple[list[tuple[str, str]], bytes]]]]:
    came: list[tuple[list[tuple[str, str]], bytes]] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            came.append((self.headers.items(), self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(202)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/hook", came
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("body", BODIES[6:9], ids=range(3))
def test_raw_files_are_the_bytes_that_came(postern: Postern, store: Any, tmp_path: Path, body: bytes) -> None:
    id = store(body, headers=HEADERS, format="bytes")
    done = postern("export", id, "--raw", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "body").read_bytes() == body
    assert json.loads((tmp_path / "out" / "headers.json").read_bytes()) == HEADERS
    assert json.loads((tmp_path / "out" / "event.json").read_bytes())["id"] == id
    again = postern("export", id, "--raw", str(tmp_path / "out"))
    assert (again.returncode, "there already" in again.stderr) == (1, True)


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here")
@pytest.mark.parametrize("shell", ["sh", "bash"])
@pytest.mark.parametrize("body", BODIES, ids=range(len(BODIES)))
def test_the_curl_command_sends_these_bytes_and_does_nothing_else(
    shown: Any, store: Any, hook: Any, tmp_path: Path, body: bytes, shell: str
) -> None:
    url, came = hook
    command = export.curl(shown(store(body, headers=HEADERS, format="bytes")), url)
    assert all(line.isprintable() for line in command.split("\n"))
    subprocess.run([shell], input=command, cwd=tmp_path, text=True, check=True, capture_output=True, timeout=30)
    [(headers, sent)] = came
    assert sent == body
    sent_headers = [(name.lower(), value) for name, value in headers if name.lower() not in ("host", "content-length")]
    assert sorted(sent_headers) == sorted(
        [
            ("content-type", "application/json"),
            ("x-quote", HEADERS["x-quote"]),
            ("x-twice", "one"),
            ("x-twice", "two"),
            ("x-empty", ""),
        ]
    )
    assert not (tmp_path / "pwned").exists()


def test_the_curl_command_stands_alone_and_what_is_to_be_known_beside_it(postern: Postern, store: Any) -> None:
    done = postern("export", store(b"{}", headers=HEADERS), "--curl", "--to", "http://localhost:1/")
    assert (done.returncode, done.stdout.split()[0], "Note" in done.stdout) == (0, "printf", False)
    assert "Not kept, and so not sent: authorization" in done.stderr


def test_the_curl_command_of_a_signature_with_a_time_says_that_it_will_be_too_old(postern: Postern, store: Any) -> None:
    headers = {"stripe-signature": "t=1700000000,v1=00"}
    for source, expected in (("stripe", True), ("github", False)):
        done = postern("export", store(b"{}", source=source, headers=headers), "--curl", "--to", "http://localhost:1/")
        assert (done.returncode, "too old" in done.stderr) == (0, expected)


def test_of_an_event_that_is_a_part_the_whole_delivery_is_sent(postern: Postern, store: Any, tmp_path: Path) -> None:
    id = new_event_id(now())
    store(b'{"n": 1}', id=id, delivery=id, delivery_body=b'[{"n": 1}, {"n": 2}]')
    postern("export", str(id), "--raw", str(tmp_path / "out"))
    assert (tmp_path / "out" / "body").read_bytes() == b'[{"n": 1}, {"n": 2}]'
    assert "BODY = b'{\"n\": 1}'" in postern("export", str(id), "--pytest").stdout


TYPES = [
    "invoice.paid",
    "class",
    '"""; import os; os.mkdir("pwned") #',
    "\\",
    "1",
    "\u00fcber\U0001f600",
    "x" * 300,
]


@pytest.mark.parametrize(
    ("type", "body", "format"),
    [
        *((type, b'{"type": "x", "n": 1.50}', "json") for type in TYPES),
        *(("order", body, "bytes") for body in BODIES),
        ("order", b"a=1&a=2&b=%27", "form"),
        ("order", b'{"long": ' + b"9" * 5000 + b', "\\u0000": "\\ud800"}', "json"),
    ],
)
def test_the_fixture_is_the_event_that_handlers_got(
    shown: Any, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, type: str, body: bytes, format: str
) -> None:
    monkeypatch.chdir(tmp_path)
    content_types = {"json": "application/json", "bytes": "image/png", "form": "application/x-www-form-urlencoded"}
    headers = {**HEADERS, "content-type": content_types[format]}
    got: list[Any] = []
    event = work(body=body, type=type, headers=headers, format=format)
    world.processor(lambda event, db: got.append(event)).process([event])
    code = export.fixture(shown(str(event.event.id)), None)
    assert code.isascii()
    module: dict[str, Any] = {}
    exec(compile(code, "fixture", "exec"), module)  # noqa: S102
    [fixture] = [each for each in module.values() if isinstance(each, FixtureFunctionDefinition)]
    assert fixture._get_wrapped_function()() == got[0]
    assert not (tmp_path / "pwned").exists()


def test_the_fixture_is_ready_for_pytest(postern: Postern, store: Any, tmp_path: Path) -> None:
    code = postern("export", store(b'{"n": 1}', type="order.paid"), "--pytest").stdout
    (tmp_path / "test_it.py").write_text(
        code + "\n\ndef test_it(shop_order_paid):\n    assert shop_order_paid.payload == {'n': 1}\n"
    )
    run = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_it.py"]
    environ = {**os.environ, "PYTHONPATH": str(PROJECT)}
    ran = subprocess.run(run, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stdout


@pytest.mark.parametrize("body", [b"{}", b'{"n": "' + b"x" * 200 + b'"}', b"it's", b"\x00" * 90])
def test_the_fixture_is_as_linters_and_formatters_want_it(postern: Postern, store: Any, body: bytes) -> None:
    headers = {"content-type": "application/json", "user-agent": "Shop's/1.0", "accept": ["a", "b"]}
    code = postern("export", store(body, type="order.paid", headers=headers), "--pytest").stdout
    for arguments in (["check", "--isolated", "--select", "E,F,W,I,UP,B,Q,RUF"], ["format", "--isolated", "--check"]):
        command = [
            Path(sys.executable).with_name("ruff"),
            *arguments,
            "--stdin-filename",
            str(PROJECT / "fixture.py"),
            "-",
        ]
        done = subprocess.run(command, input=code, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + code


def test_an_event_that_is_not_there_is_said_not_to_be(postern: Postern) -> None:
    done = postern("export", str(new_event_id(now())), "--pytest")
    assert (done.returncode, "There is no event" in done.stderr) == (1, True)
    assert postern("export", str(new_event_id(now()))).returncode == 2
    assert postern("export", str(new_event_id(now())), "--curl", "--to", "file:///etc/passwd").returncode == 2


def test_json_is_for_pipes(postern: Postern, store: Any, tmp_path: Path) -> None:
    id = store(b"{}")
    assert "curl" in json.loads(postern("export", id, "--curl", "--to", "http://x/", "--json").stdout)["command"]
    assert json.loads(postern("export", id, "--raw", str(tmp_path / "o"), "--json").stdout)["files"][0].endswith("body")
    assert "pytest" in json.loads(postern("export", id, "--pytest", "--json").stdout)["fixture"]


def test_a_scenario_has_what_a_search_finds_that_had_to_be_begun_again() -> None:
    """A search in payloads may have no time left in the middle: it says from where it goes on."""
    first, second = "00000000-0000-7000-8000-000000000002", "00000000-0000-7000-8000-000000000001"
    asked: list[Any] = []

    class Slow:
        def perform(self, request: Mapping[str, Any]) -> dict[str, Any]:
            asked.append(request["before"])
            if request["before"] is None:
                return {"events": [{"id": first}], "searched_to": first}
            return {"events": [{"id": second}], "searched_to": None}

    assert export._matching({"contains": "{}"}, Slow()) == [first, second]
    assert asked == [None, first]
