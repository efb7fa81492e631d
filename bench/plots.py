"""The curves, drawn: SVG that is read on a light page and on a dark one."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench import models

sys.path.append(str(Path(sys.prefix) / "peers"))

FOLDER = Path(__file__).parents[1] / "docs" / "images"
_COLORS = ["#2563eb", "#d97706", "#6b7280", "#059669"]
# Each from this to the next: of a hundred POSTs so many were quicker.
_CUTS = ["p1", "p10", "p25", "p50", "p75", "p90", "p95", "p99", "p99.9"]


def draw(found: Mapping[str, Any]) -> list[Path]:
    return [_latency(found["latency"]), _round_trips(found["round_trips"]), _cost(), _waiting(found["round_trips"])]


@contextmanager
def _figure(name: str, across: str, up: str) -> Iterator[Any]:
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update(
        {"svg.hashsalt": "postern", "svg.fonttype": "none", "font.size": 11, "font.family": "sans-serif"}
    )
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9.5, 4.2), layout="constrained")
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.grid(visible=True, alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    yield axes
    for axis in (axes.xaxis, axes.yaxis):
        if axis.get_scale() == "log":
            axis.set_major_formatter(lambda value, _: f"{value:,.10g}")
    figure.legend(loc="outside right upper", frameon=False)
    figure.savefig(FOLDER / name, facecolor="white", metadata={"Date": None})
    pyplot.close(figure)


def _latency(found: Any) -> Path:
    with _figure("curve-latency.svg", "of a hundred events, so many were quicker", "ms from the POST") as axes:
        for color, each in zip(_COLORS, found, strict=False):
            label = f"{each['rate']:,} a second"
            # Of few, the slowest in a thousand is not known.
            cuts = [cut for cut in _CUTS if (100 - float(cut[1:])) / 100 * each["posts"] >= 1]
            axes.plot(cuts, [each["committed"][cut] for cut in cuts], color=color, label=f"{label}: row committed")
            axes.plot(cuts, [each["answered"][cut] for cut in cuts], color=color, ls=":", label=f"{label}: 202")
        axes.set_yscale("log")
        axes.set_xticks(range(len(_CUTS)), [cut[1:] for cut in _CUTS])
    return FOLDER / "curve-latency.svg"


def _round_trips(found: Any) -> Path:
    with _figure("curve-round-trips.svg", "events in a batch", "events a second, one processor") as axes:
        for color, trip in zip(_COLORS, sorted({each["round_trip"] for each in found["rates"]}), strict=False):
            mine = [each for each in found["rates"] if each["round_trip"] == trip]
            sizes = [each["size"] for each in mine]
            axes.plot(sizes, [each["ours"] for each in mine], color=color, marker="o", label=f"Postern, {trip:.1f} ms")
            axes.plot(sizes, [each["by_hand"] for each in mine], color=color, ls=":", label="by hand")
        axes.set_xscale("log")
        axes.set_yscale("log")
    return FOLDER / "curve-round-trips.svg"


def _cost() -> Path:
    found = models.cost()
    names = {
        "shipped": "as it is shipped",
        "window": "with a window of 5 s",
        "bare": "no alarms, metrics, ledger",
    }
    with _figure("curve-cost.svg", "events a second, all month", "USD a million") as axes:
        for color, (name, label) in zip(_COLORS, names.items(), strict=False):
            axes.plot(found["rates"], found[name], color=color, label=label, ls=":" if name == "bare" else "-")
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_yticks([5, 10, 20, 50, 100, 1000, 5000], ["5", "10", "20", "50", "100", "1,000", "5,000"])
    return FOLDER / "curve-cost.svg"


def _waiting(found: Any) -> Path:
    measures, shipped = models.Measures.of(found), models.Settings()
    several = {
        "as it is shipped, but for ThrottlingRate": shipped,
        "BatchSize=100": replace(shipped, batch_size=100),
        "and MaximumConcurrency=30": replace(shipped, batch_size=100, concurrency=30),
    }
    with _figure("curve-ten-thousand.svg", "minutes; 10,000 events a second for five", "millions in the queue") as axes:
        for color, (label, settings) in zip(_COLORS, several.items(), strict=False):
            depth = models.waiting(settings, measures)
            axes.plot([n / 60 for n in range(len(depth))], [each / 1e6 for each in depth], color=color, label=label)
    return FOLDER / "curve-ten-thousand.svg"
