"""One run: faults, then none, then the verdict."""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg2

from tests.chaos.faults import FAULTS, OF_THE_DISK, OF_THE_SERVER
from tests.chaos.history import Found, Kind, tally, verdict
from tests.chaos.senders import Senders
from tests.chaos.system import System

_FAULT_SECONDS = (2.0, 5.0)
# After a fault: until an event that is sent then has its row. More than that is not recovered; a message that was in
# the hands of what was killed comes back after 22 s.
_RECOVERED_WITHIN = 90.0
# After all of them: until nothing waits. A message that was in a container's hands comes back after 22 s.
DONE_WITHIN = 180.0
_A_MINUTE = timedelta(minutes=1)


def run(folder: Path, seconds: float, rate: float, chance: random.Random, only: str) -> int:
    system = System(folder)
    try:
        system.start()
        return _run(system, seconds, rate, chance, only)
    except KeyboardInterrupt:
        return 130
    finally:
        system.stop()


def _run(system: System, seconds: float, rate: float, chance: random.Random, only: str) -> int:
    senders = Senders(system.port, system.secrets, random.Random(chance.random()))
    senders.start(rate)
    probing = random.Random(chance.random())
    problems: list[str] = []
    end = time.monotonic() + seconds
    for several in _order(system, chance, only):
        if time.monotonic() > end:
            break
        _harm(system, several, chance)
        took = _recovery(system, senders, probing)
        print(
            f"{' and '.join(several):<70} {'NOT RECOVERED' if took is None else f'recovered in {took:.1f} s'}",
            flush=True,
        )
        if took is None:
            problems.append(f"not recovered from {several}")
        if not system.is_up:
            problems.append("the supervisor gave up")
            break
    senders.stop()
    took = until(lambda: is_done(system), DONE_WITHIN)
    print(f"Without faults: {'not done' if took is None else f'all is done after {took:.0f} s'}.", flush=True)
    found = found_in(system)
    broken = verdict(senders.history, found)
    if _hot_rows_differ(system):
        broken["rows that many want"] = ["their counts are not the number of effects"]
    if tally(senders.history)["accepted"] < seconds * rate / 4:
        problems.append("hardly anything was accepted")
    problems += [f"it harmed nothing: {name}" for name in system.harmless]
    tell(system, senders, found, broken)
    for problem in problems:
        print(f"PROBLEM: {problem}", flush=True)
    return 1 if broken or problems else 0


def _order(system: System, chance: random.Random, only: str) -> list[list[str]]:
    """Each alone, and then pairs, for as long as there is time."""
    impossible = OF_THE_SERVER if system.server is None else set() if system.has_own_disk else OF_THE_DISK
    names = [name for name in FAULTS if name.startswith(only) and name not in impossible]
    if not names:
        raise ValueError(f"No fault that can be done here begins with '{only}'; there are {', '.join(FAULTS)}.")
    chance.shuffle(names)
    pairs = [chance.sample(names, 2) for _ in range(2_000)] if len(names) > 1 else [[names[0]]] * 20
    return [*([name] for name in names), *pairs]


def _harm(system: System, several: list[str], chance: random.Random) -> None:
    seconds = chance.uniform(*_FAULT_SECONDS)
    wrong: list[BaseException] = []

    def one(name: str, own: random.Random) -> None:
        try:
            FAULTS[name](system, own, seconds)
        except psycopg2.Error:
            pass  # the other of a pair has taken the database away
        except BaseException as exc:
            wrong.append(exc)

    threads = [threading.Thread(target=one, args=(name, random.Random(chance.random()))) for name in several]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if wrong:
        raise wrong[0]


def _recovery(system: System, senders: Senders, chance: random.Random) -> float | None:
    began = time.monotonic()
    key = senders.send(Kind.PLAIN, 0, random.Random(chance.random()))

    def there() -> bool:
        try:
            return bool(system.query("SELECT 1 FROM public.effects WHERE key = %s", key))
        except psycopg2.Error:
            return False

    # A probe that found nobody at all has had no effect, and what comes after it has.
    while not senders.history[key].is_accepted and time.monotonic() - began < _RECOVERED_WITHIN:
        key = senders.send(Kind.PLAIN, 0, random.Random(chance.random()))
    took = until(there, _RECOVERED_WITHIN)
    return None if took is None else time.monotonic() - began


def until(check: Callable[[], bool], seconds: float) -> float | None:
    """How long it took, or None where it took longer."""
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        if check():
            return time.monotonic() - began
        time.sleep(0.1)
    return None


def is_done(system: System) -> bool:
    failed = system.query("SELECT 1 FROM postern.events WHERE status NOT IN ('processed', 'dead') LIMIT 1")
    return not failed and system.messages("queue_url") == 0


def found_in(system: System) -> Found:
    effects = dict(system.query("SELECT key, count(*) FROM public.effects GROUP BY key"))
    rows: dict[str, list[str]] = {}
    keys: dict[str, str] = {}
    for id, key, status in system.query("SELECT id::text, payload ->> 'key', status FROM postern.events"):
        rows.setdefault(key, []).append(status)
        keys[id] = key
    letters = {json.loads(letter["Body"])["id"] for letter in system.letters()}
    waiting = system.messages("queue_url")
    return Found(effects, rows, frozenset(keys.get(id, id) for id in letters), waiting, _missing(system))


def _missing(system: System) -> int:
    """By the ledger's word of later than now."""
    done = datetime.now(UTC) + _A_MINUTE  # the metrics of a minute come after it
    told: dict[str, Any] = {}

    def balances() -> bool:
        nonlocal told
        told = json.loads(system.postern("ledger", "--json") or "{}") or told
        at = told.get("checked_at")
        return bool(at and datetime.fromisoformat(at) > done)

    if until(balances, 180) is None:
        raise TimeoutError(f"The ledger was not looked at again: {told.get('checked_at')}")
    return int(told["missing"])


def _hot_rows_differ(system: System) -> bool:
    [(counted,)] = system.query("SELECT sum(n) FROM public.hot")
    [(there,)] = system.query(
        "SELECT count(*) FROM postern.events WHERE status = 'processed' AND payload -> 'hot' = 'true'"
    )
    return bool(counted != there)


def tell(system: System, senders: Senders, found: Found, broken: dict[str, list[str]]) -> None:
    counted = tally(senders.history)
    print(
        f"{len(senders.history):,} events sent in {counted['answers']:,} deliveries: {counted['accepted']:,} accepted, "
        f"{counted['refused']:,} refused, {counted['unknown']:,} unknown."
    )
    statuses = Counter(status for several in found.rows.values() for status in several)
    print(f"{sum(found.effects.values()):,} effects; rows: {dict(statuses)}; {len(found.letters):,} dead letters.")
    harms = {name: number for name, number in (system.aws.done + system.database.done).items() if name != "fine"}
    print(f"Done on the way: {dict(sorted(harms.items()))}")
    for promise, keys in broken.items():
        print(f"BROKEN: {promise}: {len(keys)}: {', '.join(keys[:5])}{' …' if len(keys) > 5 else ''}")
    print("Every promise was kept." if not broken else "Promises were broken.", flush=True)
