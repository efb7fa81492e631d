"""The package: what CloudFormation and the functions are given."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib.metadata import distribution
from importlib.util import cache_from_source
from pathlib import Path
from typing import Any

import pytest
import yaml
from samtranslator.translator.transform import transform

from chalicelib.postern.contract.metrics import METRICS
from deployment import archives
from deployment.errors import DeploymentError
from deployment.materials import missing
from deployment.package import Package, with_uploaded_code
from deployment.package import package as make_package
from deployment.project import FUNCTIONS, read_stage
from devstack.settings import PROJECT
from tests.deployment.cloud import checkout, package
from tests.deployment.conftest import write_parameters

# Allow statements for every resource, each with the reason why AWS leaves no narrower one.
JUSTIFIED = {
    "ReadMetrics": "cloudwatch:GetMetricStatistics and ListMetrics know no resources of ours",
    "SendTraces": "X-Ray's actions know no resources",
    "JoinVpc": "Lambda may check these for every resource, as its own policy has them",
}


@pytest.fixture(scope="module")
def folder(packaged: Path) -> Path:
    return packaged / "dist" / "prod"


def test_libraries_that_are_the_same_are_packed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, kept, packed = tmp_path / "root", tmp_path / "kept", list[Path]()
    (root / "python").mkdir(parents=True)
    (root / "python" / "one.py").write_text("x = 1\n")
    pack = archives.pack

    def counting(root: Path, target: Path, *, mounted_at: str) -> int:
        packed.append(target)
        return pack(root, target, mounted_at=mounted_at)

    monkeypatch.setattr(archives, "pack", counting)

    def made(name: str) -> bytes:
        size = archives.pack_once(root, tmp_path / name, mounted_at="/opt", kept_in=kept)
        content = (tmp_path / name).read_bytes()
        assert size == len(content)
        return content

    first = made("first.zip")
    for bytecode in root.rglob("__pycache__"):
        shutil.rmtree(bytecode)
    assert (made("second.zip"), len(packed)) == (first, 1)
    for n in range(6):
        (root / "python" / "one.py").write_text(f"x = {n + 2}\n")
        assert made(f"{n}.zip") != first
    assert (len(packed), len(list(kept.iterdir()))) == (7, 4)


@pytest.fixture(scope="module")
def template(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((folder / "template.yaml").read_text("utf-8"))
    return found


@pytest.fixture(scope="module")
def translated(folder: Path, template: dict[str, Any]) -> dict[str, Any]:
    return translate(folder, template)


def translate(folder: Path, template: dict[str, Any]) -> dict[str, Any]:
    """What CloudFormation makes of it; raises for a template that SAM does not accept."""
    uploaded = json.loads(with_uploaded_code(Package(folder, template), "packages", "function.zip", "layer.zip"))
    values = {name: str(about.get("Default", "")) for name, about in template["Parameters"].items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        found: dict[str, Any] = transform(uploaded, values, NoManagedPolicies())
    return found


class NoManagedPolicies:
    def load(self) -> dict[str, str]:
        return {}


def of_type(template: dict[str, Any], type: str) -> dict[str, Any]:
    return {name: about["Properties"] for name, about in template["Resources"].items() if about["Type"] == type}


def test_cfn_lint_finds_nothing(folder: Path) -> None:
    infra = PROJECT / "infra"
    files = [folder / "template.yaml", infra / "resources.yaml", infra / "bootstrap.yaml", infra / "database.yaml"]
    done = subprocess.run(
        [Path(sys.executable).parent / "cfn-lint", "--regions", "us-east-1", "eu-central-1", "--", *files],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_api_calls_the_alias_and_nothing_else(translated: dict[str, Any]) -> None:
    (api,) = of_type(translated, "AWS::ApiGateway::RestApi").values()
    methods = [m for path in api["Body"]["paths"].values() for m in path.values() if isinstance(m, dict)]
    uris = [m["x-amazon-apigateway-integration"].get("uri") for m in methods]
    assert len(uris) >= 7
    for uri in uris:
        text, names = uri["Fn::Sub"]
        assert "${Live}/invocations" in text
        assert names == {"Live": {"Ref": "APIHandlerAliaslive"}}
    permissions = of_type(translated, "AWS::Lambda::Permission").values()
    by_api = [p["FunctionName"] for p in permissions if p["Principal"] == "apigateway.amazonaws.com"]
    assert by_api
    assert all(name == {"Ref": "APIHandlerAliaslive"} for name in by_api)


def test_the_alias_moves_with_whatever_a_release_is_made_of(packaged: Path, folder: Path, tmp_path: Path) -> None:
    """The layer, which the function's own properties do not show, and settings that are given as parameters."""
    seen = {published(folder)}
    project = checkout(tmp_path, packaged)
    version = project / "chalicelib" / "postern" / "running" / "version.py"
    version.write_text('VERSION = "99.0.0"\n', "utf-8")
    seen.add(published(package(project)))
    arn = "arn:aws:secretsmanager:us-east-1:000000000000:secret:database-AbCdEf"
    write_parameters(project, "prod", DatabaseSecretArn=arn, Tracing="PassThrough", AllowedIpRanges="192.0.2.0/24")
    seen.add(published(package(project)))
    versions, deployments = ({*kind} for kind in zip(*seen, strict=True))
    assert (len(versions), len(deployments)) == (3, 2)


