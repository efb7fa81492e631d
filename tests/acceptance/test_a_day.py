"""A day's traffic through the whole system: repetitions, failures that pass and failures that do not, and the fix.

`POSTERN_EVENTS=10000` makes it ten thousand deliveries, as `make day` does; fewer in every run of the tests.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.acceptance.conftest import Run, checkout
from tests.acceptance.test_inbox import signed_as_hmac
from tests.support import eventually

DELIVERIES = int(os.environ.get("POSTERN_EVENTS", "500"))
# Of the events: what fails for good until the handler is mended, and what fails once.
PERMANENT, TRANSIENT = 0.02, 0.05
REPEATED = 0.10

HANDLER = """
from chalicelib.postern import PermanentError, on

MENDED = False


@on("hmac", "sale")
def book(event, db):
    db.execute(
        "INSERT INTO public.booked (n, times) VALUES (%s, 1) ON CONFLICT (n) DO UPDATE SET times = booked.times + 1",
        (event.payload["n"],),
    )
    if event.payload["kind"] == "permanent" and not MENDED:
        raise PermanentError("no such account")
    if event.payload["kind"] == "transient" and event.attempt == 1:
        raise ValueError("come again")
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "project").mkdir()
    project = checkout(tmp_path / "project", sales=HANDLER)
    migration = "CREATE TABLE public.booked (n integer PRIMARY KEY, times integer NOT NULL);\n"
    (project / "chalicelib" / "handlers" / "migrations" / "0002_booked.sql").write_text(migration)
    return project


def bodies(events: int) -> Iterator[bytes]:
    kinds = ["permanent"] * round(events * PERMANENT) + ["transient"] * round(events * TRANSIENT)
    for n in range(events):
        kind = kinds[n] if n < len(kinds) else "plain"
        yield json.dumps({"type": "sale", "n": n, "kind": kind}).encode()


def ledger(run: Run, *columns: str) -> dict[str, int]:
    """Of the one source; maintenance keeps it once a minute."""
    sources = json.loads(run.postern("ledger", "--json").stdout)["sources"]
    return {name: sources[0][name] for name in columns} if sources else {}


def test_a_days_events_have_their_effects_exactly_once_and_every_dead_letter_is_redriven(
    tmp_path: Path, project: Path
) -> None:
    repeated = round(DELIVERIES * REPEATED)
    events = DELIVERIES - repeated
    permanent, transient = round(events * PERMANENT), round(events * TRANSIENT)
    deliveries = list(bodies(events))
    chance = random.Random(5)
    deliveries += chance.choices(deliveries, k=repeated)
    chance.shuffle(deliveries)

    run = Run(tmp_path / "state", project, RETRY_BASE_SECONDS="1", RETRY_MAX_SECONDS="2")
    try:
        run.wait_until_ready()
        with ThreadPoolExecutor(16) as senders:
            answers = list(senders.map(lambda b: run.post("/webhooks/hmac", b, signed_as_hmac(run, b))[0], deliveries))
        assert answers == [202] * DELIVERIES

        def counted() -> tuple[dict[str, int], int]:
            by_status = dict(run.query("SELECT status, count(*) FROM postern.events GROUP BY status"))
            return by_status, run.query("SELECT count(*) FROM postern.duplicates")[0][0]

        plan = ({"processed": events - permanent, "dead": permanent}, repeated)
        eventually(lambda: counted() == plan, timeout=DELIVERIES / 50 + 30)
        assert run.query("SELECT count(*), max(times) FROM booked") == [(events - permanent, 1)]
        tries = dict(run.query("SELECT outcome, count(*) FROM postern.tries GROUP BY outcome"))
        assert tries == {"processed": events - permanent, "failed": transient, "dead": permanent}
        issues = json.loads(run.postern("issues", "--json").stdout)
        assert {issue["message"]: issue["count"] for issue in issues} == {
            "no such account": permanent,
            "come again": transient,
        }
        eventually(lambda: json.loads(run.postern("dead", "--json").stdout)["waiting"] == permanent)
        balanced = {"accepted": DELIVERIES, "stored": events, "duplicates": repeated, "missing": 0, "dead": permanent}
        eventually(lambda: ledger(run, *balanced) == balanced, timeout=150, every=1)
    finally:
        run.stop()

    (project / "chalicelib" / "handlers" / "sales.py").write_text(HANDLER.replace("MENDED = False", "MENDED = True"))
    run = Run(tmp_path / "state", project)
    try:
        run.wait_until_ready()
        redriven = run.postern("dead", "redrive", "--yes", "--rate", "1000")
        assert redriven.returncode == 0, redriven.stderr
        eventually(lambda: counted() == ({"processed": events}, repeated), timeout=60)
        assert run.query("SELECT count(*), max(times) FROM booked") == [(events, 1)]
        assert json.loads(run.postern("dead", "--json").stdout)["waiting"] == 0
    finally:
        run.stop()
