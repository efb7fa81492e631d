"""docs/upgrade.md, followed word for word by a team that has handlers and sources of its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
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


OLD_HANDLER = HANDLER.replace(
    "from chalicelib.postern import Event, PermanentError, on",
    "from chalicelib.deliveries import Event\nfrom chalicelib.handling import PermanentError, on",
)
OLD_MODULES = {
    "__init__.py": "",
    "deliveries.py": "class Event:\n    pass\n",
    "handling.py": """REGISTERED = []


def on(source, type):
    return lambda function: REGISTERED.append(function) or function


class PermanentError(Exception):
    pass
""",
    "sql/0001_inbox.sql": "SELECT 1;\n",
}
TEAMS_OTHER_FILES = {
    "infra/parameters/prod.json": '{"DatabaseHost": "ours"}',
    "tests/team/test_orders.py": "def test_orders():\n    pass\n",
}
Take = Callable[[Path, Path], None]


@pytest.fixture(scope="module")
def postern(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Postern's repository: 0.1.0, whose modules lay beside the team's, this version, and a newer one on top."""
    repository = tmp_path_factory.mktemp("upgrade") / "postern"
    room = repository / "chalicelib"
    (room / "sql").mkdir(parents=True)
    for name, text in OLD_MODULES.items():
        (room / name).write_text(text, "utf-8")
    shutil.copytree(PROJECT / "infra", repository / "infra", ignore=shutil.ignore_patterns("parameters"))
    sh(repository, "git init --quiet --initial-branch main && git add . && git commit --quiet --message 0.1.0")
    for name in OLD_MODULES:
        (room / name).unlink()
    for name in ("chalicelib", "cli", "deployment", "devstack", "infra", "bench", "docs", "tests", ".chalice"):
        left_out = shutil.ignore_patterns("__pycache__", "deployments", "deployed")
        shutil.copytree(PROJECT / name, repository / name, ignore=left_out, dirs_exist_ok=True)
    for file in PROJECT.iterdir():
        if file.is_file() and file.name != ".git":
            shutil.copy(file, repository)
    # Here a team may have put its own.
    for of_a_team in ("tests/team", "infra/parameters", "chalicelib/handlers", "requirements-handlers.in"):
        sh(repository, f"rm -rf {of_a_team}")
    (room / "handlers").mkdir()
    (room / "handlers" / "github_pushes.py").write_text("# The example\n", "utf-8")
    sh(repository, "git add --all && git commit --quiet --message this && git tag this")
    for name in ("postern/contract/news.py", "sources.toml", "handlers/github_pushes.py"):
        (room / name).write_text("# changed by Postern\n", "utf-8")
    (room / "postern" / "running" / "version.py").write_text('VERSION = "99.0.0"\n', "utf-8")
    (room / "handlers" / "another_example.py").write_text("1 / 0\n", "utf-8")
    (repository / ".chalice" / "policy-news.json").write_text("{}", "utf-8")
    (repository / "infra" / "news.yaml").write_text("", "utf-8")
    sh(repository, "git add --all && git commit --quiet --message new")
    return repository


@pytest.fixture
def team(postern: Path, tmp_path: Path) -> Path:
    """A team's repository, which began with this version."""
    return team_that_began_with("this", postern, tmp_path, HANDLER)


@pytest.fixture
def team_from_0_1_0(postern: Path, tmp_path: Path) -> Path:
    return team_that_began_with("$(git rev-list --max-parents=0 HEAD)", postern, tmp_path, OLD_HANDLER)


def team_that_began_with(version: str, postern: Path, folder: Path, handler: str) -> Path:
    sh(folder, f"git clone --quiet '{postern}' team && cd team && git reset --quiet --hard {version}")
    team = folder / "team"
    room = team / "chalicelib"
    (room / "handlers" / "migrations").mkdir(parents=True, exist_ok=True)
    (room / "handlers" / "__init__.py").touch()
    (room / "handlers" / "github_pushes.py").unlink(missing_ok=True)
    (room / "handlers" / "orders.py").write_text(handler, "utf-8")
    (room / "handlers" / "migrations" / "0002_orders.sql").write_text("CREATE TABLE orders (id text);", "utf-8")
    (room / "sources.toml").write_text('[shop]\nprovider = "token"\n', "utf-8")
    (room / "shop_schemas.py").write_text("ORDER = 1\n", "utf-8")
    (room / "certificates").mkdir()
    (room / "certificates" / "database-ca.pem").write_text("the team's\n", "utf-8")
    for name, text in TEAMS_OTHER_FILES.items():
        (team / name).parent.mkdir(parents=True, exist_ok=True)
        (team / name).write_text(text, "utf-8")
    (team / ".chalice").mkdir(exist_ok=True)
    sh(team, "git add --all && git commit --quiet --message ours")
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
    assert {name: (team / name).read_text("utf-8") for name in TEAMS_OTHER_FILES} == TEAMS_OTHER_FILES
    for name in ("chalicelib/postern/contract/news.py", ".chalice/policy-news.json", "infra/news.yaml"):
        assert (team / name).exists()
    assert python(team, PRINT_VERSION).stdout == "99.0.0\n"


def python(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)


def by_git(postern: Path, team: Path) -> None:
    sh(team, COMMANDS[0], POSTERN_REPOSITORY=str(postern))
    sh(team, COMMANDS[1])
    assert sh(team, "git status --porcelain") == ""
    sh(team, "git merge-base --is-ancestor postern/main HEAD")


def by_copying(postern: Path, team: Path) -> None:
    sh(team, "set -e\n" + COMMANDS[2], NEW=str(postern))
    sh(team, "git add --all && git commit --quiet --message 'new version'")


WAYS = pytest.mark.parametrize("take", [by_git, by_copying])


@WAYS
def test_the_teams_files_stay_and_posterns_are_new(postern: Path, team: Path, take: Take) -> None:
    before = room_of(team)
    take(postern, team)
    check(team, before)
    assert python(team, PRINT_HANDLERS).stdout == "orders.book\n"


@WAYS
def test_from_0_1_0_no_handler_is_passed_over_on_the_way(postern: Path, team_from_0_1_0: Path, take: Take) -> None:
    team = team_from_0_1_0
    before = room_of(team)
    take(postern, team)
    check(team, before)
    # The old modules are still there, and the handler imports them.
    assert "A handler imports chalicelib.handling" in python(team, PRINT_HANDLERS).stderr
    sh(team, "set -e\n" + COMMANDS[4])
    assert set(before) - set(room_of(team)) == set(OLD_MODULES) - {"__init__.py"}
    assert "from chalicelib.postern (docs/upgrade.md)" in python(team, PRINT_HANDLERS).stderr
    (team / "chalicelib" / "handlers" / "orders.py").write_text(HANDLER, "utf-8")
    assert python(team, PRINT_HANDLERS).stdout == "orders.book\n"
