"""Pure: what was sent and how it was answered, against what is in the end: nothing lost, nothing twice.

As Jepsen's and TigerBeetle's checkers do: a POST ends as accepted, refused or unknown (no answer, or a 5xx). What was
accepted has its effect exactly once; of what is unknown there is one at most; of a forgery, or what was never sent,
there is none, and nothing else is refused. Effects are counted in a table that takes any number of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

ACCEPTED = 202


class Kind(StrEnum):
    """What becomes of an event by its handler."""

    PLAIN = "plain"
    FLAKY = "flaky"  # fails the first time
    POISON = "poison"  # fails for good
    FORGED = "forged"  # signed by somebody else: no event at all


@dataclass
class Sent:
    """Everything that was sent of one event. None stands for an answer that never came."""

    kind: Kind
    answers: list[int | None] = field(default_factory=list)

    @property
    def is_accepted(self) -> bool:
        return ACCEPTED in self.answers

    @property
    def is_refused(self) -> bool:
        """By an answer that is one: whoever gets it sends no more."""
        return any(answer is not None and 400 <= answer < 500 for answer in self.answers)


@dataclass(frozen=True)
class Found:
    """What there is in the end. `effects`: how many of each key; `rows`: the statuses of each key's events; `letters`:
    keys in the dead-letter queue; `waiting`: messages that are in the queue yet; `missing`: by the ledger.
    """

    effects: Mapping[str, int]
    rows: Mapping[str, Sequence[str]]
    letters: frozenset[str]
    waiting: int
    missing: int


def verdict(history: Mapping[str, Sent], found: Found) -> dict[str, list[str]]:
    """The keys that broke each promise; empty where all were kept."""
    broken: dict[str, list[str]] = {}
    for promise, key in _broken(history, found):
        broken.setdefault(promise, []).append(key)
    return broken


def _broken(history: Mapping[str, Sent], found: Found) -> Iterator[tuple[str, str]]:
    for key in {*found.effects, *found.rows, *found.letters} - history.keys():
        yield "out of nowhere", key
    for key, sent in history.items():
        effects, rows = found.effects.get(key, 0), list(found.rows.get(key, ()))
        if sent.kind is Kind.FORGED and (sent.is_accepted or rows or effects):
            yield "a forgery was let in", key
        elif sent.is_refused and sent.kind is not Kind.FORGED:
            yield "a good delivery was refused", key
        elif sent.is_accepted and not rows:
            yield "lost", key
        elif len(rows) > 1:
            yield "stored twice", key
        elif rows:
            yield from _of_a_row(key, sent, rows[0], effects, key in found.letters)
        elif effects:
            yield "an effect without its event", key
    if found.waiting:
        yield "stuck", f"{found.waiting} messages"
    if found.missing:
        yield "the ledger misses", f"{found.missing} events"


def _of_a_row(key: str, sent: Sent, status: str, effects: int, is_letter: bool) -> Iterator[tuple[str, str]]:
    if effects > 1:
        yield "effects twice", key
    match status, sent.kind:
        case "processed", Kind.POISON:
            yield "processed, though it cannot be", key
        case "processed", _:
            if not effects:
                yield "processed without its effect", key
            if is_letter:
                yield "a letter of what was processed", key
        case "dead", Kind.POISON:
            if effects:
                yield "an effect of what failed", key
            if not is_letter:
                yield "dead without its letter", key
        case "dead", _:
            yield "dead, though nothing is wrong with it", key
        case _:
            yield f"left as {status}", key


def tally(history: Mapping[str, Sent]) -> Counter[str]:
    """How many events were accepted, refused, or ended unknown; and how many answers there were."""
    counted: Counter[str] = Counter()
    for sent in history.values():
        counted["accepted" if sent.is_accepted else "refused" if sent.is_refused else "unknown"] += 1
        counted["answers"] += len(sent.answers)
    return counted
