"""S3, for the bodies that no queue message can carry."""

from __future__ import annotations

import time
from dataclasses import dataclass

from chalicelib.postern.adapters import aws
from chalicelib.postern.contract.bounds import MAX_FETCH_SECONDS
from chalicelib.postern.contract.errors import BodyUnavailable, QueueUnavailable

_READ_BYTES = 16_384


@dataclass(frozen=True)
class S3Bodies:
    """One bucket, by its name."""

    bucket: str

    def put(self, key: str, body: bytes) -> None:
        """Raises QueueUnavailable: to a sender it is all one whether the message or its body is not durable."""
        with aws.failing_as(QueueUnavailable):
            aws.s3().put_object(Bucket=self.bucket, Key=key, Body=body)

    def get(self, key: str) -> bytes:
        """Within MAX_FETCH_SECONDS and what it takes to read one part. Raises BodyUnavailable."""
        from urllib3.exceptions import HTTPError

        until = time.monotonic() + MAX_FETCH_SECONDS
        body = bytearray()
        with aws.failing_as(BodyUnavailable):
            stream = aws.s3().get_object(Bucket=self.bucket, Key=key)["Body"]
            try:
                while part := stream.read(_READ_BYTES):
                    body += part
                    if time.monotonic() > until:
                        raise BodyUnavailable("it comes too slowly")
            except (OSError, HTTPError) as exc:  # what botocore lets through: a connection that ends within TLS
                raise BodyUnavailable(type(exc).__name__) from exc
            finally:
                stream.close()
        return bytes(body)
