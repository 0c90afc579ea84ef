"""A few connections to PostgreSQL, kept between requests and replaced when they break."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg.rows import dict_row

from .settings import Settings

_KEPT = 8


class Database:
    """`with database.transaction() as t:` commits at the end, or rolls back and raises."""

    def __init__(self, settings: Settings, *, application_name: str) -> None:
        self._settings = settings
        self._application_name = application_name
        self._idle: queue.LifoQueue[psycopg.Connection] = queue.LifoQueue(_KEPT)

    @contextmanager
    def transaction(self) -> Iterator[psycopg.Connection]:
        connection = self._take()
        try:
            with connection.transaction():
                yield connection
        except BaseException:
            connection.close()
            raise
        try:
            self._idle.put_nowait(connection)
        except queue.Full:
            connection.close()

    def _take(self) -> psycopg.Connection:
        while True:
            try:
                connection = self._idle.get_nowait()
            except queue.Empty:
                return psycopg.connect(
                    self._settings.database,
                    password=self._settings.text("POSTGRES_PASSWORD"),
                    application_name=self._application_name,
                    autocommit=True,
                    row_factory=dict_row,
                )
            if not connection.closed and _alive(connection):
                return connection
            connection.close()


def _alive(connection: psycopg.Connection) -> bool:
    try:
        connection.execute("SELECT 1")
    except psycopg.Error:
        return False
    return True
