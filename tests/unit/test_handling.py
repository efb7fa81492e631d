"""The team's handlers: which are found, which take an event, and how their failures are told."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial, wraps
from pathlib import Path
from typing import Any

import pytest

from chalicelib.postern.contract.deliveries import Event, new_event_id
from chalicelib.postern.contract.errors import ConfigurationError, PermanentError
from chalicelib.postern.processing import handling
from chalicelib.postern.processing.handling import Handler
from tests.support import with_the_example

NOW = datetime(2026, 11, 23, tzinfo=UTC)
EVENT = Event(new_event_id(NOW), "stripe", "invoice.paid", "evt_1", NOW, {}, {"n": 1}, b'{"n": 1}')


def nothing(event: Event, db: Any) -> None: ...


# Which events a handler takes


@pytest.mark.parametrize(
    ("source", "type", "takes"),
    [
        ("stripe", "invoice.paid", True),
        ("stripe", "invoice.*", True),
        ("stripe", "*.paid", True),
        ("stripe", "in*aid", True),
        ("stripe", "invoice.paid*", True),
        ("stripe", "*", True),
        ("*", "*", True),
        ("str*", "*", True),
        ("github", "*", False),
        ("stripe", "invoice", False),
        ("stripe", "invoice.", False),
        ("stripe", "invoice.paid.*", False),
        ("stripe", "paid", False),
        ("stripe", "Invoice.Paid", False),
        ("STRIPE", "invoice.paid", False),
        ("stripe", "invoice?paid*x", False),
        ("", "", False),
    ],
)
def test_a_star_stands_for_any_run_of_characters(source: str, type: str, takes: bool) -> None:
    assert Handler(source, type, nothing).takes("stripe", "invoice.paid") is takes


@pytest.mark.parametrize("type", ["order[created]", "[a]", "really?", "[!a]", "a[b-d]"])
def test_no_other_character_than_the_star_is_special(type: str) -> None:
    assert Handler("shop", type, nothing).takes("shop", type)


@pytest.mark.parametrize(("pattern", "type"), [("[ab]", "a"), ("re?d", "read"), ("[!a]", "b")])
def test_what_is_special_to_a_shell_takes_nothing_else(pattern: str, type: str) -> None:
    assert not Handler("shop", pattern, nothing).takes("shop", type)


def test_a_star_takes_line_breaks_and_an_empty_text_too() -> None:
    assert Handler("*", "a*b", nothing).takes("", "a\n\nb")
    assert Handler("*", "a*b", nothing).takes("shop", "ab")


# Finding and running them


@pytest.fixture
def registry() -> Iterator[None]:
    """What a test registers is forgotten after it."""
    before = list(handling._registered)
    handling._registered.clear()
    yield
    handling._registered[:] = before


Package = Callable[..., str]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registry: None) -> Iterator[Package]:
    """Makes a package of handlers from the text of its modules."""
    monkeypatch.syspath_prepend(str(tmp_path))
    name = "team_handlers"

    def make(**modules: str) -> str:
        folder = tmp_path / name
        folder.mkdir()
        for module, text in {"__init__": "", **modules}.items():
            (folder / f"{module}.py").write_text(textwrap.dedent(text))
        return name

    yield make
    for module in [module for module in sys.modules if module.split(".")[0] == name]:
        del sys.modules[module]


def handler(source: str, type: str, name: str = "handle") -> str:
    importing = "from chalicelib.postern import on"
    return f"{importing}\n@on({source!r}, {type!r})\ndef {name}(event, db): ...\n"


def test_every_module_of_the_package_is_imported_and_its_handlers_are_in_order(package: Package) -> None:
    name = package(b=handler("s", "b"), a=handler("s", "a1") + handler("s", "a2", "other"), c="# none\n")
    assert [h.type for h in handling.discover(name)] == ["a1", "a2", "b"]


@with_the_example
def test_the_shipped_handlers_are_found() -> None:
    # Beside those of the team.
    assert ("github", "push", "github_pushes.count_push") in [(h.source, h.type, h.name) for h in handling.discover()]


def test_discovering_twice_finds_each_handler_once(package: Package) -> None:
    name = package(a=handler("s", "a"))
    assert handling.discover(name) == handling.discover(name)
    assert len(handling.discover(name)) == 1


def test_a_handler_stays_a_function_that_a_test_can_call(registry: None) -> None:
    assert handling.on("s", "t")(nothing) is nothing
    assert [h.function for h in handling._registered] == [nothing]


def test_a_handler_that_names_no_type_is_for_all(registry: None) -> None:
    handling.on("s")(nothing)
    assert handling._registered[0].takes("s", "anything")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("import no_such_library", "ModuleNotFoundError: No module named 'no_such_library'"),
        ("from chalicelib.handling import on", "chalicelib.postern (docs/upgrade.md)"),
        ("from chalicelib.postern import of", "chalicelib.postern (docs/upgrade.md)"),
        ("def (", "SyntaxError"),
        ("1 / 0", "ZeroDivisionError"),
        ("raise SystemExit('missing setting')", "SystemExit"),
    ],
    ids=["import", "an old name of ours", "no name of ours", "syntax", "error", "exit"],
)
def test_a_handler_module_that_cannot_be_imported_is_named(package: Package, text: str, problem: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        handling.discover(package(invoices=text))
    assert "team_handlers.invoices" in str(caught.value)
    assert problem in str(caught.value)


def test_a_package_that_cannot_be_imported_is_named(package: Package) -> None:
    """The processor knows what to do with a ConfigurationError: the events wait and nothing is charged to them."""
    with pytest.raises(ConfigurationError, match="team_handlers"):
        handling.discover(package(__init__="import no_such_library"))


def test_a_module_that_could_not_be_imported_at_first_has_its_handlers_once(
    package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The processor tries again with the next batch; a handler that is there twice would do everything twice."""
    name = package(a=handler("s", "a") + "import os\nif os.environ.get('SETTING') is None:\n    raise OSError\n")
    for _ in range(2):
        with pytest.raises(ConfigurationError):
            handling.discover(name)
    monkeypatch.setenv("SETTING", "1")
    assert [h.type for h in handling.discover(name)] == ["a"]


