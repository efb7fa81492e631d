"""`postern sources add`: what it writes can be read, and nothing that was there is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from chalicelib.postern.adapters.teams_room import SHIPPED_SOURCES
from chalicelib.postern.receiving.providers import provider, provider_names
from chalicelib.postern.receiving.sources import load_sources
from cli.main import main
from cli.sources import table
from tests.support import EVERY_SOURCE, in_posterns_own_repository

VERIFYING = [name for name in provider_names() if provider(name).needs_secret]


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "sources.toml"
    file.write_text('# ours\n[shop]\nprovider = "token"\nheader = "X-Shop"', "utf-8")
    monkeypatch.setenv("SOURCES_FILE", str(file))
    return file


@pytest.mark.parametrize("name", VERIFYING)
def test_each_providers_source_is_complete(name: str, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sources", "add", name]) == 0
    assert load_sources(file).keys() == {"shop", name}
    assert file.read_text("utf-8").startswith('# ours\n[shop]\nprovider = "token"\nheader = "X-Shop"\n\n[')
    said = capsys.readouterr().out
    assert f"/webhooks/{name}" in said
    assert f"`postern secrets set {name} --stage …`" in said


def test_the_tests_have_each_of_them_as_it_is_written() -> None:
    text = EVERY_SOURCE.read_text("utf-8") + "\n"
    assert [name for name in VERIFYING if f"{table(name, name)}\n" not in text] == []
    assert load_sources(EVERY_SOURCE).keys() == set(VERIFYING)


@in_posterns_own_repository
def test_a_handful_is_shipped() -> None:
    """What nobody sends to answers strangers with 503, and rings an alarm."""
    assert len(load_sources(SHIPPED_SOURCES)) <= 5


def test_a_source_may_have_another_name_than_its_provider(file: Path) -> None:
    assert main(["sources", "add", "stripe", "--as", "billing"]) == 0
    assert load_sources(file)["billing"].provider == "stripe"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["shopfy"], "There is no provider 'shopfy'; `postern providers` lists them. Did you mean 'shopify'?"),
        (["none"], "There is no provider 'none'"),
        (["token", "--as", "shop"], "has a source 'shop' already; --as NAME gives this one another name."),
        (["token", "--as", "No good"], "Source 'No good': a name has 1 to 64 of"),
        (["token", "--as", 'x"]\n[y'], "a name has 1 to 64 of"),
    ],
)
def test_what_cannot_be_added_changes_nothing(
    arguments: list[str], sentence: str, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = file.read_text("utf-8")
    assert main(["sources", "add", *arguments]) == 1
    assert sentence in capsys.readouterr().err
    assert (file.read_text("utf-8"), list(file.parent.iterdir())) == (before, [file])
