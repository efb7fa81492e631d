"""Imports point one way: contract <- receiving, processing <- adapters <- operating <- api <- running <- doors."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.support import EVERY_SOURCE

PROJECT = Path(__file__).parents[2]
OURS = "chalicelib.postern"

# Wing -> the wings that it may know; docs/architecture.md says why.
KNOWS = {
    "contract": set[str](),
    "receiving": {"contract"},
    "processing": {"contract"},
    "operating": {"contract", "processing", "adapters"},
    "adapters": {"contract", "processing"},
    "api": {"contract", "operating"},
    "running": {"contract", "receiving", "processing", "operating", "adapters", "api"},
}

# What answers from its arguments alone: no clock, no signal, no file, no network, no chance.
PURE = [
    *("contract.bounds", "contract.envelope", "contract.errors", "contract.metrics", "contract.opening"),
    *("contract.payloads", "contract.tracing", "receiving.http", "receiving.identity", "receiving.ingest"),
    *(
        "receiving.naming",
        "receiving.handshakes",
        "receiving.quarantine",
        "receiving.explain",
        "receiving.second_look",
        "receiving.schemes.base",
    ),
    *("receiving.schemes.bodies", "receiving.schemes.canonical", "receiving.schemes.certificates"),
    *("receiving.schemes.forms", "receiving.schemes.hmacs", "receiving.schemes.jwts", "receiving.schemes.public_keys"),
    *("receiving.schemes.shared", "receiving.schemes.templated", "receiving.schemes.urls"),
    *("processing.claims", "processing.failures", "processing.order", "processing.settling", "processing.turns"),
    *("operating.drift.shapes", "operating.quiet.silence", "contract.answers", "api.access", "api.routes", "api.relay"),
]
IMPURE = {"asyncio", "ctypes", "http.client", "io", "logging", "os", "pathlib", "random", "secrets", "select", "signal"}
IMPURE |= {"socket", "ssl", "subprocess", "sys", "tempfile", "threading", "time", "urllib.request"}
CLOCKS = {"now", "utcnow", "today", "open", "print", "input"}

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


def wing_of(module: str) -> str:
    """A wing of ours, "postern" for what handlers import, "team" for the rest of chalicelib, or "outside"."""
    if module.startswith(f"{OURS}."):
        wing = module.split(".")[2]
        return wing if wing in KNOWS else "postern"
    return "postern" if module == OURS else "team" if module.split(".")[0] == "chalicelib" else "outside"


CHALICELIB = modules("chalicelib")
TOOLS = modules("cli")
IMPORTS = {name: imports_in(file.read_text("utf-8")) for name, file in (CHALICELIB | TOOLS).items()}
IN_WING = {wing: [module for module in CHALICELIB if wing_of(module) == wing] for wing in [*KNOWS, "team"]}


def wings_used_by(module: str) -> set[str]:
    # `from chalicelib.postern import wing` names the house as well.
    return {wing_of(name) for name in IMPORTS[module] if name.startswith("chalicelib.") and name != OURS}


def packages_used_by(module: str) -> set[str]:
    return {name.split(".")[0] for name in IMPORTS[module]}


def test_every_wing_has_modules_to_be_read() -> None:
    assert {wing: len(found) > 1 for wing, found in IN_WING.items()} == dict.fromkeys(IN_WING, True)


@pytest.mark.parametrize("module", [module for wing in KNOWS for module in IN_WING[wing]])
def test_a_wing_knows_those_alone_that_it_may_know(module: str) -> None:
    wing = wing_of(module)
    # The one place outside of ours that is looked into: where the team's files lie.
    also = {"outside"} if module == f"{OURS}.adapters.teams_room" else set[str]()
    assert wings_used_by(module) <= KNOWS[wing] | {wing} | also


@pytest.mark.parametrize("module", IN_WING["team"])
def test_the_teams_room_imports_the_facade_alone(module: str) -> None:
    ours = {name for name in IMPORTS[module] if name.startswith(OURS)}
    assert ours <= {OURS, *(f"{OURS}.{name}" for name in ("Event", "PermanentError", "on"))}


@pytest.mark.parametrize("name", PURE)
def test_a_pure_module_has_no_clock_no_files_and_no_chance(name: str) -> None:
    module = f"{OURS}.{name}"
    called = {
        node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
        for node in ast.walk(ast.parse(CHALICELIB[module].read_text("utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute | ast.Name)
        # What is handed in may be called so: self.now()
        and not (isinstance(node.func, ast.Attribute) and ast.unparse(node.func.value) == "self")
    }
    assert (IMPORTS[module] & IMPURE, called & CLOCKS) == (set(), set())
    assert "adapters" not in wings_used_by(module)


@pytest.mark.parametrize("module", [module for module in CHALICELIB if wing_of(module) not in ("adapters", "team")])
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


def loaded_by(*names: str, then: str = "pass") -> set[str]:
    """The modules that a fresh interpreter has loaded after importing these, and running this."""
    script = f"import sys, {', '.join(names)}\n{then}\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=PROJECT, capture_output=True, text=True, timeout=60, check=True
    )
    return set(done.stdout.split())


def test_the_api_function_loads_neither_boto3_nor_psycopg2_before_it_needs_them() -> None:
    """A second of every cold start; and what the API function never loads it cannot misuse."""
    loaded = loaded_by("app")
    assert "chalice.app" in loaded
    assert not loaded & LOADED_DRIVERS


def test_the_api_function_reads_its_sources_with_none_of_the_libraries_that_take_a_fifth_of_a_start() -> None:
    loaded = loaded_by(
        *("app", f"{OURS}.receiving.ingest", f"{OURS}.receiving.sources"),
        then=f"from pathlib import Path\n{OURS}.receiving.sources.load_sources(Path({str(EVERY_SOURCE)!r}))",
    )
    assert f"{OURS}.receiving.schemes.hmacs" in loaded
    assert not {name.split(".")[0] for name in loaded} & {"marshmallow", "aws_lambda_powertools"}


def test_processing_reads_messages_and_finds_handlers_without_marshmallow() -> None:
    """Those of a team that has schemas import it."""
    loaded = loaded_by(*(f"{OURS}.{name}" for name in ("processing.consume", "processing.engine")))
    assert f"{OURS}.contract.opening" in loaded
    assert "marshmallow" not in loaded


def test_receiving_and_processing_load_no_driver_and_no_framework() -> None:
    loaded = loaded_by(*(module for wing in ("contract", "receiving", "processing") for module in IN_WING[wing]))
    assert not loaded & (LOADED_DRIVERS | {"chalice"})


def test_the_names_by_which_a_loaded_driver_is_known_are_right() -> None:
    assert loaded_by("boto3", "psycopg2") >= LOADED_DRIVERS
