"""`make chaos`: the whole local system under faults, alone and in pairs; then without them, until all is done; then the
verdict. A run with the same seed harms in the same order; what is sent meanwhile is a matter of time.

It works in a checkout of its own with handlers of its own, in a folder that is kept where a promise was broken.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROJECT = Path(__file__).parents[2]
_SOAK = PROJECT / "bench" / "results" / "soak.json"
_COPIED = ("chalicelib", ".chalice", "infra", "devstack", "cli", "tests/chaos")


def main() -> int:
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=150, help="how long there are faults (default 150)")
    parser.add_argument("--rate", type=float, default=50, help="events a second (default 50)")
    parser.add_argument("--seed", type=int, default=None, help="repeats a run (default: another each time)")
    parser.add_argument("--only", default="", help="faults whose names begin so")
    parser.add_argument("--soak", action="store_true", help="no faults: look what grows instead")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    seed = int(time.time()) if options.seed is None else options.seed
    if options.inside:
        from tests.chaos import run, soak

        if options.soak:
            results = Path(os.environ["POSTERN_SOAK_RESULTS"])
            return soak.soak(options.inside, options.seconds, options.rate, random.Random(seed), results)
        return run.run(options.inside, options.seconds, options.rate, random.Random(seed), options.only)
    from tests.chaos.system import APART

    print(f"Seed {seed}.", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="postern-chaos-"))
    folder.chmod(0o711)  # PostgreSQL, which does not run as root, has to get through
    checkout = _checkout(folder / "checkout")
    arguments = ["--seconds", str(options.seconds), "--rate", str(options.rate), "--only", options.only]
    arguments += ["--soak"] * options.soak
    # A disk that is mounted in there is nobody else's, and ends with it.
    apart = ["unshare", "--mount"] if _may_mount() else []
    running = subprocess.Popen(
        [*apart, sys.executable, "-m", "tests.chaos", *arguments, "--seed", str(seed), "--inside", str(folder)],
        cwd=checkout,
        env={
            **os.environ,
            "PYTHONPATH": str(checkout),
            "POSTERN_SOAK_RESULTS": str(_SOAK),
            APART: "1" if apart else "",
        },
    )
    try:
        code = running.wait()
    except KeyboardInterrupt:
        code = running.wait()  # it has heard it too, and ends what it began
        shutil.rmtree(folder)
        return 130
    if code:
        print(f"What there is to look at: {folder}; the same again: make chaos SEED={seed}", file=sys.stderr)
    else:
        shutil.rmtree(folder)
    return code


def _may_mount() -> bool:
    return (
        os.geteuid() == 0
        and shutil.which("unshare") is not None
        and subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode == 0
    )


def _look_at_once(ledger: Path) -> None:
    """The ledger waits for twenty minutes before it misses anything; a run is over by then."""
    patient, text = "_GRACE = timedelta(minutes=20)", ledger.read_text("utf-8")
    assert patient in text
    ledger.write_text(text.replace(patient, "_GRACE = timedelta(seconds=0)"), "utf-8")


def _checkout(directory: Path) -> Path:
    from tests.chaos.system import HANDLER

    for name in _COPIED:
        ignored = shutil.ignore_patterns("__pycache__", "deployed")
        shutil.copytree(PROJECT / name, directory / name, ignore=ignored)
    shutil.copy(PROJECT / "app.py", directory)
    shutil.copy(PROJECT / "tests" / "__init__.py", directory / "tests")
    _look_at_once(directory / "chalicelib" / "postern" / "operating" / "ledger" / "actions.py")
    handlers = directory / "chalicelib" / "handlers"
    for shipped in handlers.glob("*.py"):
        shipped.unlink()
    shutil.rmtree(handlers / "migrations", ignore_errors=True)
    (handlers / "__init__.py").touch()
    (handlers / "chaos.py").write_text(HANDLER, "utf-8")
    return directory


if __name__ == "__main__":
    sys.exit(main())
