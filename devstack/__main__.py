"""`python -m devstack`: what `make run` runs; with `--services`, `make services`: all but the API."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace

from devstack import screen
from devstack.errors import StartError
from devstack.settings import Settings
from devstack.supervisor import Supervisor


def main() -> int:
    try:
        settings = replace(Settings.from_environ(os.environ), with_api="--services" not in sys.argv[1:])
        supervisor = Supervisor(settings)
    except StartError as exc:
        return _give_up(exc)

    def on_signal(*_: object) -> None:
        supervisor.stop_soon()
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, on_signal)
    signal.signal(signal.SIGTERM, on_signal)
    code = 0
    try:
        supervisor.start()
        if settings.with_api:
            screen.say(f"Postern is ready at {supervisor.url}  (Ctrl-C stops it)")
            screen.say(f"Its console: {supervisor.console_url}")
            _say_doubts()
        else:
            screen.say("Postern's services are ready for `.venv/bin/chalice local`  (Ctrl-C stops them)")
        supervisor.watch()
    except KeyboardInterrupt:
        screen.say("\nStopping …")
    except StartError as exc:
        code = _give_up(exc)
    except OSError as exc:
        # No space, no permission, too many files: what the machine lacks, in its own words.
        code = _give_up(StartError(f"{exc.strerror or exc}{f': {exc.filename}' if exc.filename else ''}"))
    # Once is enough: what is being ended is ended in order, and by force where it takes too long.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    supervisor.stop()
    return code


def _say_doubts() -> None:
    """What is wrong or doubtful about the team's handlers, before the first event finds it out."""
    found = subprocess.run([sys.executable, "-m", "cli", "handlers"], capture_output=True, text=True, timeout=60)
    for line in found.stderr.splitlines():
        if line.strip():
            screen.say(line)


def _give_up(exc: StartError) -> int:
    print(f"postern: {exc}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
