"""S3, for the bodies that no queue message can carry."""

from __future__ import annotations

from dataclasses import dataclass

from chalicelib.adapters import aws
from chalicelib.errors import BodyUnavailable, QueueUnavailable


@dataclass(frozen=True)
class S3Bodies:
    """One bucket, by its name."""

    bucket: str

    def put(self, key: str, body: bytes) -> None:
        """Raises QueueUnavailable: to a sender it is all one whether the message or its body is not durable."""
        with aws.failing_as(QueueUnavailable):
            aws.s3().put_object(Bucket=self.bucket, Key=key, Body=body)

    def get(self, key: str) -> bytes:
        """Raises BodyUnavailable."""
        with aws.failing_as(BodyUnavailable):
            return aws.s3().get_object(Bucket=self.bucket, Key=key)["Body"].read()
