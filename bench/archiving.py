"""The server's WAL on its way into the archives of those that want it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable

import psycopg

from bench import shell
from bench.world import World
from staging.making import write

_PATIENCE_SECONDS = 300.0


class Archiving:
    """Everybody's archive_command in one, that can be switched off."""

    def __init__(self, world: World, commands: Iterable[str]) -> None:
        self._world = world
        self._commands = [command for command in commands if command]

    def on(self) -> None:
        known = self._world.environment_of_commands()
        exports = "".join(f"export {name}={shell.quoted(v)}\n" for name, v in known.items())
        path = shell.quoted(os.environ["PATH"])
        steps = "\n".join(self._commands)
        self._write(f"#!/bin/bash\nset -e\nexport PATH={path}\n{exports}{steps}\n")

    def off(self) -> None:
        """The server may go on, and nobody hears of it."""
        self._write("#!/bin/sh\nexit 0\n")

    def _write(self, text: str) -> None:
        # Whole or not at all: the server may run it at this moment.
        new = self._world.archive_script.with_suffix(".new")
        write(new, text)
        new.chmod(0o755)
        new.rename(self._world.archive_script)

    def wait(self) -> None:
        """Until everybody has all that was written: what is timed is the restore."""
        with psycopg.connect(self._world.dsn("postgres"), autocommit=True) as connection:
            connection.execute("SELECT pg_switch_wal()")
            deadline = time.monotonic() + _PATIENCE_SECONDS
            # Not by the last one archived: that of an older backup's label may come after it.
            waiting = "SELECT name FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'"
            while left := connection.execute(waiting).fetchone():
                if time.monotonic() > deadline:
                    raise shell.Failed(f"{left[0]}: {self._world.archive_script} does not end")
                time.sleep(0.1)
