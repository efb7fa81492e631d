"""Every error that Postern raises on purpose; adapters translate the drivers' errors into these.

Two facts live on the classes, so that nobody has to guess them from a message: what a sender is answered
(`Refusal.status`, `Refusal.code`), and what a processing error says of the values (`StatementFailed.bad_data`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar
from uuid import UUID


class PosternError(Exception):
    """Something in Postern went wrong."""


class ConfigurationError(PosternError):
    """The installation does not fit together: a sentence for the engineer who set it up."""


class SourcesFileError(ConfigurationError):
    """The sources file has a mistake; the message names the source and the key."""


class Refusal(PosternError):
    """A delivery that is not accepted.

    The sender sees `code`, `message` and `details`; `reason` goes to the log only, so that a forger
    learns nothing from the answer.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    message: str = "Something went wrong here; send the delivery again later."
    headers: ClassVar[Mapping[str, str]] = {}

    def __init__(self, reason: str, *, message: str | None = None, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.message = message or type(self).message
        self.details: Mapping[str, Any] = details or {}
        # Where it was kept to be explained: the id that `postern explain` takes. Not told to the sender.
        self.kept: UUID | None = None
        # Where it was to be kept and was not: why.
        self.not_kept: str | None = None
        # Its sender is who he says: that it was not kept is a loss.
        self.verified = False


class UnknownSource(Refusal):
    """No source of this name is declared."""

    status = 404
    code = "unknown_source"
    message = "There is no source of this name."


class MethodNotAllowed(Refusal):
    """Webhooks are POSTed."""

    status = 405
    code = "method_not_allowed"
    message = "Webhooks are sent with POST."
    headers: ClassVar = {"Allow": "POST"}


class PayloadTooLarge(Refusal):
    """The body is larger than the pipeline can carry."""

    status = 413
    code = "payload_too_large"
    message = "The body is larger than this inbox takes."


class UnsupportedMediaType(Refusal):
    """The source does not take this content type."""

    status = 415
    code = "unsupported_media_type"
    message = "This source does not take this content type."


class InvalidSignature(Refusal):
    """The sender did not prove who it is; every way of failing gets the same answer."""

    status = 401
    code = "invalid_signature"
    message = "The delivery could not be verified."


class InvalidPayload(Refusal):
    """The body is verified, but it is not what the source promised."""

    status = 400
    code = "invalid_payload"
    message = "The body is not valid."


class QueueUnavailable(Refusal):
    """The queue did not confirm the event, so it was not accepted."""

    status = 503
    code = "queue_unavailable"
    message = "The event could not be queued; send it again later."
    headers: ClassVar = {"Retry-After": "5"}


class SecretUnavailable(Refusal):
    """The source's secret is missing or malformed: our mistake, which must not cost the sender's event."""

    status = 503
    code = "secret_unavailable"
    message = "The source cannot verify deliveries at the moment; send it again later."
    headers: ClassVar = {"Retry-After": "30"}


class DatabaseUnavailable(PosternError):
    """There is no connection to PostgreSQL, or not any more. Whether that is an outage has to be proven."""


class StatementFailed(PosternError):
    """PostgreSQL answered, and refused a statement or the commit; the transaction is void.

    `bad_data` says that the values were at fault and the same values will fail again; `row_refused`, that they were
    those of an event's own row; `partition_changed`, that the row's partition was made or taken out that very moment;
    `passing`, that others were in the way, and it may well go another time; `contended`, that these were transactions,
    which held what it wanted; `no_room`, that the database's disk was full.
    """

    def __init__(
        self,
        message: str,
        *,
        bad_data: bool = False,
        partition_changed: bool = False,
        passing: bool = False,
        contended: bool = False,
        no_room: bool = False,
    ) -> None:
        super().__init__(message)
        self.contended = contended
        self.no_room = no_room
        self.bad_data = bad_data
        self.partition_changed = partition_changed
        self.passing = passing
        self.row_refused = False


class MalformedMessage(PosternError):
    """A queue message that is not one of ours, or not whole."""


class BodyUnavailable(PosternError):
    """The body that the message points to cannot be read now, or is gone for good."""

    @property
    def is_refused(self) -> bool:
        """Whether S3 answered that there is none. To a role that may not list the bucket, such as ours, it calls that a
        denied access.
        """
        return str(self) in ("NoSuchKey", "AccessDenied")


class HandlerFailed(PosternError):
    """A handler raised; `failure` is what."""

    def __init__(self, failure: BaseException) -> None:
        super().__init__()
        self.failure = failure


class PermanentError(PosternError):
    """Raise it, or an error derived from it, in a handler: trying again would not help.

    The event goes to the dead letters at once.
    """


# SQS hides a message for twelve hours from its receipt at most: this leaves the longest batching window and invocation.
MAX_LATER_SECONDS = 42_000


class RetryLater(PosternError):
    """Raise it in a handler: it cannot be done yet, and that is no failure.

    What was written is undone, and the event comes again after `seconds`, 1 to 42,000, without being charged an
    attempt: until it has been put off for a day in all, after which each time is a failed attempt. `why` is for people.
    """

    def __init__(self, seconds: float, why: str = "") -> None:
        if not 1 <= seconds <= MAX_LATER_SECONDS:
            raise ValueError(f"RetryLater({seconds!r}): seconds, from 1 to {MAX_LATER_SECONDS:,}.")
        super().__init__(why or f"in {seconds:g} s")
        self.seconds = float(seconds)


class HandlersSecretUnavailable(ConfigurationError):
    """A secret that a handler asked for is not there, or cannot be had: no event's fault, however long it lasts."""


class TransactionControlForbidden(PosternError):
    """A handler tried to end or nest the event's transaction, which it shares with other events."""


class TransactionEnded(PosternError):
    """A handler ended the transaction all the same: what the batch had written in it cannot be relied on."""


class LeftBehind(PosternError):
    """A handler left something in the session that other events would find there."""


class FunctionEnded(PosternError):
    """The process in which an event was being processed ended, or had to be ended."""


class MigrationError(PosternError):
    """The database's schema cannot be brought to this version."""


class MetricsUnavailable(PosternError):
    """CloudWatch does not say what was counted."""


class UnknownAction(PosternError):
    """The store function was asked for something that it does not do."""


class UnfitArguments(UnknownAction):
    """`problems`: what is wrong with each argument, by its name."""

    def __init__(self, message: str, problems: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.problems = problems


class NotFound(UnknownAction):
    """It was asked about something that there is not."""


class Conflict(UnknownAction):
    """What there is, and how things stand, do not allow it."""
