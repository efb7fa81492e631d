"""What is kept of a failed attempt, and which failures are the same issue."""

from __future__ import annotations

import hashlib
import linecache
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from types import TracebackType

from chalicelib.postern.contract.errors import MAX_LATER_SECONDS, PermanentError, RetryLater

# The end of a traceback is where the error is.
_MAX_TRACEBACK_LENGTH = 8_000
_MAX_MESSAGE_LENGTH = 900

# Frames that are the same in every failure.
_OURS = (
    "chalicelib.postern.adapters.",
    "chalicelib.postern.processing.attempts",
    "chalicelib.postern.processing.handling",
    "chalicelib.postern.processing.limits",
    "chalicelib.postern.processing.order",
    "chalicelib.postern.processing.engine",
)


@dataclass(frozen=True)
class Failure:
    """A handler's failure, as it is stored. `issue`: the same for failures of the same kind at the same place."""

    handler: str
    error_class: str
    message: str
    traceback: str
    issue: str
    permanent: bool

    @property
    def text(self) -> str:
        """The error in the first line, then the end of its traceback."""
        return f"{self.error_class}: {self.message}\n\n{self.traceback}"


def failure_of(error: BaseException, handler: str) -> Failure:
    trace = _of_the_team(error.__traceback__)
    name = type(error).__name__
    return Failure(
        handler=handler,
        error_class=name,
        message=_message(error),
        traceback="".join(traceback.format_exception(error.with_traceback(trace)))[-_MAX_TRACEBACK_LENGTH:],
        issue=_fingerprint(handler, name, _place(trace)),
        permanent=isinstance(error, PermanentError),
    )


@dataclass(frozen=True)
class Later:
    """What a handler asked for with RetryLater."""

    seconds: int
    why: str


def later_of(error: BaseException | None) -> Later | None:
    """None where it is another error, or one of the team's own kind that is not as it should be."""
    if not isinstance(error, RetryLater):
        return None
    seconds: object = getattr(error, "seconds", None)
    if not isinstance(seconds, int | float) or not 1 <= seconds <= MAX_LATER_SECONDS:
        return None
    return Later(ceil(seconds), _message(error))


def _of_the_team(trace: TracebackType | None) -> TracebackType | None:
    while trace is not None and trace.tb_frame.f_globals.get("__name__", "").startswith(_OURS):
        trace = trace.tb_next
    return trace


def _message(error: BaseException) -> str:
    try:
        lines = str(error).splitlines()
    except Exception:
        # An error of the team's own that fails once more when it is asked what it is.
        return "(no message)"
    return lines[0][:_MAX_MESSAGE_LENGTH] if lines else ""


def _place(trace: TracebackType | None) -> str:
    """The innermost line of the handler's own module, as its code reads.

    Not the line's number, which any deployment may change, nor the message, which quotes the event.
    """
    frames = list(_frames(trace))
    if not frames:
        return ""
    module = frames[0].tb_frame.f_globals.get("__name__")
    own = [frame for frame in frames if frame.tb_frame.f_globals.get("__name__") == module][-1]
    code = own.tb_frame.f_code
    return f"{code.co_name}: {linecache.getline(code.co_filename, own.tb_lineno).strip()}"


def _frames(trace: TracebackType | None) -> Iterator[TracebackType]:
    while trace is not None:
        yield trace
        trace = trace.tb_next


def _fingerprint(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "replace")).hexdigest()[:12]
