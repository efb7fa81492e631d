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

from chalicelib.postern.running import logs
from chalicelib.postern.running.config import Config
from chalicelib.postern.running.version import VERSION

if TYPE_CHECKING:
    from chalicelib.postern.adapters.postgres import Database
    from chalicelib.postern.api.backend import Backend
    from chalicelib.postern.api.relay import Relay
    from chalicelib.postern.contract.envelope import Rejected
    from chalicelib.postern.operating.operator import Action, Operator
    from chalicelib.postern.operating.storage.actions import Upkeep
    from chalicelib.postern.processing.attempts import Runner
    from chalicelib.postern.processing.consume import Consumer
    from chalicelib.postern.processing.engine import Processor
    from chalicelib.postern.processing.settling import RetryPolicy
    from chalicelib.postern.receiving.ingest import Inbox
    from chalicelib.postern.receiving.reconciling import Reconciler
    from chalicelib.postern.receiving.second_look import SecondLook


# As Chalice names it; every function of the app loads app.py.
_API_HANDLER = "app.app"


def utc_now() -> datetime:
    return datetime.now(UTC)


@cache
def config() -> Config:
    return Config.from_environ(os.environ)


def version() -> dict[str, str | None]:
    """Which Postern this is, and of which release of the team's."""
    return {"version": VERSION, "release": config().release}


def queue_name() -> str:
    """The queue's name, which is the end of its URL."""
    return (config().queue_url or "postern-webhooks").rsplit("/", 1)[-1]


@cache
def inbox() -> Inbox:
    from chalicelib.postern.adapters.s3 import S3Bodies
    from chalicelib.postern.adapters.secrets import SourceSecrets
    from chalicelib.postern.adapters.sqs import SqsQueue
    from chalicelib.postern.receiving.ingest import Inbox
    from chalicelib.postern.receiving.quarantine import MAX_VERIFIED, RateCap
    from chalicelib.postern.receiving.sources import Sources

    _adopt_local_run()
    strangers, signers = RateCap(time.monotonic), RateCap(time.monotonic, MAX_VERIFIED)
    return Inbox(
        sources=Sources(config().sources_file),
        secrets_of=SourceSecrets(config().need("sources_secret_id"), time.monotonic).of,
        queue=SqsQueue(config().need("queue_url")),
        bodies=S3Bodies(config().need("bodies_bucket")),
        fetch=fetch,
        may_keep=lambda source, verified: (signers if verified else strangers).allows(source),
    )


@cache
def relay() -> Relay | None:
    """What the API function does with requests to the API; None where there is none."""
    from chalicelib.postern.adapters.functions import Function
    from chalicelib.postern.api.relay import BackendUnavailable, Relay

    _adopt_local_run()
    name = config().backend_function
    if not name:
        return None
    reconciler = Function(config().need("reconciler_function"), BackendUnavailable)
    return Relay(Function(name, BackendUnavailable).ask, time.monotonic, second_look, reconciler.ask)


@cache
def second_look() -> SecondLook:
    from dataclasses import replace

    from chalicelib.postern.adapters.secrets import SourceSecrets
    from chalicelib.postern.receiving.second_look import SecondLook

    previous = SourceSecrets(config().need("sources_secret_id"), time.monotonic, "AWSPREVIOUS")
    return SecondLook(replace(inbox(), may_keep=lambda source, verified: False), previous.of)


@cache
def reconciler() -> Reconciler:
    from dataclasses import replace

    from chalicelib.postern.adapters.functions import Function
    from chalicelib.postern.adapters.provider_api import ProviderApi
    from chalicelib.postern.receiving.reconciling import DatabaseAway, Reconciler

    store = Function(config().need("store_function"), DatabaseAway)
    quiet = replace(inbox(), may_keep=lambda source, verified: False)
    return Reconciler(quiet, ProviderApi(), store.ask, utc_now, logs.line)


def _adopt_local_run() -> None:
    """`chalice local` works on what runs here. Raises SecretUnavailable where nothing does."""
    if "AWS_CHALICE_CLI_MODE" in os.environ:
        from chalicelib.postern.running.chalice_cli import adopt_local_run

        adopt_local_run(os.environ)
        config.cache_clear()


def fetch(url: str) -> bytes:
    from chalicelib.postern.adapters import web

    return web.fetch(url)


