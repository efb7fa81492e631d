"""What is worked out for docs/performance.md: with the figures of docs/cost.md, and to the end."""

from __future__ import annotations

from itertools import pairwise

import pytest

from bench.models import WANTED, Measures, Settings, a_million, limits, steps, waiting

MEASURES = Measures({10: 300.0, 100: 600.0}, {10: 1e-4, 100: 1e-4}, {10: 2700.0, 100: 2700.0})


@pytest.mark.parametrize(("window", "a_month"), [(0, 7.27), (5, 5.85)])
def test_a_million_costs_what_the_page_on_costs_says(window: float, a_month: float) -> None:
    assert a_million(1e9, window=window, watched=True) == pytest.approx(a_month, abs=0.02)


def test_from_what_is_shipped_to_ten_thousand_each_step_moves_the_limit_that_was_first() -> None:
    found = steps(MEASURES)
    assert [each.limit for each in found[:2]] == ["ThrottlingRate", "processors"]
    assert all(later.rate > each.rate for each, later in pairwise(found))
    assert (found[-1].rate, found[-1].move) == (WANTED, "")
    assert min(limits(found[-1].settings, MEASURES).values()) == WANTED


def test_where_no_setting_moves_a_limit_it_is_told_as_the_last() -> None:
    slow = Measures(MEASURES.rates, {10: 1.0, 100: 1.0}, MEASURES.log)
    assert (steps(slow)[-1].limit, steps(slow)[-1].move) == ("the database's CPU", "")


def test_what_waits_grows_while_more_comes_than_is_done_and_is_gone_in_the_end() -> None:
    depth = waiting(Settings(batch_size=100), MEASURES, seconds=10, until=60)
    assert depth[9] == max(depth) > 10_000
    assert depth[-1] == 0
