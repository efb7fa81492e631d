"""One wide JSON line for each delivery, event and batch; never a body, never a secret.

A line that counts something is a metric as well: it says so itself (contract.metrics), so there is no second line.
What handlers log by the standard library comes as a line of the same shape, with its event's id.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

from chalicelib.postern.contract.deliveries import at_work
from chalicelib.postern.contract.metrics import embedded

if TYPE_CHECKING:
    from aws_lambda_powertools import Logger

SERVICE = "postern"

_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=str)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# What every line of one invocation says. The local server answers requests in threads; each has its own.
_invocation: ContextVar[Mapping[str, Any] | None] = ContextVar("invocation", default=None)
_cold_start = True


@cache
def logger() -> Logger:
    from aws_lambda_powertools import Logger

    # The place of the call would be this module in every line; and a line's trace is that of its event, not always
    # that of the invocation.
    return Logger(service=SERVICE, location=None, xray_trace_id=None)


class _Teams(logging.StreamHandler[Any]):
    """What others than Postern log: where from, and for which event."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.name == SERVICE:
            return  # written already
        record.logger = record.name
        if found := at_work.get():
            record.handler, event = found
            for name, value in (("id", str(event.id)), ("source", event.source), ("type", event.type)):
                if not hasattr(record, name):  # the handler's own word for something else
                    setattr(record, name, value)
        super().emit(record)


def listen_to_handlers() -> None:
    """From now on their `logging.getLogger(__name__)` is heard, from INFO on; of libraries, warnings are."""
    root, teams = logging.getLogger(), logging.getLogger("chalicelib")
    if any(isinstance(each, _Teams) for each in root.handlers):
        return
    ours = _Teams(sys.stdout)
    ours.setFormatter(logger().registered_formatter)
    # Lambda's own writes text, which says neither.
    root.handlers[:] = [each for each in root.handlers if not type(each).__name__.startswith("LambdaLoggerHandler")]
    root.addHandler(ours)
    if teams.level == logging.NOTSET:
        teams.setLevel(logging.INFO)


def begin(context: object, *, stage: str, **fields: Any) -> None:
    """What a door calls first: the lines that follow say which invocation they are of, and these fields."""
    global _cold_start
    _invocation.set(
        {
            "stage": stage,
            "function_request_id": getattr(context, "aws_request_id", None),
            "cold_start": _cold_start,
            **fields,
        }
    )
    _cold_start = False


def line(
    name: str,
    /,
    *,
    failed: bool = False,
    metrics: Mapping[str, float] | None = None,
    at: datetime | None = None,
    **fields: Any,
) -> None:
    """Logs `name` with these fields and metrics; those that are None are left out. `at`: when what is counted was."""
    # Written here, as Powertools would (crash, and what handlers log): its formatter takes three times as long, and its
    # import is a tenth of the public function's own.
    now = time.time()
    head = {
        "level": "WARNING" if failed else "INFO",
        "message": name,
        "timestamp": f"{time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(now))},{int(now % 1 * 1000):03}+0000",
        "service": SERVICE,
    }
    text = _ENCODER.encode({**head, **_entry(fields, metrics, at)})
    # What senders write may be half a surrogate pair, which no encoding has; to JSON it is an escape.
    sys.stdout.write(text.encode("utf-8", "backslashreplace").decode() + "\n")
    sys.stdout.flush()


def crash(name: str, /, *, metrics: Mapping[str, float] | None = None, **fields: Any) -> None:
    """Logs the exception that is being handled, traceback and all."""
    logger().exception(name, extra=_entry(fields, metrics))


@contextmanager
def timed(name: str, /, **fields: Any) -> Iterator[dict[str, Any]]:
    """Logs `name`.done with what the block adds to the fields, or `name`.failed with the kind of error."""
    started = time.perf_counter()
    try:
        yield fields
    except Exception as exc:
        line(f"{name}.failed", failed=True, **fields, reason=type(exc).__name__, duration_ms=ms_since(started))
        raise
    line(f"{name}.done", **fields, duration_ms=ms_since(started))


def ms_since(started: float) -> float:
    """Milliseconds since this reading of `time.perf_counter`."""
    return round((time.perf_counter() - started) * 1000, 1)


def _entry(
    fields: Mapping[str, Any], metrics: Mapping[str, float] | None, at: datetime | None = None
) -> dict[str, Any]:
    entry = {**(_invocation.get() or {}), **fields, **(metrics or {})}
    entry = {key: value for key, value in entry.items() if value is not None}
    # Outside of an invocation there is no stage to count for.
    if metrics and "stage" in entry:
        at_ms = time.time_ns() // 1_000_000 if at is None else (at - _EPOCH) // timedelta(milliseconds=1)
        entry["_aws"] = embedded(entry, metrics, at_ms)
    return entry