def test_what_a_failed_module_had_imported_before_keeps_its_handlers_once(
    package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = package(
        a="import os, team_handlers.b\nif os.environ.get('SETTING') is None:\n    raise OSError\n" + handler("s", "a"),
        b=handler("s", "b"),
    )
    with pytest.raises(ConfigurationError):
        handling.discover(name)
    monkeypatch.setenv("SETTING", "1")
    assert sorted(h.type for h in handling.discover(name)) == ["a", "b"]


# What would do nothing, or could never run


async def _awaited(event: Event, db: Any) -> None: ...


def _yields(event: Event, db: Any) -> Iterator[None]:
    yield


async def _yields_later(event: Event, db: Any) -> Any:
    yield


class _Awaited:
    async def __call__(self, event: Event, db: Any) -> None: ...


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (_awaited, "async"),
        (_yields_later, "async"),
        (_Awaited(), "async"),
        (partial(_awaited, db=None), "async"),
        (_yields, "yield"),
        (lambda event: None, r"\(event, db\)"),
        (lambda event, db, session: None, r"\(event, db\)"),
        (lambda: None, r"\(event, db\)"),
        ("text", "no function"),
    ],
)
def test_what_would_do_nothing_is_refused_when_it_is_imported(registry: None, function: Any, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        handling.on("s", "t")(function)
    assert handling._registered == []


@pytest.mark.parametrize(
    ("source", "type", "said"),
    [
        (nothing, "*", "without parentheses before nothing"),
        ("s", ["a", "b"], "one @on above the other"),
        (None, "a", "source"),
        ("s", None, "type"),
    ],
)
def test_what_on_takes_is_said(registry: None, source: Any, type: Any, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        handling.on(source, type)


def test_what_is_ordinary_is_taken(registry: None) -> None:
    @wraps(lambda event, db, session: None)
    def injected(event: Event, db: Any) -> None: ...

    class Ordinary:
        def __call__(self, event: Event, db: Any) -> None: ...

    taken = [
        injected,
        Ordinary(),
        partial(lambda extra, event, db: None, 1),
        lambda *all: None,
        lambda event, db, n=1: n,
    ]
    for function in taken:
        handling.on("s", "t")(function)
    assert len(handling._registered) == len(taken)


def test_a_decorator_that_hides_a_coroutine_is_found_out_when_it_runs(registry: None) -> None:
    def hidden(event: Event, db: Any) -> Any:
        return _awaited(event, db)

    with pytest.raises(PermanentError, match="nothing runs"):
        Handler("s", "t", hidden)(EVENT, None)


def test_handlers_in_folders_are_found_with_or_without_an_init_file(package: Package, tmp_path: Path) -> None:
    name = package(a=handler("s", "a"))
    for folder, text in (("billing/deep", handler("s", "deep")), ("plain", handler("s", "plain"))):
        (tmp_path / name / folder).mkdir(parents=True)
        (tmp_path / name / folder / "orders.py").write_text(text)
        (tmp_path / name / folder / "test_orders.py").write_text("raise AssertionError")
    (tmp_path / name / "billing" / "__init__.py").write_text(handler("s", "billing"))
    assert sorted(h.type for h in handling.discover(name)) == ["a", "billing", "deep", "plain"]
