"""The team's handlers: `@on(source, type)`, finding them, and running one event's.

    from chalicelib.postern import on

    @on("stripe", "invoice.paid")
    def mark_paid(event, db):
        db.execute("UPDATE invoices SET paid = true WHERE id = %s", (event.payload["data"]["object"]["id"],))

`event` is a `chalicelib.postern.Event`; `db` is a psycopg2 cursor inside the event's transaction. What a
handler wrote is kept only if every handler of the event returns.
"""

from __future__ import annotations

import builtins
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

from chalicelib.postern.contract.deliveries import Event
from chalicelib.postern.contract.errors import ConfigurationError, PermanentError, RetryLater

if TYPE_CHECKING:
    from marshmallow import Schema

__all__ = ["Event", "Handler", "PermanentError", "RetryLater", "discover", "on"]

Function = Callable[[Event, Any], object]
_F = TypeVar("_F", bound=Function)

_HANDLERS = "chalicelib.handlers"
_OLD_NAME = "chalicelib.handling"  # of this module, until 0.1.0
_IMPORT_FROM = "Handlers import on, PermanentError and Event from chalicelib.postern (docs/upgrade.md)"


@dataclass(frozen=True)
class Handler:
    """One decorated function and which events it is for; `*` stands for any run of characters.

    - `timeout`: seconds that it may take; None for the installation's own limit.
    - `schema`: what it gets as the payload is what this makes of it; a mismatch is a permanent error.
    - `entity`, `version`: what the event is about, and how new that is (processing.order).
    """

    source: str
    type: str
    function: Function
    registered_by: str = ""  # the module; the function may come from another
    timeout: float | None = None
    schema: Schema | None = None
    entity: Callable[[Event], object] | None = None
    version: Callable[[Event], object] | None = None

    @property
    def name(self) -> str:
        module = getattr(self.function, "__module__", "") or self.registered_by
        function = getattr(self.function, "__qualname__", None) or type(self.function).__name__
        return f"{module.removeprefix(_HANDLERS + '.')}.{function}"

    def takes(self, source: str, type: str) -> bool:
        return self.takes_source(source) and _pattern(self.type).fullmatch(type) is not None

    def takes_source(self, source: str) -> bool:
        return _pattern(self.source).fullmatch(source) is not None

    def __call__(self, event: Event, db: Any) -> None:
        if self.schema is not None:
            event = replace(event, payload=_loaded(self.schema, event.payload))
        result = self.function(event, db)
        if inspect.isawaitable(result) or inspect.isgenerator(result) or inspect.isasyncgen(result):
            close = getattr(result, "close", None)
            if close is not None:
                close()
            raise PermanentError(f"It returned {type(result).__name__}, which nothing runs: nothing was done.")


@cache
def _pattern(text: str) -> re.Pattern[str]:
    # Not fnmatch, to which '?' and '[' are special as well.
    return re.compile(".*".join(map(re.escape, text.split("*"))), re.DOTALL)


def _loaded(schema: Schema, payload: Any) -> Any:
    from marshmallow import ValidationError

    try:
        return schema.load(payload)
    except ValidationError as exc:
        raise PermanentError(f"The payload is not what {type(schema).__name__} says: {exc.messages}") from None


_registered: list[Handler] = []


def on(
    source: str,
    type: str = "*",
    *,
    timeout: float | None = None,
    schema: Schema | type[Schema] | None = None,
    entity: Callable[[Event], object] | None = None,
    version: Callable[[Event], object] | None = None,
) -> Callable[[_F], _F]:
    """Registers a handler for events of this source and type; docs/handlers.md says what the options do.

    A class of schema ignores fields that it does not name, unless its Meta says otherwise.
    """
    module = sys._getframe(1).f_globals.get("__name__", "")
    _check_names(source, type)
    if timeout is not None and not timeout > 0:
        raise ConfigurationError(f"A handler's timeout is {timeout!r}, not a number of seconds.")
    if version is not None and entity is None:
        raise ConfigurationError("A handler has a version, and no entity that it is the version of.")

    def register(function: _F) -> _F:
        _check_function(function)
        made = _instance(schema) if schema is not None else None
        _registered.append(Handler(source, type, function, module, timeout, made, entity, version))
        return function

    return register


