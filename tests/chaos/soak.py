"""A long calm run: what grows in it? Memory, open files and connections of every process, and the room that tables
take for each event. `make soak`; the samples stand in bench/results/soak.json.
"""

from __future__ import annotations

import contextlib
import json
import random
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from tests.chaos.history import verdict
from tests.chaos.run import DONE_WITHIN, found_in, is_done, tell, until
from tests.chaos.senders import Senders
from tests.chaos.system import System

_EVERY_SECONDS = 5.0
# By which a thing may have grown between the second quarter of a run and the last.
_GROWTH = 0.15


def soak(folder: Path, seconds: float, rate: float, chance: random.Random, results: Path) -> int:
    system = System(folder)
    try:
        system.start()
        senders = Senders(system.port, system.secrets, random.Random(chance.random()))
        senders.start(rate)
        samples, until_then = [], time.monotonic() + seconds
        while time.monotonic() < until_then:
            time.sleep(_EVERY_SECONDS)
            samples.append(_sample(system, len(senders.history)))
        senders.stop()
        until(lambda: is_done(system), DONE_WITHIN)
        found = found_in(system)
        broken = verdict(senders.history, found)
        tell(system, senders, found, broken)
        results.write_text(json.dumps({"every": _EVERY_SECONDS, "rate": rate, "samples": samples}) + "\n", "utf-8")
        return 1 if _growth(samples) or broken else 0
    finally:
        system.stop()


def _sample(system: System, sent: int) -> dict[str, Any]:
    found: dict[str, Any] = {"sent": sent}
    for name in ("api", "backend", "processor", "postgres"):
        processes = system.processes(name)
        if name == "postgres" and system.server is not None:
            processes = system.postgres_processes()
        found[f"{name} MB"], found[f"{name} files"] = 0.0, 0
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                found[f"{name} MB"] += process.memory_full_info().uss / 1e6
                found[f"{name} files"] += process.num_fds()
    [(connections,)] = system.query("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'")
    [(tables, indexes)] = system.query(
        "SELECT sum(pg_table_size(c.oid))::float8, sum(pg_indexes_size(c.oid))::float8 FROM pg_class AS c "
        "JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE n.nspname = 'postern' AND c.relkind = 'r'"
    )
    found["connections"] = connections
    found["bytes of tables an event"], found["bytes of indexes an event"] = (
        tables / max(1, sent),
        indexes / max(1, sent),
    )
    return found


def _growth(samples: Sequence[Mapping[str, Any]]) -> list[str]:
    """What has grown, and a table of everything: the medians of a run's quarters but the first, which warms up."""
    grown = []
    print("| | second quarter | third | last | |\n|---|---|---|---|---|")
    quarter = len(samples) // 4
    for name in samples[-1]:
        if name == "sent":
            continue
        parts = [samples[n * quarter : (n + 1) * quarter] for n in (1, 2, 3)]
        second, third, last = (statistics.median(each[name] for each in part) for part in parts)
        grows = last > second * (1 + _GROWTH) and last - second > 2
        grown += [name] * grows
        print(f"| {name} | {second:,.1f} | {third:,.1f} | {last:,.1f} | {'**grows**' if grows else 'flat'} |")
    return grown
