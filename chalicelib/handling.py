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
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
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
    registered_by: str = ""  # the module; the function may come from another

    def takes(self, source: str, type: str) -> bool:
        return _matches(self.source, source) and _matches(self.type, type)


def _matches(pattern: str, text: str) -> bool:
    # Not fnmatch, to which '?' and '[' are special as well.
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), text, re.DOTALL) is not None


_registered: list[Handler] = []


def on(source: str, type: str = "*") -> Callable[[_F], _F]:
    """Registers a handler for events of this source and type."""
    module = sys._getframe(1).f_globals.get("__name__", "")

    def register(function: _F) -> _F:
        _registered.append(Handler(source, type, function, module))
        return function

    return register


def discover(package: str = "chalicelib.handlers") -> Sequence[Handler]:
    """Imports every module of the package; the handlers that registered themselves, in order.

    Raises ConfigurationError when one cannot be imported.
    """
    root = _import(package)
    for module in pkgutil.iter_modules(root.__path__, prefix=f"{package}."):
        _import(module.name)
    return tuple(_registered)


def _import(module: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except (Exception, SystemExit) as exc:
        # It is imported again with the next batch; what it registered before it failed must not be there twice.
        # Whatever it had imported before stays imported, and so do the handlers in there.
        _registered[:] = [h for h in _registered if h.registered_by in sys.modules]
        raise ConfigurationError(f"Handlers in {module} cannot be imported: {type(exc).__name__}: {exc}") from exc


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
    summary = f"{type(failure).__name__}: {_message(failure)}".splitlines()[0][:1_000]
    full = "".join(traceback.format_exception(failure.with_traceback(trace)))
    return f"{summary}\n\n{full[-_LONGEST_ERROR:]}"


def _message(failure: BaseException) -> str:
    try:
        return str(failure)
    except Exception:
        # An error of the team's own that fails once more when it is asked what it is.
        return "(no message)"
