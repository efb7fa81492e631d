"""What does not fit is said in a sentence, before anything is created."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from botocore.exceptions import ClientError

from deployment.checks import check, room_for_processors
from deployment.errors import DeploymentError
from deployment.session import Session
from tests.deployment.cloud import Cloud, checkout, run
from tests.deployment.conftest import write_parameters

ARN = "arn:aws:secretsmanager:us-east-1:000000000000:secret:database-AbCdEf"


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkout(tmp_path_factory.mktemp("refused"))


def refused(cloud: Cloud, clone: Path, *arguments: str, **environ: str) -> str:
    """What it says, having created nothing."""
    before = stacks(cloud)
    done = run(cloud, clone, *arguments, environ=environ)
    assert (done.returncode, stacks(cloud)) == (1, before), done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    text: str = done.stderr
    return text


def stacks(cloud: Cloud) -> set[str]:
    return {stack["StackId"] for stack in cloud.client("cloudformation").describe_stacks()["Stacks"]}


def secret_of(cloud: Cloud, content: object) -> str:
    client = cloud.client("secretsmanager")
    text = content if isinstance(content, str) else json.dumps(content)
    arn: str = client.create_secret(Name=f"misfit-{uuid.uuid4()}", SecretString=text)["ARN"]
    return arn


@pytest.mark.parametrize("command", ["package", "deploy", "native", "migrate", "partial-responses"])
def test_a_stage_that_is_not_there(cloud: Cloud, clone: Path, command: str) -> None:
    assert "Did you mean 'prod'?" in refused(cloud, clone, command, "--stage", "prd")


def test_no_stage(cloud: Cloud, clone: Path) -> None:
    assert "Say STAGE=NAME; there are dev, prod." in refused(cloud, clone, "deploy")


@pytest.mark.parametrize("command", ["package", "native"])
def test_a_function_that_a_new_version_brought(cloud: Cloud, clone: Path, command: str) -> None:
    file = clone / ".chalice" / "config.json"
    before = file.read_text("utf-8")
    config = json.loads(before)
    del config["lambda_functions"]["backend"]
    file.write_text(json.dumps(config), "utf-8")
    try:
        said = refused(cloud, clone, command, "--stage", "dev")
    finally:
        file.write_text(before, "utf-8")
    assert ".chalice/config.json has no function 'backend', which this version brings: take over its entry" in said


def test_no_parameters(cloud: Cloud, clone: Path) -> None:
    (clone / "infra" / "parameters" / "dev.json").unlink(missing_ok=True)

    assert '{"Parameters": {"DatabaseSecretArn":' in refused(cloud, clone, "native", "--stage", "dev")


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({}, "DatabaseSecretArn is needed: Secret of the database"),
        ({"DatabaseSecretArn": "postgres://…"}, "DatabaseSecretArn is 'postgres://…', not the ARN of a secret."),
        ({"DatabaseSecretArn": ARN, "BatchSise": "5"}, "There is no parameter 'BatchSise'. Did you mean 'BatchSize'?"),
        ({"DatabaseSecretArn": ARN, "BatchSize": "0"}, "BatchSize is '0', not a whole number from 1 to 10000."),
        ({"DatabaseSecretArn": ARN, "BatchSize": "11"}, "A BatchSize over 10 needs a BatchingWindowSeconds of 1"),
        ({"DatabaseSecretArn": ARN, "SubnetIds": "subnet-1"}, "SubnetIds and SecurityGroupIds need each other."),
        ({"DatabaseSecretArn": ARN, "DomainName": "a.b"}, "DomainName and CertificateArn need each other."),
        ({"DatabaseSecretArn": ARN, "LogRetentionDays": "31"}, "LogRetentionDays is '31', not one of 1, 3, 5"),
        (
            {"DatabaseSecretArn": ARN, "RetryBaseSeconds": "3600"},
            "RetryMaxSeconds is 300, less than RetryBaseSeconds",
        ),
        ({"DatabaseSecretArn": ARN, "MaxReceiveCount": "9"}, "nine tenths of it must be more than MaxAttempts and"),
        ({"DatabaseSecretArn": ARN, "HandlerTimeoutSeconds": "58"}, "the processor's own timeout 60: it needs 4 s"),
        ({"DatabaseSecretArn": ARN, "AlarmEmail": "nobody"}, "AlarmEmail is 'nobody', not an e-mail address"),
    ],
)
def test_parameters_that_do_not_fit(cloud: Cloud, clone: Path, parameters: dict[str, str], sentence: str) -> None:
    write_parameters(clone, "prod", **parameters)

    assert sentence in refused(cloud, clone, "deploy", "--stage", "prod")


def test_what_chalice_cannot_express(cloud: Cloud, clone: Path) -> None:
    write_parameters(clone, "dev", DatabaseSecretArn=ARN, SnapStart="on", ThrottlingRate="5")

    said = refused(cloud, clone, "native", "--stage", "dev")

    assert "SnapStart, ThrottlingRate: `chalice deploy` cannot express it." in said


@pytest.mark.parametrize("command", ["deploy", "native"])
def test_a_database_secret_that_is_not_there(cloud: Cloud, clone: Path, command: str) -> None:
    write_parameters(clone, "prod", DatabaseSecretArn=ARN)

    assert f"There is no secret {ARN}." in refused(cloud, clone, command, "--stage", "prod")


def test_a_database_secret_of_another_region(cloud: Cloud, clone: Path) -> None:
    write_parameters(clone, "prod", DatabaseSecretArn=ARN.replace("us-east-1", "eu-west-1"))

    said = refused(cloud, clone, "deploy", "--stage", "prod")

    assert "The database's secret is in eu-west-1, the deployment in us-east-1." in said


@pytest.mark.parametrize(
    ("secret", "sentence"),
    [
        ("hunter2", "The database's secret is not a JSON object."),
        ({"username": "postern", "password": "hunter2"}, "has no host. The parameter DatabaseHost can say it."),
    ],
)
def test_a_database_secret_that_nothing_can_be_done_with(cloud: Cloud, clone: Path, secret: Any, sentence: str) -> None:
    write_parameters(clone, "prod", DatabaseSecretArn=secret_of(cloud, secret))

    said = refused(cloud, clone, "deploy", "--stage", "prod")

    assert sentence in said
    assert "hunter2" not in said


def test_a_database_secret_that_is_named_by_half(cloud: Cloud, clone: Path) -> None:
    """Secrets Manager finds it without its last six characters; a role that grants so much grants nothing."""
    whole = secret_of(cloud, {"username": "u", "password": "p", "host": "db.example.com"})
    write_parameters(clone, "prod", DatabaseSecretArn=whole[:-7])

    assert f"the secret's own is {whole}." in refused(cloud, clone, "deploy", "--stage", "prod")


def test_a_database_secret_of_another_account(cloud: Cloud, clone: Path) -> None:
    write_parameters(clone, "prod", DatabaseSecretArn=ARN.replace("000000000000", "111122223333"))

    said = refused(cloud, clone, "deploy", "--stage", "prod")

    assert "The database's secret is in account 111122223333, your credentials are for 000000000000." in said


# No proxy is there, so nothing on the internet is reached, whatever the network of this machine.
OFFLINE = {"HTTPS_PROXY": "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1"}


@pytest.mark.parametrize("command", ["deploy", "native"])
def test_a_database_on_rds_whose_authorities_are_not_in_the_package(cloud: Cloud, clone: Path, command: str) -> None:
    secret = {"username": "u", "password": "p", "host": "inbox.abc123.us-east-1.rds.amazonaws.com"}
    write_parameters(clone, "prod", DatabaseSecretArn=secret_of(cloud, secret))

    said = refused(cloud, clone, command, "--stage", "prod", **OFFLINE)

    assert "certificate of RDS's own authorities, which chalicelib/certificates/database-ca.pem is to hold" in said
    assert "curl -fsS -o chalicelib/certificates/database-ca.pem https://truststore.pki.rds.amazonaws.com/" in said
    assert not (clone / "chalicelib" / "certificates").exists()


@pytest.fixture
def vpc(cloud: Cloud) -> Iterator[dict[str, str]]:
    ec2 = cloud.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.1.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.1.1.0/24")["Subnet"]["SubnetId"]
    group = ec2.create_security_group(VpcId=vpc, GroupName="functions", Description="functions")["GroupId"]
    table = ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
    ec2.associate_route_table(RouteTableId=table, SubnetId=subnet)
    yield {"vpc": vpc, "subnet": subnet, "group": group, "table": table}
    ec2.delete_route_table(RouteTableId=table)
    ec2.delete_subnet(SubnetId=subnet)


def test_subnets_without_a_way_to_aws(cloud: Cloud, clone: Path, vpc: dict[str, str]) -> None:
    ec2 = cloud.client("ec2")
    secret = secret_of(cloud, {"username": "u", "password": "p", "host": "db.example.com"})
    inside = {"SubnetIds": vpc["subnet"], "SecurityGroupIds": vpc["group"]}
    write_parameters(clone, "prod", DatabaseSecretArn=secret, **inside)

    def ways() -> str | None:
        """What is said of them, if anything is."""
        spoken: list[str] = []
        values = {"DatabaseSecretArn": secret, **inside}
        try:
            with pytest.MonkeyPatch.context() as patch:
                for name, value in cloud.environ().items():
                    patch.setenv(name, value)
                check(Session(), clone, values, spoken.append)
        except DeploymentError as exc:
            return str(exc)
        return "".join(spoken) or None

    gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    ec2.create_route(RouteTableId=vpc["table"], DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway)
    no_way = f"From {vpc['subnet']} there is no way to secretsmanager, sqs, monitoring, s3: no route out of the VPC but"
    assert no_way in refused(cloud, clone, "deploy", "--stage", "prod")
    assert no_way in str(ways())

    for service in ("secretsmanager", "sqs"):
        ec2.create_vpc_endpoint(VpcId=vpc["vpc"], ServiceName=f"com.amazonaws.us-east-1.{service}")
    assert f"From {vpc['subnet']} there is no way to monitoring, s3" in str(ways())

    ec2.delete_route(RouteTableId=vpc["table"], DestinationCidrBlock="0.0.0.0/0")
    ec2.create_route(RouteTableId=vpc["table"], DestinationCidrBlock="0.0.0.0/0", NatGatewayId="nat-0123456789abcdef0")
    assert ways() is None


def test_subnets_that_are_not_there(cloud: Cloud, clone: Path) -> None:
    secret = secret_of(cloud, {"username": "u", "password": "p", "host": "db.example.com"})
    write_parameters(
        clone, "prod", DatabaseSecretArn=secret, SubnetIds="subnet-0123456789abcdef0", SecurityGroupIds="sg-1"
    )
    assert "subnet-0123456789abcdef0" in refused(cloud, clone, "deploy", "--stage", "prod")


@pytest.mark.parametrize(("limit", "room"), [(10, 5), (3, 2), (1, 2), (1000, 500)])
def test_processors_get_half_of_what_the_account_may_run_at_once(limit: int, room: int) -> None:
    """Two at least: SQS cannot be told of fewer."""
    assert room_for_processors(limit) == room


def test_a_region_that_is_none(cloud: Cloud, clone: Path) -> None:
    write_parameters(clone, "prod", DatabaseSecretArn=ARN)

    said = refused(cloud, clone, "deploy", "--stage", "prod", AWS_DEFAULT_REGION="eu-nowhere-1", AWS_REGION="")

    assert "AWS has no region 'eu-nowhere-1'." in said


def test_credentials_that_have_expired(cloud: Cloud, clone: Path) -> None:
    write_parameters(clone, "prod", DatabaseSecretArn=ARN)

    class Answers(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            said = b"<ErrorResponse><Error><Code>ExpiredToken</Code></Error></ErrorResponse>"
            self.send_response(403)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answers) as sts:
        thread = threading.Thread(target=sts.serve_forever)
        thread.start()
        said = refused(
            cloud, clone, "deploy", "--stage", "prod", AWS_ENDPOINT_URL=f"http://127.0.0.1:{sts.server_port}"
        )
        sts.shutdown()
        thread.join()

    assert "Your AWS credentials have expired: sign in again (`aws sso login`)." in said


def test_two_ways_to_start_warm(cloud: Cloud, clone: Path) -> None:
    """SnapStart is `on` only with Python 3.12; whatever packages, the two exclude each other."""
    write_parameters(clone, "prod", DatabaseSecretArn=ARN, SnapStart="on", ProvisionedConcurrency="1")

    assert "SnapStart" in refused(cloud, clone, "deploy", "--stage", "prod")


def test_the_template_itself_refuses_two_ways_to_start_warm(cloud: Cloud, clone: Path) -> None:
    application = yaml.safe_load((clone / "infra" / "application.yaml").read_text("utf-8"))
    names = ("ProvisionedConcurrency", "SnapStart", "DomainName", "CertificateArn")
    template = {
        "Parameters": {name: application["Parameters"][name] for name in names},
        "Rules": application["Rules"],
        "Resources": {"Topic": {"Type": "AWS::SNS::Topic"}},
    }

    def create(**values: str) -> None:
        client = cloud.client("cloudformation")
        client.create_stack(
            StackName="rules-" + "-".join(values.values()),
            TemplateBody=json.dumps(template),
            Parameters=[{"ParameterKey": name, "ParameterValue": value} for name, value in values.items()],
        )

    create(ProvisionedConcurrency="1", SnapStart="off")
    create(ProvisionedConcurrency="0", SnapStart="on")
    with pytest.raises(ClientError, match="exclude each other"):
        create(ProvisionedConcurrency="1", SnapStart="on")
