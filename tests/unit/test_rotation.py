"""When an old secret is called safe to retire, and above all when it is not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from chalicelib.postern.receiving.naming import fingerprint
from cli.refusals import _rows

NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)
NEW, OLD = "canary-new", "canary-old"

# Days ago: the first and the last event that it verified.
Used = tuple[float, float]


def says(listed: list[str], **used: Used) -> dict[str, str]:
    """What is said of each secret; `used` by `new`, `old` and `gone`."""
    names = {
        fingerprint("shop", secret): name for name, secret in (("new", NEW), ("old", OLD), ("gone", "canary-gone"))
    }
    prints = {name: mark for mark, name in names.items()}
    rows: list[dict[str, Any]] = [
        {"source": "shop", "secret": prints[name], "events": 1, "first": ago(first), "last": ago(last)}
        for name, (first, last) in used.items()
    ]
    made = _rows("shop", listed, rows)
    assert "canary" not in str(made)
    return {names[row["secret"].split()[0]]: row["says"] for row in made}


def ago(days: float) -> str:
    return (NOW - timedelta(days=days)).isoformat().replace("+00:00", "Z")


def test_an_old_secret_is_safe_to_retire_after_a_week_in_which_the_new_one_verified_everything() -> None:
    found = says([NEW, OLD], new=(10, 0), old=(30, 9))
    assert found["old"] == "safe to retire: newer ones have verified everything since 2026-11-14 12:00"
    assert found["new"] == ""


def test_one_that_was_not_used_at_all_is_as_safe() -> None:
    assert says([NEW, OLD], new=(10, 0))["old"].endswith("since 2026-11-13 12:00")


@pytest.mark.parametrize(
    "used",
    [
        {"old": (30, 0)},  # the provider has not been told yet
        {},
        {"old": (30, 20)},
        {"new": (3, 0), "old": (30, 4)},
        {"new": (20, 0), "old": (30, 6)},  # some of its senders still have the old one
        {"new": (20, 18), "old": (30, 19)},  # nothing came for weeks: nobody can tell
        {"new": (20, 10), "old": (30, 2)},  # the provider was put back
        {"gone": (30, 0)},
        {"gone": (30, 0), "old": (30, 25)},
    ],
)
def test_until_then_neither_is(used: dict[str, Used]) -> None:
    found = says([NEW, OLD], **used)
    assert (found["new"], found["old"]) == ("", "")


def test_a_secret_that_is_listed_no_more_is_named_so() -> None:
    assert says([NEW], new=(1, 0), gone=(9, 2)) == {"new": "", "gone": "no longer listed"}
