"""Secrets of a stage, or of the local run, as the commands read and change them: with the rights of whoever asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from chalicelib.postern.contract.errors import PosternError


def read(arn: str) -> dict[str, Any]:
    """What the secret holds. Raises PosternError, which quotes nothing of it."""
    from deployment import secrets
    from deployment.session import Session

    with _in_our_words():
        return secrets.read(Session(), arn)[0]


def change(arn: str, edit: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """As deployment.secrets does it. Raises PosternError."""
    from deployment import secrets
    from deployment.session import Session

    with _in_our_words():
        secrets.change(Session(), arn, edit)


@contextmanager
def _in_our_words() -> Iterator[None]:
    from deployment.errors import DeploymentError

    try:
        yield
    except DeploymentError as exc:
        raise PosternError(str(exc)) from None
