"""Postern. A handler imports these of it, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chalicelib.postern.contract.deliveries import Event
    from chalicelib.postern.contract.errors import PermanentError, RetryLater
    from chalicelib.postern.processing.handling import on
    from chalicelib.postern.running.handlers import secrets

__all__ = ["Event", "PermanentError", "RetryLater", "on", "secrets"]


def __getattr__(name: str) -> Any:
    """Imported when asked for: every function loads this module, and the API function has no handlers."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "secrets":
        from chalicelib.postern.running.handlers import secrets

        return secrets
    from chalicelib.postern.processing import handling

    return getattr(handling, name)
