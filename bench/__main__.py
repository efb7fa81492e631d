"""`make bench`: every line of one table, or with ONLY=NAME those whose names begin so; results into bench/results/."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import ack, cold_start, peers, processing, storage
from bench.turns import Line, Unmeasured, machine

RESULTS = Path(__file__).parent / "results"
LINES: Sequence[Line] = [*ack.LINES, *cold_start.LINES, *processing.LINES, *peers.LINES, *storage.LINES]


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("only", nargs="?", default="", help="the beginning of a line's name, such as ack")
    only = parser.parse_args().only
    wanted = [line for line in LINES if line.name.startswith(only)]
    if not wanted:
        print(f"No line begins with '{only}'; there are {', '.join(line.name for line in LINES)}.", file=sys.stderr)
        return 1
    rows = []
    for line in wanted:
        began = time.monotonic()
        print(f"{line.name} …", end=" ", file=sys.stderr, flush=True)
        try:
            rows.append(line.row(line.measure(is_speed=line.target.is_speed)))
        except Unmeasured as exc:
            print(f"not measured: {exc}", file=sys.stderr, flush=True)
            continue
        print(f"{time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    print(table(rows))
    file = _write(rows)
    print(f"\n{sum(row['met'] for row in rows)} of {len(rows)} targets are met. {file}", file=sys.stderr)
    return 0


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """In Markdown, for docs/performance.md as well."""
    lines = ["| line | what | against | ours | theirs | ratio | quartiles | target | |", "|" + "---|" * 9]
    for row in rows:
        low, high = row["quartiles"]
        cells = [
            *(row["name"], row["what"], row["against"], _figure(row["ours"], row["unit"])),
            *(_figure(row["theirs"], row["unit"]), f"{row['ratio']:.2f} ×", f"{low:.2f}–{high:.2f}", row["target"]),
            "met" if row["met"] else "missed",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _figure(value: float, unit: str) -> str:
    return f"{value:,.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"


def _write(rows: Sequence[Mapping[str, Any]]) -> Path:
    """Beside what is there of other lines, which may have been measured before."""
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / "results.json"
    known = {row["name"]: row for row in json.loads(file.read_text("utf-8"))} if file.exists() else {}
    at = datetime.now(UTC).isoformat(timespec="seconds")
    known |= {row["name"]: {**row, "at": at, "machine": machine()} for row in rows}
    ordered = [known[line.name] for line in LINES if line.name in known]
    file.write_text(json.dumps(ordered, indent=2, ensure_ascii=False) + "\n", "utf-8")
    return file


if __name__ == "__main__":
    sys.exit(main())