def published(folder: Path) -> tuple[str, str]:
    """The logical ids of the version of the API function, and of the deployment of the API, that are made with this
    package.
    """
    template = yaml.safe_load((folder / "template.yaml").read_text("utf-8"))
    translated = translate(folder, template)
    (version,) = of_type(translated, "AWS::Lambda::Version")
    (deployment,) = of_type(translated, "AWS::ApiGateway::Deployment")
    return version, deployment


def test_there_is_no_stray_stage(translated: dict[str, Any]) -> None:
    stages = of_type(translated, "AWS::ApiGateway::Stage").values()
    assert [stage["StageName"] for stage in stages] == ["prod"]
    assert [d.get("StageName") for d in of_type(translated, "AWS::ApiGateway::Deployment").values()] == [None]


def test_every_function_logs_to_a_group_of_the_stack(translated: dict[str, Any]) -> None:
    functions = [f["FunctionName"]["Fn::Sub"] for f in of_type(translated, "AWS::Lambda::Function").values()]
    groups = [g["LogGroupName"]["Fn::Sub"] for g in of_type(translated, "AWS::Logs::LogGroup").values()]
    assert sorted(group for group in groups if group.startswith("/aws/lambda/")) == sorted(
        f"/aws/lambda/{function}" for function in functions
    )
    assert len(functions) == len(FUNCTIONS)
    assert all("RetentionInDays" in group for group in of_type(translated, "AWS::Logs::LogGroup").values())


def test_no_wildcard_is_unjustified(translated: dict[str, Any]) -> None:
    wide, actions = set(), []
    for statement in allowed(translated):
        actions += statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
        if statement["Resource"] == "*":
            wide.add(statement["Sid"])
    assert wide == set(JUSTIFIED)
    assert [action for action in actions if "*" in action] == []


def allowed(node: Any) -> Iterator[dict[str, Any]]:
    """Every Allow statement of a policy of a role, however deep in conditions."""
    if isinstance(node, dict):
        if node.get("Effect") == "Allow" and "Resource" in node:
            yield node
        for value in node.values():
            yield from allowed(value)
    elif isinstance(node, list):
        for value in node:
            yield from allowed(value)


def test_every_function_has_a_role_of_its_own(translated: dict[str, Any]) -> None:
    roles = [f["Role"]["Fn::GetAtt"][0] for f in of_type(translated, "AWS::Lambda::Function").values()]
    assert len(set(roles)) == len(FUNCTIONS)
    for name in roles:
        role = translated["Resources"][name]["Properties"]
        assert not role.get("ManagedPolicyArns")
        assert len(role["Policies"]) == 1


def test_the_database_is_reached_from_the_subnets_and_the_api_function_is_outside(translated: dict[str, Any]) -> None:
    inside = {name for name, f in of_type(translated, "AWS::Lambda::Function").items() if "VpcConfig" in f}
    assert inside == {"Processor", "Maintenance", "Store", "Reader", "Backend"}


