"""How far `postern listen --cursor NAME` came: a file of this machine's, which one process at a time moves on."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from chalicelib.postern.contract.errors import PosternError
from cli.local import state_directory

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", re.ASCII)


def cursor_name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise argparse.ArgumentTypeError("must be letters, digits, - and _, 64 at most")
    return text


class KeptCursor:
    """Raises PosternError where another process moves it on, or the file cannot be used."""

    def __init__(self, name: str, stage: str | None) -> None:
        import fcntl  # which not every system has, and no other command needs

        self.file = state_directory() / "cursors" / (stage or "local") / name
        self._moved_to = ""
        with _usable(self.file):
            self.file.parent.mkdir(parents=True, exist_ok=True)
            # Open for as long as this process lives: the lock goes with it, however it ends.
            self._lock = os.open(self.file.with_name(f".{name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise PosternError(f"Another `postern listen` goes on with the cursor {name}.") from None

    def read(self) -> str | None:
        """None where it is new."""
        with _usable(self.file):
            try:
                return self.file.read_text("ascii").strip()
            except FileNotFoundError:
                return None

    def move(self, cursor: str) -> None:
        if cursor == self._moved_to:
            return
        beside = self.file.with_name(f".{self.file.name}.new")
        with _usable(self.file):
            beside.write_text(cursor + "\n", "ascii")
            # Whoever is killed leaves the old one or the new one; a crash of the machine perhaps an empty one, which is
            # refused. To write each through to the disk would take longer than all the rest.
            beside.replace(self.file)
        self._moved_to = cursor


@contextmanager
def _usable(file: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as exc:
        raise PosternError(f"The cursor's file {file} cannot be used: {exc}") from None
