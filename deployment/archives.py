"""The function's and the layer's archives: only what is run, compiled already, and the same bytes for the same input.

A function's directories are read-only, so without bytecode every cold start compiles every module anew. It is checked
against no source (PEP 552, unchecked-hash): nothing changes there, and the check would read each source file. It
holds no columns (`-X no_debug_ranges`), a fifth of its size for the carets in tracebacks.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

from deployment.errors import DeploymentError

_UNUSED_FOLDERS = {"__pycache__", "tests", "swagger_ui"}
_UNUSED_SUFFIXES = {".pyc", ".pyi", ".typed", ".md", ".rst", ".swp", ".orig", ".rej"}
_UNUSED_NAMES = {".DS_Store", "Thumbs.db"}
# The oldest time that a ZIP archive can hold.
_TIME = (1980, 1, 1, 0, 0, 0)


def unpack(archive: Path, root: Path) -> None:
    """All of the archive that a function can use: no tests, type stubs, packaging metadata or strays."""
    with zipfile.ZipFile(archive) as content:
        for name in content.namelist():
            if _is_used(Path(name)):
                content.extract(name, root)


def _is_used(path: Path) -> bool:
    if any(part in _UNUSED_FOLDERS or part.endswith((".dist-info", ".data")) for part in path.parts[:-1]):
        return False
    return path.suffix not in _UNUSED_SUFFIXES and path.name not in _UNUSED_NAMES and not path.name.endswith("~")


def pack(root: Path, target: Path, *, mounted_at: str) -> int:
    """Compiles what lies in `root` and writes it to `target`; returns the size in bytes.

    `mounted_at` is where Lambda unpacks it, for the paths in tracebacks.
    """
    _compile(root, sorted(root.rglob("*.py")), mounted_at)
    _write(root, target)
    return target.stat().st_size


def _compile(root: Path, modules: Sequence[Path], mounted_at: str) -> None:
    """By a process of its own: what bytecode looks like depends on the hash seed, and a little on what ran before."""
    if not modules:
        return
    done = subprocess.run(
        [sys.executable, "-X", "no_debug_ranges", "-m", "compileall", "-q", "-f", "-j", "1",
         "--invalidation-mode", "unchecked-hash", "-s", str(root), "-p", mounted_at, "-i", "-"],
        input="\n".join(map(str, modules)),
        env={**os.environ, "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    if done.returncode:
        said = f"{done.stdout}{done.stderr}".replace(f"{root}/", "").replace(f"{mounted_at}/", "")
        raise DeploymentError(f"A module cannot be compiled:\n{said.rstrip()}")


def _write(root: Path, target: Path) -> None:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for file in sorted(path for path in root.rglob("*") if path.is_file()):
            entry = zipfile.ZipInfo(file.relative_to(root).as_posix(), _TIME)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = 3  # Unix: the permissions below are read as such
            entry.external_attr = (0o755 if ".so" in file.suffixes else 0o644) << 16
            with file.open("rb") as content, archive.open(entry, "w") as place:
                shutil.copyfileobj(content, place)
