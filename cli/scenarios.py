"""Several real deliveries with the time between them, as one file: what `export --scenario` writes and `play` sends.

`{"postern_scenario": 1, "deliveries": [{"after": 1.5, "source", "type", "headers": [[NAME, VALUE], …], "body"}, …]}`.
A body that is no UTF-8 stands as `body_base64`. `after` is in seconds, from the delivery before.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from chalicelib.postern.contract.errors import PosternError
from cli.forwarding import sendable

_VERSION = 1


@dataclass(frozen=True)
class Scene:
    """A delivery, `after` seconds behind the one before. What signed it is none of it: whoever plays it signs anew."""

    after: float
    source: str
    type: str
    headers: Sequence[tuple[str, str]]
    body: bytes


def scenes_of(deliveries: Sequence[Mapping[str, Any]]) -> list[Scene]:
    """Of events as `show` has them, with the whole of the delivery that brought each, in the order of their receipt."""
    scenes: list[Scene] = []
    before: datetime | None = None
    for each in sorted(deliveries, key=lambda each: (each["received_at"], each["id"])):
        at = datetime.fromisoformat(each["received_at"])
        after = round((at - before).total_seconds(), 3) if before else 0.0
        headers = sendable(each["headers"]).headers
        scenes.append(Scene(after, each["source"], each["type"], headers, base64.b64decode(each["body"])))
        before = at
    return scenes


def write(file: Path, scenes: Sequence[Scene]) -> None:
    """Raises PosternError where it is there already, or cannot be written."""
    content = {"postern_scenario": _VERSION, "deliveries": [_as_json(scene) for scene in scenes]}
    try:
        with file.open("x", encoding="utf-8") as made:
            made.write(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    except FileExistsError:
        raise PosternError(f"{file} is there already; name another file.") from None
    except OSError as exc:
        raise PosternError(f"{file} cannot be written: {exc.strerror}.") from exc


def read(file: Path) -> list[Scene]:
    """Raises PosternError with a sentence."""
    try:
        content = json.loads(file.read_text("utf-8"))
    except OSError as exc:
        raise PosternError(f"{file} cannot be read: {exc.strerror}.") from exc
    except (ValueError, RecursionError):
        raise PosternError(f"{file} is no JSON.") from None
    if not isinstance(content, dict) or content.get("postern_scenario") != _VERSION:
        raise PosternError(f"{file} is no scenario of this version; `postern export --scenario FILE` makes one.")
    try:
        return [_scene(each) for each in content["deliveries"]]
    except (KeyError, TypeError, ValueError) as exc:
        raise PosternError(f"{file} is no whole scenario ({type(exc).__name__}: {exc}).") from None


def _as_json(scene: Scene) -> dict[str, Any]:
    try:
        body = {"body": scene.body.decode("utf-8")}
    except UnicodeDecodeError:
        body = {"body_base64": base64.b64encode(scene.body).decode()}
    facts = {"after": scene.after, "source": scene.source, "type": scene.type}
    return {**facts, "headers": [list(pair) for pair in scene.headers], **body}


def _scene(found: Mapping[str, Any]) -> Scene:
    after, headers = float(found["after"]), [(str(name), str(value)) for name, value in found["headers"]]
    if not 0 <= after < float("inf"):
        raise ValueError("after is no time")
    body = base64.b64decode(found["body_base64"]) if "body_base64" in found else str(found["body"]).encode()
    return Scene(after, str(found["source"]), str(found["type"]), headers, body)
