"""Pure: when a source is quieter than it usually is.

What is learned is in how many minutes of each hour of the week something came: a burst of a thousand events is one
minute, as a single event is. If minutes are active by chance, each with the probability of its hour, then a gap in
which k active minutes are expected comes by chance with e^-k (Poisson). Two things are asked of a silence:

- k is at least 7: one in a thousand. Who speaks in many minutes has many gaps, so k grows with the logarithm of the
  active minutes of a year: that chance is to mislead no more than once in a year.
- It is longer, by half, than the gaps that ended at this time of the week before, but for the longest of them: who
  always speaks in bursts is silent between them, and not by chance.

A holiday is a silence: what is learned is a week.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

WEEKS_KEPT = 9

_MIN_EXPECTED = 7.0
_LONGER = 1.5
# Fewer observations than that, and the hours beside it are asked as well.
_FEW = 3

_MINUTE = timedelta(minutes=1)
_HOUR = timedelta(hours=1)
_WEEK = timedelta(weeks=1)

# Nothing shorter can be one: no minute expects more than one active minute.
MIN_SILENCE = int(_MIN_EXPECTED) * _MINUTE


@dataclass(frozen=True)
class Hour:
    """An hour in which something came. `longest_gap`: in minutes, of the gaps that ended in it."""

    hour: datetime
    active_minutes: int
    longest_gap: int | None


@dataclass(frozen=True)
class Silence:
    """Quiet for `minutes`, in which about `expected` minutes with events were to be expected."""

    minutes: int
    expected: float


def silence(history: Sequence[Hour], last_seen: datetime, now: datetime) -> Silence | None:
    """None for a source that is no quieter than usual, or of which less than a week is known.

    `history`: its hours in order; those without anything are left out. Times are in UTC.
    """
    if not history or now - last_seen < MIN_SILENCE:
        return None
    begins, ends = history[0].hour, _hour_of(last_seen)
    # What came since the silence began is not what it is measured by.
    known = {hour.hour: hour for hour in history if hour.hour < ends}
    if ends - begins < _WEEK:
        return None
    expected = 0.0
    hour = ends
    while hour < now:
        share = (min(now, hour + _HOUR) - max(last_seen + _MINUTE, hour)) / _HOUR
        expected += max(0.0, share) * _usual_minutes(hour, known, begins, ends)
        hour += _HOUR
    minutes = (now - last_seen) // _MINUTE
    if expected < _expected_at_least(known, ends - begins) or minutes <= _LONGER * _usual_gap(_hour_of(now), known):
        return None
    return Silence(minutes, expected)


def _expected_at_least(known: Mapping[datetime, Hour], span: timedelta) -> float:
    a_year = sum(hour.active_minutes for hour in known.values()) * (timedelta(days=365) / span)
    return max(_MIN_EXPECTED, math.log(max(a_year, 1.0)))


def _usual_minutes(hour: datetime, known: Mapping[datetime, Hour], begins: datetime, ends: datetime) -> float:
    """How many of the hour's minutes are active, as a mean of the weeks before without the highest: what happened
    once is no habit.
    """
    hours = [hour - week * _WEEK for week in range(1, WEEKS_KEPT + 1)]
    hours = [at for at in hours if begins <= at < ends]
    highest = 1
    if len(hours) < _FEW:
        # One of each three: beside a burst is no burst.
        highest = len(hours)
        hours = [at for near in hours for beside in (-1, 0, 1) if begins <= (at := near + beside * _HOUR) < ends]
    active = sorted(known[at].active_minutes if at in known else 0 for at in hours)
    usual = active[:-highest] if highest else []
    return sum(usual) / len(usual) if usual else 0.0


def _usual_gap(hour: datetime, known: Mapping[datetime, Hour]) -> int:
    """The longest of the gaps that ended about this hour of the week; without the very longest, an outage perhaps."""
    hours = [hour - week * _WEEK + beside * _HOUR for week in range(WEEKS_KEPT + 1) for beside in (-1, 0, 1)]
    gaps = sorted(gap for at in hours if at in known and (gap := known[at].longest_gap) is not None)
    return gaps[-2] if len(gaps) >= _FEW else gaps[-1] if gaps else 0


def _hour_of(moment: datetime) -> datetime:
    return moment.replace(minute=0, second=0, microsecond=0)
