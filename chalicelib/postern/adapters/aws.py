"""How every AWS client is made (when it is first used, and impatient) and how its errors are translated."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from threading import Lock
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from botocore.session import Session
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_secretsmanager import SecretsManagerClient
    from mypy_boto3_sqs import SQSClient

_clients: dict[str, Any] = {}
# One session must not make clients in two threads at once; the clients themselves are safe.
_lock = Lock()


def sqs() -> SQSClient:
    client: SQSClient = _client("sqs")
    return client


def s3() -> S3Client:
    client: S3Client = _client("s3")
    return client


def secretsmanager() -> SecretsManagerClient:
    client: SecretsManagerClient = _client("secretsmanager")
    return client


def cloudwatch() -> Any:
    return _client("cloudwatch")


def lambda_() -> Any:
    # The caller has a person before it, and twenty seconds.
    return _client("lambda", read_timeout=18, attempts=1)


@contextmanager
def failing_as(error: Callable[[str], Exception]) -> Iterator[None]:
    """Turns whatever an AWS call raises into `error`, with AWS's short code as its text."""
    # Here, because it is most of a cold start and is not imported before the first call.
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as exc:
        raise error(exc.response.get("Error", {}).get("Code", "unknown")) from exc
    except BotoCoreError as exc:
        raise error(type(exc).__name__) from exc


def _client(service: str, *, read_timeout: int = 3, attempts: int = 2) -> Any:
    with _lock:
        if service not in _clients:
            from botocore.config import Config

            # Mostly 8 s in all, at worst: most senders wait 10 s, and a 503 in time is worth more than a late answer.
            config = Config(
                connect_timeout=1,
                read_timeout=read_timeout,
                retries={"mode": "standard", "total_max_attempts": attempts},
                max_pool_connections=32,
                tcp_keepalive=True,
            )
            _clients[service] = _session().create_client(service, config=config)
        return _clients[service]


@cache
def _session() -> Session:
    # As boto3 does, without its resources and file transfers, whose import is a tenth of a cold start.
    from botocore.session import get_session

    return get_session()
