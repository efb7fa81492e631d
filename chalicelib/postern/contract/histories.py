"""What a provider's API answers to whoever reads its history, and the two ways in which it does not."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from chalicelib.postern.contract.deliveries import Headers
from chalicelib.postern.contract.errors import PosternError
from chalicelib.postern.contract.numbers import Number

# Halves of characters, which JSON may escape and no UTF-8 has.
SURROGATES = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Answer:
    """Of the provider's API. `at`: by its clock."""

    text: str
    headers: Headers
    at: datetime

    def json(self) -> Any:
        """Raises ProviderBusy where it is none: what answers is not the API, or is ill."""
        try:
            return json.loads(self.text)
        except (ValueError, RecursionError):
            raise ProviderBusy("what answers is no JSON") from None

    def json_as_written(self) -> Any:
        """With the digits of its numbers, as contract.numbers.dumps writes them again. Raises NoCopy."""
        try:
            return json.loads(self.text, parse_float=Number, parse_int=Number)
        except (ValueError, RecursionError):
            raise NoCopy("What the provider has of it cannot be read.") from None


class ProviderRefuses(PosternError):
    """It will not answer however often it is asked: a sentence for whoever set it up."""


class NoCopy(PosternError):
    """This one thing it does not give, or not whole, or it is none of ours: a sentence."""


class ProviderBusy(PosternError):
    """It does not answer now. `seconds`: how long it wants to be left alone, where it says so."""

    def __init__(self, reason: str, seconds: float | None = None) -> None:
        super().__init__(reason)
        self.seconds = seconds


def as_event(detail: Mapping[str, Any]) -> dict[str, Any]:
    """How the reconciler is asked for something: in the shape in which its schedule's event comes."""
    empty = dict.fromkeys(("id", "account", "time", "region"), "")
    return {
        "version": "0",
        "detail-type": "Postern",
        "source": "postern",
        "resources": [],
        **empty,
        "detail": {**detail},
    }
