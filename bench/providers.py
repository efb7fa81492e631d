"""What the number of providers costs the ack path: a start that serves one source, with all of them and with that one.

Each round is a new interpreter that imports the app and makes the source `github`, with the shipped files, and with
files that hold nothing else; by turns, so that the machine's moods are in both. Prints medians and their ratio.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

PROJECT = Path(__file__).parents[1]
ROUNDS = 40

_START = """
import time
started = time.perf_counter()
import app
from chalicelib.postern.adapters.teams_room import SHIPPED_SOURCES
from chalicelib.postern.receiving.sources import Sources
imported = time.perf_counter()
Sources(SHIPPED_SOURCES)["github"]
done = time.perf_counter()
print(done - started, done - imported)
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        projects = {"all": _copy(Path(scratch) / "all"), "one": _copy(Path(scratch) / "one")}
        _leave_one(projects["one"])
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in projects}
        for _ in range(ROUNDS + 2):
            for name, project in projects.items():
                times[name].append(_start(project))
    for at, what in enumerate(("start until the source is made", "the source alone, once the app is imported")):
        medians = {name: statistics.median(t[at] for t in found[2:]) * 1000 for name, found in times.items()}
        spread = {name: statistics.quantiles([t[at] * 1000 for t in found[2:]], n=4) for name, found in times.items()}
        print(
            f"{what}: {medians['all']:.2f} ms with all providers, {medians['one']:.2f} ms with one: "
            f"{medians['all'] / medians['one']:.3f} x "
            f"(quartiles {spread['all'][0]:.2f} to {spread['all'][2]:.2f}, "
            f"{spread['one'][0]:.2f} to {spread['one'][2]:.2f})"
        )


def _copy(folder: Path) -> Path:
    shutil.copytree(PROJECT / "chalicelib", folder / "chalicelib", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(PROJECT / "app.py", folder)
    return folder


def _leave_one(project: Path) -> None:
    catalogue = project / "chalicelib" / "postern" / "receiving" / "providers" / "catalogue.toml"
    text = catalogue.read_text("utf-8")
    start = text.index("[github]\n")
    catalogue.write_text(text[start : text.index("\n[", start) + 1], "utf-8")
    (project / "chalicelib" / "sources.toml").write_text('[github]\nprovider = "github"\n', "utf-8")


def _start(project: Path) -> tuple[float, float]:
    done = subprocess.run(
        [sys.executable, "-c", _START], cwd=project, capture_output=True, text=True, check=True, timeout=60
    )
    whole, source = done.stdout.split()
    return float(whole), float(source)


if __name__ == "__main__":
    main()
