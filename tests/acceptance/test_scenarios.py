"""Real deliveries with the time between them: exported as one file, played again, and in a test of handlers."""

from __future__ import annotations

import base64
import hmac
import json
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from chalicelib.postern.contract.errors import PosternError
from cli import scenarios
from tests.acceptance.conftest import Run
from tests.support import eventually


def sent(run: Run, kind: str, n: int, source: str = "hmac") -> str:
    body = json.dumps({"type": kind, "n": n}).encode()
    secret = run.secret(source).encode()
    headers = {"X-Signature": hmac.digest(secret, body, "sha256").hex(), "Content-Type": "application/json"}
    status, answer = run.post(f"/webhooks/{source}", body, headers | {"X-Shop": "acme"})
    assert status == 202, answer
    id: str = answer["id"]
    eventually(lambda: run.query("SELECT 1 FROM postern.events WHERE id = %s", id))
    return id


@pytest.fixture
def kind() -> str:
    return f"scene-{uuid.uuid4().hex[:8]}"


def test_what_happened_is_exported_and_happens_again_signed_anew(run: Run, tmp_path: Path, kind: str) -> None:
    first = sent(run, kind, 1)
    time.sleep(0.3)
    second = sent(run, kind, 2)
    file = tmp_path / "scene.json"
    exported = run.postern("export", "--scenario", str(file), "--contains", json.dumps({"type": kind}))
    assert exported.returncode == 0, exported.stderr
    assert "2 deliveries of 2 events" in exported.stdout
    scenes = scenarios.read(file)
    assert [json.loads(scene.body)["n"] for scene in scenes] == [1, 2]
    assert scenes[0].after == 0
    assert scenes[1].after >= 0.3
    assert dict(scenes[0].headers)["x-shop"] == "acme"
    by_name = tmp_path / "by name.json"
    assert run.postern("export", second, first, "--scenario", str(by_name)).returncode == 0
    assert scenarios.read(by_name) == scenes
    played = run.postern("play", str(file), "--speed", "max")
    assert (played.returncode, played.stdout.splitlines()[-1]) == (0, "2 of 2 accepted.")
    # The bytes are all that tells them apart, and they came before.
    eventually(lambda: run.query("SELECT 1 FROM postern.duplicates WHERE event_id = %s", first))


def test_an_id_that_stands_in_a_header_is_a_new_one(run: Run, tmp_path: Path) -> None:
    assert run.postern("send", "github", "star").returncode == 0
    [(before,)] = run.query("SELECT id::text FROM postern.events WHERE source = 'github' ORDER BY id DESC LIMIT 1")
    file = tmp_path / "star.json"
    assert run.postern("export", before, "--scenario", str(file)).returncode == 0
    played = json.loads(run.postern("play", str(file), "--json").stdout)
    assert (played["status"], played["source"], played["type"]) == (202, "github", "star")
    eventually(lambda: run.query("SELECT 1 FROM postern.events WHERE id = %s AND status = 'processed'", played["id"]))


def test_the_time_between_them_is_kept(run: Run, tmp_path: Path) -> None:
    body = base64.b64encode(b"{}").decode()
    scene = {"source": "hmac", "type": "x", "headers": [], "body_base64": body}
    file = tmp_path / "slow.json"
    file.write_text(json.dumps({"postern_scenario": 1, "deliveries": [{"after": 0, **scene}, {"after": 10, **scene}]}))
    began = time.monotonic()
    assert run.postern("play", str(file), "--speed", "20x").returncode == 0
    assert time.monotonic() - began >= 0.5


def test_what_cannot_be_exported_or_played_is_a_sentence(run: Run, tmp_path: Path, kind: str) -> None:
    def said(*arguments: str) -> str:
        done = run.postern(*arguments)
        assert done.returncode == 1
        return done.stderr

    file = tmp_path / "scene.json"
    assert "Say which events" in said("export", "--scenario", str(file))
    assert "Nothing matches." in said("export", "--scenario", str(file), "--type", kind)
    assert "There is no event" in said("export", str(uuid.uuid4()), "--scenario", str(file))
    assert "Name one; several make a --scenario FILE." in said("export", str(uuid.uuid4()), str(uuid.uuid4()), "--curl")
    assert not file.exists()
    assert "cannot be read" in said("play", str(file))
    file.write_text("{")
    assert "is no JSON." in said("play", str(file))
    assert "is there already" in said("export", "--scenario", str(file), "--source", "hmac", "--since", "1d")
    file.write_text("{}")
    assert "is no scenario of this version" in said("play", str(file))
    for deliveries in ([{}], [{"after": -1, "source": "hmac", "type": "x", "headers": [], "body": ""}], 3):
        file.write_text(json.dumps({"postern_scenario": 1, "deliveries": deliveries}))
        assert "is no whole scenario" in said("play", str(file))
    scene: dict[str, Any] = {"after": 0, "source": "hmca", "type": "x", "headers": [], "body": "{}"}
    file.write_text(json.dumps({"postern_scenario": 1, "deliveries": [scene]}))
    assert "Did you mean 'hmac'?" in said("play", str(file))


def test_a_body_that_is_no_text_comes_back_byte_for_byte(tmp_path: Path) -> None:
    scenes = [scenarios.Scene(0.0, "hmac", "x", [("a", "é")], body) for body in (b"\xff\x00", b"", "é\n".encode())]
    scenarios.write(tmp_path / "s.json", scenes)
    assert scenarios.read(tmp_path / "s.json") == scenes
    with pytest.raises(PosternError, match="is there already"):
        scenarios.write(tmp_path / "s.json", scenes)
