"""Builds what the doors need, once per warm container and only when it is asked for. Computes nothing.

Each function of the app reaches one of these; the API function's reaches neither psycopg2 nor the database.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from random import random
from typing import TYPE_CHECKING

from chalicelib import logs
from chalicelib.config import Config

if TYPE_CHECKING:
    from chalicelib.adapters.postgres import Database
    from chalicelib.envelope import Rejected
    from chalicelib.ingest import Inbox
    from chalicelib.operate import Action, Operator
    from chalicelib.operations.storage import Upkeep
    from chalicelib.processing.attempts import Runner
    from chalicelib.processing.consume import Consumer
    from chalicelib.processing.engine import Processor
    from chalicelib.processing.settling import RetryPolicy


# As Chalice names it; every function of the app loads app.py.
_API_HANDLER = "app.app"


def utc_now() -> datetime:
    return datetime.now(UTC)


@cache
def config() -> Config:
    return Config.from_environ(os.environ)


def queue_name() -> str:
    """The queue's name, which is the end of its URL."""
    return (config().queue_url or "postern-webhooks").rsplit("/", 1)[-1]


@cache
def inbox() -> Inbox:
    from chalicelib.adapters.s3 import S3Bodies
    from chalicelib.adapters.secrets import SourceSecrets
    from chalicelib.adapters.sqs import SqsQueue
    from chalicelib.ingest import Inbox
    from chalicelib.quarantine import MOST_VERIFIED, RateCap
    from chalicelib.sources import Sources

    strangers, signers = RateCap(time.monotonic), RateCap(time.monotonic, MOST_VERIFIED)
    return Inbox(
        sources=Sources(config().sources_file),
        secrets_of=SourceSecrets(config().need("sources_secret_id"), time.monotonic).of,
        queue=SqsQueue(config().need("queue_url")),
        bodies=S3Bodies(config().need("bodies_bucket")),
        fetch=fetch,
        may_keep=lambda source, verified: (signers if verified else strangers).allows(source),
    )


def fetch(url: str) -> bytes:
    from chalicelib.adapters import web

    return web.fetch(url)


def warm_up(environ: Mapping[str, str]) -> None:
    """Builds what a delivery needs, clients and all, where Lambda starts the API function ahead of its requests.

    With on-demand starts a request is waiting already, and what it needs is built when it needs it. No secret is
    fetched, in either way of starting ahead: one with provisioned concurrency would be out of date before the first
    request came, and a snapshot's would be as old as the snapshot while the clock that its age is measured with had
    stood still. Never fails: a start that failed would be tried again and again, and the first delivery will tell.
    """
    ahead = environ.get("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand") != "on-demand"
    if not ahead or environ.get("_HANDLER") != _API_HANDLER:
        return
    try:
        from chalicelib.adapters import aws

        dict(inbox().sources)  # each is made when it is asked for
        aws.sqs()
        aws.s3()
        aws.secretsmanager()
    except Exception as exc:
        logs.line("warm_up.failed", failed=True, reason=type(exc).__name__)


@cache
def consumer() -> Consumer:
    from chalicelib.adapters.s3 import S3Bodies
    from chalicelib.adapters.sqs import SqsQueue
    from chalicelib.processing.consume import Consumer
    from chalicelib.sources import source_names

    policy = retry_policy()

    @cache
    def processor() -> Processor:
        from chalicelib.adapters.children import in_child
        from chalicelib.adapters.event_store import EventStore
        from chalicelib.processing.engine import Processor

        return Processor(EventStore(database()), runner(), in_child)

    def keep(rejected: Sequence[Rejected]) -> None:
        from chalicelib.adapters.event_store import EventStore

        EventStore(database()).keep(rejected)

    return Consumer(
        processor=processor,
        keep=keep,
        queue=SqsQueue(config().need("queue_url")),
        dead_letters=SqsQueue(config().need("dead_letter_queue_url")),
        bodies=S3Bodies(config().need("bodies_bucket")),
        policy=policy,
        partial_responses=config().partial_batch_response,
        sources=source_names(config().sources_file),
        random=random,
        now=utc_now,
        log=logs.line,
    )


@cache
def retry_policy() -> RetryPolicy:
    from chalicelib.processing.settling import RetryPolicy

    return RetryPolicy(
        config().max_attempts,
        config().retry_base_seconds,
        config().retry_max_seconds,
        config().max_uncharged,
        config().max_receives,
    )


@cache
def runner() -> Runner:
    """Raises ConfigurationError where a handler cannot be imported."""
    from chalicelib import handling
    from chalicelib.processing.attempts import Runner

    return Runner(handling.discover(), retry_policy(), utc_now, config().handler_timeout_seconds)


