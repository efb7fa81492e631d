"""The team's handlers: `@on(source, type)`, finding them, and running one event's.

    from chalicelib.handling import on

    @on("stripe", "invoice.paid")
    def mark_paid(event, db):
        db.execute("UPDATE invoices SET paid = true WHERE id = %s", (event.payload["data"]["object"]["id"],))

`event` is a `chalicelib.deliveries.Event`; `db` is a psycopg2 cursor inside the event's transaction. What a
handler wrote is kept only if every handler of the event returns.
"""

from __future__ import annotations

import importlib
import pkgutil
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, TypeVar

from chalicelib.deliveries import Event
from chalicelib.errors import ConfigurationError

Function = Callable[[Event, Any], object]
_F = TypeVar("_F", bound=Function)

# The end of a traceback is where the error is.
_LONGEST_ERROR = 8_000


@dataclass(frozen=True)
class Handler:
    """One decorated function and which events it is for; `*` stands for any run of characters."""

    source: str
    type: str
    function: Function

    def takes(self, source: str, type: str) -> bool:
        return fnmatchcase(source, self.source) and fnmatchcase(type, self.type)


_registered: list[Handler] = []


def on(source: str, type: str = "*") -> Callable[[_F], _F]:
    """Registers a handler for events of this source and type."""

    def register(function: _F) -> _F:
        _registered.append(Handler(source, type, function))
        return function

    return register


def discover(package: str = "chalicelib.handlers") -> Sequence[Handler]:
    """Imports every module of the package; the handlers that registered themselves, in order.

    Raises ConfigurationError when one cannot be imported.
    """
    root = importlib.import_module(package)
    for module in pkgutil.iter_modules(root.__path__, prefix=f"{package}."):
        try:
            importlib.import_module(module.name)
        except Exception as exc:
            raise ConfigurationError(
                f"Handlers in {module.name} cannot be imported: {type(exc).__name__}: {exc}"
            ) from exc
    return tuple(_registered)


def run(handlers: Sequence[Handler], event: Event, db: Any) -> None:
    for handler in handlers:
        handler.function(event, db)


def describe(failure: BaseException) -> str:
    """A failure as it is stored: the error in the first line, then the end of its traceback."""
    # Without this module's and the adapter's frames, which are the same in every failure.
    trace = failure.__traceback__
    while trace is not None and trace.tb_frame.f_globals.get("__name__", "").startswith(
        ("chalicelib.adapters.", "chalicelib.handling", "chalicelib.process")
    ):
        trace = trace.tb_next
    summary = f"{type(failure).__name__}: {failure}".splitlines()[0][:1_000]
    full = "".join(traceback.format_exception(failure.with_traceback(trace)))
    return f"{summary}\n\n{full[-_LONGEST_ERROR:]}"
