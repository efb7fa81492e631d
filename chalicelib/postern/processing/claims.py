"""Which messages of a batch bring an event for the first time, and which repeat one.

Each event claims its key, and the insert decides who was first. A claim may hold for a window only: an event that comes
later takes it over. One that came earlier, and is processed later, is let in and claims nothing: it is no repetition of
what came after it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol
from uuid import UUID

from chalicelib.postern.contract.envelope import Accepted
from chalicelib.postern.processing.attempts import Work


@dataclass(frozen=True)
class Claim:
    """An event's word that a key is its own; for `window` seconds, or for as long as keys are kept."""

    source: str
    key: str
    event_id: UUID
    received_at: datetime
    window: int | None = None

    def repeats(self, since: datetime) -> bool:
        """Whether what has held the key since then is the same event."""
        return self.window is None or abs(self.received_at - since) < timedelta(seconds=self.window)


@dataclass(frozen=True)
class Holder:
    """The event that holds a key, and the SHA-256 of its body where it is stored."""

    event_id: UUID
    claimed_at: datetime
    body_hash: bytes | None = None


class Why(StrEnum):
    """Why a delivery was taken for a repetition."""

    SAME_ID = "same_id"
    SAME_ID_OTHER_BYTES = "same_id_other_bytes"
    SAME_BYTES = "same_bytes"


@dataclass(frozen=True)
class Repeat:
    """A delivery of the event `of`, which was there already."""

    work: Work
    of: UUID
    why: Why
    has_other_bytes: bool


class Keys(Protocol):
    """adapters.event_store gives each method's promise."""

    def claim(self, claims: Sequence[Claim]) -> set[Claim]: ...
    def holders(self, claims: Sequence[Claim]) -> dict[Claim, Holder]: ...
    def release(self, claims: Sequence[Claim]) -> None: ...


@dataclass(frozen=True)
class Claimed:
    """What a batch brings: events that are new (each with the one whose bytes it has under another id), those whose
    keys were claimed before (perhaps by themselves) with what holds them, and those that are refused for their bytes,
    with the event that has them.
    """

    new: list[Work] = field(default_factory=list)
    known: dict[UUID, Holder | None] = field(default_factory=dict)
    refused: dict[UUID, Holder] = field(default_factory=dict)


def claims_of(event: Accepted) -> list[Claim]:
    """All that may be claimed for it: its identity, and its bytes where they tell of a repetition."""
    identity = Claim(event.source, event.claim or event.dedup_key, event.id, event.received_at, event.window)
    if event.same_bytes is None:
        return [identity]
    bytes_claim = replace(identity, key=event.same_bytes, window=event.window if event.refuse_same_bytes else None)
    return [identity, bytes_claim]


def claim(works: Sequence[Work], keys: Keys) -> Claimed:
    """Claims the identity of each, and then the bytes of those that are new."""
    claimed = Claimed()
    identities = {work.event.id: claims_of(work.event)[0] for work in works}
    won, held = _claim(list(identities.values()), keys)
    first = [work for work in works if identities[work.event.id] in won]
    claimed.known.update({id: held.get(own) for id, own in identities.items() if own not in won})

    by_bytes = {work.event.id: each for work in first for each in claims_of(work.event)[1:]}
    _, held = _claim(list(by_bytes.values()), keys)
    for work in first:
        own = by_bytes.get(work.event.id)
        holder = held.get(own) if own else None
        if own is None or holder is None or holder.event_id == own.event_id or not own.repeats(holder.claimed_at):
            claimed.new.append(work)
        elif work.event.refuse_same_bytes:
            claimed.refused[work.event.id] = holder
        else:
            claimed.new.append(replace(work, same_body_as=holder.event_id))
    if claimed.refused:
        _claim_again(works, identities, claimed, keys)
    return claimed


def _claim_again(works: Sequence[Work], identities: Mapping[UUID, Claim], claimed: Claimed, keys: Keys) -> None:
    """What is refused is no event, and takes no id from a mate that has it too."""
    keys.release([identities[id] for id in claimed.refused])
    freed = [
        work
        for work in works
        if (held := claimed.known.get(work.event.id)) is not None and held.event_id in claimed.refused
    ]
    if not freed:
        return
    for work in freed:
        del claimed.known[work.event.id]
    again = claim(freed, keys)
    claimed.new.extend(again.new)
    claimed.known.update(again.known)
    claimed.refused.update(again.refused)


def _claim(claims: Sequence[Claim], keys: Keys) -> tuple[set[Claim], dict[Claim, Holder]]:
    """Those that were first, and what holds the keys of the others."""
    if not claims:
        return set(), {}
    for_good = [each for each in claims if each.window is None]
    won = keys.claim(for_good)
    held = keys.holders([each for each in for_good if each not in won])
    won_for_a_while, held_for_a_while = _claim_for_a_while([each for each in claims if each.window is not None], keys)
    return won | won_for_a_while, held | held_for_a_while


def _claim_for_a_while(claims: Sequence[Claim], keys: Keys) -> tuple[set[Claim], dict[Claim, Holder]]:
    """Of the claims on one key the earliest goes first, and the next where the window of what holds it has passed."""
    won, lost = set[Claim](), dict[Claim, Holder]()
    left = sorted(claims, key=lambda each: (each.received_at, each.event_id))
    while left:
        heads = {(each.source, each.key): each for each in reversed(left)}
        first = keys.claim(list(heads.values()))
        won |= first
        held = keys.holders([head for head in heads.values() if head not in first])
        lost |= held
        held |= {head: Holder(head.event_id, head.received_at) for head in first}
        further = []
        for each in left:
            head = heads[each.source, each.key]
            if each == head:
                continue
            if head in held and each.repeats(held[head].claimed_at):
                lost[each] = held[head]
            else:
                further.append(each)
        left = further
    return won, lost


def repeat_of(work: Work, holder: Holder, mates: Mapping[UUID, Work], *, bytes_decided: bool = False) -> Repeat:
    """What is kept of it. `mates`: works of the batch by their id, whose events may have no row yet."""
    known = holder.body_hash
    if known is None and holder.event_id in mates:
        known = hashlib.sha256(mates[holder.event_id].body).digest()
    differs = known is None or known != hashlib.sha256(work.body).digest()
    if bytes_decided or (work.event.claim or work.event.dedup_key).startswith("sha256:"):
        why = Why.SAME_BYTES
    else:
        why = Why.SAME_ID_OTHER_BYTES if differs and known is not None else Why.SAME_ID
    return Repeat(work, holder.event_id, why, differs)
