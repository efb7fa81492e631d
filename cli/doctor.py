"""`doctor` on the command line: what is wrong with a deployed stage, seen from the outside, in sentences."""

from __future__ import annotations

import argparse
import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING, Any

from chalicelib.postern.contract.errors import PosternError
from cli import output
from cli.arguments import Commands

if TYPE_CHECKING:
    from deployment.project import Stage
    from deployment.session import Session

# AWS's clock is what signatures are held against; a person's own only makes what they send look old.
_SKEW_SECONDS = 60
_OLD_SECONDS = 900


class Weight(StrEnum):
    """How much it matters, the heaviest first."""

    WRONG = "wrong"  # events are lost, late, or refused
    LOOK = "look"  # somebody ought to look at it
    UNSEEN = "unseen"  # these rights do not reach to it
    OK = "ok"
    NATIVE = "native"  # a stage that `chalice deploy` made has nothing of it


@dataclass(frozen=True)
class Finding:
    weight: Weight
    sentence: str


Findings = Iterator[Finding]


def add_commands(commands: Commands, deployed: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "doctor",
        parents=[deployed],
        help="check a deployed stage, and say what is wrong; exit code 1 when anything is",
        description="Checks a deployed stage from the outside, with your own rights, and says what is wrong in order "
        "of weight. It changes nothing. Exit code 1 when anything is wrong, to be looked at, or could not be seen.",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_doctor)


def _doctor(options: argparse.Namespace) -> int:
    from deployment.errors import DeploymentError
    from deployment.project import read_stage
    from deployment.session import Session

    if not options.stage:
        raise PosternError("Which stage? Say --stage NAME. `postern status` shows how a local run does.")
    try:
        patient = Patient(Session(), read_stage(options.stage))
        findings = examine(patient)
    except DeploymentError as exc:
        raise PosternError(str(exc)) from None
    if options.json:
        print(output.as_json([asdict(finding) for finding in findings]))
    else:
        print(f"{patient.stage.stack}, account {patient.session.account}, region {patient.session.region}\n")
        for finding in findings:
            print(f"{finding.weight:<7} {output.plain(finding.sentence)}")
    return 1 if any(finding.weight in (Weight.WRONG, Weight.LOOK, Weight.UNSEEN) for finding in findings) else 0


@dataclass
class Patient:
    """A deployed stage, and whoever looks at it."""

    session: Session
    stage: Stage

    @cached_property
    def outputs(self) -> Mapping[str, str]:
        from deployment import deployed

        return deployed.outputs(self.session, self.stage)

    @property
    def is_packaged(self) -> bool:
        return "EndpointURL" in self.outputs

    @property
    def release(self) -> str | None:
        return self.outputs.get("Release")

    def client(self, service: str) -> Any:
        return self.session.client(service)

    def ask(self, action: str) -> dict[str, Any]:
        """The function `reader`. Raises DeploymentError."""
        from deployment.store import ask

        return ask(self.session, self.stage.function_name("reader"), {"action": action})

    @cached_property
    def mapping(self) -> Mapping[str, Any]:
        function = self.stage.function_name("processor")
        found = self.client("lambda").list_event_source_mappings(FunctionName=function)["EventSourceMappings"]
        of_queue = [each for each in found if each["EventSourceArn"] == self.outputs["QueueArn"]]
        return of_queue[0] if of_queue else {}


def examine(patient: Patient) -> list[Finding]:
    """Every check's findings, the heaviest first. Raises DeploymentError where there is no such stage."""
    from botocore.exceptions import BotoCoreError, ClientError

    from deployment.errors import DeploymentError

    assert patient.outputs
    findings: list[Finding] = []
    for check in CHECKS:
        try:
            findings += check(patient)
        except ClientError as exc:
            what, why = (check.__doc__ or "").strip(), exc.response["Error"]["Code"]
            findings.append(Finding(Weight.UNSEEN, f"{what} could not be looked at ({why})."))
        except (BotoCoreError, DeploymentError) as exc:
            findings.append(Finding(Weight.UNSEEN, f"{(check.__doc__ or '').strip()} could not be looked at: {exc}"))
    order = list(Weight)
    return sorted(findings, key=lambda finding: order.index(finding.weight))


