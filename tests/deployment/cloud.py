"""An AWS account in the emulator: policies are enforced, and everything goes over TLS, as the resources demand it.

It runs the packaged functions as they were uploaded, behind API Gateway and the event source mapping.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import boto3
import psutil
from botocore.config import Config

from devstack.processes import Child, remembered_port
from devstack.settings import PROJECT, base_environ
from tests.support import EVERY_SOURCE, eventually

_SERVICES = (
    "apigateway,application-autoscaling,cloudformation,ec2,events,iam,kms,lambda,logs,monitoring,s3,secretsmanager,"
    "sns,sqs,sts,xray"
)
_STARTS_WITHIN_SECONDS = 60.0


class Cloud:
    """One emulator. Everything in `directory` is its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._port = remembered_port(directory / "port")
        self.certificate = directory / "certificate.pem"
        self._child: Child | None = None

    @property
    def endpoint_url(self) -> str:
        return f"https://127.0.0.1:{self._port}"

    def start(self) -> None:
        key = self.directory / "key.pem"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
             "-days", "2", "-subj", "/CN=emulated-aws", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
             "-keyout", str(key), "-out", str(self.certificate)],
            check=True,
            capture_output=True,
        )  # fmt: skip
        self._child = Child(
            [sys.executable, "-m", "tests.deployment.emulator"],
            log=self.directory / "aws.log",
            cwd=PROJECT,
            environ={
                **base_environ(os.environ),
                "AUTH": "true",
                "BIND_HOST": "127.0.0.1",
                "MINISTACK_HOST": "127.0.0.1",
                "GATEWAY_PORT": str(self._port),
                "IOT_MTLS_ENABLED": "false",
                "USE_SSL": "1",
                "MINISTACK_SSL_CERT": str(self.certificate),
                "MINISTACK_SSL_KEY": str(key),
                "SERVICES": _SERVICES,
                "TMPDIR": str(self.directory),
                "LOG_LEVEL": os.environ.get("EMULATOR_LOG_LEVEL", "WARNING"),
            },
        )
        deadline = time.monotonic() + _STARTS_WITHIN_SECONDS
        while not self._answers():
            assert self._child.exit_code is None, self._child.last_lines()
            assert time.monotonic() < deadline, self._child.last_lines()
            time.sleep(0.05)

    def stop(self) -> None:
        """At once: the emulator keeps nothing that anybody wants."""
        if self._child is not None:
            self.end_containers()
            self._child.kill()

    def end_containers(self, function: str | None = None) -> None:
        """This function, or every one, starts cold the next time, with nothing kept from before."""
        assert self._child is not None
        # The emulator unpacks a function into a folder of this name.
        of = re.compile(f"ministack-lambda-{function or '.+'}-[^-/]+/_worker")
        for process in psutil.Process(self._child.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if any(of.search(part) for part in process.cmdline()):
                    process.kill()
                    # The emulator, whose children they are, sees a killed one as running until it is a zombie.
                    eventually(partial(_has_ended, process))

    def environ(self) -> dict[str, str]:
        """What a person's terminal is set to, to deploy into this account."""
        return {
            **base_environ(os.environ),
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "AWS_CA_BUNDLE": str(self.certificate),
            "SSL_CERT_FILE": str(self.certificate),
        }

    def client(self, service: str) -> Any:
        return boto3.client(
            service,  # type: ignore[call-overload]
            endpoint_url=self.endpoint_url,
            verify=str(self.certificate),
            region_name="us-east-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",
            config=Config(retries={"total_max_attempts": 3}, max_pool_connections=32, read_timeout=120),
        )

    def handlers_secret(self) -> str:
        """The ARN of a new one, as the team's handlers want it."""
        arn: str = self.client("secretsmanager").create_secret(
            Name=f"handlers-{uuid.uuid4().hex[:8]}", SecretString=json.dumps(_HANDLERS_SECRET)
        )["ARN"]
        return arn

    def trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.certificate))

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(
                f"{self.endpoint_url}/_ministack/health", timeout=2, context=self.trust()
            ) as answer:
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError):
            return False


def _has_ended(process: psutil.Process) -> bool:
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


_HANDLERS = """
import os

from chalicelib.postern import PermanentError, on, secrets

GREETING = os.environ.get("HANDLER_GREETING")


@on("hmac", "order.created")
def take(event, db):
    db.execute("INSERT INTO public.orders VALUES (%(id)s)", {"id": event.id})


@on("hmac", "order.poisoned")
def fail(event, db):
    raise ValueError("This order cannot be taken.")


@on("hmac", "order.mending")
def mend(event, db):
    db.execute("INSERT INTO public.orders VALUES (%(id)s)", {"id": event.id})
    db.execute("SELECT FROM public.mended WHERE what = %(what)s", {"what": event.payload["what"]})
    if not db.rowcount:
        raise PermanentError("It is not mended yet.")


@on("hmac", "order.keyed")
def open_(event, db):
    if secrets("shop-key") != f"{GREETING}, 42":
        raise PermanentError("It does not open.")
"""
_HANDLERS_SECRET = {"shop-key": "hello, 42"}
# No key: what counts twice is there twice.
_MIGRATION = "CREATE TABLE public.orders (event_id uuid); CREATE TABLE public.mended (what text);\n"


def checkout(directory: Path, like: Path | None = None) -> Path:
    """A copy of the project as a clone would have it, with a team's own handlers; a test may change its files.

    `like` is another one, packaged before: its layers are in this one as well, and have not to be made again.
    """
    for name in ("app.py", "requirements.txt"):
        shutil.copy(PROJECT / name, directory)
    for name in ("chalicelib", ".chalice", "infra", "deployment"):
        shutil.copytree(
            PROJECT / name, directory / name, ignore=shutil.ignore_patterns("__pycache__", "deployments", "deployed")
        )
    if like is not None:
        kept = directory / ".chalice" / "deployments"
        kept.mkdir()
        for pattern in ("managed-layer-*.zip", "packed-*.zip"):
            for layer in (like / ".chalice" / "deployments").glob(pattern):
                shutil.copy(layer, kept)
    shutil.copy(EVERY_SOURCE, directory / "chalicelib" / "sources.toml")
    handlers = directory / "chalicelib" / "handlers"
    (handlers / "orders.py").write_text(_HANDLERS, "utf-8")
    (handlers / "migrations" / "0002_orders.sql").write_text(_MIGRATION, "utf-8")
    config = directory / ".chalice" / "config.json"
    settings = json.loads(config.read_text("utf-8"))
    for stage in settings["stages"].values():
        stage["environment_variables"] = {"HANDLER_GREETING": "hello"}
    config.write_text(json.dumps(settings, indent=2), "utf-8")
    return directory


def package(project: Path, **environ: str) -> Path:
    """`make package STAGE=prod`, which needs no account; the folder that it made."""
    done = subprocess.run(
        [sys.executable, "-m", "deployment", "package", "--stage", "prod"],
        cwd=project,
        env=base_environ(os.environ) | environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return project / "dist" / "prod"


def run(cloud: Cloud, project: Path, *arguments: str, environ: Mapping[str, str] | None = None) -> Any:
    """`python -m deployment …` in that checkout, as the Makefile calls it."""
    return subprocess.run(
        [sys.executable, "-m", "deployment", *arguments],
        cwd=project,
        env={**cloud.environ(), **(environ or {})},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