def begin(environ: Mapping[str, str]) -> None:
    """Once, when the app has been loaded, by whatever loads it."""
    if "AWS_CHALICE_CLI_MODE" in environ:
        from chalicelib.postern.running.chalice_cli import refuse_unprepared

        refuse_unprepared(environ)
    warm_up(environ)


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
        from chalicelib.postern.adapters import aws

        dict(inbox().sources)  # each is made when it is asked for
        aws.sqs()
        aws.s3()
        aws.secretsmanager()
    except Exception as exc:
        logs.line("warm_up.failed", failed=True, reason=type(exc).__name__)


@cache
def consumer() -> Consumer:
    from chalicelib.postern.adapters.s3 import S3Bodies
    from chalicelib.postern.adapters.sqs import SqsQueue
    from chalicelib.postern.processing.consume import Consumer
    from chalicelib.postern.receiving.sources import source_names

    policy = retry_policy()

    @cache
    def processor() -> Processor:
        from chalicelib.postern.adapters.children import in_child
        from chalicelib.postern.adapters.event_store import EventStore
        from chalicelib.postern.processing.engine import Processor

        return Processor(EventStore(database()), runner(), in_child)

    def keep(rejected: Sequence[Rejected]) -> None:
        from chalicelib.postern.adapters.event_store import EventStore

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
    from chalicelib.postern.processing.settling import RetryPolicy

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
    from chalicelib.postern.processing import handling
    from chalicelib.postern.processing.attempts import Runner

    return Runner(handling.discover(), retry_policy(), utc_now, config().handler_timeout_seconds)


@cache
def reader() -> Operator:
    """Who looks, and changes nothing: the database refuses it every write."""
    from chalicelib.postern.adapters.postgres import Database
    from chalicelib.postern.operating.operator import Operator

    return Operator(actions=_views(Database(database_dsn, read_only=True)), duties={})


def _views(database: Database) -> dict[str, Action]:
    from chalicelib.postern.operating.counts import actions as counts
    from chalicelib.postern.operating.counts.queries import Counts
    from chalicelib.postern.operating.drift import actions as drift
    from chalicelib.postern.operating.drift.queries import Shapes
    from chalicelib.postern.operating.duplicates import actions as duplicates
    from chalicelib.postern.operating.duplicates.queries import Duplicates
    from chalicelib.postern.operating.events import actions as events
    from chalicelib.postern.operating.events.queries import Events
    from chalicelib.postern.operating.handlers import actions as handlers
    from chalicelib.postern.operating.handlers.queries import Work
    from chalicelib.postern.operating.issues import actions as issues
    from chalicelib.postern.operating.issues.queries import Issues
    from chalicelib.postern.operating.ledger import actions as ledger
    from chalicelib.postern.operating.ledger.queries import Ledger
    from chalicelib.postern.operating.quiet.queries import Hours
    from chalicelib.postern.operating.reconciling import actions as reconciling
    from chalicelib.postern.operating.reconciling.queries import Reconciliations
    from chalicelib.postern.operating.refused import actions as refused
    from chalicelib.postern.operating.refused.queries import Refused
    from chalicelib.postern.operating.replays import actions as replays
    from chalicelib.postern.operating.replays.queries import ReplayStore
    from chalicelib.postern.operating.status import actions as status
    from chalicelib.postern.operating.status.queries import Status
    from chalicelib.postern.operating.storage import actions as storage
    from chalicelib.postern.operating.stream import actions as stream
    from chalicelib.postern.operating.stream.queries import Stream

    book = Ledger(database)
    return {
        **storage.views(_upkeep(database)),
        **events.views(Events(database)),
        **stream.views(Stream(database)),
        **counts.views(Counts(database), utc_now),
        **issues.views(Issues(database)),
        **replays.views(ReplayStore(database)),
        **refused.views(Refused(database)),
        **reconciling.views(Reconciliations(database)),
        **duplicates.views(Duplicates(database)),
        **drift.views(Shapes(database)),
        **ledger.views(book, utc_now),
        **status.views(Status(database), book, Hours(database), _sources, utc_now),
        **status.about(version),
        **handlers.views(runner, Work(database), _sources),
    }


def _upkeep(database: Database) -> Upkeep:
    from chalicelib.postern.operating.storage.actions import Retention, Upkeep
    from chalicelib.postern.operating.storage.queries import Storage

    retention = Retention.of(config().retention_days, config().dedup_days, config().unresolved_days)
    return Upkeep(Storage(database), retention, utc_now, time.monotonic, random)


def _sources() -> frozenset[str]:
    from chalicelib.postern.receiving.sources import source_names

    return source_names(config().sources_file)


