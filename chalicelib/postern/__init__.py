"""Postern. A handler imports these four of it, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chalicelib.postern.contract.deliveries import Event
    from chalicelib.postern.contract.errors import PermanentError, RetryLater
    from chalicelib.postern.processing.handling import on

__all__ = ["Event", "PermanentError", "RetryLater", "on"]


def __getattr__(name: str) -> Any:
    """Imported when asked for: every function loads this module, and the API function has no handlers."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from chalicelib.postern.processing import handling

    return getattr(handling, name)
