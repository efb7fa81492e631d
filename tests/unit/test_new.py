"""`postern new handler`: files that are the team's, in order, and none that was there is touched."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from chalicelib.postern.processing import handling
from cli import new
from cli.main import main

HANDLERS = Path("chalicelib/handlers")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(new, "TEAMS_MIGRATIONS", tmp_path / HANDLERS / "migrations")
    return tmp_path


def files_of(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


def test_a_handler_comes_with_a_table_and_tests(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", "handler", "refunds", "stripe", "charge.*"]) == 0
    assert files_of(root) == {
        "chalicelib/handlers/refunds.py",
        "chalicelib/handlers/migrations/0001_refunds.sql",
        "tests/team/__init__.py",
        "tests/team/test_refunds.py",
    }
    assert '@on("stripe", "charge.*")' in (root / HANDLERS / "refunds.py").read_text("utf-8")
    assert 'event("stripe", "charge.created")' in (root / "tests/team/test_refunds.py").read_text("utf-8")
    assert "postern send stripe charge.created" in capsys.readouterr().out


def test_its_migration_is_the_next_one(root: Path) -> None:
    (root / HANDLERS / "migrations").mkdir(parents=True)
    (root / HANDLERS / "migrations" / "0007_orders.sql").touch()
    assert main(["new", "handler", "refunds"]) == 0
    assert (root / HANDLERS / "migrations" / "0008_refunds.sql").exists()
    assert '@on("github", "push")' in (root / HANDLERS / "refunds.py").read_text("utf-8")


@pytest.mark.parametrize(
    "there",
    [
        "chalicelib/handlers/refunds.py",
        "chalicelib/handlers/refunds/__init__.py",
        "chalicelib/handlers/migrations/0003_refunds.sql",
        "tests/team/test_refunds.py",
    ],
)
def test_nothing_that_is_there_is_touched(root: Path, there: str, capsys: pytest.CaptureFixture[str]) -> None:
    (root / there).parent.mkdir(parents=True)
    (root / there).write_text("mine")
    assert main(["new", "handler", "refunds"]) == 1
    assert "is there already" in capsys.readouterr().err
    assert files_of(root) == {there}
    assert (root / there).read_text() == "mine"


@pytest.mark.parametrize("name", ["Refunds", "re-funds", "class", "1st", "test_refunds", "../x", "a" * 41, ""])
def test_a_name_is_one_of_a_module_and_a_table(root: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", "handler", name]) == 1
    assert "is no name for a handler" in capsys.readouterr().err
    assert files_of(root) == set()


def test_a_source_that_nobody_declared_and_a_type_that_is_none_are_refused(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["new", "handler", "refunds", "strype"]) == 1
    assert "Did you mean 'stripe'?" in capsys.readouterr().err
    assert main(["new", "handler", "refunds", "stripe", 'a"b']) == 1
    assert "is no event type" in capsys.readouterr().err
    assert files_of(root) == set()


def test_what_is_written_passes_ruff_and_is_taken(root: Path) -> None:
    assert main(["new", "handler", "order", "stripe"]) == 0
    for check in (["check", "--select", "E,F,I,UP,B"], ["format", "--check"]):
        done = subprocess.run([sys.executable, "-m", "ruff", *check, "."], cwd=root, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    before = list(handling._registered)
    try:
        exec((root / HANDLERS / "order.py").read_text("utf-8"), {"__name__": "order"})  # noqa: S102 -- written above
        [made] = handling._registered[len(before) :]
        assert made.takes("stripe", "invoice.paid")
    finally:
        handling._registered[:] = before
