"""Mutants of Postern, each one line (`make mutants`): every one has to be caught, or what is tested here is not.

Each is made in a checkout of its own, in which the tests run that are to see it. Prints what saw it.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).parents[2]
_COPIED = ("chalicelib", ".chalice", "infra", "devstack", "cli", "deployment", "tests", "docs")
_SECONDS = 240
_POSTERN = "chalicelib/postern"


@dataclass(frozen=True)
class Mutant:
    """In `file` (below chalicelib/postern) `old`, which stands there once, becomes `new`. `seen_by`: tests."""

    name: str
    file: str
    old: str
    new: str
    seen_by: str


CRASHES = "tests/integration/test_crash_points.py"
AT_ONCE = "tests/integration/test_processing_at_once.py"

MUTANTS = [
    Mutant(
        "acknowledged without being sent", "receiving/ingest.py",
        "    _enqueue(events, inbox, delivery.trace)\n", "    pass\n", CRASHES,
    ),
    Mutant(
        "only the first event of a delivery is sent", "receiving/ingest.py",
        "        inbox.queue.send_all(messages, ", "        inbox.queue.send_all(messages[:1], ", CRASHES,
    ),
    Mutant(
        "a large body is not kept", "receiving/ingest.py",
        "        inbox.bodies.put(key, event.body)\n", "", CRASHES,
    ),
    Mutant(
        "any signature is right", "receiving/schemes/base.py",
        "            if hmac.compare_digest(wire(given), right.encode()):", "            if True:",
        "tests/unit/test_signatures.py",
    ),
    Mutant(
        "deleted before it is processed", "processing/consume.py",
        "        messages = [Message.from_record(record) for record in records]\n",
        "        messages = [Message.from_record(record) for record in records]\n"
        "        self.queue.delete([message.receipt_handle for message in messages])\n", CRASHES,
    ),
    Mutant(
        "failures are not reported", "processing/consume.py",
        '{"batchItemFailures": [{"itemIdentifier": m.id} for m in again]}', '{"batchItemFailures": []}', CRASHES,
    ),
    Mutant(
        "dead without a letter", "processing/consume.py",
        "            self.dead_letters.send(message.text, attributes=attributes, trace=message.trace)\n",
        "            pass\n", CRASHES,
    ),
    Mutant(
        "refused deliveries are not kept", "adapters/event_store.py",
        '            session.run_many("insert_rejected", rows)\n', "            pass\n", CRASHES,
    ),
    Mutant(
        "what failed waits no longer", "processing/consume.py",
        "            self.queue.hide(delays)\n", "            pass\n", "tests/integration/test_consuming.py",
    ),
    Mutant(
        "claimed outside of the transaction", "adapters/event_store.py",
        "                won |= {claim for claim in wanted if (claim.source, claim.key, claim.event_id) in first}\n",
        "                won |= {claim for claim in wanted if (claim.source, claim.key, claim.event_id) in first}\n"
        "                self._session._connection.commit()\n", CRASHES + " " + AT_ONCE,
    ),
    Mutant(
        "whoever comes later wins the key", "adapters/event_store.sql",
        "ON CONFLICT (source, key) DO NOTHING\nRETURNING source, key, event_id",
        "ON CONFLICT (source, key) DO UPDATE SET event_id = excluded.event_id\nRETURNING source, key, event_id",
        AT_ONCE,
    ),
    Mutant(
        "updated by its id alone", "adapters/event_store.sql",
        "WHERE event.id = result.id AND event.attempts = result.before", "WHERE event.id = result.id",
        "tests/integration/test_processing.py",
    ),
    Mutant(
        "a retry locks no row", "adapters/event_store.sql",
        "WHERE id = ANY (%(ids)s::uuid[])\nORDER BY id\nFOR UPDATE", "WHERE id = ANY (%(ids)s::uuid[])\nORDER BY id",
        AT_ONCE,
    ),
    Mutant(
        "a failed try keeps its effects", "adapters/postgres.py",
        "        except BaseException:\n            self._abandon(connection)\n            raise\n",
        "        except BaseException:\n            connection.commit()\n            raise\n",
        CRASHES + " tests/integration/test_processing.py",
    ),
    Mutant(
        "a commit that fails is taken for done", "adapters/postgres.py",
        "                    _clear(connection)\n                connection.commit()\n",
        "                    _clear(connection)\n                with suppress(psycopg2.Error):\n"
        "                    connection.commit()\n",
        CRASHES,
    ),
    Mutant(
        "an event is never given up", "processing/settling.py",
        "        return permanent or self.is_last(attempts)\n", "        return permanent\n",
        "tests/integration/test_processing.py tests/unit/test_settling.py",
    ),
    Mutant(
        "an outage is charged to the events", "processing/engine.py",
        'away = Outcome(Kind.RETRY, reason=f"database: {exc}")', 'away = Outcome(Kind.DEAD, reason=f"database: {exc}")',
        "tests/integration/test_model.py tests/integration/test_whose_fault.py",
    ),
    Mutant(
        "pages go on after a time alone", "operating/issues/queries.sql",
        "       OR (state <> 'resolved', last_seen, id)\n", "       OR (state <> 'resolved', last_seen, '')\n",
        "tests/integration/test_api.py",
    ),
]  # fmt: skip


def caught(mutant: Mutant, checkout: Path) -> list[str]:
    """The tests that saw it. Raises ValueError where the line is no longer there."""
    file = checkout / _POSTERN / mutant.file
    text = file.read_text("utf-8")
    if text.count(mutant.old) != 1:
        raise ValueError(f"{mutant.file} has {text.count(mutant.old)} times: {mutant.old}")
    file.write_text(text.replace(mutant.old, mutant.new), "utf-8")
    try:
        return _failed(mutant.seen_by, checkout)
    except subprocess.TimeoutExpired:
        return [f"its tests, which did not end within {_SECONDS} s"]
    finally:
        file.write_text(text, "utf-8")


def _failed(tests: str, checkout: Path) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests.split()],
        cwd=checkout, env={**os.environ, "PYTHONPATH": str(checkout)}, capture_output=True, text=True,
        timeout=_SECONDS,
    )  # fmt: skip
    failed = re.findall(r"^FAILED (\S+)", done.stdout, re.MULTILINE)
    if done.returncode not in (0, 1) or (done.returncode == 1 and not failed):
        raise ValueError(f"The tests did not run:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return failed


def main() -> int:
    parser = argparse.ArgumentParser(prog="mutants", description=__doc__)
    parser.add_argument("only", nargs="?", default="", help="the beginning of a mutant's name")
    only = parser.parse_args().only
    unseen = 0
    with tempfile.TemporaryDirectory() as scratch:
        checkout = Path(scratch)
        checkout.chmod(0o755)
        for name in _COPIED:
            ignored = shutil.ignore_patterns("__pycache__", "deployed", "deployments")
            shutil.copytree(PROJECT / name, checkout / name, ignore=ignored)
        for name in ("app.py", "pyproject.toml", "requirements.txt", "requirements-dev.txt"):
            shutil.copy(PROJECT / name, checkout)
        wanted = [mutant for mutant in MUTANTS if mutant.name.startswith(only)]
        for tests in dict.fromkeys(mutant.seen_by for mutant in wanted):
            if failed := _failed(tests, checkout):  # they would see every mutant
                print(f"Without any mutant {', '.join(failed)} fails.", file=sys.stderr)
                return 1
        print("| mutant | seen by |\n|---|---|")
        for mutant in wanted:
            seen_by = caught(mutant, checkout)
            unseen += not seen_by
            print(f"| {mutant.name} | {', '.join(seen_by) or '**nothing**'} |", flush=True)
    return 1 if unseen else 0


if __name__ == "__main__":
    sys.exit(main())
