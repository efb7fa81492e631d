"""Every AWS call is found in the code that makes it, however it is written; what cannot be followed is said.

On a toy application, which is read in a millisecond; test_roles.py reads Postern itself.
"""

from __future__ import annotations

import pytest

from tests.unit.aws_calls import Unfollowed, derive

APP = """
import os
from chalicelib.postern.running import wiring

@app.route("/")
def receive():
    return wiring.receiver().receive(app.request.body)

@app.on_sqs_message(queue="inbox", name="processor")
def process(event):
    return wiring.keeper().keep(event)

@app.schedule("hourly")
def maintenance(event):
    return wiring.queue().depth()
"""

WIRING = """
import os
from functools import cache

def queue():
    from chalicelib.postern.adapters.queue import Queue
    return Queue(os.environ.get("QUEUE_URL"))

def keeper():
    from chalicelib.postern.adapters.bodies import Bodies
    from chalicelib.keeping import Keeper
    return Keeper(bodies=Bodies(os.environ.get("BUCKET")), letters=dead_letters())

def receiver():
    from chalicelib.postern.adapters.bodies import Bodies
    from chalicelib.keeping import Receiver
    return Receiver(bodies=Bodies(os.environ.get("BUCKET")), queue=queue())

@cache
def dead_letters():
    from chalicelib.postern.adapters.queue import Queue
    return Queue(os.environ.get("LETTERS_URL"))
"""

KEEPING = """
class Keeper:
    def __init__(self, bodies, letters):
        self.bodies = bodies
        self.letters = letters

    def keep(self, event):
        try:
            return self.bodies.get(event["key"])
        except LookupError:
            self.letters.send(event)

class Receiver:
    def __init__(self, bodies, queue):
        self.bodies, self.queue = bodies, queue

    def receive(self, body):
        self.bodies.put("key", body)
        self.queue.send(body)
"""

AWS = """
def sqs():
    client = _client("sqs")
    return client

def s3():
    client = _client("s3")
    return client

def _client(service):
    import boto3
    return boto3.client(service)
"""

BODIES_MODULE, QUEUE_MODULE = "chalicelib.postern.adapters.bodies", "chalicelib.postern.adapters.queue"
BODIES = """
from dataclasses import dataclass
from chalicelib.postern.adapters import aws

@dataclass
class Bodies:
    bucket: str

    def put(self, key, body):
        aws.s3().put_object(Bucket=self.bucket, Key=key, Body=body)

    def get(self, key):
        return aws.s3().get_object(Bucket=self.bucket, Key=key)["Body"].read()
"""

QUEUE = """
from dataclasses import dataclass
from chalicelib.postern.adapters import aws

@dataclass
class Queue:
    url: str

    def send(self, body):
        aws.sqs().send_message(QueueUrl=self.url, MessageBody=body)

    def depth(self):
        return aws.sqs().get_queue_attributes(QueueUrl=self.url)
"""

TOY = {
    "app": APP,
    "chalicelib": "",
    "chalicelib.postern.running.wiring": WIRING,
    "chalicelib.keeping": KEEPING,
    "chalicelib.postern.adapters": "",
    "chalicelib.postern.adapters.aws": AWS,
    BODIES_MODULE: BODIES,
    QUEUE_MODULE: QUEUE,
}

CALLS = {
    "api_handler": {"s3:PutObject on BUCKET", "sqs:SendMessage on QUEUE_URL"},
    "processor": {"s3:GetObject on BUCKET", "sqs:SendMessage on LETTERS_URL"},
    "maintenance": {"sqs:GetQueueAttributes on QUEUE_URL"},
}


def changed(module: str, old: str, new: str) -> dict[str, str]:
    """The toy with one change."""
    assert TOY[module].count(old) == 1, f"{module} has no single {old!r}."
    return {**TOY, module: TOY[module].replace(old, new)}


def calls(sources: dict[str, str]) -> dict[str, set[str]]:
    return {
        function: {f"{call.service}:{call.operation} on {call.variable}" for call in found}
        for function, found in derive(sources).items()
    }


def test_each_function_is_found_to_call_what_it_reaches_and_no_more() -> None:
    assert calls(TOY) == CALLS


@pytest.mark.parametrize(
    ("module", "old", "new", "added"),
    [
        (
            BODIES_MODULE,
            "return aws.s3().get_object(",
            "aws.s3().delete_object(Bucket=self.bucket, Key=key)\n        return aws.s3().get_object(",
            {"processor": "s3:DeleteObject on BUCKET"},
        ),
        (
            BODIES_MODULE,
            "aws.s3().put_object(",
            "aws.s3().head_bucket(Bucket=self.bucket)\n        aws.s3().put_object(",
            {"api_handler": "s3:HeadBucket on BUCKET"},
        ),
        (
            QUEUE_MODULE,
            "aws.sqs().send_message(",
            "client = aws.sqs()\n        client.purge_queue(QueueUrl=self.url)\n        aws.sqs().send_message(",
            {"api_handler": "sqs:PurgeQueue on QUEUE_URL", "processor": "sqs:PurgeQueue on LETTERS_URL"},
        ),
        (
            "chalicelib.keeping",
            "self.letters.send(event)",
            "self.letters.send(event)\n            self.letters.depth()",
            {"processor": "sqs:GetQueueAttributes on LETTERS_URL"},
        ),
    ],
)
def test_a_new_call_is_found_in_the_functions_that_reach_it(
    module: str, old: str, new: str, added: dict[str, str]
) -> None:
    expected = {
        function: found | {added[function]} if function in added else found for function, found in CALLS.items()
    }
    assert calls(changed(module, old, new)) == expected


