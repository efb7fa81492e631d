"""Imports point one way: pure <- use cases <- wiring <- doors and tools; only wiring imports adapters."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]

USE_CASES = {"receiving.ingest", "processing", "operating"}
PURE = {"processing.handling", "operating.shapes", "operating.silence"}
DRIVERS = {"boto3", "botocore", "psycopg2"}
OUTSIDE = {"app", "chalice", "cli", "devstack", "tests", "infra", "bench"}


def modules(folder: str) -> dict[str, Path]:
    files = sorted((PROJECT / folder).rglob("*.py"))
    return {".".join(f.relative_to(PROJECT).with_suffix("").parts).removesuffix(".__init__"): f for f in files}


def imports_in(code: str) -> set[str]:
    """Every module that the code imports, wherever in it; not what it imports for its types alone."""
    return {name for node in running(ast.parse(code)) for name in imported_by(node)}


def running(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that can run: all but the bodies of `if TYPE_CHECKING`."""
    yield node
    parts: list[ast.AST] = list(ast.iter_child_nodes(node))
    if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
        parts = list(node.orelse)
    for part in parts:
        yield from running(part)


def imported_by(node: ast.AST) -> list[str]:
    match node:
        case ast.Import():
            return [alias.name for alias in node.names]
        case ast.ImportFrom(module=str(module), level=0):
            return [module, *(f"{module}.{alias.name}" for alias in node.names)]
        case ast.ImportFrom():
            return ["a relative import"]
        case ast.Call(args=[ast.Constant(value=str(name)), *_]) if "import" in ast.unparse(node.func):
            return [name]
    return []


def room_of(module: str) -> str:
    parts = module.split(".")
    if parts[0] != "chalicelib":
        return "outside"
    wing, name = [*parts[2:], "", ""][:2]
    if wing == "adapters":
        return "adapters"
    if f"{wing}.{name}" in PURE:
        return "pure"
    if wing in USE_CASES or f"{wing}.{name}" in USE_CASES:
        return "use cases"
    return "wiring" if name == "wiring" else "pure"


CHALICELIB = modules("chalicelib")
TOOLS = modules("cli")
IMPORTS = {name: imports_in(file.read_text("utf-8")) for name, file in (CHALICELIB | TOOLS).items()}
IN_ROOM = {
    room: [module for module in CHALICELIB if room_of(module) == room]
    for room in ("pure", "use cases", "adapters", "wiring")
}


def rooms_used_by(module: str) -> set[str]:
    return {room_of(name) for name in IMPORTS[module] if name.startswith("chalicelib.")}


def packages_used_by(module: str) -> set[str]:
    return {name.split(".")[0] for name in IMPORTS[module]}


def test_every_room_has_modules_to_be_read() -> None:
    assert {room: bool(found) for room, found in IN_ROOM.items()} == dict.fromkeys(IN_ROOM, True)
    found = {module.split(".postern.")[1] for module in IN_ROOM["use cases"]}
    assert {name for name in USE_CASES if any(module.startswith(name) for module in found)} == USE_CASES


@pytest.mark.parametrize("module", IN_ROOM["pure"])
def test_a_pure_module_imports_pure_ones_alone(module: str) -> None:
    # http turns a use case's result into an answer, and needs its type.
    also = {"use cases"} if module == "chalicelib.postern.receiving.http" else set()
    assert rooms_used_by(module) <= {"pure"} | also


@pytest.mark.parametrize("module", IN_ROOM["use cases"])
def test_a_use_case_imports_neither_adapters_nor_wiring(module: str) -> None:
    assert rooms_used_by(module) <= {"pure", "use cases"}


@pytest.mark.parametrize("module", IN_ROOM["adapters"])
def test_an_adapter_does_not_know_how_it_is_wired(module: str) -> None:
    assert "wiring" not in rooms_used_by(module)


@pytest.mark.parametrize("module", [m for m in CHALICELIB if room_of(m) not in ("adapters", "wiring")])
def test_only_wiring_imports_adapters(module: str) -> None:
    assert "adapters" not in rooms_used_by(module)


@pytest.mark.parametrize("module", [module for module in CHALICELIB if room_of(module) != "adapters"])
def test_only_adapters_speak_to_aws_and_postgresql(module: str) -> None:
    assert not packages_used_by(module) & DRIVERS


@pytest.mark.parametrize("module", CHALICELIB)
def test_nothing_packaged_imports_outward(module: str) -> None:
    assert not packages_used_by(module) & OUTSIDE


@pytest.mark.parametrize("module", [*CHALICELIB, *TOOLS])
def test_only_the_app_imports_chalice(module: str) -> None:
    """The dev server in devstack/ is Chalice's own, and runs the app as a deployment would."""
    assert "chalice" not in packages_used_by(module)


@pytest.mark.parametrize("module", CHALICELIB)
def test_no_import_is_relative(module: str) -> None:
    assert "a relative import" not in IMPORTS[module]


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {module: IMPORTS[module] & CHALICELIB.keys() - {module} for module in CHALICELIB}
    assert len(list(TopologicalSorter(graph).static_order())) == len(CHALICELIB)


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("import boto3", {"boto3"}),
        ("import boto3.session as b, json", {"boto3.session", "json"}),
        ("from boto3 import client", {"boto3", "boto3.client"}),
        ("def f():\n    class C:\n        import boto3", {"boto3"}),
        ("try:\n    import boto3\nexcept ImportError:\n    import json", {"boto3", "json"}),
        ("from . import adapters", {"a relative import"}),
        ("from .adapters import sqs", {"a relative import"}),
        ("importlib.import_module('boto3')", {"boto3"}),
        ("__import__('boto3')", {"boto3"}),
        ("if TYPE_CHECKING:\n    import boto3", set()),
        ("if typing.TYPE_CHECKING:\n    import boto3", set()),
        ("if TYPE_CHECKING:\n    import boto3\nelse:\n    import json", {"json"}),
        ("x = 'import boto3'  # import boto3", set()),
    ],
)
def test_the_reader_of_imports_finds_each_kind(code: str, found: set[str]) -> None:
    assert imports_in(code) == found


# Not `botocore` itself: aws_lambda_powertools imports its top, which takes half a millisecond and holds no client.
LOADED_DRIVERS = {"boto3", "botocore.session", "botocore.client", "psycopg2"}


def loaded_by(*names: str) -> set[str]:
    """The modules that a fresh interpreter has loaded after importing these."""
    script = f"import sys, {', '.join(names)}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=PROJECT, capture_output=True, text=True, timeout=60, check=True
    )
    return set(done.stdout.split())


def test_the_api_function_loads_neither_boto3_nor_psycopg2_before_it_needs_them() -> None:
    """A second of every cold start; and what the API function never loads it cannot misuse."""
    loaded = loaded_by("app")
    assert "chalice.app" in loaded
    assert not loaded & LOADED_DRIVERS


def test_pure_modules_and_use_cases_load_no_driver_and_no_framework() -> None:
    loaded = loaded_by(*IN_ROOM["pure"], *IN_ROOM["use cases"])
    assert not loaded & (LOADED_DRIVERS | {"chalice"})


def test_the_names_by_which_a_loaded_driver_is_known_are_right() -> None:
    assert loaded_by("boto3", "psycopg2") >= LOADED_DRIVERS
