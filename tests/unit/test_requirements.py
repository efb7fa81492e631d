"""A package for a handler: what is named and not locked is said, before anything is installed or packaged."""

from __future__ import annotations

import shutil
from pathlib import Path

from deployment.requirements import problems
from devstack.settings import PROJECT


def checkout(tmp_path: Path, teams: str | None = None, added: str = "") -> Path:
    for file in ("requirements.txt", "requirements-dev.txt"):
        shutil.copy(PROJECT / file, tmp_path)
    if teams is not None:
        (tmp_path / "requirements-handlers.in").write_text(teams)
    with (tmp_path / "requirements.txt").open("a") as file:
        file.write(added)
    return tmp_path


def test_what_is_shipped_is_locked() -> None:
    assert list(problems(PROJECT)) == []


def test_a_package_that_is_named_and_not_locked_is_said(tmp_path: Path) -> None:
    teams = "# For letters\nteams-package>=9\nMarshMallow\n\n-c constraints.txt\ncffi; python_version < '4'\n"
    [said] = problems(checkout(tmp_path, teams))
    assert (
        said
        == "requirements-handlers.in names teams-package, which requirements.txt does not have yet: run `make lock`."
    )


def test_a_package_that_was_written_into_what_is_compiled_is_said(tmp_path: Path) -> None:
    [said] = problems(checkout(tmp_path, added="teams-package==9.0.43\n"))
    assert "has teams-package without a hash: name it in requirements-handlers.in, run `make lock`." in said


def test_what_is_locked_is_fine(tmp_path: Path) -> None:
    project = checkout(tmp_path, "teams-package\n", "teams-package==9.0.43 \\\n    --hash=sha256:00\n")
    with (project / "requirements-dev.txt").open("a") as file:
        file.write("teams-package==9.0.43\n")
    assert list(problems(project)) == []