@cache
def operator() -> Operator:
    from chalicelib.postern.adapters.cloudwatch import CloudWatch
    from chalicelib.postern.adapters.migrations import migrate
    from chalicelib.postern.adapters.row_changes import RowChanges
    from chalicelib.postern.adapters.sqs import SqsQueue
    from chalicelib.postern.operating.counts import actions as counts
    from chalicelib.postern.operating.counts.queries import Counts
    from chalicelib.postern.operating.dead_letters import DeadLetters
    from chalicelib.postern.operating.drift import actions as drift
    from chalicelib.postern.operating.drift.queries import Shapes
    from chalicelib.postern.operating.dry_run import actions as dry_run
    from chalicelib.postern.operating.dry_run.queries import StoredEvents
    from chalicelib.postern.operating.duplicates import actions as duplicates
    from chalicelib.postern.operating.duplicates.queries import Duplicates
    from chalicelib.postern.operating.events.queries import Events
    from chalicelib.postern.operating.issues import actions as issues
    from chalicelib.postern.operating.issues.queries import Issues
    from chalicelib.postern.operating.ledger import actions as ledger
    from chalicelib.postern.operating.ledger.queries import Ledger
    from chalicelib.postern.operating.operator import Operator
    from chalicelib.postern.operating.quiet import actions as quiet
    from chalicelib.postern.operating.quiet.queries import Hours
    from chalicelib.postern.operating.reconciling import actions as reconciling
    from chalicelib.postern.operating.reconciling.queries import Reconciliations
    from chalicelib.postern.operating.refused import actions as refused
    from chalicelib.postern.operating.refused.queries import Refused
    from chalicelib.postern.operating.replays import actions as replays
    from chalicelib.postern.operating.replays.queries import ReplayStore
    from chalicelib.postern.operating.status.queries import Status
    from chalicelib.postern.operating.storage import actions as storage

    keys_are_kept = max(config().dedup_days, config().retention_days)
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

    dead_letters = DeadLetters(queue, letters, Events(database()), redrives=replay_store, now=utc_now)
    learner = drift.Learner(shapes, _sources, utc_now, time.monotonic, logs.line)
    bookkeeper = ledger.Bookkeeper(book, CloudWatch(config().stage), queues, utc_now, logs.line)
    return Operator(
        actions={
            **_views(database()),
            **storage.actions(lambda: migrate(database_dsn())),
            **issues.actions(Issues(database())),
            **dry_run.actions(StoredEvents(database()), runner, RowChanges(database_dsn)),
            **replays.actions(replay_store, queue, utc_now),
            **dead_letters.actions(),
            **refused.actions(Refused(database())),
            **reconciling.actions(Reconciliations(database()), utc_now, keys_are_kept),
            **duplicates.actions(Duplicates(database()), queue),
            **drift.actions(shapes, learner),
            **ledger.actions(book, utc_now),
        },
        duties={
            **storage.duties(_upkeep(database())),
            **counts.duties(counts.Counter(Counts(database()), time.monotonic)),
            **refused.duties(Refused(database())),
            **reconciling.duties(Reconciliations(database())),
            **drift.duties(learner),
            **ledger.duties(bookkeeper),
            **quiet.duties(quiet.Watch(Hours(database()), _sources, utc_now, logs.line)),
            **storage.late_duties(_upkeep(database())),
        },
        note=Status(database()).note_duty,
    )


@cache
def backend() -> Backend:
    """What answers the API's requests. Raises ConfigurationError where there is no API."""
    from chalicelib.postern.adapters.secrets import KeptSecret
    from chalicelib.postern.api.backend import Backend, description

    # A token that was revoked is soon nobody's, and an outage of Secrets Manager makes it nobody's as well.
    secret = KeptSecret(config().need("tokens_secret_id"), time.monotonic, fresh_seconds=10, good_seconds=300)
    return Backend(secret.content, reader, operator, description, utc_now)


@cache
def database() -> Database:
    from chalicelib.postern.adapters.postgres import Database

    return Database(database_dsn)


def database_dsn(fresh: bool = False) -> str:
    """Where the database is. From its secret when there is one; fetched once, and again when `fresh`."""
    if fresh:
        _dsn_from_secret.cache_clear()
    secret_id = config().database_secret_id
    return _dsn_from_secret(secret_id) if secret_id else config().need("database_url")


@cache
def _dsn_from_secret(secret_id: str) -> str:
    from chalicelib.postern.adapters.secrets import database_dsn

    return database_dsn(
        secret_id, host=config().database_host, port=config().database_port, dbname=config().database_name
    )