def _api(patient: Patient) -> Findings:
    """What senders reach"""
    from deployment import deployed

    address = deployed.address(patient.stage, patient.outputs)
    try:
        with urllib.request.urlopen(f"{address}health", timeout=30) as answer:
            said, date = json.load(answer), answer.headers.get("Date")
        if not isinstance(said, dict):
            raise ValueError("it is no answer of Postern's")
    except urllib.error.HTTPError as exc:
        yield Finding(Weight.WRONG, f"{address}health answers {exc.code}: senders are answered so, too.")
        return
    except (OSError, ValueError, http.client.HTTPException) as exc:
        yield Finding(Weight.WRONG, f"{address}health does not answer: {exc}.")
        return
    if patient.release and said.get("release") != patient.release:
        yield Finding(
            Weight.WRONG,
            f"Senders are answered by release {said.get('release')}, and {patient.release} is deployed: the alias "
            "`live` is behind. `make deploy` again.",
        )
    else:
        named = f", release {patient.release}" if patient.release else ""
        yield Finding(Weight.OK, f"{address}health answers, Postern {said.get('version')}{named}.")
    if not patient.release:
        yield Finding(Weight.NATIVE, "A native stage's releases have no names: which code answers is not compared.")
    if date:
        skew = abs(datetime.now(UTC) - parsedate_to_datetime(date))
        if skew > timedelta(seconds=_SKEW_SECONDS):
            yield Finding(Weight.LOOK, f"This machine's clock is {skew.total_seconds():.0f} s off AWS's.")


def _functions(patient: Patient) -> Findings:
    """How the functions are configured"""
    from deployment.project import FUNCTIONS

    client, settings = patient.client("lambda"), {}
    for function in FUNCTIONS:
        name = patient.stage.function_name(function)
        try:
            found = client.get_function_configuration(FunctionName=name)
        except client.exceptions.ResourceNotFoundException:
            yield Finding(Weight.WRONG, f"There is no function {name}. Deploy the stage again.")
            continue
        settings[function] = found.get("Environment", {}).get("Variables", {})
        if found.get("State", "Active") not in ("Active", "Inactive") or found.get("LastUpdateStatus") == "Failed":
            why = found.get("StateReason") or found.get("LastUpdateStatusReason") or "no reason is given"
            yield Finding(Weight.WRONG, f"{name} is not in order: {why}")
        if patient.release and settings[function].get("RELEASE") != patient.release:
            yield Finding(Weight.WRONG, f"{name} is of release {settings[function].get('RELEASE')}.")
    yield from _responses(patient, settings.get("processor", {}))


def _responses(patient: Patient, settings: Mapping[str, str]) -> Findings:
    mapping = patient.mapping
    if not mapping:
        yield Finding(Weight.WRONG, "Nobody takes events from the queue: the processor has no mapping to it.")
        return
    listens = "ReportBatchItemFailures" in mapping.get("FunctionResponseTypes", [])
    reports = settings.get("PARTIAL_BATCH_RESPONSE") == "true"
    if reports and not listens:
        yield Finding(
            Weight.WRONG,
            "The processor reports which events of a batch failed, and its mapping does not read it: FAILED EVENTS ARE "
            f"LOST. Deploy again, or `make partial-responses STAGE={patient.stage.name}`, at once.",
        )
    elif listens and not reports:
        yield Finding(Weight.LOOK, "The mapping reads partial responses, and the processor gives none: deploy again.")
    elif not listens:
        yield Finding(
            Weight.NATIVE,
            "The processor is in safe mode: a failed event brings its whole batch back "
            f"(`make partial-responses STAGE={patient.stage.name}`).",
        )
    if mapping.get("State") not in ("Enabled", "Enabling", "Updating", "Creating"):
        yield Finding(
            Weight.LOOK,
            f"The processor is paused ({mapping.get('State')}): events wait, and SQS keeps them for ten days.",
        )


def _database(patient: Patient) -> Findings:
    """The database"""
    from deployment.errors import DeploymentError

    try:
        patient.ask("version")
    except DeploymentError as exc:
        yield Finding(Weight.UNSEEN, f"The database could not be asked: {exc}")
        return
    try:
        migrations = patient.ask("migrations")
    except DeploymentError as exc:
        yield Finding(Weight.WRONG, f"The database is not reached, events wait in the queue: {exc}")
        return
    if migrations["problem"]:
        yield Finding(Weight.WRONG, migrations["problem"])
        return
    if migrations["pending"]:
        names = ", ".join(migrations["pending"])
        yield Finding(Weight.WRONG, f"To be migrated: {names}. `make migrate STAGE={patient.stage.name}`.")
        return
    yield Finding(Weight.OK, "The database is reached, and migrated.")
    try:
        doubts = patient.ask("handlers")["doubts"]
    except DeploymentError as exc:
        yield Finding(Weight.WRONG, f"Events wait in the queue, for no handler is run: {exc}")
    else:
        yield from (Finding(Weight.LOOK, doubt) for doubt in doubts)
    yield from _inbox(patient)


