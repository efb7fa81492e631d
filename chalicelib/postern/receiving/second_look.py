"""Refused deliveries that were kept, looked at again by a person: why each was refused, and whether it verifies by now.

Whoever looks has the sources' secrets; the delivery is handed in, as the operator shows it.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from chalicelib.postern.contract.deliveries import REDACTED, Delivery, Greeting, Headers
from chalicelib.postern.contract.errors import Conflict, InvalidSignature, QueueUnavailable, Refusal, SecretUnavailable
from chalicelib.postern.receiving.explain import Finding, Known, ageless, explain
from chalicelib.postern.receiving.ingest import Inbox, accept
from chalicelib.postern.receiving.schemes.shared import VerifiedBefore

THROUGH = "let through"
THROUGH_THOUGH_STALE = "let through, although it was too old"
THROUGH_BEFORE = "was let through before"

_VERIFIED = Finding(
    "verified",
    "It was verified when it came, and then refused for what it holds. Mend the source (`schema`, `content_types`, "
    "`format`, `items`) or the sender; `postern reverify` then lets it through.",
)


@dataclass(frozen=True)
class Outcome:
    """What became of it, in words. `event`: the one that it is now, where it has just been let through; it says so with
    `note`. `before`: the one that it was already.
    """

    words: str
    event: UUID | None = None
    note: str | None = None
    before: str | None = None


@dataclass(frozen=True)
class SecondLook:
    """`inbox`: the way of every delivery, on which nothing that is refused again may be kept. `previous_of` gives the
    secrets that a source had before the last change, or raises SecretUnavailable.
    """

    inbox: Inbox
    previous_of: Callable[[str], list[str]]

    def causes(self, found: Mapping[str, Any]) -> list[Finding]:
        """The likeliest first; never empty. Raises SecretUnavailable where no secret can be had, and Conflict where the
        source is declared no more.
        """
        name = str(found["source"])
        if name not in self.inbox.sources:
            raise Conflict(f"The source '{name}' is declared no more.")
        if found["verified"]:
            return [_VERIFIED]
        known = Known(
            own=self._listed(name),
            previous=_of_before(self.previous_of, name),
            others={other: self._listed(other) for other in self.inbox.sources if other != name},
        )
        return explain(_delivery(found), self.inbox.sources[name], known, self.inbox.fetch)

    def let_through(self, found: Mapping[str, Any], *, stale: bool = False) -> Outcome:
        """On the way that every delivery goes, as of the time when it came; or why not. `stale`: also where only its
        time is too old.

        The event has the id of what was refused, so that a second time, or another operator at the same time, changes
        nothing. Raises QueueUnavailable, and SecretUnavailable as `causes` does.
        """
        name = str(found["source"])
        if found["event_id"]:
            return Outcome(THROUGH_BEFORE, before=str(found["event_id"]))
        delivery, words = _delivery(found), THROUGH
        try:
            try:
                result = accept(delivery, self.inbox, id=UUID(found["id"]))
            except InvalidSignature as refusal:
                if found["verified"]:
                    # It was right when it came. Passwords are not kept since, or the secret has changed.
                    result = accept(delivery, self._trusting(name, found["signed_id"]), id=UUID(found["id"]))
                elif stale and refusal.reason == "timestamp_stale":
                    result = accept(delivery, self._of_any_age(name), id=UUID(found["id"]))
                    words = THROUGH_THOUGH_STALE
                else:
                    raise
        except QueueUnavailable:
            raise
        except SecretUnavailable as exc:
            if _unreachable(exc):
                raise
            return Outcome(f"still refused: {exc.reason}")
        except Refusal as refusal:
            hidden = REDACTED in found["headers"].values() or REDACTED in dict(delivery.query).values()
            return Outcome(f"still refused: {refusal.reason}" + (" (credentials are not kept)" if hidden else ""))
        if isinstance(result, Greeting):
            return Outcome("is a handshake, or brings no event")
        note = "too old, and accepted at a person's word" if words == THROUGH_THOUGH_STALE else None
        return Outcome(words, result.id, note)

    def _listed(self, name: str) -> list[str]:
        """None where there are none, which is no fault of Secrets Manager's."""
        try:
            return self.inbox.secrets_of(name)
        except SecretUnavailable as exc:
            if _unreachable(exc):
                raise
            return []

    def _trusting(self, name: str, signed_id: str | None) -> Inbox:
        known, scheme = self.inbox.sources[name], VerifiedBefore(signed_id=signed_id)
        return replace(self.inbox, sources={name: replace(known, scheme=scheme, needs_secret=False, handshakes=())})

    def _of_any_age(self, name: str) -> Inbox:
        known = self.inbox.sources[name]
        return replace(self.inbox, sources={name: replace(known, scheme=ageless(known.scheme))})


def _unreachable(exc: SecretUnavailable) -> bool:
    return exc.reason.startswith("secrets_unreachable")


def _of_before(previous_of: Callable[[str], list[str]], name: str) -> list[str]:
    """There need not have been any."""
    try:
        return previous_of(name)
    except SecretUnavailable:
        return []


def _delivery(found: Mapping[str, Any]) -> Delivery:
    """As it came."""
    headers = [
        (name, value)
        for name, values in found["headers"].items()
        for value in (values if isinstance(values, list) else [values])
    ]
    return Delivery(
        source=found["source"],
        headers=Headers(headers),
        body=base64.b64decode(found["body"]),
        received_at=datetime.fromisoformat(found["received_at"]),
        request_id=found["request_id"],
        method=found["method"],
        url=found["url"],
        query=[(name, value) for name, value in found["query"]],
    )