def test_everything_is_encrypted_at_rest_and_queues_and_buckets_take_tls_only(translated: dict[str, Any]) -> None:
    queues, buckets = of_type(translated, "AWS::SQS::Queue"), of_type(translated, "AWS::S3::Bucket")
    assert all(queue["SqsManagedSseEnabled"] is True for queue in queues.values())
    assert all("BucketEncryption" in bucket for bucket in buckets.values())
    guarded = set()
    for type, key in (("AWS::SQS::QueuePolicy", "Queues"), ("AWS::S3::BucketPolicy", "Bucket")):
        for policy in of_type(translated, type).values():
            (statement,) = policy["PolicyDocument"]["Statement"]
            assert (statement["Effect"], statement["Principal"]) == ("Deny", "*")
            assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
            named = policy[key] if isinstance(policy[key], list) else [policy[key]]
            guarded |= {reference["Ref"] for reference in named}
    assert guarded == set(queues) | set(buckets)


def test_the_mapping_asks_for_partial_responses_and_is_bounded(translated: dict[str, Any]) -> None:
    (mapping,) = of_type(translated, "AWS::Lambda::EventSourceMapping").values()
    assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert mapping["ScalingConfig"] == {"MaximumConcurrency": {"Ref": "MaximumConcurrency"}}


def test_warm_starts_are_off_unless_asked_for(template: dict[str, Any], translated: dict[str, Any]) -> None:
    assert template["Parameters"]["ProvisionedConcurrency"]["Default"] == 0
    assert template["Parameters"]["SnapStart"]["Default"] == "off"
    target = translated["Resources"]["WarmApi"]
    assert target["Condition"] == "KeptWarm"
    assert target["Properties"]["ResourceId"] == {"Fn::Sub": "function:${APIHandler}:live"}
    assert all("Timezone" in action for action in target["Properties"]["ScheduledActions"])


def test_the_exact_bytes_of_every_content_type_reach_the_function(template: dict[str, Any]) -> None:
    """In AWS's own shape: the emulator reads this list elsewhere."""
    [api] = of_type(template, "AWS::Serverless::Api").values()
    assert api["DefinitionBody"]["x-amazon-apigateway-binary-media-types"] == ["*/*"]


def test_every_alarm_is_explained_and_reaches_the_topic(template: dict[str, Any]) -> None:
    explained = (PROJECT / "docs" / "operate.md").read_text("utf-8")
    alarms = of_type(template, "AWS::CloudWatch::Alarm").values()
    assert len(alarms) >= 8
    for alarm in alarms:
        name = alarm["AlarmName"]["Fn::Sub"].removeprefix("postern-${Stage}-")
        assert f"\n### {name}\n" in explained
        assert f"| [`{name}`](#{name}) |" in explained
        assert alarm["AlarmActions"] == alarm["OKActions"] == [{"Ref": "Alarms"}]
        assert alarm["TreatMissingData"] == "notBreaching"
        if alarm["Namespace"] == "Postern":
            assert alarm["MetricName"] in METRICS


