"""When a source is quieter than usual, and when it only seems to be."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.postern.operating.quiet.silence import Hour, silence

MONDAY = datetime(2026, 9, 7, tzinfo=UTC)
MINUTE, HOUR, DAY, WEEK = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1), timedelta(weeks=1)


def hours_of(minutes: Iterable[datetime]) -> list[Hour]:
    """As the database counts them."""
    found: dict[datetime, Hour] = {}
    before: datetime | None = None
    for minute in minutes:
        hour = minute.replace(minute=0)
        gap = None if before is None else (minute - before) // MINUTE
        known = found.get(hour, Hour(hour, 0, None))
        longest = max((g for g in (gap, known.longest_gap) if g is not None), default=None)
        found[hour] = Hour(hour, known.active_minutes + 1, longest)
        before = minute
    return list(found.values())


def minutes(start: datetime, weeks: float, active: Callable[[datetime], bool]) -> list[datetime]:
    return [at for n in range(int(weeks * 7 * 24 * 60)) if active(at := start + n * MINUTE)]


def found(active: list[datetime], now: datetime) -> bool:
    seen = [minute for minute in active if minute <= now]
    return silence(hours_of(seen), seen[-1], now) is not None


def in_office(at: datetime) -> bool:
    return at.weekday() < 5 and 8 <= at.hour < 18


def by_chance(seed: int, rate: float) -> Callable[[datetime], bool]:
    chance = random.Random(seed)
    return lambda at: chance.random() < rate


def test_a_steady_source_that_stops_is_quiet_and_says_how_much_was_expected() -> None:
    active = minutes(MONDAY, 4, by_chance(1, 0.3))
    now = active[-1] + 45 * MINUTE
    silent = silence(hours_of(active), active[-1], now)
    assert silent is not None
    assert silent.minutes == 45
    assert 11 < silent.expected < 15


@given(days=st.floats(0.1, 7), rate=st.floats(0.01, 1), seed=st.integers(0, 99), quiet=st.integers(1, 100_000))
def test_nothing_is_expected_before_a_week_is_known(days: float, rate: float, seed: int, quiet: int) -> None:
    active = minutes(MONDAY, days / 7, by_chance(seed, rate)) or [MONDAY]
    assert not found(active, active[-1] + quiet * MINUTE)


OFFICE = minutes(MONDAY, 3, lambda at: in_office(at) and at.minute % 3 == 0)


@pytest.mark.parametrize("hours", range(14, 64, 7))
def test_a_source_of_the_office_hours_is_not_quiet_at_night_or_at_the_weekend(hours: int) -> None:
    friday = MONDAY + 2 * WEEK + 4 * DAY + 17 * HOUR + 57 * MINUTE
    assert friday in OFFICE
    assert not found([at for at in OFFICE if at <= friday], friday + hours * HOUR)


def test_a_source_of_the_office_hours_is_quiet_when_nothing_comes_on_a_working_day() -> None:
    friday = MONDAY + 2 * WEEK + 4 * DAY + 17 * HOUR + 57 * MINUTE
    active = [at for at in OFFICE if at <= friday]
    assert not found(active, MONDAY + 3 * WEEK + 8 * HOUR + 10 * MINUTE)
    assert found(active, MONDAY + 3 * WEEK + 11 * HOUR)


@pytest.mark.parametrize("weeks", [1.5, 3, 9])
@pytest.mark.parametrize(("on", "every"), [(10, 60), (30, 180), (60, 24 * 60)])
def test_a_source_that_speaks_in_bursts_is_not_quiet_between_them(on: int, every: int, weeks: float) -> None:
    active = minutes(MONDAY, weeks, lambda at: ((at - MONDAY) // MINUTE) % every < on)
    for waited in range(1, every - on, 7):
        assert not found(active, active[-1] + waited * MINUTE)


def test_and_it_is_when_its_burst_does_not_come() -> None:
    active = minutes(MONDAY, 9, lambda at: at.minute < 10)
    assert found(active, active[-1] + 2 * HOUR)


def test_what_happened_once_is_not_expected_again() -> None:
    once = MONDAY + WEEK + 10 * HOUR
    active = minutes(MONDAY, 2, lambda at: (at.hour == 3 and at.minute == 0) or once <= at < once + HOUR)
    assert not found(active, MONDAY + 2 * WEEK + 12 * HOUR)


def test_an_outage_of_before_does_not_hide_one_of_today() -> None:
    outage = MONDAY + WEEK + DAY + 10 * HOUR
    chance = by_chance(3, 0.3)
    active = [at for at in minutes(MONDAY, 4, chance) if not outage <= at < outage + 6 * HOUR]
    end = MONDAY + 3 * WEEK + DAY + 14 * HOUR
    assert found([at for at in active if at <= end], end + 90 * MINUTE)


@pytest.mark.parametrize("rate", [0.002, 0.02, 0.1, 0.3, 0.9])
def test_chance_alone_misleads_nobody(rate: float) -> None:
    """Eight weeks are learned; then each gap of two weeks is asked about where it is longest."""
    active = minutes(MONDAY, 10, by_chance(7, rate))
    learned = MONDAY + 8 * WEEK
    hours = hours_of(active)
    for last, after in pairwise(active):
        if last >= learned and after - last > 7 * MINUTE:
            assert silence([h for h in hours if h.hour <= last], last, after) is None


EVERY_OTHER_MINUTE = hours_of(minutes(MONDAY, 3, lambda at: at.minute % 2 == 0))


@given(last=st.integers(0, 59), wait=st.integers(0, 400), later=st.integers(0, 400))
def test_what_is_expected_only_grows_while_a_silence_lasts(last: int, wait: int, later: int) -> None:
    seen = MONDAY + 3 * WEEK + last * MINUTE
    hours = EVERY_OTHER_MINUTE
    early, late = silence(hours, seen, seen + wait * MINUTE), silence(hours, seen, seen + (wait + later) * MINUTE)
    if early is not None:
        assert late is not None
        assert late.expected >= early.expected


def test_a_long_silence_is_measured_by_what_was_before_it() -> None:
    active = minutes(MONDAY, 3, by_chance(5, 0.3))
    for days in (1, 8, 20):
        assert found(active, active[-1] + days * DAY)
