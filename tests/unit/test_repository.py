"""What a newcomer looks for in a repository is there, and true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from chalicelib.postern.running.version import VERSION
from cli.main import main
from deployment.requirements import TEAMS
from devstack.settings import PROJECT

CONTRIBUTING = (PROJECT / "CONTRIBUTING.md").read_text("utf-8")


def test_the_command_says_which_release_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert (ended.value.code, capsys.readouterr().out) == (0, f"postern {VERSION}\n")


def test_the_newest_release_of_the_changelog_is_this_one() -> None:
    releases = re.findall(r"^## (\d\S*) - \d{4}-\d\d-\d\d$", (PROJECT / "CHANGELOG.md").read_text("utf-8"), re.M)
    assert releases[0] == VERSION


def test_every_file_that_contributing_names_is_there() -> None:
    named = [name for name in re.findall(r"`([^`\s]+/[^`\s]*|[a-z_]+\.[a-z]+)`", CONTRIBUTING) if "N" not in name]
    assert len(named) > 10
    assert [name for name in named if not (PROJECT / name).exists()] == []


def test_every_target_that_contributing_names_is_one_of_make() -> None:
    targets = re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text("utf-8"), re.M)
    assert set(re.findall(r"make ([a-z-]+)", CONTRIBUTING)) <= set(targets)


def test_what_is_deployed_is_pinned_with_the_hashes_of_its_files() -> None:
    def pins(file: str) -> set[str]:
        names = re.findall(r"^(\w\S*==\S+)", (PROJECT / file).read_text("utf-8"), re.M)
        return {name.lower().replace("_", "-") for name in names}

    assert pins("requirements.in") <= pins("requirements.txt") <= pins("requirements-dev.txt")
    if not (PROJECT / TEAMS).exists():
        assert pins("requirements.in") == pins("requirements.txt")
    for requirement in re.split(r"^(?=\w)", (PROJECT / "requirements.txt").read_text("utf-8"), flags=re.M)[1:]:
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", requirement), requirement.splitlines()[0]


def test_the_licence_is_apache_2() -> None:
    assert "Apache License\n                           Version 2.0" in (PROJECT / "LICENSE").read_text("utf-8")


def test_every_link_within_the_documents_leads_somewhere() -> None:
    broken = []
    for document in [*PROJECT.glob("*.md"), *PROJECT.glob("docs/**/*.md")]:
        for target in re.findall(r"\]\(((?!https?:)[^)\s]+)\)", document.read_text("utf-8")):
            file, _, anchor = target.partition("#")
            aim = (document.parent / file) if file else document
            # The example is the team's to delete.
            if aim.name == "github_pushes.py":
                continue
            if not aim.exists() or (anchor and anchor not in anchors(aim)):
                broken.append(f"{document.name}: {target}")
    assert broken == []


def anchors(document: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.+)$", document.read_text("utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