def test_every_parameter_is_documented_with_its_default(template: dict[str, Any]) -> None:
    rows = [line for line in (PROJECT / "docs" / "deploy.md").read_text("utf-8").splitlines() if line.startswith("| `")]
    documented = {name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert documented == set(template["Parameters"])
    for name, about in template["Parameters"].items():
        if name != "Stage" and about.get("Default") not in (None, ""):
            (row,) = (row for row in rows if f"`{name}`" in row.split("|")[1])
            assert f"`{about['Default']}`" in row.split("|")[2], name


def test_the_function_is_what_a_team_writes_and_nothing_else(folder: Path) -> None:
    assert (folder / "function.zip").stat().st_size < 100_000
    names = {re.sub(r"__pycache__/|\.cpython-\d+\.pyc$|\.py$", "", name) for name in names_in(folder / "function.zip")}
    own = {"app", "chalicelib/__init__", "chalicelib/sources.toml"}
    assert own <= names
    assert {name for name in names - own if not name.startswith("chalicelib/handlers/")} == set()


def test_a_teams_own_module_goes_with_its_handlers(packaged: Path, tmp_path: Path) -> None:
    project = checkout(tmp_path, packaged)
    (project / "chalicelib" / "shop_schemas.py").write_text("ORDER = 1\n", "utf-8")
    beside = ["letters/welcome.md", "letters/notes.rst", "tests/cases.json", "data/METADATA"]
    for name in beside:
        file = project / "chalicelib" / "handlers" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text("Hello\n", "utf-8")
    folder = package(project)
    assert {"chalicelib/shop_schemas.py", *(f"chalicelib/handlers/{name}" for name in beside)} <= {
        *names_in(folder / "function.zip")
    }


def test_the_layer_carries_no_boto3_and_no_tests(folder: Path) -> None:
    names = names_in(folder / "layer.zip")
    packages = {re.sub(r"^python/lib/python[\d.]+/site-packages/", "", name).split("/")[0] for name in names}
    assert {
        "chalice",
        "chalicelib",
        "cryptography",
        "jwt",
        "marshmallow",
        "psycopg2",
        "aws_lambda_powertools",
    } <= packages
    assert packages.isdisjoint({"boto3", "botocore", "s3transfer"})
    assert [name for name in names if "/tests/" in name or name.endswith((".pyi", ".md"))] == []


def test_what_a_library_says_of_itself_is_there_at_run_time(folder: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(folder / "layer.zip") as content:
        content.extractall(tmp_path)
    (site_packages,) = tmp_path.glob("python/lib/python*/site-packages")
    code = "from importlib.metadata import version; print(version('marshmallow'))"
    environ = {"PYTHONPATH": str(site_packages)}
    done = subprocess.run([sys.executable, "-S", "-c", code], env=environ, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == distribution("marshmallow").version, done.stderr
    abouts = [file for file in site_packages.glob("*.dist-info/*") if file.is_file()]
    assert {file.name for file in abouts} <= {"METADATA", "entry_points.txt"}
    assert sum(file.stat().st_size for file in abouts) < 20_000


@pytest.mark.parametrize("archive", ["function.zip", "layer.zip"])
def test_every_module_has_bytecode_that_is_never_checked(folder: Path, archive: str) -> None:
    with zipfile.ZipFile(folder / archive) as content:
        names = set(content.namelist())
        missing = [name for name in names if name.endswith(".py") and cache_from_source(name) not in names]
        # PEP 552: after the magic number, flags 1 are "hash-based", and not "check the source".
        checked = [name for name in names if name.endswith(".pyc") and content.read(name)[4:8] != b"\1\0\0\0"]
    assert (missing, checked) == ([], [])


def test_the_same_input_gives_the_same_bytes_anywhere(folder: Path, tmp_path: Path) -> None:
    """In another folder, with another hash seed, in another time zone, with other rights for new files."""
    before = os.umask(0o077)
    try:
        again = package(checkout(tmp_path), PYTHONHASHSEED="4711", TZ="Pacific/Auckland")
    finally:
        os.umask(before)
    for name in ("function.zip", "layer.zip", "template.yaml", "bom.json"):
        assert digest(again / name) == digest(folder / name), name


def test_a_bill_of_materials_lies_beside_the_archives(folder: Path) -> None:
    found = json.loads((folder / "bom.json").read_text("utf-8"))
    assert (found["bomFormat"], found["specVersion"]) == ("CycloneDX", "1.6")
    pinned = re.findall(r"^([\w.-]+)==([\w.]+)", (PROJECT / "requirements.txt").read_text("utf-8"), re.MULTILINE)
    libraries = {each["name"]: each["version"] for each in found["components"] if each["type"] == "library"}
    assert dict(pinned).items() <= libraries.items()
    assert {"chalice", "postern"} <= libraries.keys()
    files = {each["name"]: each["hashes"][0]["content"] for each in found["components"] if each["type"] == "file"}
    assert files == {name: digest(folder / name) for name in ("function.zip", "layer.zip")}
    release = yaml.safe_load((folder / "template.yaml").read_text("utf-8"))["Outputs"]["Release"]["Value"]
    assert found["metadata"]["component"]["version"] == release


def test_a_package_for_arm64_is_of_arm64_throughout_or_says_what_it_lacks(packaged: Path, tmp_path: Path) -> None:
    """psycopg2-binary has had wheels for it since Lambda's Python 3.12 only; Chalice leaves it out and goes on."""
    project = checkout(tmp_path, packaged)
    config = json.loads((project / ".chalice" / "config.json").read_text("utf-8"))
    (project / ".chalice" / "config.json").write_text(json.dumps(config | {"lambda_architecture": "arm64"}), "utf-8")
    # The one library that matters here.
    requirements = (project / "requirements.txt").read_text("utf-8")
    [pinned] = re.findall(r"^psycopg2-binary(?:.*\\\n)*.*\n", requirements, re.MULTILINE)
    (project / "requirements.txt").write_text(pinned, "utf-8")

    if sys.version_info < (3, 12):
        with pytest.raises(DeploymentError, match=r"for Python 3\.11 on arm64: psycopg2-binary==[\d.]+\. Another"):
            make_package(read_stage("prod", project), project / "dist" / "prod", print)
    else:
        folder = package(project)
        with zipfile.ZipFile(folder / "layer.zip") as content:
            headers = {content.read(name)[18:20] for name in content.namelist() if ".so" in Path(name).suffixes}
        assert headers == {b"\xb7\0"}  # EM_AARCH64, of the ELF header's e_machine
        template = yaml.safe_load((folder / "template.yaml").read_text("utf-8"))
        functions = of_type(template, "AWS::Serverless::Function").values()
        assert [function["Architectures"] for function in functions] == [["arm64"]] * len(FUNCTIONS)


def test_what_a_layer_lacks_is_found_by_its_name(tmp_path: Path) -> None:
    layer = tmp_path / "layer.zip"
    with zipfile.ZipFile(layer, "w") as content:
        for name in ("Some.Library", "other"):
            place = f"python/lib/python3.11/site-packages/{name}-1.0.dist-info/METADATA"
            content.writestr(place, f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    asked = """
# A comment; and an option, hashes, what another machine needs, an extra
--only-binary :all:
some-library==1.0 \\
    --hash=sha256:abc
other[extra]>=1
absent==2.0  # via other
elsewhere==1.0 ; sys_platform == "win32"
here==1.0 ; sys_platform != "win32"
"""
    assert missing(asked, layer) == ["absent==2.0", 'here==1.0; sys_platform != "win32"']


def test_archives_and_the_runtimes_boto3_are_all_that_it_needs(folder: Path, tmp_path: Path) -> None:
    """The emulator's functions see this machine's packages; AWS's do not."""
    for archive in ("function.zip", "layer.zip"):
        with zipfile.ZipFile(folder / archive) as content:
            content.extractall(tmp_path)
    runtime = tmp_path / "runtime"
    runtime.mkdir()
    for name in ("boto3", "botocore", "s3transfer", "urllib3", "python-dateutil", "six"):
        package = distribution(name)
        for top in {file.parts[0] for file in package.files or [] if not file.parts[0].endswith("-info")} - {".."}:
            if not (runtime / top).exists() and top != "__pycache__":
                (runtime / top).symlink_to(package.locate_file(top))  # type: ignore[arg-type]
    (site_packages,) = tmp_path.glob("python/lib/python*/site-packages")
    code = f"""
import importlib, pkgutil, sys
sys.path += [{str(tmp_path)!r}, {str(site_packages)!r}, {str(runtime)!r}]
import app, chalicelib
for module in pkgutil.walk_packages(chalicelib.__path__, "chalicelib."):
    importlib.import_module(module.name)
assert len(chalicelib.__path__) == 2, chalicelib.__path__
"""
    environ = {"AWS_DEFAULT_REGION": "us-east-1", "QUEUE_URL": "https://sqs.us-east-1.amazonaws.com/0/postern"}
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def names_in(archive: Path) -> list[str]:
    with zipfile.ZipFile(archive) as content:
        return content.namelist()


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
