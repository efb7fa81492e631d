"""Which events are meant: the filters that listing and replaying share, as the values of their queries."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from chalicelib.postern.contract.payloads import jsonb_text

FILTERS = ("ids", "source", "type", "status", "since", "until", "issue", "contains", "key")


def as_values(filters: Mapping[str, Any]) -> dict[str, Any]:
    """Values for the condition of their queries; a filter that is not there lets everything through."""
    values = {name: filters.get(name) for name in FILTERS}
    if values["contains"] is not None:
        values["contains"] = jsonb_text(json.dumps(values["contains"]))
    if values["ids"] is not None:
        values["ids"] = [str(id) for id in values["ids"]]
    return values
