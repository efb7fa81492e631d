"""What a person needs to know of a provider, and samples of what it sends: a file each in `cli/providers`.

title     its name
secret    what the secret is, and where the provider shows it
verified  what its entry in the catalogue was checked against
setup     the steps to set the webhook up; `{url}` is the source's address
notes     what else there is to know

[samples.TYPE]    the most common type first
body              `$uuid`, `$hex`, `$number`, `$seconds`, `$millis` and `$iso` stand for values of the moment
headers           besides the signature's, and those that hold the event's id and type
content_type      if it is not JSON
method            if it is not POST
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parent / "providers"


@dataclass(frozen=True)
class SampleText:
    """A sample as it stands in a guide."""

    body: str
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "application/json"


@dataclass(frozen=True)
class Guide:
    title: str
    secret: str
    setup: tuple[str, ...]
    samples: Mapping[str, SampleText]
    verified: str = ""
    notes: tuple[str, ...] = ()

    @property
    def default_type(self) -> str:
        """The type to send when none is named: the provider's most common one."""
        return next(iter(self.samples))


@cache
def guide(provider: str) -> Guide:
    """The guide to this provider; raises KeyError."""
    try:
        found: dict[str, Any] = tomllib.loads((_FOLDER / f"{provider}.toml").read_text("utf-8"))
    except FileNotFoundError:
        raise KeyError(provider) from None
    samples = {type: SampleText(**sample) for type, sample in found.pop("samples").items()}
    return Guide(
        title=found["title"],
        secret=found["secret"],
        setup=tuple(found["setup"]),
        samples=samples,
        verified=found.get("verified", ""),
        notes=tuple(found.get("notes", ())),
    )
