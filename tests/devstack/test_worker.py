"""A local worker is a container: whatever it is stuck in, its time has an end."""

from __future__ import annotations

import subprocess
import sys

from devstack.settings import PROJECT

STUCK = """
import collections
import itertools
from chalicelib.postern.processing.limits import within
from devstack.worker import Worker

def stuck(event, context):
    def work():
        collections.deque(itertools.repeat(None), maxlen=0)  # in C: no signal's handler runs, nor any other thread
    within(0.2, work)  # as handlers are run

worker = Worker(None, "q", stuck, partial_responses=True, timeout_seconds=1)
worker._queue_arn = "arn:aws:sqs:us-east-1:000000000000:q"
worker._invoke([{"MessageId": "1", "ReceiptHandle": "1", "Body": ""}])
"""


def test_a_function_that_is_stuck_in_c_is_ended_with_its_worker() -> None:
    done = subprocess.run(
        [sys.executable, "-c", STUCK], cwd=PROJECT, capture_output=True, text=True, timeout=15, check=False
    )
    assert done.returncode == 1
    assert "in stuck" in done.stderr
