"""A cold start of the public function as it is packaged: from nothing to the first delivery's message at SQS.

Each round is a new interpreter that may write no bytecode, as in Lambda, where the archives are read-only; boto3 is the
runtime's own, with bytecode. Beside it: the floor, which is an interpreter that makes boto3's SQS client and sends a
message; and the same app as `chalice package` alone would pack it. Lambda's own part of a start is in neither.
"""

from __future__ import annotations

import compileall
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from bench.ack import answering_sqs, delivery
from bench.turns import Line, Measured, Target, by_turns, timed

PROJECT = Path(__file__).parents[1]
_ROUNDS = 20
_PARTS = ("app.py", "requirements.txt", "chalicelib", ".chalice", "infra", "deployment")
# What Lambda's Python has besides the standard library.
_RUNTIME = ("boto3", "botocore", "s3transfer", "jmespath", "dateutil", "urllib3", "six.py")

_FLOOR = """
import boto3, sys
client = boto3.client("sqs")
client.send_message(QueueUrl=sys.argv[1], MessageBody="{}", MessageGroupId="github")
"""
# What boto3 makes its clients of, and ours are made of.
_BARE_FLOOR = """
import botocore.session, sys
client = botocore.session.get_session().create_client("sqs")
client.send_message(QueueUrl=sys.argv[1], MessageBody="{}", MessageGroupId="github")
"""
# The source's secret is there: what it takes to fetch is Secrets Manager's.
_FIRST_DELIVERY = """
import json, sys
import app
from chalicelib.postern.receiving.ingest import Inbox
from chalicelib.postern.running import wiring
from chalicelib.postern.adapters.sqs import SqsQueue
from chalicelib.postern.adapters.teams_room import SHIPPED_SOURCES
from chalicelib.postern.receiving.sources import Sources
inbox = Inbox(Sources(SHIPPED_SOURCES), lambda source: [sys.argv[3]], SqsQueue(sys.argv[1]), None)
wiring.inbox = lambda: inbox
class Context:
    function_name, aws_request_id = "bench", "1"
answer = app.app(json.load(open(sys.argv[2])), Context())
assert answer["statusCode"] == 202, answer
"""


class _Started:
    """Interpreters that begin with nothing but what is in these folders."""

    def __init__(self, scratch: Path, queue_url: str) -> None:
        self._queue_url = queue_url
        self._runtime = _runtime(scratch / "runtime")
        self._event = scratch / "event.json"
        made, self._secret = delivery()
        self._event.write_text(json.dumps(made), "utf-8")

    def seconds(self, code: str, *folders: Path) -> float:
        paths = os.pathsep.join(map(str, [*folders, self._runtime]))
        environ = {
            "PATH": os.environ["PATH"], "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1", "LANG": "C.UTF-8",
            "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL_SQS": self._queue_url.rpartition("/0")[0], "AWS_EC2_METADATA_DISABLED": "true",
        }  # fmt: skip
        command = [_interpreter(), "-S", "-s", "-c", code, self._queue_url, str(self._event), self._secret]
        return timed(partial(subprocess.run, command, env=environ, check=True, stdout=subprocess.DEVNULL))


def _beside_the_floor(floor: str, is_speed: bool) -> Measured:
    with _packaged() as (scratch, function, layer, _), answering_sqs() as url:
        started = _Started(scratch, f"{url}/000000000000/bench")
        return by_turns(
            partial(started.seconds, _FIRST_DELIVERY, function, layer),
            partial(started.seconds, floor),
            rounds=_ROUNDS, is_speed=is_speed, unit="ms", scale=1000,
        )  # fmt: skip


def _beside_chalice(is_speed: bool) -> Measured:
    with _packaged() as (scratch, function, layer, plain), answering_sqs() as url:
        started = _Started(scratch, f"{url}/000000000000/bench")
        return by_turns(
            partial(started.seconds, _FIRST_DELIVERY, function, layer),
            partial(started.seconds, _FIRST_DELIVERY, *plain),
            rounds=_ROUNDS, is_speed=is_speed, unit="ms", scale=1000,
        )  # fmt: skip


@contextmanager
def _packaged() -> Iterator[tuple[Path, Path, Path, list[Path]]]:
    """A folder to work in, the function's and the layer's content, and the same by Chalice alone."""
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        project = scratch / "project"
        for part in _PARTS:
            left_out = shutil.ignore_patterns("__pycache__", "deployments", "deployed")
            copy = partial(shutil.copytree, ignore=left_out) if (PROJECT / part).is_dir() else shutil.copy
            project.mkdir(exist_ok=True)
            copy(PROJECT / part, project / part)
        _run(project, sys.executable, "-m", "deployment", "package", "--stage", "prod")
        chalice = str(Path(sys.executable).parent / "chalice")
        _run(project, chalice, "package", "--stage", "prod", str(scratch / "plain"))
        made = project / "dist" / "prod"
        function = _unpacked(made / "function.zip", scratch / "task")
        layer = _unpacked(made / "layer.zip", scratch / "opt")
        plain = [
            _unpacked(scratch / "plain" / "deployment.zip", scratch / "plain-task"),
            _libraries(_unpacked(scratch / "plain" / "layer-deployment.zip", scratch / "plain-opt")),
        ]
        yield scratch, function, _libraries(layer), plain


def _libraries(layer: Path) -> Path:
    [found] = layer.glob("python/lib/python*/site-packages")
    return found


def _run(project: Path, *command: str) -> None:
    environ = {"AWS_DEFAULT_REGION": "us-east-1", **os.environ}
    done = subprocess.run(command, cwd=project, env=environ, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stdout}{done.stderr}")


def _unpacked(archive: Path, folder: Path) -> Path:
    with zipfile.ZipFile(archive) as file:
        file.extractall(folder)
    return folder


def _runtime(folder: Path) -> Path:
    here = Path(sysconfig.get_paths()["purelib"])
    folder.mkdir()
    for name in _RUNTIME:
        copy = shutil.copytree if (here / name).is_dir() else shutil.copy
        copy(here / name, folder / name)
    compileall.compile_dir(folder, quiet=2)
    return folder


def _interpreter() -> str:
    """Not the virtual environment's, which would bring its own libraries."""
    return str(Path(sys.base_prefix) / "bin" / "python3")


LINES = [
    Line(
        "cold-start",
        "a start of the packaged public function, to its first message",
        "boto3's client alone, to a message",
        Target.of("<= 1.25"),
        partial(_beside_the_floor, _FLOOR),
    ),
    Line(
        "cold-start-botocore",
        "a start of the packaged public function, to its first message",
        "botocore's client alone, to a message",
        Target.of("<= 1.25"),
        partial(_beside_the_floor, _BARE_FLOOR),
    ),
    Line(
        "cold-start-plain",
        "a start of the packaged public function, to its first message",
        "the same by `chalice package` alone",
        Target.of("<= 0.6"),
        _beside_chalice,
    ),
]
