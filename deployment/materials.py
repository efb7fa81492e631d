"""What a package is made of, as a CycloneDX 1.6 bill of materials (https://cyclonedx.org/docs/1.6/json/).

Without a time or a serial number, so that the same package has the same bill.
"""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from collections.abc import Iterable, Iterator
from email.parser import HeaderParser
from importlib.metadata import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement

from chalicelib.postern.running.version import VERSION

_METADATA = re.compile(r"python/lib/python[\d.]+/site-packages/[^/]+\.dist-info/METADATA")


def bill(stage: str, release: str, layer_of_wheels: Path, archives: Iterable[Path]) -> str:
    """`layer_of_wheels`: Chalice's layer, which says of each library what it is; ours does not."""
    libraries = [_library(about) for about in (*_wheels(layer_of_wheels), metadata("chalice"))]
    libraries.append({"type": "library", "name": "postern", "version": VERSION})
    return json.dumps(
        {
            "bomFormat": "CycloneDX",
            "specVersion": "1.6",
            "version": 1,
            "metadata": {"component": {"type": "application", "name": f"postern-{stage}", "version": release}},
            "components": sorted(libraries, key=lambda each: str(each["name"])) + [_file(each) for each in archives],
        },
        indent=2,
    )


def missing(requirements: str, layer_of_wheels: Path) -> list[str]:
    """What `requirements.txt` asks for and the layer has not, as it is written there.

    Chalice leaves out what it finds no wheel for, warns, and goes on; and the next time it has that layer already.
    """
    there = {_name_of(about["Name"]) for about in _wheels(layer_of_wheels)}
    asked = [each for each in map(_requirement, requirements.splitlines()) if each]
    here = [each for each in asked if each.marker is None or each.marker.evaluate()]
    return [str(each) for each in here if _name_of(each.name) not in there]


def _requirement(line: str) -> Requirement | None:
    """None for a comment, an option, and the hashes that continue a line."""
    try:
        return Requirement(line.split(" #")[0].rstrip(" \\"))
    except InvalidRequirement:
        return None


def _name_of(project: str) -> str:
    """As package URLs have PyPI's names (https://github.com/package-url/purl-spec)."""
    return re.sub(r"[-_.]+", "-", project).lower()


def _wheels(layer: Path) -> Iterator[Any]:
    if not layer.exists():
        return  # Chalice makes none with nothing in it
    with zipfile.ZipFile(layer) as content:
        for name in filter(_METADATA.fullmatch, content.namelist()):
            yield HeaderParser().parsestr(content.read(name).decode("utf-8", "replace"))


def _library(about: Any) -> dict[str, Any]:
    name, version = _name_of(about["Name"]), about["Version"]
    found = {"type": "library", "name": name, "version": version, "purl": f"pkg:pypi/{name}@{version}"}
    if expression := about.get("License-Expression"):
        found["licenses"] = [{"expression": expression}]
    return found


def _file(archive: Path) -> dict[str, Any]:
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    return {"type": "file", "name": archive.name, "hashes": [{"alg": "SHA-256", "content": digest}]}
