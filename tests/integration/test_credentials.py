"""Passwords that come with a delivery are in no row, message, line, screen or export: planted, and searched for."""

from __future__ import annotations

import hmac
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest

from chalicelib.postern.adapters.event_store import EventStore
from chalicelib.postern.contract.deliveries import Delivery, Headers
from chalicelib.postern.contract.envelope import Rejected
from chalicelib.postern.contract.errors import InvalidSignature
from chalicelib.postern.contract.opening import from_message
from chalicelib.postern.receiving.ingest import accept
from devstack.settings import PROJECT
from tests.integration.pipe import SECRET, Pipe
from tests.integration.world import World, now
from tests.unit.test_deliveries import CREDENTIALS

SOURCES = """
[shop]
provider = "hmac"
quarantine = true
hidden_headers = ["X-Our-Own"]

[door]
provider = "token"
quarantine = true
"""
CANARY = "canary-4711"
# A source's own secret, in places that have no such name.
ASTRAY = {
    "Referer": f"https://x/?k={CANARY}",
    "X-Original-URI": f"/webhooks/door?t={quote(CANARY)}",
    "X-Custom": CANARY,
}


@pytest.fixture
def pipe(world: World, tmp_path: Path) -> Pipe:
    made = Pipe.with_sources(world, tmp_path, SOURCES)
    made.inbox = replace(
        made.inbox,
        secrets_of=lambda source: [CANARY if source == "door" else SECRET],
        may_keep=lambda source, verified: True,
    )
    return made


def everything(world: World) -> str:
    """What the database holds, and what is shown of it."""
    tables = ("events", "rejected", "duplicates")
    rows = [row for table in tables for row in world.query(f"SELECT row_to_json(t)::text FROM postern.{table} AS t")]
    found = "".join(row for (row,) in rows)
    environ = {**os.environ, "DATABASE_URL": world.url}
    for (id,) in world.query("SELECT id::text FROM postern.events"):
        for arguments in (["show", id], ["show", id, "--json"], ["export", id, "--curl"], ["export", id, "--fixture"]):
            done = subprocess.run(
                [sys.executable, "-m", "cli", *arguments],
                cwd=PROJECT, env=environ, capture_output=True, text=True, timeout=60, check=False,
            )  # fmt: skip
            found += done.stdout + done.stderr
    return found


def test_passwords_by_the_names_of_their_headers_are_nowhere(pipe: Pipe, world: World) -> None:
    body = b'{"type": "x"}'
    signed = {"X_Signature": hmac.digest(SECRET.encode(), body, "sha256").hex()}
    planted = {name: f"canary-{n}" for n, name in enumerate([*CREDENTIALS, "x-our-own"])}
    for _ in range(2):
        pipe.deliver("shop", body, **signed, **planted)
    assert "canary" not in "".join(pipe.messages)
    pipe.process()
    forged = Delivery("shop", Headers([*planted.items(), ("X-Signature", "00")]), body, now())
    with pytest.raises(InvalidSignature):
        accept(forged, pipe.inbox)
    _keep(pipe, world)
    assert "canary" not in everything(world)


def test_a_sources_secret_is_nowhere_wherever_it_came(pipe: Pipe, world: World) -> None:
    body = b'{"type": "x"}'
    headers = {name.replace("-", "_"): value for name, value in ASTRAY.items()}
    pipe.deliver("door", body, X_Webhook_Token=CANARY, **headers)
    assert "canary" not in "".join(pipe.messages)
    pipe.process()
    url = f"https://x/webhooks/door?key={CANARY}&a=b"
    forged = Delivery(
        "door", Headers([*ASTRAY.items(), ("X-Webhook-Token", "wrong")]), body, now(), url=url, query=[("key", CANARY)]
    )
    with pytest.raises(InvalidSignature):
        accept(forged, pipe.inbox)
    _keep(pipe, world)
    assert "canary" not in everything(world)


def _keep(pipe: Pipe, world: World) -> None:
    assert "canary" not in "".join(pipe.messages)
    kept = [found for message in pipe.messages if isinstance(found := from_message(message), Rejected)]
    assert len(kept) == 1
    EventStore(world.database()).keep(kept)
