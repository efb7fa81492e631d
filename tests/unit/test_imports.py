"""Imports point one way: pure <- use cases <- wiring <- doors and tools; only wiring imports adapters."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent.parent

USE_CASES = {"ingest", "process", "consume", "operate"}
WIRING = {"wiring"}
DRIVERS = {"boto3", "botocore", "psycopg2"}


def modules() -> dict[str, Path]:
    files = (PROJECT / "chalicelib").rglob("*.py")
    return {".".join(f.relative_to(PROJECT).with_suffix("").parts).removesuffix(".__init__"): f for f in files}


def imports_of(file: Path) -> set[str]:
    """Every module that the file imports, wherever in it; not what it imports for its types alone."""
    tree = ast.parse(file.read_text("utf-8"))
    typing_only = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and isinstance(block.test, ast.Name) and block.test.id == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def room_of(module: str) -> str:
    parts = module.split(".")
    if "adapters" in parts:
        return "adapters"
    name = parts[1] if len(parts) > 1 else ""
    return "use cases" if name in USE_CASES else "wiring" if name in WIRING else "pure"


MODULES = modules()


@pytest.mark.parametrize("module", MODULES)
def test_only_wiring_imports_adapters(module: str) -> None:
    if room_of(module) not in ("wiring", "adapters"):
        assert not [name for name in imports_of(MODULES[module]) if "adapters" in name.split(".")]


@pytest.mark.parametrize("module", MODULES)
def test_pure_modules_import_no_use_case(module: str) -> None:
    if room_of(module) == "pure" and module != "chalicelib.http":  # which turns a use case's result into an answer
        assert not [
            n for n in imports_of(MODULES[module]) if n.startswith("chalicelib.") and n.split(".")[1] in USE_CASES
        ]


@pytest.mark.parametrize("module", MODULES)
def test_only_adapters_speak_to_aws_and_postgresql(module: str) -> None:
    if room_of(module) != "adapters":
        assert not [name for name in imports_of(MODULES[module]) if name.split(".")[0] in DRIVERS]


@pytest.mark.parametrize("module", MODULES)
def test_nothing_packaged_imports_outward(module: str) -> None:
    outside = {"app", "chalice", "cli", "devstack", "tests", "infra"}
    assert not [name for name in imports_of(MODULES[module]) if name.split(".")[0] in outside]


def test_the_api_function_loads_neither_boto3_nor_psycopg2_before_it_needs_them() -> None:
    script = "import app, sys; print(sorted({'boto3', 'botocore.session', 'psycopg2'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", script], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
