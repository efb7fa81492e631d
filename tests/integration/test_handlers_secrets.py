"""Secrets of the handlers' own: by their names, from Secrets Manager or, where none is named, from the environment."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from chalicelib.postern import secrets
from chalicelib.postern.adapters import aws as aws_adapter
from chalicelib.postern.contract.errors import HandlersSecretUnavailable
from chalicelib.postern.running import handlers, wiring


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """As in a container that has just begun."""
    wiring.config.cache_clear()
    handlers._kept.cache_clear()
    yield
    wiring.config.cache_clear()
    handlers._kept.cache_clear()


@pytest.fixture
def kept(point_aws_at: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    """Puts this into the handlers' secret."""
    name = f"handlers-{uuid.uuid4().hex[:8]}"
    monkeypatch.setenv("HANDLERS_SECRET_ID", name)
    client = aws_adapter.secretsmanager()
    client.create_secret(Name=name, SecretString="{}")
    return lambda content: client.put_secret_value(SecretId=name, SecretString=json.dumps(content))


def test_a_secret_is_had_by_its_name(kept: Callable[[Any], None]) -> None:
    kept({"shop-key": "k-1", "account": {"user": "u", "number": 1}})
    assert secrets("shop-key") == "k-1"
    assert secrets("account") == {"user": "u", "number": 1}


def test_it_is_fetched_once_a_container(kept: Callable[[Any], None], point_aws_at: Callable[..., None]) -> None:
    kept({"shop-key": "k-1"})
    assert secrets("shop-key") == "k-1"
    point_aws_at(secretsmanager="http://127.0.0.1:9")
    assert secrets("shop-key") == "k-1"


@pytest.mark.parametrize("content", [{}, {"shop-key": None}, {"shop-key": ""}, {"other": "x"}])
def test_one_that_is_not_there_is_no_events_fault(kept: Callable[[Any], None], content: dict[str, Any]) -> None:
    kept(content)
    with pytest.raises(HandlersSecretUnavailable, match=r"^the handlers' secret has no 'shop-key'$"):
        secrets("shop-key")


def test_nor_is_one_that_cannot_be_had(point_aws_at: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HANDLERS_SECRET_ID", "there-is-none")
    with pytest.raises(HandlersSecretUnavailable, match=r"cannot be had: .*ResourceNotFoundException"):
        secrets("shop-key")


def test_where_none_is_named_it_is_the_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HANDLERS_SECRET_ID", raising=False)
    with pytest.raises(HandlersSecretUnavailable, match="no secret 'shop-key': HANDLER_SECRET_SHOP_KEY is not set"):
        secrets("shop-key")
    monkeypatch.setenv("HANDLER_SECRET_SHOP_KEY", "k-1")
    assert secrets("shop-key") == "k-1"
