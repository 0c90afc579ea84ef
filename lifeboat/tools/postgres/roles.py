"""A role as it is written into SQL, and whether a server lets it in."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os

import psycopg
from psycopg import sql

from lifeboat.core.errors import PreconditionError
from lifeboat.tools.postgres import server as running
from lifeboat.tools.postgres.server import Connection

_ITERATIONS = 4096


def identifier(name: str) -> str:
    """A name, quoted for SQL."""
    return sql.Identifier(name).as_string(None)


def literal(value: str) -> str:
    """A string, quoted for SQL."""
    return sql.Literal(value).as_string(None)


def password_verifier(role: str, password: str) -> str:
    """What PostgreSQL stores for a password (SCRAM-SHA-256, RFC 5803): a log may show it.

    Raises PreconditionError for a password that is not plain ASCII, which needs preparation.
    """
    if not password.isascii():
        raise PreconditionError(
            f"Making the role {role}: its password has other characters than ASCII.",
            hint="Choose another LIFEBOAT_DATABASE_PASSWORD.",
        )
    salt = os.urandom(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, _ITERATIONS)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    kept = hmac.digest(salted, b"Server Key", "sha256")
    told = [base64.b64encode(part).decode() for part in (salt, stored, kept)]
    return f"SCRAM-SHA-256${_ITERATIONS}:{told[0]}${told[1]}:{told[2]}"


def require_replication(server: Connection) -> None:
    """Raise PreconditionError or TransientError unless the role may open such a connection."""
    try:
        psycopg.connect(
            host=server.host,
            port=server.port,
            user=server.user,
            password=server.password,
            replication="true",
            connect_timeout=5,
        ).close()
    except psycopg.Error as error:
        doing = f"Opening a replication connection to {server.host}:{server.port}"
        raise running.error_of(error, doing) from error
