"""The team's handlers: which take what, how they do, and what about them is doubtful."""

from __future__ import annotations

import difflib
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from marshmallow import Schema

from chalicelib.postern.operating.handlers.queries import Work
from chalicelib.postern.operating.operator import Action
from chalicelib.postern.processing.attempts import Runner
from chalicelib.postern.processing.handling import Handler


def views(runner: Callable[[], Runner], work: Work, sources: Callable[[], Iterable[str]]) -> dict[str, Action]:
    def handlers() -> Mapping[str, Any]:
        """Raises ConfigurationError where one cannot be imported: no event is tried until then."""
        found = runner()
        kinds, failures, tries = work.kinds(), work.failures(), work.tries()
        return {
            "handlers": sorted({handler.name for handler in found.handlers}),
            "registered": [
                {
                    "name": handler.name,
                    "source": handler.source,
                    "type": handler.type,
                    "timeout": found.limit(handler),
                    "events": sum(number for kind, number in kinds.items() if handler.takes(*kind)),
                    **_times([took for source, type, took in tries if handler.takes(source, type)]),
                    "failures": failures.get(handler.name, {}).get("failures", 0),
                    "last_failure": failures.get(handler.name, {}).get("last_failure"),
                }
                for handler in found.handlers
            ],
            "doubts": [*doubts(found.handlers, sources())],
        }

    return {"handlers": Action(handlers, Schema())}


def doubts(handlers: Sequence[Handler], sources: Iterable[str]) -> Iterator[str]:
    """A sentence on each handler that is probably not what was meant, though it may be."""
    known = sorted(sources)
    for handler in handlers:
        if not any(handler.takes_source(source) for source in known):
            near = difflib.get_close_matches(handler.source, known, 1)
            perhaps = f"; '{near[0]}' is" if near else ""
            yield f"{handler.name} is for the source '{handler.source}', which sources.toml does not declare{perhaps}."
    functions = Counter(handler.name for handler in {id(each.function): each for each in handlers}.values())
    for name, number in functions.items():
        if number > 1:
            yield f"{number} handlers are called {name}: what fails in one is told of all."


def _times(milliseconds: Sequence[float]) -> dict[str, float | None]:
    if len(milliseconds) < 2:
        only = milliseconds[0] if milliseconds else None
        return {"p50_ms": only, "p95_ms": only}
    parts = statistics.quantiles(milliseconds, n=20, method="inclusive")
    return {"p50_ms": parts[9], "p95_ms": parts[18]}
