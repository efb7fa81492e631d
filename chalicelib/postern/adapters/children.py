"""A process of its own for what may end the one that it runs in."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable

from chalicelib.postern.contract.errors import FunctionEnded

_CHUNK_BYTES = 65_536
_PR_SET_PDEATHSIG = 1


def in_child(work: Callable[[], bytes], seconds: float) -> bytes:
    """What `work` answers, run in a fork of this process, which has no connections but those that it opens itself.

    Raises FunctionEnded when that ends without an answer, or has to be ended after `seconds`.
    """
    reader, writer = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        _answer(work, writer)
    os.close(writer)
    try:
        answer = _read(reader, time.monotonic() + seconds)
    finally:
        os.close(reader)
        status = _end(child)
    if answer is None:
        raise FunctionEnded(f"The process did not end within {seconds:.3g} s.")
    if not answer.endswith(b"\n"):
        code = os.waitstatus_to_exitcode(status)
        raise FunctionEnded(f"The process ended: {signal.Signals(-code).name if code < 0 else f'exit code {code}'}.")
    return answer[:-1]


def _answer(work: Callable[[], bytes], writer: int) -> None:
    """In the child, which never returns from here."""
    code = 1
    try:
        _end_with_parent()
        answer = work() + b"\n"
        sys.stdout.flush()
        while answer:
            answer = answer[os.write(writer, answer) :]
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _end(child: int) -> int:
    """Its status; what it may still be at is nobody's business any more."""
    try:
        os.kill(child, signal.SIGKILL)
        return os.waitpid(child, 0)[1]
    except (ProcessLookupError, ChildProcessError):
        return 0  # a library of the team's has reaped it


def _end_with_parent() -> None:
    """Linux only, as Lambda is: elsewhere a child that hangs outlives a parent that is killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))


def _read(reader: int, until: float) -> bytes | None:
    """All of the answer, whose end is a line's; less of it where the process has ended; None when its time is over."""
    read = b""
    while not read.endswith(b"\n"):
        ready, _, _ = select.select([reader], [], [], max(0.0, until - time.monotonic()))
        if not ready:
            return None
        chunk = os.read(reader, _CHUNK_BYTES)
        if not chunk:
            break
        read += chunk
    return read
