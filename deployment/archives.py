"""The function's and the layer's archives: only what is run, compiled already, and the same bytes for the same input.

A function's directories are read-only, so without bytecode every cold start compiles every module anew. It is checked
against no source (PEP 552, unchecked-hash): nothing changes there, and the check would read each source file. It
holds no columns (`-X no_debug_ranges`), a fifth of its size for the carets in tracebacks.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

from deployment.errors import DeploymentError

_UNUSED_FOLDERS = {"tests", "swagger_ui"}
_UNUSED_SUFFIXES = {".pyi", ".typed", ".md", ".rst"}
_STRAYS = {".pyc", ".swp", ".orig", ".rej"}
_UNUSED_NAMES = {".DS_Store", "Thumbs.db"}
# For version() and entry_points() of importlib.metadata.
_USED_METADATA = {"METADATA", "entry_points.txt"}
# The oldest time that a ZIP archive can hold.
_TIME = (1980, 1, 1, 0, 0, 0)
# Two stages' architectures, before and after an upgrade.
_MOST_KEPT = 4


def unpack(archive: Path, root: Path) -> None:
    """All of the archive that a function can use: of libraries no tests, type stubs or strays, and of what they say of
    themselves their names, versions and entry points. Of the team's room everything.
    """
    with zipfile.ZipFile(archive) as content:
        for name in content.namelist():
            path = Path(name)
            if not _is_used(path):
                continue
            content.extract(name, root)
            if path.name == "METADATA" and path.parent.name.endswith(".dist-info"):
                # Behind the headers stands what a package index shows.
                file = root / path
                file.write_bytes(file.read_bytes().partition(b"\n\n")[0] + b"\n")


def _is_used(path: Path) -> bool:
    if path.suffix in _STRAYS or path.name in _UNUSED_NAMES or path.name.endswith("~") or "__pycache__" in path.parts:
        return False
    if _is_teams(path):
        return not any(part.startswith(".") for part in path.parts)  # such as .env
    if path.parts[-2:-1] and path.parts[-2].endswith(".dist-info"):
        return path.name in _USED_METADATA
    if any(part in _UNUSED_FOLDERS or part.endswith((".dist-info", ".data")) for part in path.parts[:-1]):
        return False
    return path.suffix not in _UNUSED_SUFFIXES


def _is_teams(path: Path) -> bool:
    return path.parts[0] == "chalicelib" and path.parts[1:2] != ("postern",)


def pack(root: Path, target: Path, *, mounted_at: str) -> int:
    """Compiles what lies in `root` and writes it to `target`; returns the size in bytes.

    `mounted_at` is where Lambda unpacks it, for the paths in tracebacks.
    """
    _compile(root, sorted(root.rglob("*.py")), mounted_at)
    _write(root, target)
    return target.stat().st_size


def pack_once(root: Path, target: Path, *, mounted_at: str, kept_in: Path) -> int:
    """As `pack`. What is the same as before is taken as it was packed, which `kept_in` has: libraries seldom change,
    and are most of a package.
    """
    kept = kept_in / f"packed-{_digest(root, mounted_at)}.zip"
    if not kept.exists():
        pack(root, target, mounted_at=mounted_at)
        kept_in.mkdir(parents=True, exist_ok=True)
        unfinished = kept.with_suffix(f".{os.getpid()}")
        shutil.copyfile(target, unfinished)
        unfinished.replace(kept)
        for old in sorted(kept_in.glob("packed-*.zip"), key=lambda each: each.stat().st_mtime)[:-_MOST_KEPT]:
            old.unlink(missing_ok=True)
    else:
        shutil.copyfile(kept, target)
    return target.stat().st_size


def _digest(root: Path, mounted_at: str) -> str:
    """Of all that decides on the archive's bytes: the files, the Python that compiles them, and this module."""
    found = hashlib.sha256(f"{sys.version} {zlib.ZLIB_RUNTIME_VERSION} {mounted_at}".encode())
    found.update(Path(__file__).read_bytes())
    for file in sorted(path for path in root.rglob("*") if path.is_file()):
        found.update(f"\0{file.relative_to(root).as_posix()}\0".encode())
        found.update(hashlib.sha256(file.read_bytes()).digest())
    return found.hexdigest()[:32]


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