@cache
def reader() -> Operator:
    """Who looks, and changes nothing: the database refuses it every write."""
    from chalicelib.adapters.postgres import Database
    from chalicelib.operate import Operator

    return Operator(actions=_views(Database(database_dsn, read_only=True)), duties={})


def _views(database: Database) -> dict[str, Action]:
    from chalicelib.adapters.ledger import Ledger
    from chalicelib.adapters.replay_store import ReplayStore
    from chalicelib.adapters.reports import Reports
    from chalicelib.adapters.shapes import Shapes
    from chalicelib.operations import drift, duplicates, issues, ledger, refused, replays, status, storage, stored

    reports, book = Reports(database), Ledger(database)
    return {
        **storage.views(_upkeep(database)),
        **stored.views(reports),
        **issues.views(reports),
        **replays.views(ReplayStore(database)),
        **refused.views(reports),
        **duplicates.views(reports),
        **drift.views(Shapes(database)),
        **ledger.views(book, utc_now),
        **status.views(book, reports, _sources, utc_now),
    }


def _upkeep(database: Database) -> Upkeep:
    from chalicelib.adapters.storage import Storage
    from chalicelib.operations.storage import Retention, Upkeep

    retention = Retention.of(config().retention_days, config().dedup_days, config().unresolved_days)
    return Upkeep(Storage(database), retention, utc_now, time.monotonic, random)


def _sources() -> frozenset[str]:
    from chalicelib.sources import source_names

    return source_names(config().sources_file)


@cache
def operator() -> Operator:
    from chalicelib.adapters.cloudwatch import CloudWatch
    from chalicelib.adapters.ledger import Ledger
    from chalicelib.adapters.migrations import migrate
    from chalicelib.adapters.replay_store import ReplayStore
    from chalicelib.adapters.reports import Reports
    from chalicelib.adapters.row_changes import RowChanges
    from chalicelib.adapters.shapes import Shapes
    from chalicelib.adapters.sqs import SqsQueue
    from chalicelib.operate import Operator
    from chalicelib.operations import drift, dry_run, duplicates, issues, ledger, quiet, refused, replays, storage
    from chalicelib.operations.dead_letters import DeadLetters

    reports = Reports(database())
    replay_store = ReplayStore(database())
    shapes = Shapes(database())
    book = Ledger(database())

    # Asked for when they are needed: a command line may have a database alone.
    def queue() -> SqsQueue:
        return SqsQueue(config().need("queue_url"))

    def letters() -> SqsQueue:
        return SqsQueue(config().need("dead_letter_queue_url"))

    def queues() -> list[str]:
        urls = [config().need(name) for name in ("queue_url", "dead_letter_queue_url")]
        return [url.rsplit("/", 1)[-1] for url in urls]

    watch = drift.Watch(shapes, _sources, utc_now, time.monotonic, logs.line)
    bookkeeper = ledger.Bookkeeper(book, CloudWatch(config().stage), queues, utc_now, logs.line)
    return Operator(
        actions={
            **_views(database()),
            **storage.actions(lambda: migrate(database_dsn())),
            **issues.actions(reports),
            **dry_run.actions(replay_store, runner, RowChanges(database_dsn)),
            **replays.actions(replay_store, queue, utc_now),
            **DeadLetters(queue=queue, letters=letters, statuses=reports, redrives=replay_store, now=utc_now).actions(),
            **refused.actions(reports),
            **duplicates.actions(reports, queue),
            **drift.actions(shapes, watch),
            **ledger.actions(book, utc_now),
        },
        duties={
            **storage.duties(_upkeep(database())),
            **refused.duties(reports),
            **drift.duties(watch),
            **ledger.duties(bookkeeper),
            **quiet.duties(quiet.Watch(book, _sources, utc_now, logs.line)),
        },
    )


@cache
def database() -> Database:
    from chalicelib.adapters.postgres import Database

    return Database(database_dsn)


def database_dsn(fresh: bool = False) -> str:
    """Where the database is. From its secret when there is one; fetched once, and again when `fresh`."""
    if fresh:
        _dsn_from_secret.cache_clear()
    secret_id = config().database_secret_id
    return _dsn_from_secret(secret_id) if secret_id else config().need("database_url")


@cache
def _dsn_from_secret(secret_id: str) -> str:
    from chalicelib.adapters.secrets import database_dsn

    return database_dsn(
        secret_id, host=config().database_host, port=config().database_port, dbname=config().database_name
    )
