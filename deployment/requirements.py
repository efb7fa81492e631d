"""What the functions carry, asked before it is installed or packaged: by any Python, so the standard library alone.

The team names its packages in requirements-handlers.in, which no upgrade touches; `make lock` compiles that and
Postern's own to requirements.txt, a version and hashes for each and for what they need.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

TEAMS = "requirements-handlers.in"
_LOCKED = ("requirements.txt", "requirements-dev.txt")
# Not what stands alone as an address.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(?=\s|$|[<>=!~;@,(\[])")


def problems(project: Path) -> Iterator[str]:
    """A sentence for each package that would not be there, or that nothing holds its files against."""
    locked = {file: dict(_entries(project / file)) for file in _LOCKED}
    for name in dict(_entries(project / TEAMS)):
        if lacking := [file for file, entries in locked.items() if name not in entries]:
            yield f"{TEAMS} names {name}, which {lacking[0]} does not have yet: run `make lock`."
    for name, entry in locked[_LOCKED[0]].items():
        if "--hash=" not in entry:
            yield f"requirements.txt is compiled, and has {name} without a hash: name it in {TEAMS}, run `make lock`."


def _entries(file: Path) -> Iterator[tuple[str, str]]:
    """Each requirement's name, as it is compared (PEP 503), and all of what stands there."""
    text = file.read_text("utf-8-sig") if file.exists() else ""
    for line in text.replace("\\\n", " ").splitlines():
        if found := _NAME.match(line.strip()):
            yield re.sub(r"[-_.]+", "-", found[0]).lower(), line


if __name__ == "__main__":
    found = list(problems(Path(__file__).parents[1]))
    print(*found, sep="\n", end="\n" if found else "", file=sys.stderr)
    sys.exit(bool(found))