def _check_names(source: object, type: object) -> None:
    """Raises ConfigurationError with what to write instead."""
    if callable(source):
        name = getattr(source, "__qualname__", source)
        raise ConfigurationError(f'@on stands without parentheses before {name}: @on("stripe", "invoice.paid").')
    for what, given in (("source", source), ("type", type)):
        if not isinstance(given, str):
            one_each = ": one @on above the other for each of several" if isinstance(given, list | tuple | set) else ""
            raise ConfigurationError(f"@on has {given!r} as its {what}, which is one text{one_each}.")


def _check_function(function: object) -> None:
    """Raises ConfigurationError for what would be called, and do nothing, or could never be called."""
    if not callable(function):
        raise ConfigurationError(f"@on decorates {function!r}, which is no function.")
    name = getattr(function, "__qualname__", builtins.type(function).__name__)
    for code in (function, getattr(function, "func", None), builtins.type(function).__call__):
        if inspect.iscoroutinefunction(code) or inspect.isasyncgenfunction(code):
            raise ConfigurationError(
                f"Handler {name} is async, and nothing awaits it: write `def`, with asyncio.run() inside if need be."
            )
        if inspect.isgeneratorfunction(code):
            raise ConfigurationError(f"Handler {name} has a `yield`, and nothing would run it: return instead.")
    try:
        inspect.signature(function, follow_wrapped=False).bind("event", "db")
    except TypeError as exc:
        raise ConfigurationError(f"Handler {name} cannot be called with (event, db): {exc}.") from None
    except ValueError:
        pass  # written in C: it says nothing of what it takes


def _instance(schema: Schema | type[Schema]) -> Schema:
    from marshmallow import EXCLUDE, Schema

    if isinstance(schema, Schema):
        return schema
    return schema() if "unknown" in vars(schema.Meta) else schema(unknown=EXCLUDE)


def discover(package: str = _HANDLERS) -> Sequence[Handler]:
    """Imports every module of the package; the handlers that registered themselves, in order.

    Raises ConfigurationError when one cannot be imported, or imports what was Postern's before.
    """
    root = _import(package)
    for name in _modules(Path(root.__path__[0])):
        _import(f"{package}.{name}")
    if _OLD_NAME in sys.modules:
        # What an upgrade left behind: handlers that import it register where nobody looks, and would be passed over.
        raise ConfigurationError(f"A handler imports {_OLD_NAME}, which is an earlier version's. {_IMPORT_FROM}")
    return tuple(_registered)


def _modules(folder: Path) -> list[str]:
    """Every module in it, in folders as well, whether these have an `__init__.py` or not; but for tests."""
    found = set()
    for file in folder.rglob("*.py"):
        steps = file.relative_to(folder).with_suffix("").parts
        if all(step.isidentifier() for step in steps) and not steps[-1].startswith(("test_", "conftest")):
            found.add(".".join(steps[:-1] if steps[-1] == "__init__" else steps))
    return sorted(found - {""})


def _import(module: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except (Exception, SystemExit) as exc:
        # It is imported again with the next batch; what it registered before it failed must not be there twice.
        # Whatever it had imported before stays imported, and so do the handlers in there.
        _registered[:] = [h for h in _registered if h.registered_by in sys.modules]
        raise ConfigurationError(
            f"Handlers in {module} cannot be imported: {type(exc).__name__}: {exc}{_hint(exc)}"
        ) from exc


def _hint(error: BaseException) -> str:
    """Of an import from us that is not there, or was elsewhere in an earlier version."""
    missing = (error.name or "") if isinstance(error, ImportError) else ""
    if not missing.startswith("chalicelib.") or missing.startswith(f"{_HANDLERS}."):
        return ""
    return f". {_IMPORT_FROM}"
