"""The `postern` command as most tests run it: each time in a process of its own, forked from one that has it imported.

To begin Python and import it all takes half a second of a core, more than two hundred times a run of the tests. The
command as it is started by a person is run by tests/acceptance/test_lifecycle.py and others.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from devstack.settings import PROJECT

_MAX_REQUEST_BYTES = 100_000


def postern(
    *arguments: str, environ: Mapping[str, str], timeout: float = 60.0, check: bool = False
) -> subprocess.CompletedProcess[str]:
    """As subprocess.run has it, and by that where the system has no such sockets."""
    if sys.platform != "linux":
        command = [sys.executable, "-m", "cli", *arguments]
        return subprocess.run(
            command, cwd=PROJECT, env=environ, capture_output=True, text=True, timeout=timeout, check=check
        )
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with client:
            client.settimeout(timeout)
            client.connect(_address())
            request = json.dumps({"arguments": arguments, "environ": dict(environ)}).encode()
            assert len(request) < _MAX_REQUEST_BYTES
            socket.send_fds(client, [request], [out.fileno(), err.fileno()])
            pid = int(client.recv(20))
            try:
                answer = client.recv(20)
            except TimeoutError:
                os.kill(pid, signal.SIGKILL)
                raise
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode())
    code = int(answer) if answer else -1
    if check and code:
        raise AssertionError(f"postern {' '.join(arguments)}: {code}\n{texts[0]}{texts[1]}")
    return subprocess.CompletedProcess(arguments, code, *texts)


@cache
def _address() -> str:
    """Of this process's server, which ends with it."""
    folder = tempfile.mkdtemp(prefix="postern-commands-")
    address = str(Path(folder) / "socket")
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.commands", address], cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert server.stdout is not None
    assert server.stdout.readline() == b"ready\n"

    def end() -> None:
        server.terminate()
        server.wait()
        Path(address).unlink(missing_ok=True)
        Path(folder).rmdir()

    atexit.register(end)
    return address


def _serve(address: str) -> None:
    """Until whoever started it is gone."""
    import boto3  # noqa: F401
    import psycopg2.extras  # noqa: F401

    import cli.main
    from chalicelib.postern.adapters import event_store  # noqa: F401
    from chalicelib.postern.operating.events import queries  # noqa: F401

    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(address)
    listener.listen(64)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    print("ready", flush=True)
    while sys.stdin.fileno() not in select.select([listener, sys.stdin.fileno()], [], [])[0]:
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            _answer(connection, cli.main.main)
        connection.close()


def _answer(connection: socket.socket, main: object) -> None:
    """In the child, which never returns from here."""
    code = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        connection.send(str(os.getpid()).encode())
        data, files, _, _ = socket.recv_fds(connection, _MAX_REQUEST_BYTES, 2)
        request = json.loads(data)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for number, file in enumerate([nothing, *files]):
            os.dup2(file, number)
        os.environ.clear()
        os.environ.update(request["environ"])
        time.tzset()
        sys.argv = ["postern", *request["arguments"]]
        code = main(request["arguments"])  # type: ignore[operator]
    except SystemExit as exc:
        code = exc.code if isinstance(exc.code, int) else int(exc.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        connection.send(str(code).encode())
        os._exit(0)


if __name__ == "__main__":
    _serve(sys.argv[1])
