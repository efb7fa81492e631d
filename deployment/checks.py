"""What can be known before anything is made: each misfit in one sentence, with what to do about it."""

from __future__ import annotations

import http.client
import re
import ssl
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from chalicelib.postern.adapters.secrets import parsed
from deployment.errors import DeploymentError
from deployment.parameters import Parameters
from deployment.session import Session

Say = Callable[[str], None]

AUTHORITIES = Path("chalicelib", "certificates", "database-ca.pem")
_RDS_AUTHORITIES = "https://truststore.pki.rds.amazonaws.com/global/global-bundle.pem"
# Proxies have certificates of a public authority.
_RDS_INSTANCE = re.compile(r"(?!.*\.proxy-).+\.rds\.amazonaws\.com(\.cn)?")

# What the functions within a VPC speak to (docs/database.md), and without which nothing goes at all.
_SERVICES = ("secretsmanager", "sqs", "monitoring", "s3")
_NEEDED = {"secretsmanager", "sqs"}

_PROCESSORS = 10  # application.yaml's MaximumConcurrency, and app.py's
_FEWEST_PROCESSORS = 2  # that SQS can be told


def check(session: Session, project: Path, values: Parameters, say: Say, *, native: bool = False) -> Parameters:
    """The parameters to deploy with. Raises DeploymentError before anything has been made."""
    secret = _database_secret(session, values, say)
    if secret is not None:
        _bring_authorities(session, project, secret, values, say)
    _check_way_out(session, values, say)
    return values | _fitting_concurrency(session, values, say, native=native)


def _database_secret(session: Session, values: Parameters, say: Say) -> Mapping[str, Any] | None:
    """What the functions will log in with, or None where it cannot be read from here."""
    arn = values["DatabaseSecretArn"]
    _, _, _, region, account, *_ = arn.split(":")
    if region != session.region:
        raise DeploymentError(f"The database's secret is in {region}, the deployment in {session.region}.")
    # Another account's secret is read with a key of that account's, or not at all.
    if account != session.account and not values.get("DatabaseSecretKeyArn"):
        raise DeploymentError(
            f"The database's secret is in account {account}, your credentials are for {session.account}. If that is "
            "the right account (AWS_PROFILE), a secret of another one needs its key, too: DatabaseSecretKeyArn."
        )
    try:
        answer = session.client("secretsmanager").get_secret_value(SecretId=arn)
    except ClientError as exc:
        code = exc.response["Error"]["Code"]
        if code == "ResourceNotFoundException":
            raise DeploymentError(f"There is no secret {arn}.") from None
        if code == "InvalidRequestException":
            raise DeploymentError(
                f"The database's secret cannot be used: {exc.response['Error'].get('Message')}"
            ) from None
        say(f"The database's secret could not be read and is not checked ({code}).")
        return None
    except BotoCoreError as exc:
        raise DeploymentError(f"Secrets Manager cannot be reached: {exc}") from None
    if answer["ARN"] != arn:
        # Roles grant the one that is named, to the letter.
        raise DeploymentError(f"DatabaseSecretArn is {arn}; the secret's own is {answer['ARN']}.")
    try:
        secret = parsed(answer.get("SecretString", ""))
    except ValueError:
        secret = None
    if not isinstance(secret, dict):
        raise DeploymentError("The database's secret is not a JSON object.")
    missing = [key for key in ("host", "username", "password") if not secret.get(key)]
    if values.get("DatabaseHost") and "host" in missing:
        missing.remove("host")
    if missing:
        hint = " The parameter DatabaseHost can say it." if "host" in missing else ""
        raise DeploymentError(f"The database's secret has no {', no '.join(missing)}.{hint}")
    return secret


def _bring_authorities(
    session: Session, project: Path, secret: Mapping[str, Any], values: Parameters, say: Say
) -> None:
    """RDS signs its certificates itself, and nothing trusts it by default: its authorities go with the functions."""
    file = project / AUTHORITIES
    host = values.get("DatabaseHost") or str(secret["host"])
    verifies = (secret.get("sslmode") or "verify-full") in ("verify-ca", "verify-full")
    if not verifies or secret.get("sslrootcert") or file.exists() or not _RDS_INSTANCE.fullmatch(host):
        return
    by_hand = f"  mkdir -p {AUTHORITIES.parent} && curl -fsS -o {AUTHORITIES} {_RDS_AUTHORITIES}"
    if session.partition != "aws":
        by_hand = f"  the bundle of partition {session.partition}, which AWS's RDS manual names, to {AUTHORITIES}"
    try:
        if session.partition != "aws":
            raise ValueError("it is another one in this partition")
        with urllib.request.urlopen(_RDS_AUTHORITIES, timeout=30) as answer:
            bundle = answer.read()
        ssl.create_default_context(cadata=bundle.decode("ascii"))
    except (OSError, ValueError, http.client.HTTPException) as exc:
        raise DeploymentError(
            f"{host} has a certificate of RDS's own authorities, which {AUTHORITIES} is to hold. They could not be "
            f"fetched ({exc}). Put them there, and deploy again:\n{by_hand}"
        ) from None
    file.parent.mkdir(parents=True, exist_ok=True)
    made = file.with_suffix(".new")
    made.write_bytes(bundle)
    made.replace(file)
    say(f"Fetched RDS's certificate authorities into {AUTHORITIES}; commit that file.")


