"""Child processes that end with the run, whichever way the run ends."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

from devstack.errors import StartError

_PR_SET_PDEATHSIG = 1
_PORTS = range(15_000, 32_000)
_MAX_PORTS_TRIED = 100
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


class Child:
    """One process in a session of its own: a terminal's Ctrl-C reaches the supervisor only, which ends it in order."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        log: Path,
        environ: Mapping[str, str],
        cwd: Path | None = None,
        user: int | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
        listens: bool = False,
    ) -> None:
        """`listens`: it can be told to go on, by `tell`."""
        self.log = log
        self._stop_signal = stop_signal
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE if listens else subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(environ),
                cwd=cwd,
                user=user,
                group=user,
                extra_groups=None if user is None else [],
                start_new_session=True,
                umask=0o077,  # the emulated AWS writes its secrets to its state
                preexec_fn=_ending_with_parent(stop_signal),
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def tell(self) -> None:
        """Writes a line to what it listens to. One that has ended hears nothing."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(b"\n")
            self._process.stdin.flush()

    def stop(self, patience_seconds: float = 10) -> None:
        """Ends it, and by force when it takes too long."""
        self.signal(self._stop_signal)
        try:
            self._process.wait(patience_seconds)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self._process.wait()

    def signal(self, number: signal.Signals) -> None:
        if self._process.poll() is None:
            self._process.send_signal(number)

    def last_lines(self, count: int = 5) -> str:
        lines = self.log.read_text("utf-8", "replace").splitlines() if self.log.exists() else []
        return "\n".join(lines[-count:])


class Register:
    """Which processes a run has started, on disk: what a killed run left behind is found and ended by the next."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def write(self, children: Sequence[Child]) -> None:
        entries = []
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                entries.append({"pid": child.pid, "created": psutil.Process(child.pid).create_time()})
        write_atomically(self._file, json.dumps(entries))

    def end_leftovers(self) -> int:
        """How many there were. A process id that now belongs to another process is left alone."""
        try:
            entries = json.loads(self._file.read_text("utf-8"))
        except (FileNotFoundError, ValueError):
            return 0
        leftovers = []
        for entry in entries:
            with contextlib.suppress(psutil.NoSuchProcess):
                process = psutil.Process(entry["pid"])
                if process.create_time() == entry["created"] and process.status() != psutil.STATUS_ZOMBIE:
                    # SIGINT, because to PostgreSQL SIGTERM means to wait for its clients.
                    process.send_signal(signal.SIGINT)
                    leftovers.append(process)
        _, stubborn = psutil.wait_procs(leftovers, timeout=10)
        for process in stubborn:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(stubborn, timeout=5)
        return len(leftovers)


def free_port(preferred: int | None = None) -> int:
    """The preferred port when it is free, or else one that is.

    Below the ports that systems hand out by themselves: until the port is listened on, no connection that goes out
    can take it, and it is by chance, so that two runs that start at the same moment hardly choose the same.
    """
    others = random.sample(_PORTS, _MAX_PORTS_TRIED)  # nosec B311  # not to be unguessable, only not the same
    for port in [preferred, *others] if preferred else others:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port
    raise StartError("There is no free port on 127.0.0.1.")


def remembered_port(file: Path) -> int:
    """A free port, the same as the last time where possible."""
    try:
        preferred = int(file.read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        preferred = None
    port = free_port(preferred)
    write_atomically(file, str(port))
    return port


def write_atomically(file: Path, text: str) -> None:
    """Readers see the old text or the new one; only its owner may read it."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as output:
        output.write(text)
    temporary.replace(file)


def _ending_with_parent(number: signal.Signals) -> Callable[[], None] | None:
    """Linux only; elsewhere the next run's `end_leftovers` is what there is."""
    if _libc is None:
        return None
    libc = _libc

    def ask_for_signal() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, int(number))

    return ask_for_signal