HIDDEN = "delete_object(Bucket=self.bucket, Key=key)"


@pytest.mark.parametrize(
    "code",
    [
        f"client = aws.s3(); client.{HIDDEN}",
        "delete = aws.s3().delete_object; delete(Bucket=self.bucket, Key=key)",
        "aws.s3().delete_object(**{'Key': key}, Bucket=str(self.bucket))",
        f"getattr(aws, 's3')().{HIDDEN}",
        f"getattr(aws.s3(), 'delete_object')({HIDDEN.partition('(')[2]}",
        f"sorted([key], key=lambda _: aws.s3().{HIDDEN})",
        f"later = [lambda: aws.s3().{HIDDEN}]; later.append(None); later[0]()",
        f"ways = {{}}; ways['s3'] = aws.s3(); ways['s3'].{HIDDEN}",
        f"[client.{HIDDEN} for client in (aws.s3(),)]",
        f"key and (client := aws.s3()).{HIDDEN}",
        f"yield aws.s3().{HIDDEN}",
    ],
)
def test_a_call_is_found_however_it_is_written(code: str) -> None:
    call = "        return aws.s3().get_object("
    found = calls(changed(BODIES_MODULE, call, f"        {code}\n{call}"))
    assert found == {**CALLS, "processor": CALLS["processor"] | {"s3:DeleteObject on BUCKET"}}


@pytest.mark.parametrize(
    "helper",
    [
        "@property\n    def cleaned(self):\n        self.clean()",
        "@classmethod\n    def of(cls, bucket):\n        cls(bucket).clean()",
        "def __enter__(self):\n        self.clean()",
        "def __call__(self):\n        self.clean()",
    ],
)
def test_a_call_is_found_in_whatever_calls_it(helper: str) -> None:
    clean = "def clean(self):\n        aws.s3().delete_object(Bucket=self.bucket)\n\n"
    used = "        self.cleaned; self.of(self.bucket); self()\n        with self:\n            pass\n"
    sources = changed(BODIES_MODULE, "    bucket: str\n", f"    bucket: str\n\n    {helper}\n\n    {clean}")
    get = "    def get(self, key):\n"
    sources[BODIES_MODULE] = sources[BODIES_MODULE].replace(get, f"{get}{used}")
    assert calls(sources)["processor"] == CALLS["processor"] | {"s3:DeleteObject on BUCKET"}


def test_a_call_that_is_gone_is_not_found() -> None:
    sources = changed("chalicelib.keeping", "self.letters.send(event)", "raise")
    assert calls(sources)["processor"] == {"s3:GetObject on BUCKET"}


@pytest.mark.parametrize(
    ("module", "old", "new", "said"),
    [
        # A call that nobody comes to may be one that the reader did not find the way to.
        ("app", "return wiring.keeper().keep(event)", "return {}", "processor seems to call nothing"),
        ("app", "return wiring.queue().depth()", "return {}", "maintenance seems to call nothing"),
        ("app", "@app.schedule(", "@app.on_sns_message(", "what kind of door"),
        # Which operations, and on what?
        (BODIES_MODULE, "aws.s3().put_object(", "aws.s3().upload_fileobj(", "is no operation of s3"),
        (BODIES_MODULE, "Bucket=self.bucket, Key=key, Body", "Bucket='b', Body", "which resource"),
        (BODIES_MODULE, "Bucket=self.bucket, Key=key, Body=body", "**vars(self)", "which resource"),
        (BODIES_MODULE, "aws.s3().put_object(", "map(aws.s3().put_object, ", "is given a client"),
        (BODIES_MODULE, "aws.s3().put_object(", "print(aws.s3(), ", "is given a client"),
        # Clients that are made in another way.
        (BODIES_MODULE, "import aws\n", "import aws\nimport boto3\n", "say aws.<service>"),
        (BODIES_MODULE, "import aws\n", "import aws\nfrom chalicelib.postern.adapters.aws import s3\n", "say"),
        ("chalicelib.postern.adapters.aws", 'client = _client("s3")', "client = _s3", "No function"),
        # Code that is not followed.
        (BODIES_MODULE, "    def get(", "    async def get(", "processor seems|No function was seen"),
    ],
)  # fmt: skip
def test_what_cannot_be_followed_is_said(module: str, old: str, new: str, said: str) -> None:
    with pytest.raises(Unfollowed, match=said):
        derive(changed(module, old, new))
