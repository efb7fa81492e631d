"""What follows from measured figures and from AWS's, by arithmetic: what a million events cost at which rate, and what
becomes of ten thousand events a second.

Prices and assumptions are those of docs/cost.md. Nothing here was measured in AWS.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

# Cost

_MONTH = 730 * 3600
# USD a million: API Gateway, answers, the API function's requests and time; sending, and the fair queue.
_DOOR = 3.50 + 0.05 + 0.20 + 0.25
_SENDING = 0.40 + 0.10
_REQUESTS, _SQS = 0.20, 0.40
_GIGABYTE_SECOND, _GIGABYTES = 16.66667, 0.5
# USD a month: polling; its secrets and the calls for them.
_POLLING, _SECRETS = 0.26, 0.80 + 0.29
# What says how it does: alarms, the dashboard, maintenance; metrics.
_WATCHING, _METRICS = 3.98, 5.70

RATES = [10 ** (exponent / 8) for exponent in range(-24, 25)]


def a_million(rate: float, *, window: float, watched: bool) -> float:
    """USD for a million events at so many a second. A batch has what comes within `window` seconds, ten at most."""
    batch = min(10.0, max(1.0, rate * window))
    seconds = 0.0167 + 0.0033 * batch  # 20 ms for one, 50 for ten
    processing = (_REQUESTS + seconds * _GIGABYTES * _GIGABYTE_SECOND + 2 * _SQS) / batch
    logs = 1.178 + 0.433 / batch
    a_month = _POLLING + _SECRETS + (_WATCHING + _METRICS if watched else 0.0)
    return _DOOR + _SENDING + processing + logs + a_month / (rate * _MONTH / 1e6)


def cost() -> dict[str, Any]:
    """By rate: as it is shipped, with a window of five seconds, and a bare one, which nobody hears from when it
    fails: the same functions and queue without alarms, metrics, dashboard and ledger.
    """
    return {
        "rates": RATES,
        "shipped": [a_million(rate, window=0, watched=True) for rate in RATES],
        "window": [a_million(rate, window=5, watched=True) for rate in RATES],
        "bare": [a_million(rate, window=0, watched=False) for rate in RATES],
    }


# Ten thousand a second


@dataclass(frozen=True)
class Settings:
    """A stage's, as it is shipped. `cores`: the database's; `disk`: bytes a second that its volume writes."""

    throttling: float = 500
    concurrency: int = 10
    batch_size: int = 10
    account: int = 1000
    cores: int = 2
    disk: float = 125e6


@dataclass(frozen=True)
class Measures:
    """`rates`: events a second of one processor, by size of batch; `database`, `log`: seconds of its CPU and bytes of
    its log an event, by size.
    """

    rates: Mapping[int, float]
    database: Mapping[int, float]
    log: Mapping[int, float]

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> Measures:
        """Where a round trip takes about a millisecond, as within a region."""
        near = sorted({each["round_trip"] for each in found["rates"]})[1]
        return cls(
            {each["size"]: each["ours"] for each in found["rates"] if each["round_trip"] == near},
            {each["size"]: each["postgres"] for each in found["costs"]},
            {each["size"]: each["log"] for each in found["costs"]},
        )


# Billed time of the API function, as docs/cost.md assumes it.
_ACK_SECONDS = 0.030
# What a processor does between two batches: Lambda polls, invokes, and deletes.
_BETWEEN_SECONDS = 0.010
WANTED = 10_000


def limits(settings: Settings, measures: Measures) -> dict[str, float]:
    """Events a second that each part takes."""
    size = settings.batch_size
    seconds = size / measures.rates[size] + _BETWEEN_SECONDS
    return {
        "ThrottlingRate": settings.throttling,
        "the account's concurrency, for the API function": (settings.account - settings.concurrency) / _ACK_SECONDS,
        "processors": settings.concurrency * size / seconds,
        "the database's CPU": settings.cores / measures.database[size],
        "the database's log": settings.disk / measures.log[size],
    }


# Each: what it is called, the limit that it is for, and what it makes of the settings.
MOVES: Sequence[tuple[str, str, Callable[[Settings], Settings]]] = [
    ("`ThrottlingRate=10000`", "ThrottlingRate", lambda was: replace(was, throttling=10_000)),
    ("`BatchSize=100`, `BatchingWindowSeconds=1`", "processors", lambda was: replace(was, batch_size=100)),
    ("`MaximumConcurrency=30`", "processors", lambda was: replace(was, concurrency=30)),
    ("an `InstanceClass` of 8 cores", "the database's CPU", lambda was: replace(was, cores=8)),
]


@dataclass(frozen=True)
class Step:
    """With these settings `limit` is the first that is reached, at so many events a second; `move` is what moves it,
    empty where nothing needs to.
    """

    settings: Settings
    limit: str
    rate: float
    move: str = ""


def steps(measures: Measures) -> list[Step]:
    """From what is shipped to ten thousand a second, a limit at a time."""
    found, now, left = [], Settings(), list(MOVES)
    while True:
        reached = limits(now, measures)
        limit = min(reached, key=lambda name: reached[name])
        if reached[limit] >= WANTED:
            return [*found, Step(now, limit, reached[limit])]
        move = next((each for each in left if each[1] == limit), None)
        if move is None:
            return [*found, Step(now, limit, reached[limit])]
        left.remove(move)
        found.append(Step(now, limit, reached[limit], move[0]))
        now = move[2](now)


def waiting(settings: Settings, measures: Measures, *, seconds: int = 300, until: int = 1200) -> list[float]:
    """Messages in the queue, each second: ten thousand come a second for so long, and then none. Lambda begins with
    five batches at once, and adds five a second, up to the concurrency.
    """
    reached = limits(replace(settings, throttling=WANTED), measures)
    most = min(rate for name, rate in reached.items() if name != "ThrottlingRate")
    depth, found = 0.0, []
    for second in range(until):
        at_once = min(1.0, (5 + 5 * second) / settings.concurrency)
        depth = max(0.0, depth + (WANTED if second < seconds else 0) - min(most, reached["processors"] * at_once))
        found.append(depth)
    return found
