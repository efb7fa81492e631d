"""`postern status`: what needs a person, in sentences, and the health of the inbox on one screen."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from chalicelib.postern.contract.errors import ConfigurationError, PosternError
from chalicelib.postern.receiving.sources import SourcesFileError, load_sources
from cli import output
from cli.arguments import Commands
from cli.local import LocalRun, Operator, operator, running_here

# A batch takes seconds, and a retry may wait for minutes; what waits longer than this waits for somebody.
_LONG = timedelta(minutes=5)
# Of the local run's logs: how far back, and how much of each is read.
_RECENT = timedelta(minutes=10)
_READ_BYTES = 2_000_000


class Weight(StrEnum):
    """How much it matters, the heaviest first. A note does not need a person today."""

    WRONG = "wrong"  # events are lost, late, or refused
    LOOK = "look"
    NOTE = "note"


@dataclass(frozen=True)
class Need:
    weight: Weight
    sentence: str


@dataclass(frozen=True)
class Seen:
    """What was answered, by the action's name, and why another was not; of the local run also what its logs say."""

    answers: Mapping[str, Mapping[str, Any]]
    problems: Mapping[str, str]
    delays: Mapping[str, int] = field(default_factory=dict)  # reason -> how often of late
    maintenance: str | None = None  # why its last run failed
    without_secret: tuple[str, ...] = ()
    at: datetime = field(default_factory=lambda: datetime.now(UTC))


def add_commands(commands: Commands, deployed: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "status",
        parents=[deployed],
        help="say what needs a person, and how the inbox does; exit code 1 when something does",
    )
    parser.add_argument("--all", action="store_true", help="include sources that nothing ever came from")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_status)


def _status(options: argparse.Namespace) -> int:
    seen = look(operator())
    found = sorted(needs(seen), key=lambda need: list(Weight).index(need.weight))
    well = all(need.weight is Weight.NOTE for need in found)
    if options.json:
        answer = {**seen.answers.get("status", {}), "queues": seen.answers.get("queues")}
        print(output.as_json({**answer, "well": well, "needs": [asdict(need) for need in found]}))
    else:
        print(page(seen, found, everything=options.all))
    return 0 if well else 1


def look(on: Operator) -> Seen:
    """Asks one thing after the other; what does not answer is a finding as well."""
    answers, problems = dict[str, Mapping[str, Any]](), dict[str, str]()
    for action in ("migrations", "status", "queues", "handlers"):
        try:
            answers[action] = on.perform({"action": action})
        except ConfigurationError as exc:
            if action != "queues":  # a database alone has none
                problems[action] = str(exc)
        except PosternError as exc:
            problems[action] = str(exc)
    run = running_here()
    if run is None:
        return Seen(answers, problems)
    delays, maintenance = _logged(run)
    return Seen(answers, problems, delays, maintenance, tuple(_without_secret(run)))


def needs(seen: Seen) -> Iterator[Need]:
    """What is wrong, to be looked at, or worth a note."""
    status, queues = seen.answers.get("status"), seen.answers.get("queues")
    yield from _of_the_database(seen)
    yield from _of_the_handlers(seen)
    if queues:
        yield from _of_the_queues(seen, queues)
    elif problem := seen.problems.get("queues"):
        yield Need(Weight.LOOK, f"The queues could not be asked: {problem}")
    number = sum(seen.delays.values())
    for reason, _ in Counter(seen.delays).most_common(1):
        weight = Weight.WRONG if queues is None or _depth(queues) else Weight.NOTE  # it is over
        yield Need(weight, f"Put off {number} times in the last ten minutes, uncharged, mostly for: {reason}"[:200])
    failing = (status or {}).get("failing_duties", ())
    for duty in failing:
        last = f"was done last at {duty['done_at']}" if duty["done_at"] else "has never been done"
        yield Need(Weight.WRONG, f"Maintenance fails at '{duty['name']}', which {last}: {duty['reason']}"[:300])
    if seen.maintenance and not failing:
        yield Need(Weight.WRONG, f"The last run of maintenance failed: {seen.maintenance}")
    if seen.without_secret:
        names = ", ".join(seen.without_secret)
        yield Need(Weight.LOOK, f"Without a secret, and so answering 503: {names}. Take what you do not use out.")
    if status:
        yield from _of_the_inbox(status)


def _of_the_database(seen: Seen) -> Iterator[Need]:
    migrations = seen.answers.get("migrations")
    if problem := seen.problems.get("status") or seen.problems.get("migrations"):
        yield Need(Weight.WRONG, f"The database cannot be asked, and events wait in the queue: {problem}")
    if migrations and migrations["problem"]:
        yield Need(Weight.WRONG, migrations["problem"])
    elif migrations and migrations["pending"]:
        yield Need(Weight.WRONG, f"To be migrated: {', '.join(migrations['pending'])} (`{output.command('migrate')}`).")
    if seen.answers.get("status", {}).get("read_only"):
        yield Need(Weight.WRONG, "The database takes nobody's writes (it is read-only, or a standby): events wait.")


def _of_the_handlers(seen: Seen) -> Iterator[Need]:
    if problem := seen.problems.get("handlers"):
        if "status" not in seen.problems:  # else it is the database, and said
            yield Need(Weight.WRONG, f"No event is processed, of any source: {problem}")
        return
    for doubt in seen.answers.get("handlers", {}).get("doubts", ()):
        yield Need(Weight.LOOK, doubt)


def _of_the_queues(seen: Seen, queues: Mapping[str, Any]) -> Iterator[Need]:
    status = seen.answers.get("status", {})
    number = _depth(queues) - sum(each["events"] for each in status.get("postponed", ()))
    # What is missing for good, or a dead letter, would make it old.
    since = status.get("waiting_since") if status.get("ledger", {}).get("balanced") else None
    if number > 0 and since and (waited := seen.at - datetime.fromisoformat(since)) > _LONG:
        minutes = waited.total_seconds() / 60
        yield Need(
            Weight.WRONG, f"About {number} accepted events wait for the database, the oldest for {minutes:.0f} min."
        )
    if letters := queues["dead_letters"]["waiting"]:
        yield Need(Weight.LOOK, f"About {letters} dead letters: `{output.command('dead')}` lists them.")


def _depth(queues: Mapping[str, Any]) -> int:
    return sum(queues["queue"].values())


def _of_the_inbox(status: Mapping[str, Any]) -> Iterator[Need]:
    ledger, identity = status["ledger"], status["identity"]
    if not ledger["balanced"]:
        missing = f"{ledger['missing']} accepted events are MISSING from the database"
        yield Need(Weight.WRONG, f"{missing} (`{output.command('ledger')}`).")
    if ledger["stale"]:
        yield Need(Weight.WRONG, "Maintenance has not run for half an hour; see its log.")
    if status["dead"]:
        listed = output.command("events --status dead")
        yield Need(Weight.LOOK, f"{status['dead']} dead events, which nothing tries again (`{listed}`).")
    for row in status["sources"]:
        if quiet := row["quiet"]:
            yield Need(
                Weight.LOOK,
                f"{row['source']} is QUIET for {quiet['minutes']} min, where about {quiet['expected']:.0f} "
                "have events at this time of the week.",
            )
    if number := identity["other_bytes"]:
        told = f"{number} deliveries of the last day came under a known id with OTHER BYTES"
        yield Need(Weight.LOOK, f"{told} (`{output.command('duplicates')}`).")
    if number := identity["bytes_alone"]:
        told = f"{number} deliveries of the last day were taken for repetitions for their bytes alone"
        yield Need(Weight.NOTE, f"{told} (`{output.command('duplicates')}`, docs/sources.md).")
    if number := identity["same_bytes"]:
        yield Need(Weight.NOTE, f"{number} of the last day with the bytes of an earlier event (docs/sources.md).")
    for each in status.get("postponed", ()):
        waits = f"{each['events']} events are put off by {each['handler']}, the first since {each['since']}"
        yield Need(Weight.NOTE, f"{waits}: {each['reason']}"[:200])
    if status["failed"]:
        oldest = status["oldest_failed"]
        which = (
            f"; the oldest: {oldest['id']}, {oldest['source']} {oldest['type']}: {oldest['error']}" if oldest else ""
        )
        yield Need(Weight.NOTE, f"{status['failed']} failed and will be tried again{which}"[:200])
    for key, what, ask in (
        ("open_issues", "issues are open", "issues"),
        ("open_drift", "changes of payloads that nobody has accepted", "drift"),
        ("running_replays", "replays run or rest", "replays"),
    ):
        if status[key]:
            yield Need(Weight.NOTE, f"{status[key]} {what} (`{output.command(ask)}`).")


def page(seen: Seen, found: list[Need], *, everything: bool) -> str:
    told = [f"{need.weight:<6} {output.plain(need.sentence)}" for need in found]
    if all(need.weight is Weight.NOTE for need in found):
        told.insert(0, "Nothing needs a person.")
    parts = ["\n".join(told)]
    if status := seen.answers.get("status"):
        parts += _sources(status, everything=everything)
    parts.append("\n".join(_facts(seen)))
    return "\n\n".join(filter(None, parts))


def _sources(status: Mapping[str, Any], *, everything: bool) -> Iterator[str]:
    sources = [row | {"state": _state(row)} for row in status["sources"] if everything or row["last_seen"]]
    columns = {"source": "SOURCE", "last_seen": "LAST SEEN", "hour": "HOUR", "day": "DAY", "state": "STATE"}
    hint = f"`{output.command('send github push')}` helps."
    yield output.table(sources, columns) if sources else f"Nothing has come yet. {hint}"
    if silent := len(status["sources"]) - len(sources):
        yield f"Nothing ever came from {silent} other sources (--all lists them)."


def _facts(seen: Seen) -> Iterator[str]:
    if queues := seen.answers.get("queues"):
        depth = queues["queue"]
        yield f"queue   about {depth['waiting']} wait, {depth['in_work'] + depth['delayed']} are in work or put off"
    if status := seen.answers.get("status"):
        ledger = status["ledger"]
        balance = "balanced" if ledger["balanced"] else f"{ledger['missing']} MISSING"
        waiting = f", {ledger['waiting']} may be on their way" if ledger["waiting"] else ""
        yield f"ledger  {balance}{waiting}, checked {ledger['checked_at'] or 'never'}"


def _state(row: Mapping[str, Any]) -> str:
    if row["quiet"] is None:
        return "-" if row["last_seen"] is None else "ok"
    return "QUIET"


def _logged(run: LocalRun) -> tuple[Mapping[str, int], str | None]:
    """Why events were put off of late, and why maintenance failed, where its last run did."""
    since, delays, maintenance = datetime.now(UTC) - _RECENT, Counter[str](), None
    for entry in _entries(run, "processor-*.log"):
        if entry["message"] == "event.delayed" and _time_of(entry) > since:
            delays[str(entry.get("reason"))] += 1
    for entry in _entries(run, "maintenance.log"):
        if entry["message"] in ("maintenance.done", "maintenance.failed"):
            maintenance = str(entry.get("reason")) if entry["message"] == "maintenance.failed" else None
    return delays, maintenance


def _entries(run: LocalRun, names: str) -> Iterator[Mapping[str, Any]]:
    for file in sorted(run.logs.glob(names)):
        with file.open("rb") as log:
            log.seek(max(0, file.stat().st_size - _READ_BYTES))
            for line in log.read().decode("utf-8", "replace").splitlines():
                try:
                    entry = json.loads(line)
                except ValueError:
                    continue  # not one of ours, or the middle of one
                if isinstance(entry, dict) and "message" in entry:
                    yield entry


def _time_of(entry: Mapping[str, Any]) -> datetime:
    try:
        return datetime.strptime(str(entry["timestamp"]), "%Y-%m-%d %H:%M:%S,%f%z")
    except (KeyError, ValueError):
        return datetime.now(UTC)


def _without_secret(run: LocalRun) -> Iterator[str]:
    try:
        sources = load_sources(run.sources_file)
        known = run.secrets()
    except (SourcesFileError, ValueError):
        return  # said by whatever needs them
    for name, source in sources.items():
        if source.needs_secret and not known.get(name):
            yield name
