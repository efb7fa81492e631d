"""The database's certificate: whose signature is taken, and for which host."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import subprocess
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg2.extensions
import pytest

from chalicelib.postern.adapters import secrets
from chalicelib.postern.adapters.postgres import Database
from chalicelib.postern.adapters.secrets import database_dsn
from chalicelib.postern.contract.errors import DatabaseUnavailable
from devstack.aws import EmulatedAws

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make certificates with")

_SSL_REQUEST = bytes.fromhex("0000000804d2162f")


@dataclass(frozen=True)
class Certified:
    """A server with a certificate for 127.0.0.1."""

    secret: dict[str, object]
    authority: Path
    stranger: Path


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, another one, and a server's certificate that the first one signed."""
    folder = tmp_path_factory.mktemp("certificates")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    key = ["-newkey", "rsa:2048", "-nodes"]
    for name in ("authority", "stranger"):
        openssl("req", "-x509", *key, "-keyout", f"{name}.key", "-out", f"{name}.pem", "-subj", f"/CN={name}")
    openssl("req", *key, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=server")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1")
    signed_by = ["-CA", "authority.pem", "-CAkey", "authority.key", "-CAcreateserial"]
    openssl("x509", "-req", "-in", "server.csr", "-out", "server.pem", "-extfile", "names", *signed_by)
    return folder


@pytest.fixture
def certified(certificates: Path, database_url: str) -> Iterator[Certified]:
    """The embedded PostgreSQL was built without TLS, so TLS ends in front of it."""
    address = psycopg2.extensions.parse_dsn(database_url)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=answer, args=[client], daemon=True).start()

    def answer(client: socket.socket) -> None:
        with client, suppress(OSError):
            assert client.recv(8, socket.MSG_WAITALL) == _SSL_REQUEST
            client.sendall(b"S")
            with (
                context.wrap_socket(client, server_side=True) as inside,
                socket.create_connection((address["host"], int(address["port"]))) as server,
            ):
                threading.Thread(target=pass_on, args=[server, inside], daemon=True).start()
                pass_on(inside, server)

    def pass_on(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    threading.Thread(target=serve, daemon=True).start()
    secret: dict[str, object] = {"host": "127.0.0.1", "port": listener.getsockname()[1], "dbname": address["dbname"]}
    secret |= {"username": address["user"], "password": address["password"]}
    with closing(listener):
        yield Certified(secret, certificates / "authority.pem", certificates / "stranger.pem")


@pytest.fixture
def connect(aws: EmulatedAws, point_aws_at: Callable[..., None]) -> Callable[[dict[str, object], Path], str | None]:
    """Connects with what the secret says and the authorities in that file; the version of TLS."""

    def connect(secret: dict[str, object], authorities: Path) -> str | None:
        made = aws.client("secretsmanager").create_secret(Name=f"db-{uuid.uuid4()}", SecretString=json.dumps(secret))
        dsn = database_dsn(made["ARN"], authorities=authorities)
        with closing(psycopg2.connect(dsn)) as connection:
            return str(connection.info.ssl_attribute("protocol"))

    return connect


def test_a_server_whose_authority_is_in_the_file_is_taken(certified: Certified, connect: Callable[..., str]) -> None:
    assert connect(certified.secret, certified.authority).startswith("TLSv1.")


def test_a_file_may_hold_many_authorities(certified: Certified, connect: Callable[..., str], tmp_path: Path) -> None:
    """As RDS's bundle does, with one for each region and kind of key."""
    bundle = tmp_path / "bundle.pem"
    bundle.write_text(certified.stranger.read_text() + certified.authority.read_text())
    assert connect(certified.secret, bundle)


def test_the_secret_may_name_the_file(certified: Certified, connect: Callable[..., str], tmp_path: Path) -> None:
    assert connect({**certified.secret, "sslrootcert": str(certified.authority)}, tmp_path / "none.pem")


def test_a_server_of_another_authority_is_refused(certified: Certified, connect: Callable[..., str]) -> None:
    with pytest.raises(psycopg2.OperationalError, match="certificate verify failed"):
        connect(certified.secret, certified.stranger)


def test_a_private_authority_is_unknown_to_the_system(
    certified: Certified, connect: Callable[..., str], tmp_path: Path
) -> None:
    with pytest.raises(psycopg2.OperationalError, match="certificate verify failed"):
        connect(certified.secret, tmp_path / "none.pem")


def test_a_public_authority_is_known_by_the_systems_bundle_wherever_that_lies(
    certified: Certified, connect: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which the psycopg2-binary wheel's own OpenSSL does not find."""
    places = (str(tmp_path / "of_another_system.pem"), str(certified.authority))
    monkeypatch.setattr(secrets, "_SYSTEMS_AUTHORITIES", places)
    assert connect(certified.secret, tmp_path / "none.pem").startswith("TLSv1.")


def test_a_certificate_for_another_host_is_refused(certified: Certified, connect: Callable[..., str]) -> None:
    with pytest.raises(psycopg2.OperationalError, match='does not match host name "localhost"'):
        connect({**certified.secret, "host": "localhost"}, certified.authority)


def test_a_server_that_is_not_trusted_is_an_absent_database(certified: Certified) -> None:
    """No event is charged an attempt for it."""
    parts = {"user": "username", "password": "password", "host": "host", "port": "port", "dbname": "dbname"}
    values = {name: str(certified.secret[key]) for name, key in parts.items()}
    dsn = psycopg2.extensions.make_dsn(sslmode="verify-full", sslrootcert=str(certified.stranger), **values)
    with (
        pytest.raises(DatabaseUnavailable, match="certificate verify failed"),
        Database(lambda fresh: dsn).transaction(),
    ):
        pass
