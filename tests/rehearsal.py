"""Follows docs/first-handler.md word by word, on a clone of this checkout's last commit: `make rehearsal`.

A command has to succeed, and to print each line that the page has, but for ids, times and numbers; `…` stands for
lines that do not matter. `make run` goes on beside the others, and is ended by Ctrl-C before it begins again. The
later version that the page takes over is made here. In the end Postern's own tests run in the team's repository, which
turn red for nothing that is the team's.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from devstack.processes import remembered_port

PROJECT = Path(__file__).parents[1]
PAGE = PROJECT / "docs" / "first-handler.md"

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")
_READY_SECONDS = 400
_NEWS = "COMMENT ON SCHEMA postern IS 'A later version has been here.';\n"


class Rehearsal:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._repository = folder / "postern"
        self._ids: dict[str, str] = {}  # of the page -> of this run
        self._run: subprocess.Popen[bytes] | None = None
        apart = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
        who = {
            f"GIT_{r}": "team@example.com" for r in ("AUTHOR_NAME", "AUTHOR_EMAIL", "COMMITTER_NAME", "COMMITTER_EMAIL")
        }
        clean = {
            k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "PG", "POSTERN", "VIRTUAL_ENV", "MAKE"))
        }
        port = str(remembered_port(folder / "port"))
        self._environ = clean | apart | who | {"POSTERN_REPOSITORY": str(self._repository), "PORT": port}

    def follow(self, page: str) -> None:
        sh(f"git clone --quiet '{PROJECT}' '{self._repository}'", self._folder, self._environ)
        for kind, name, text in blocks(page):
            if kind == "console":
                for command, expected in sessions(text):
                    self._do(command, expected)
            elif name:
                file = self._folder / "inbox" / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text, "utf-8")
                print(f"  wrote {name}")
        self._do("python -m pytest -q -n 2 tests/team tests/unit", [])
        self._do("ruff check . && ruff format --check . && mypy", [])

    def end(self) -> None:
        if self._run is not None and self._run.poll() is None:
            os.killpg(self._run.pid, signal.SIGINT)
            self._run.wait(60)
        self._run = None

    def _do(self, command: str, expected: list[str]) -> None:
        for known, actual in self._ids.items():
            command = command.replace(known, actual)
        print(f"$ {command}", flush=True)
        if command.startswith("export PATH="):
            self._environ["PATH"] = f"{self._folder / 'inbox' / '.venv' / 'bin'}:{self._environ['PATH']}"
            return
        if command.startswith("git remote add"):
            self._publish_a_later_version()
        if command == "cd inbox":
            return
        where = self._folder if command.startswith("git clone") else self._folder / "inbox"
        # Where the page shows what a command says, it may say that something has failed.
        may_fail = any(line not in ("", "…") for line in expected)
        said = self._begin_run() if command == "make run" else sh(command, where, self._environ, may_fail=may_fail)
        self._compare(expected, said)

    def _begin_run(self) -> str:
        self.end()
        log = self._folder / "run.log"
        with log.open("wb") as out:
            self._run = subprocess.Popen(
                ["make", "run"], cwd=self._folder / "inbox", env=self._environ, stdout=out, stderr=out,
                start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + _READY_SECONDS
        while "Postern is ready" not in log.read_text("utf-8"):
            if self._run.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"It does not run:\n{log.read_text('utf-8')}")
            time.sleep(0.2)
        return log.read_text("utf-8")

    def _compare(self, expected: list[str], said: str) -> None:
        actual = [(alike(line), line) for line in said.splitlines()]
        for line in expected:
            if not line.strip() or line == "…":
                continue
            same = [one for kind, one in actual if kind == alike(line)]
            if not same:
                sys.exit(f"The page says:\n{line}\nand not what was said:\n{said}")
            self._ids.update(zip(_UUID.findall(line), _UUID.findall(same[0]), strict=True))

    def _publish_a_later_version(self) -> None:
        migrations = self._repository / "chalicelib" / "postern" / "migrations"
        last = max(int(file.name[:4]) for file in migrations.glob("*.sql"))
        (migrations / f"{last + 1:04}_news.sql").write_text(_NEWS, "utf-8")
        (self._repository / "chalicelib" / "handlers" / "github_pushes.py").write_text("# Another one\n", "utf-8")
        sh("git add --all && git commit --quiet --message later", self._repository, self._environ)


def blocks(page: str) -> Iterator[tuple[str, str, str]]:
    """Language, the file's name where one stands before it, and the text."""
    for found in re.finditer(r"(?:^`([^`\n]+)`\n\n)?^```(\w+)\n(.*?)^```", page, re.MULTILINE | re.DOTALL):
        yield found[2], found[1] or "", found[3]


def sessions(text: str) -> Iterator[tuple[str, list[str]]]:
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, *expected = part.splitlines()
        yield command, expected


def alike(line: str) -> str:
    """The same for lines that say the same of other events, at other times."""
    line = re.sub(r"[0-9a-f]{12}\b", "#", _UUID.sub("#", line))
    return re.sub(r"\s+", " ", re.sub(r"\d+(\.\d+)?", "#", line)).strip()


def sh(command: str, where: Path, environ: dict[str, str], *, may_fail: bool = False) -> str:
    done = subprocess.run(
        ["bash", "-c", command], cwd=where, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=600
    )
    said = done.stdout.decode("utf-8", "replace")
    if done.returncode and not may_fail:
        sys.exit(f"{command}\nhas failed ({done.returncode}):\n{said}")
    return said


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="postern-rehearsal-") as folder:
        rehearsal = Rehearsal(Path(folder))
        try:
            rehearsal.follow(PAGE.read_text("utf-8"))
        finally:
            rehearsal.end()
    print("Everything is as the page says.")


if __name__ == "__main__":
    main()
