"""CONTRIBUTING.md: where things go. A provider is added as it says, and its deliveries are accepted."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parents[2]

ENTRY = """
[acme]
scheme = "hmac"
header = "X-Acme-Signature"
dedup = "header:X-Acme-Id"
type = "body:kind"
"""
GUIDE = """title = "Acme"
secret = "The webhook's secret: any text."
setup = ["Open Acme's settings, and add this address: {url}"]

[samples.order]
headers = {X-Acme-Id = "$uuid"}
body = '{"kind": "order", "id": "$hex"}'
"""
DELIVER_A_SAMPLE = """
from datetime import UTC, datetime
from pathlib import Path

from chalicelib.postern.contract.deliveries import Delivery, Headers
from chalicelib.postern.contract.opening import from_message
from chalicelib.postern.receiving.ingest import Inbox, accept
from chalicelib.postern.receiving.sources import load_sources
from cli.samples import sample

class Queue:
    def send(self, message, **_):
        event = from_message(message)
        print(event.source, event.type, event.dedup_key == sent.headers["X-Acme-Id"])

sources = load_sources(Path("chalicelib/sources.toml"))
now = datetime.now(UTC)
sent = sample(sources["acme"], "order", "a secret", now)
delivery = Delivery("acme", Headers(sent.headers.items()), sent.body, now)
accept(delivery, Inbox(sources, lambda name: ["a secret"], Queue(), None))
"""


def test_a_provider_is_four_files_and_its_deliveries_are_accepted(tmp_path: Path) -> None:
    for name in ("chalicelib", "cli", "docs"):
        shutil.copytree(PROJECT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    with (tmp_path / "chalicelib/postern/receiving/providers/catalogue.toml").open("a", encoding="utf-8") as file:
        file.write(ENTRY)
    (tmp_path / "cli/providers/acme.toml").write_text(GUIDE, "utf-8")
    with (tmp_path / "chalicelib/sources.toml").open("a", encoding="utf-8") as file:
        file.write('\n[acme]\nprovider = "acme"\n')
    python(tmp_path, "-m", "cli.catalogue", "--write", "docs/providers.md")
    assert "Acme" in (tmp_path / "docs/providers.md").read_text("utf-8")

    shown = python(tmp_path, "-m", "cli", "providers", "acme")
    assert "Open Acme's settings" in shown

    assert python(tmp_path, "-c", DELIVER_A_SAMPLE) == "acme order True\n"


def python(folder: Path, *arguments: str) -> str:
    done = subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