def _inbox(patient: Patient) -> Findings:
    status = patient.ask("status")
    stage = patient.stage.name
    if not status["ledger"]["balanced"]:
        missing = status["ledger"]["missing"]
        yield Finding(Weight.WRONG, f"{missing} accepted events are MISSING from the database: `postern ledger`.")
    if status["ledger"]["stale"]:
        yield Finding(Weight.WRONG, "Maintenance has not run for half an hour; see its log.")
    if status["dead"]:
        dead = f"`postern events --status dead --stage {stage}`"
        yield Finding(Weight.LOOK, f"Dead events, which nothing tries again: {status['dead']}. {dead} lists them.")
    quiet = [row["source"] for row in status["sources"] if row["quiet"]]
    if quiet:
        yield Finding(Weight.LOOK, f"Unusually quiet: {', '.join(quiet)}. `postern status --stage {stage}`.")
    if status["open_drift"]:
        yield Finding(Weight.LOOK, f"{status['open_drift']} changes of payloads: `postern drift --stage {stage}`.")


def _queue(patient: Patient) -> Findings:
    """How old the queue's events are"""
    name = patient.outputs["QueueUrl"].rsplit("/", 1)[-1]
    now = datetime.now(UTC)
    points = patient.client("cloudwatch").get_metric_statistics(
        Namespace="AWS/SQS",
        MetricName="ApproximateAgeOfOldestMessage",
        Dimensions=[{"Name": "QueueName", "Value": name}],
        StartTime=now - timedelta(minutes=15),
        EndTime=now,
        Period=60,
        Statistics=["Maximum"],
    )["Datapoints"]
    newest = max(points, key=lambda point: point["Timestamp"], default=None)
    age = newest["Maximum"] if newest else 0
    if age > _OLD_SECONDS:
        yield Finding(Weight.WRONG, f"The oldest accepted event waits since {age / 60:.0f} minutes for the database.")
    letters = patient.client("sqs").get_queue_attributes(
        QueueUrl=patient.outputs["DeadLetterQueueUrl"], AttributeNames=["ApproximateNumberOfMessages"]
    )["Attributes"]["ApproximateNumberOfMessages"]
    if int(letters):
        dead = f"`postern dead --stage {patient.stage.name}`"
        yield Finding(Weight.LOOK, f"Dead letters, more or less: {letters}. {dead} lists them.")


def _secrets(patient: Patient) -> Findings:
    """The sources' secrets"""
    from cli.source_secrets import problem
    from deployment import secrets

    known, _ = secrets.read(patient.session, patient.outputs["SourcesSecretArn"])
    found = problem(patient.stage.project, known)
    missing = [name for name, said in found.items() if said is None]
    for name, said in found.items():
        if said:
            yield Finding(Weight.WRONG, f"The secret of {name}: {said} Its deliveries are answered 503.")
    if missing:
        yield Finding(
            Weight.LOOK,
            f"Without a secret, and so answering 503: {', '.join(missing)}. `postern secrets set NAME --stage "
            f"{patient.stage.name}`, or take what you do not use out of sources.toml.",
        )
    if not found:
        yield Finding(Weight.OK, "Every source has its secret.")


def _alarms(patient: Patient) -> Findings:
    """The alarms"""
    topic = patient.outputs["AlarmTopicArn"]
    listeners = patient.client("sns").list_subscriptions_by_topic(TopicArn=topic)["Subscriptions"]
    confirmed = [each for each in listeners if each["SubscriptionArn"].startswith("arn:")]
    if not listeners:
        yield Finding(Weight.LOOK, "Nobody hears the alarms: set AlarmEmail, or subscribe to the topic AlarmTopicArn.")
    elif not confirmed:
        yield Finding(Weight.LOOK, "Nobody hears the alarms yet: AWS's mail asks to confirm the subscription.")
    ringing = patient.client("cloudwatch").describe_alarms(
        AlarmNamePrefix=f"{patient.stage.stack}-", StateValue="ALARM"
    )["MetricAlarms"]
    for alarm in ringing:
        yield Finding(Weight.WRONG, f"Alarm {alarm['AlarmName']}: docs/operate.md says what to do.")


def _concurrency(patient: Patient) -> Findings:
    """What the account may run at once"""
    from deployment.checks import room_for_processors

    client = patient.client("lambda")
    limit = client.get_account_settings()["AccountLimit"]["UnreservedConcurrentExecutions"]
    most = patient.mapping.get("ScalingConfig", {}).get("MaximumConcurrency")
    if most and most > room_for_processors(limit):
        yield Finding(
            Weight.LOOK,
            f"Processors may take {most} of the {limit} functions that the account may run at once, and senders hear "
            "503 when none is left: lower MaximumConcurrency, or ask for more (quota L-B99A9384).",
        )


# The first line of each one's docstring names what it looks at.
CHECKS: tuple[Callable[[Patient], Findings], ...] = (
    _api,
    _functions,
    _database,
    _queue,
    _secrets,
    _alarms,
    _concurrency,
)