def _check_way_out(session: Session, values: Parameters, say: Say) -> None:
    """From the functions' subnets to AWS's services: by a route that leads out of the VPC, wherever to, or endpoints.

    A function in a public subnet has no public address, so an internet gateway is no way out for it.
    """
    subnets = [subnet.strip() for subnet in values.get("SubnetIds", "").split(",") if subnet.strip()]
    if not subnets:
        return
    ec2 = session.client("ec2")
    try:
        found = ec2.describe_subnets(SubnetIds=subnets)["Subnets"]
        vpcs = {subnet["VpcId"] for subnet in found}
        of_vpc = [{"Name": "vpc-id", "Values": [*vpcs]}]
        tables = ec2.describe_route_tables(Filters=of_vpc)["RouteTables"]
        endpoints = ec2.describe_vpc_endpoints(Filters=of_vpc)["VpcEndpoints"]
    except ClientError as exc:
        if "NotFound" in exc.response["Error"]["Code"]:
            raise DeploymentError(f"SubnetIds: {exc.response['Error'].get('Message')}") from None
        say(f"The way from the subnets to AWS is not checked ({exc.response['Error']['Code']}).")
        return
    except BotoCoreError as exc:
        say(f"The way from the subnets to AWS is not checked: {exc}")
        return
    if len(vpcs) > 1:
        raise DeploymentError("SubnetIds are of several VPCs; take those of the database's.")
    if any(subnet.get("OwnerId", session.account) != session.account for subnet in found):
        say(
            "The way from the subnets to AWS is not checked: they are another account's, which alone sees their routes."
        )
        return
    reached = {
        endpoint.get("ServiceName", "").rpartition(".")[2]
        for endpoint in endpoints
        if endpoint.get("State", "").lower() == "available"
    }
    missing = [service for service in _SERVICES if service not in reached]
    closed = [subnet for subnet in subnets if not _leads_out(tables, subnet)]
    if not closed or not missing:
        return
    sentence = (
        f"From {', '.join(closed)} there is no way to {', '.join(missing)}: no route out of the VPC but to an internet "
        "gateway, and no VPC endpoint. docs/database.md, 'A path to it, and to AWS', says what needs them."
    )
    if _NEEDED & {*missing}:
        raise DeploymentError(sentence)
    say(sentence)


def _leads_out(tables: Iterable[Mapping[str, Any]], subnet: str) -> bool:
    """To a NAT, a transit gateway, another VPC: what is behind it is not looked into."""
    tables = list(tables)
    own = [t for t in tables if any(a.get("SubnetId") == subnet for a in t.get("Associations", []))]
    main = [t for t in tables if any(a.get("Main") for a in t.get("Associations", []))]
    routes = [route for table in own or main for route in table.get("Routes", [])]
    return any(
        route.get("State") != "blackhole" and not str(route.get("GatewayId", "")).startswith(("igw-", "local", "vpce-"))
        for route in routes
    )


def _fitting_concurrency(session: Session, values: Parameters, say: Say, *, native: bool) -> Parameters:
    """Processors get half of what the account may run at once, at most: senders are answered by the same account."""
    try:
        limits = session.client("lambda").get_account_settings()["AccountLimit"]
    except (BotoCoreError, ClientError) as exc:
        say(f"How many functions this account may run at once is not checked: {exc}")
        return {}
    limit = int(limits["UnreservedConcurrentExecutions"])
    fits = room_for_processors(limit)
    wanted = int(values.get("MaximumConcurrency", _PROCESSORS))
    if wanted <= fits:
        return {}
    if native:
        said = f"processors may take {wanted} of them, and `chalice deploy` cannot give them fewer; {fits} would"
    elif "MaximumConcurrency" in values:
        said = f"MaximumConcurrency lets processors take {wanted} of them; {fits} would"
    else:
        said = f"MaximumConcurrency is {fits} here instead of {wanted}, to"
    say(
        f"This account runs {limit} functions at once in {session.region}: {said} leave room for the API function, "
        "which answers 503 when there is none. To ask for more: Service Quotas, AWS Lambda, Concurrent executions "
        "(L-B99A9384)."
    )
    return {} if native or "MaximumConcurrency" in values else {"MaximumConcurrency": str(fits)}


def room_for_processors(limit: int) -> int:
    """Of the functions that an account may run at once."""
    return max(_FEWEST_PROCESSORS, limit // 2)
