"""Measuring by turns: ours, theirs, ours, theirs, in one run, so that the machine's moods are in both.

What is told is a ratio: the median of the rounds' own, with their quartiles. A single time says more of the machine.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Clock = Callable[[], float]


@dataclass(frozen=True)
class Target:
    """A ratio that is to be reached: `>= 0.6` of their speed, or `<= 6` times their time."""

    bound: float
    is_speed: bool

    @classmethod
    def of(cls, text: str) -> Target:
        sign, bound = text.split()
        return cls(float(bound), sign == ">=")

    def __str__(self) -> str:
        return f"{'≥' if self.is_speed else '≤'} {self.bound:g} ×"

    def is_met(self, ratio: float) -> bool:
        return ratio >= self.bound if self.is_speed else ratio <= self.bound


class Unmeasured(Exception):
    """What a line needs is not here."""


@dataclass(frozen=True)
class Measured:
    """Medians of both in `unit`; the ratio's median and quartiles, of so many rounds."""

    ours: float
    theirs: float
    unit: str
    ratio: float
    low: float
    high: float
    rounds: int


@dataclass(frozen=True)
class Line:
    """One line of the table. `measure(is_speed=…)` is told which of the two is asked for, speed or time."""

    name: str
    what: str
    against: str
    target: Target
    measure: Callable[..., Measured]

    def row(self, measured: Measured) -> dict[str, Any]:
        return {
            "name": self.name,
            "what": self.what,
            "against": self.against,
            "ours": measured.ours,
            "theirs": measured.theirs,
            "unit": measured.unit,
            "ratio": measured.ratio,
            "quartiles": [measured.low, measured.high],
            "rounds": measured.rounds,
            "target": str(self.target),
            "met": self.target.is_met(measured.ratio),
        }


def by_turns(
    ours: Callable[[], float], theirs: Callable[[], float], *, rounds: int, is_speed: bool, unit: str, scale: float = 1
) -> Measured:
    """Each answers with its seconds (or bytes: what is less of). The first rounds warm up and are not counted."""
    pairs = [(ours(), theirs()) for _ in range(rounds + max(2, rounds // 10))][-rounds:]
    return measured(pairs, is_speed=is_speed, unit=unit, scale=scale)


def measured(pairs: Sequence[tuple[float, float]], *, is_speed: bool, unit: str, scale: float = 1) -> Measured:
    ratios = [theirs / ours if is_speed else ours / theirs for ours, theirs in pairs]
    low, ratio, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    mine, other = (statistics.median(times) * scale for times in zip(*pairs, strict=True))
    return Measured(mine, other, unit, ratio, low, high, len(pairs))


def timed(work: Callable[[], object], clock: Clock = time.perf_counter) -> float:
    began = clock()
    work()
    return clock() - began


def machine() -> dict[str, str]:
    """What it was measured on."""
    info = Path("/proc/cpuinfo")
    names = [line.partition(": ")[2] for line in info.read_text().splitlines() if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return {
        "processor": names[0] if names else platform.processor() or platform.machine(),
        "cores": str(os.cpu_count()),
        "memory": f"{memory:.1f} GB",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }
