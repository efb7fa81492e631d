"""`reconcile` on the command line: what a provider says that it sent is compared with what is here."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

from chalicelib.postern.adapters.provider_api import ProviderApi
from chalicelib.postern.adapters.s3 import S3Bodies
from chalicelib.postern.adapters.sqs import SqsQueue
from chalicelib.postern.contract.errors import PosternError, QueueUnavailable, SecretUnavailable
from chalicelib.postern.contract.histories import as_event
from chalicelib.postern.receiving.ingest import Inbox
from chalicelib.postern.receiving.reconciling import Reconciler, Step
from chalicelib.postern.receiving.sources import load_sources
from chalicelib.postern.running import logs, wiring
from cli import arguments, output
from cli.arguments import Commands
from cli.local import LocalRun, Operator, operator

# Of a provider that does not say for how long: twice as long each time, and after the last one somebody has to look.
_PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
_SHOWN = 10
# Two machines' clocks.
_JUST_NOW = timedelta(minutes=1)


def add_commands(commands: Commands, deployed: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "reconcile",
        parents=[deployed],
        help="compare a source with its provider's own history, and fetch what did not arrive",
        description="Reads what the provider says that it sent, shows what never arrived, was refused or is dead, and "
        "fetches what never arrived or was refused. Nothing is processed twice. Ctrl-C pauses; the same command goes "
        "on. Without SOURCE: lists reconciliations.",
    )
    parser.add_argument("source", nargs="?", help="a source, such as github")
    parser.add_argument(
        "--since",
        type=arguments.moment,
        metavar="TIME",
        help="compare from then on, such as 2h (default: all there is)",
    )
    parser.add_argument("--plan", action="store_true", help="show the gaps; fetch nothing")
    parser.add_argument("--cancel", action="store_true", help="end the one of this source that is not done")
    parser.add_argument("--gaps", type=UUID, metavar="ID", help="show every gap that this reconciliation found")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_reconcile)


class _Steps(Protocol):
    """Whoever has the token and reaches the provider."""

    def begin(self, name: str, since: datetime | None, *, only_looks: bool) -> Mapping[str, Any]: ...
    def step(self, run: Mapping[str, Any]) -> Step: ...


class _OfStage:
    """A deployed stage's function: it has the token, and whoever asks it needs no right but to do so."""

    def __init__(self, function: str) -> None:
        from deployment.session import Session

        self._function, self._session = function, Session()

    def begin(self, name: str, since: datetime | None, *, only_looks: bool) -> Mapping[str, Any]:
        asked = {"source": name, "since": since and since.isoformat(), "only_looks": only_looks}
        return self._ask({"begin": asked}).run

    def step(self, run: Mapping[str, Any]) -> Step:
        return self._ask({"step": run["id"]})

    def _ask(self, detail: Mapping[str, Any]) -> Step:
        from deployment.errors import DeploymentError
        from deployment.store import ask

        try:
            answer = ask(self._session, self._function, as_event(detail))
        except DeploymentError as exc:
            raise PosternError(str(exc)) from None
        if "unavailable" in answer:
            raise PosternError(f"It is not done, and goes on with the same command: {answer['unavailable']}.")
        return Step(answer["reconciliation"], answer["held"], answer["seconds"])


def _reconcile(options: argparse.Namespace) -> int:
    on = operator()
    if options.gaps:
        return _gaps(on, str(options.gaps), as_json=options.json)
    if options.source is None:
        return _list(on, as_json=options.json)
    if options.cancel:
        return _cancel(on, options.source)
    try:
        steps, asked_at = _here(on), wiring.utc_now()
        run = steps.begin(options.source, options.since, only_looks=options.plan)
        if asked_at - datetime.fromisoformat(run["started_at"]) > _JUST_NOW:
            print(f"One that was begun at {run['started_at']} is under way, and goes on first.", file=sys.stderr)
            _walk(steps, run, options.source)
            run = steps.begin(options.source, options.since, only_looks=options.plan)
        run = _walk(steps, run, options.source)
    except (QueueUnavailable, SecretUnavailable) as exc:
        raise PosternError(f"It is not done, and goes on with the same command: {exc.reason}.") from exc
    return _report(on, run, asked=options)


def _here(on: Operator) -> _Steps:
    if function := os.environ.get("RECONCILER_FUNCTION"):
        return _OfStage(function)
    run = LocalRun.find()
    inbox = Inbox(
        load_sources(Path(os.environ.get("SOURCES_FILE") or run.sources_file)),
        run.secrets_of(),
        SqsQueue(os.environ["QUEUE_URL"]),
        S3Bodies(run.bodies_bucket),
        wiring.fetch,
    )
    return Reconciler(inbox, ProviderApi(), on.perform, wiring.utc_now, logs.line)


def _walk(steps: _Steps, run: Mapping[str, Any], source: str) -> Mapping[str, Any]:
    """To its end. Raises PosternError where the provider is not to be had for long."""
    bar = output.Progress()
    held = 0
    with bar.resumed_by(f"reconcile {source}"):
        while run["state"] in ("listing", "fetching"):
            step = steps.step(run)
            run = step.run
            if step.held is None:
                held = 0
            elif held == len(_PAUSES):
                raise PosternError(step.held)
            else:
                pause = step.seconds or _PAUSES[held]
                bar.note(f"{step.held} Asking again in {pause:,.0f} s.")
                time.sleep(pause)
                held += 1
            if run["state"] == "listing":
                bar.note(f"{run['listed']:,} listed, {_found(run)}")
            elif run["state"] == "fetching":
                bar.show(_settled(run), run["missing"] + run["refused"], "fetched")
    return run


def _settled(run: Mapping[str, Any]) -> int:
    return int(run["fetched"] + run["arrived"] + run["no_event"] + run["failed"])


def _found(run: Mapping[str, Any]) -> str:
    kinds = {"missing": "never arrived", "refused": "arrived and were refused", "dead": "arrived and are dead"}
    return ", ".join(f"{run[kind]:,} {words}" for kind, words in kinds.items())


def _report(on: Operator, run: Mapping[str, Any], *, asked: argparse.Namespace) -> int:
    """0 where no gap is left."""
    found = run["missing"] + run["refused"] + run["dead"]
    gaps = on.perform({"action": "gaps", "id": run["id"], "limit": _SHOWN})["gaps"]
    left = run["dead"] + (run["missing"] + run["refused"] if run["only_looks"] else run["failed"])
    code = 0 if run["state"] == "done" and not left else 1
    if asked.json:
        print(output.as_json({**run, "gaps": gaps}))
        return code
    if run["state"] != "done":
        print(f"postern: {run['error'] or 'It was cancelled.'}", file=sys.stderr)
    if asked.plan and not run["only_looks"]:
        print("One that fetches what is missing was under way already; this is it.", file=sys.stderr)
    what = f"{run['source']}, since {run['since'][:16]}Z: the provider lists {run['listed']:,}"
    if not found:
        print(f"{what}, {'of which none is missing' if run['state'] == 'done' else 'so far'}.")
        return code
    print(f"{what}, of which {_found(run)}.")
    _print_gaps(gaps)
    if found > len(gaps):
        print(f"… and {found - len(gaps):,} more: {output.command('reconcile --gaps ' + run['id'])}")
    print()
    if run["only_looks"] and run["missing"] + run["refused"]:
        print(f"`{output.command('reconcile ' + run['source'])}` fetches what never arrived or was refused.")
    elif not run["only_looks"]:
        became = {
            "fetched": "fetched and accepted",
            "arrived": "arrived meanwhile",
            "no_event": "bring no event",
            "failed": "could not be fetched",
        }
        said = [f"{run[state]:,} {words}" for state, words in became.items() if run[state]]
        print((", ".join(said) or "nothing was to be fetched") + ".")
    if run["dead"]:
        print(f"What is dead is here already: `{output.command('dead')}`, `{output.command('replay --status dead')}`.")
    return code


def _print_gaps(gaps: list[Mapping[str, Any]]) -> None:
    columns = {"happened_at": "SENT", "type": "TYPE", "kind": "GAP", "state": "STATE", "key": "KEY", "note": "NOTE"}
    print("\n" + output.table([{**gap, "note": gap["note"] or ""} for gap in gaps], columns))


def _gaps(on: Operator, id: str, *, as_json: bool) -> int:
    found: list[Mapping[str, Any]] = []
    while page := on.perform({"action": "gaps", "id": id, "after": found[-1]["key"] if found else None, "limit": 1000})[
        "gaps"
    ]:
        found += page
    if as_json:
        print(output.as_json(found))
    elif found:
        _print_gaps(found)
    else:
        print("It found no gap, or a later one found the same.")
    return 0


def _list(on: Operator, *, as_json: bool) -> int:
    found = on.perform({"action": "reconciliations"})["reconciliations"]
    if as_json:
        print(output.as_json(found))
    elif found:
        columns = {
            "started_at": "STARTED",
            "source": "SOURCE",
            "state": "STATE",
            "listed": "LISTED",
            "missing": "MISSING",
            "refused": "REFUSED",
            "dead": "DEAD",
            "fetched": "FETCHED",
            "failed": "FAILED",
            "id": "ID",
        }
        print(output.table(found, columns))
    else:
        print("Nothing was reconciled yet. `postern reconcile SOURCE --plan` shows the gaps of a source.")
    return 0


def _cancel(on: Operator, source: str) -> int:
    found = on.perform({"action": "reconciliations", "source": source, "limit": 1})["reconciliations"]
    if not found or not on.perform({"action": "cancel_reconciliation", "id": found[0]["id"]})["cancelled"]:
        print(f"None of {source} is under way.", file=sys.stderr)
        return 1
    print("Cancelled. What was fetched stays.")
    return 0
