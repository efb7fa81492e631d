"""`make curves`: what no single figure says, measured or worked out, and drawn into docs/images/.

Latency against rate, processing against the way to the database, cost against rate, and ten thousand events a second.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import latency, models, round_trips
from bench.turns import machine

FILE = Path(__file__).parent / "results" / "curves.json"

_MEASURED: Mapping[str, Callable[[], Any]] = {
    "round_trips": round_trips.described,
    "latency": latency.described,
    "memory": latency.memory,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.curves", description=__doc__)
    parser.add_argument("--draw", action="store_true", help="draw what was measured before, and measure nothing")
    if parser.parse_args().draw:
        found: dict[str, Any] = json.loads(FILE.read_text("utf-8"))
    else:
        found = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "machine": machine()}
        for name, measure in _MEASURED.items():
            began = time.monotonic()
            print(f"{name} …", end=" ", file=sys.stderr, flush=True)
            found[name] = measure()
            print(f"{time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
        FILE.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    _tell(found)
    from bench import plots

    for file in plots.draw(found):
        print(file, file=sys.stderr)
    return 0


def _tell(found: dict[str, Any]) -> None:
    print("| POSTs a second | to the 202: p50, p99, most | to the committed row: p50, p99, most |\n|---|---|---|")
    for each in found["latency"]:
        cells = [
            ", ".join(f"{each[what][name]:.1f}" for name in ("p50", "p99", "max")) + " ms"
            for what in ("answered", "committed")
        ]
        print(f"| {each['rate']:,} | {' | '.join(cells)} |")
    print("\n| round trip | in batches of | events a second | by hand | one by one |\n|---|---|---|---|---|")
    for each in found["round_trips"]["rates"]:
        speeds = " | ".join(f"{each[name]:,.0f}" for name in ("ours", "by_hand", "one_by_one"))
        print(f"| {each['round_trip']:.2f} ms | {each['size']:,} | {speeds} |")
    print("\n| the first limit | at events a second | what moves it |\n|---|---|---|")
    measures = models.Measures.of(found["round_trips"])
    for step in models.steps(measures):
        print(f"| {step.limit} | {step.rate:,.0f} | {step.move} |")
    reached = models.limits(step.settings, measures)
    print("\nWith all of these:", ", ".join(f"{name} {rate:,.0f}" for name, rate in reached.items()))
    print("\n| process | its peak |\n|---|---|")
    for module, megabytes in found["memory"].items():
        print(f"| {module} | {megabytes:.0f} MB |")


if __name__ == "__main__":
    sys.exit(main())
