"""A real PgBouncer in transaction mode, before a test's database."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psycopg2
import pytest

from tests.support import eventually

_PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
_NOBODY = 65534


@contextmanager
def pooled(url: str, folder: Path, *, connections: int) -> Iterator[str]:
    """The address of the database behind a pool of so many connections to it."""
    if _PROGRAM is None:
        pytest.skip("PgBouncer is not installed: apt install pgbouncer")
    at = urlsplit(url)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder.mkdir()
    (folder / "users.txt").write_text(f'"{at.username}" "{at.password}"\n')
    (folder / "pgbouncer.ini").write_text(
        f"[databases]\n* = host={at.hostname} port={at.port}\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
        f"auth_type = scram-sha-256\nauth_file = {folder / 'users.txt'}\n"
        f"pool_mode = transaction\ndefault_pool_size = {connections}\n"
    )
    user = None
    if os.geteuid() == 0:  # which it refuses to run as
        user = _NOBODY
        for path in (folder, *folder.iterdir()):
            os.chown(path, _NOBODY, _NOBODY)
        for path in folder.parents:
            if path.stat().st_uid == 0 and path.is_relative_to("/tmp"):  # noqa: S108
                path.chmod(path.stat().st_mode | 0o011)
    with (folder / "log").open("w") as log:
        bouncer = subprocess.Popen([_PROGRAM, str(folder / "pgbouncer.ini")], stderr=log, stdout=log, user=user)
    behind = f"postgresql://{at.username}:{at.password}@127.0.0.1:{port}{at.path}"
    try:
        eventually(lambda: _answers(behind) or bouncer.poll() is not None)
        assert bouncer.poll() is None, (folder / "log").read_text()
        yield behind
    finally:
        bouncer.terminate()
        bouncer.wait(10)


def _answers(url: str) -> bool:
    try:
        with closing(psycopg2.connect(url)):
            return True
    except psycopg2.OperationalError:
        return False
