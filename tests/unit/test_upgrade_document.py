"""docs/upgrade.md, followed word for word by a team that has handlers and sources of its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
COMMANDS = re.findall(r"```sh\n(.*?)```", (PROJECT / "docs" / "upgrade.md").read_text("utf-8"), re.DOTALL)
PRINT_VERSION = "from chalicelib.postern.running.version import VERSION; print(VERSION)"
PRINT_HANDLERS = (
    "from chalicelib.postern.processing.handling import discover; print(*sorted(h.name for h in discover()))"
)
HANDLER = """from chalicelib.postern import Event, PermanentError, on


@on("shop", "order.*")
def book(event: Event, db) -> None:
    raise PermanentError("closed")
"""


@pytest.fixture(scope="module")
def postern(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Postern's repository: this version, and a newer one on top."""
    repository = tmp_path_factory.mktemp("upgrade") / "postern"
    repository.mkdir()
    for name in ("chalicelib", "cli", "deployment", "devstack", "infra", ".chalice"):
        left_out = shutil.ignore_patterns("__pycache__", "deployments", "deployed")
        shutil.copytree(PROJECT / name, repository / name, ignore=left_out)
    for file in PROJECT.iterdir():
        if file.is_file() and file.name != ".git":
            shutil.copy(file, repository)
    sh(repository, "git init --quiet --initial-branch main && git add . && git commit --quiet --message old")
    return repository


@pytest.fixture
def team(postern: Path, tmp_path: Path) -> Path:
    """A team's repository, which began with that version; after which Postern went on."""
    sh(tmp_path, f"git -C '{postern}' checkout --quiet -B main $(git -C '{postern}' rev-list --max-parents=0 main)")
    sh(tmp_path, f"git clone --quiet '{postern}' team")
    team = tmp_path / "team"
    room = team / "chalicelib"
    (room / "handlers" / "orders.py").write_text(HANDLER, "utf-8")
    (room / "handlers" / "migrations" / "0002_orders.sql").write_text("CREATE TABLE orders (id text);", "utf-8")
    (room / "handlers" / "github_pushes.py").unlink()
    (room / "sources.toml").write_text('[shop]\nprovider = "token"\n', "utf-8")
    (room / "shop_schemas.py").write_text("ORDER = 1\n", "utf-8")
    (room / "certificates").mkdir()
    (room / "certificates" / "database-ca.pem").write_text("the team's\n", "utf-8")
    sh(team, "git add --all && git commit --quiet --message ours")

    (postern / "chalicelib" / "postern" / "running" / "version.py").write_text('VERSION = "99.0.0"\n', "utf-8")
    (postern / "chalicelib" / "postern" / "contract" / "news.py").write_text("", "utf-8")
    (postern / "chalicelib" / "handlers" / "another_example.py").write_text("1 / 0\n", "utf-8")
    for name in ("sources.toml", "handlers/github_pushes.py"):
        (postern / "chalicelib" / name).write_text("# changed by Postern\n", "utf-8")
    sh(postern, "git add --all && git commit --quiet --message new")
    return team


def sh(folder: Path, script: str, **environ: str) -> str:
    roles = ("AUTHOR_NAME", "AUTHOR_EMAIL", "COMMITTER_NAME", "COMMITTER_EMAIL")
    who = {f"GIT_{role}": "somebody@example.com" for role in roles}
    # No hooks and settings of the person who runs the tests, and no repository of theirs.
    apart = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    done = subprocess.run(
        ["sh", "-c", script],
        cwd=folder,
        env=clean | who | apart | environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def room_of(team: Path) -> dict[str, str]:
    """Every file that is the team's, and what is in it."""
    room = team / "chalicelib"
    files = [file for file in room.rglob("*") if file.is_file() and "__pycache__" not in file.parts]
    names = {str(file.relative_to(room)): file.read_text("utf-8") for file in files}
    return {name: text for name, text in names.items() if not name.startswith("postern/") and name != "__init__.py"}


def check(team: Path, before: dict[str, str]) -> None:
    assert room_of(team) == before
    assert (team / "chalicelib" / "postern" / "contract" / "news.py").exists()
    assert run_python(team, PRINT_VERSION) == "99.0.0\n"
    assert run_python(team, PRINT_HANDLERS) == "orders.book\n"


def run_python(folder: Path, code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_by_git_the_teams_files_stay_and_posterns_are_new(postern: Path, team: Path) -> None:
    before = room_of(team)
    sh(team, COMMANDS[0], POSTERN_REPOSITORY=str(postern))
    sh(team, COMMANDS[1])
    check(team, before)
    assert sh(team, "git status --porcelain") == ""
    sh(team, "git merge-base --is-ancestor postern/main HEAD")


def test_by_copying_the_teams_files_stay_and_posterns_are_new(postern: Path, team: Path) -> None:
    before = room_of(team)
    sh(team, COMMANDS[2], NEW=str(postern))
    check(team, before)
