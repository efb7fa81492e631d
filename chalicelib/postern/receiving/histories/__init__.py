"""What providers remember of their own deliveries: a module each, which says how to read it.

A provider's history tells what it sent, whether or not it arrived. `postern reconcile` compares it with what is here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib import import_module
from typing import Protocol

from chalicelib.postern.contract.histories import Answer, ProviderBusy

# Each is a module here, of the same name.
PROVIDERS = ("github", "stripe")


@dataclass(frozen=True)
class Entry:
    """Something that the provider says it sent. `key` is the dedup key that it has, or would have; `handle` is what the
    provider gives its content for. `refused`: it says that we answered with a 4xx.
    """

    key: str
    at: datetime
    type: str | None
    handle: str
    refused: bool = False


@dataclass(frozen=True)
class Page:
    """A part of a history, the newest first. `next`: where the one behind it begins, or None where nothing is left;
    `now`: by the provider's clock.
    """

    entries: Sequence[Entry]
    next: str | None
    now: datetime


@dataclass(frozen=True)
class Copy:
    """A delivery as the provider gives it out. Its bytes may have been written in several ways, the likeliest first:
    where they were signed, the signature says which it was.
    """

    headers: Sequence[tuple[str, str]]
    bodies: Iterable[bytes]


class Api(Protocol):
    """The provider's API, as whom the token is of."""

    def get(self, url: str, query: Mapping[str, str], headers: Mapping[str, str]) -> Answer | None:
        """None where there is no such thing (404, 410). Raises ProviderRefuses, ProviderBusy, and NoCopy where it is
        this question that it does not answer.
        """


class History(Protocol):
    """How to read one provider's: `keeps` is for how long it remembers, `place` what its address looks like, `right`
    what the token has to be allowed.
    """

    keeps: timedelta
    place: str
    right: str

    def page(self, api: Api, url: str, token: str, *, since: datetime, cursor: str | None) -> Page:
        """From `cursor` on, what was sent from `since` on. Raises ProviderRefuses and ProviderBusy."""

    def copy(self, api: Api, url: str, token: str, handle: str) -> Copy:
        """Raises NoCopy as well."""


def history_of(provider: str) -> History:
    """Raises KeyError where its history cannot be read."""
    if provider not in PROVIDERS:
        raise KeyError(provider)
    found: History = import_module(f"{__name__}.{provider}").HISTORY
    return found


def moment(text: object) -> datetime:
    """Raises ProviderBusy for what is no time with its zone."""
    try:
        found = datetime.fromisoformat(str(text))
    except ValueError:
        raise ProviderBusy("what answers is not what its documentation says") from None
    if found.tzinfo is None:
        raise ProviderBusy("what answers is not what its documentation says")
    return found
