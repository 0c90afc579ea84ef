"""Prefect for the staging platform: a server on a PostgreSQL of its own, workers, deployments.

All of it lies below one directory and listens on 127.0.0.1 only; its API asks for a password.
"""

from __future__ import annotations

import json
import secrets
import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import httpx
import jinja2
import psycopg
from ruamel.yaml import YAML

from lifeboat.core.errors import PermanentError, PreconditionError
from lifeboat.tools import process
from lifeboat.tools.stacks import ProcessStack
from staging import processes
from staging.making import init_cluster, postgres_bin, write
from staging.ports import choose_free

SERVICES = ("database", "server", "worker-backups", "worker-recoveries")
USER = "lifeboat"
DATABASE = "prefect"
START_SECONDS = 120.0
_ENVIRONMENT_NAME = "environment.env"
_HERE = Path(__file__).parent


@dataclass(frozen=True)
class OrchestratorPorts:
    database: int
    server: int
    supervisor: int


class Orchestrator:
    """Prefect below `directory`, with workers for one platform. Making this object touches nothing.

    `environment` is what the flow runs find in theirs: secrets, as in an operator's shell.
    """

    def __init__(self, directory: Path, *, platform: str, environment: Mapping[str, str]) -> None:
        self.directory = Path(directory).absolute()
        self._platform = platform
        self._run_environment = environment
        self._config = self.directory / "supervisord.conf"

    @property
    def exists(self) -> bool:
        # One of before its database was protected has no password for that, and is made anew.
        return self._config.exists() and "LIFEBOAT_ORCHESTRATOR_PASSWORD" in self.environment()

    @property
    def stack(self) -> ProcessStack:
        return ProcessStack(self._config)

    @cached_property
    def ports(self) -> OrchestratorPorts:
        return OrchestratorPorts(**json.loads((self.directory / "ports.json").read_text()))

    @property
    def url(self) -> str:
        """Where a browser finds the UI."""
        return f"http://127.0.0.1:{self.ports.server}"

    @property
    def password(self) -> str:
        """What the UI asks for, `user:password`."""
        return self.environment()["PREFECT_API_AUTH_STRING"]

    def environment(self) -> dict[str, str]:
        """What a client of the server, e.g. `lifeboat deploy`, needs in its environment."""
        lines = (self.directory / _ENVIRONMENT_NAME).read_text().splitlines()
        told = dict(line.split("=", 1) for line in lines)
        return {
            name: value
            for name, value in told.items()
            if name.startswith("PREFECT_API_") or name == "LIFEBOAT_ORCHESTRATOR_PASSWORD"
        }

    def create(self) -> None:
        """Make it and leave it stopped. Raises PreconditionError if there is one already."""
        if self.directory.exists():
            raise PreconditionError(
                f"Making the orchestrator: {self.directory} exists.",
                hint="`make clean` removes it.",
            )
        try:
            for name in ("run", "logs", "prefect"):
                (self.directory / name).mkdir(parents=True)
            chosen = dict(zip(("database", "server", "supervisor"), choose_free(3), strict=True))
            ports = OrchestratorPorts(**chosen)
            write(self.directory / "ports.json", json.dumps(asdict(ports)))
            database_password = secrets.token_urlsafe(18)
            write(
                self.directory / _ENVIRONMENT_NAME,
                "".join(f"{k}={v}\n" for k, v in self._environment(database_password).items()),
            )
            write(self._config, self._render("orchestrator.supervisord.conf.j2"))
            init_cluster(self.directory / "database", database_password, owner="prefect")
        except BaseException:
            shutil.rmtree(self.directory, ignore_errors=True)
            raise

    def _environment(self, database_password: str) -> Mapping[str, str]:
        """The settings of Prefect, each with what happens without it (PREFECT.md)."""
        ports = self.ports
        server = f"http://127.0.0.1:{ports.server}"
        access = f"{USER}:{secrets.token_urlsafe(18)}"
        return {
            "PREFECT_HOME": f"{self.directory}/prefect",
            "PREFECT_API_URL": f"{server}/api",
            "PREFECT_API_AUTH_STRING": access,
            "PREFECT_SERVER_API_AUTH_STRING": access,
            # Secret blocks are otherwise encrypted with a key that lies beside them.
            "PREFECT_SERVER_ENCRYPTION_KEY": _fernet_key(),
            # On SQLite back-to-back flows wait for seconds, and some for a minute.
            "PREFECT_API_DATABASE_CONNECTION_URL": (
                f"postgresql+asyncpg://prefect:{database_password}@127.0.0.1:{ports.database}"
                f"/{DATABASE}"
            ),
            "LIFEBOAT_ORCHESTRATOR_PASSWORD": database_password,
            # In memory, a restart of the server leaves limits taken for ever.
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": (
                "prefect.server.concurrency.lease_storage.filesystem"
            ),
            # A silence that began before an outage of the server is forgotten otherwise, unless the
            # server is back within a minute: nobody would be told what was missed.
            "PREFECT_SERVER_EVENTS_EXPIRED_BUCKET_BUFFER": "P30D",
            # Runs are never removed by themselves.
            "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
            # The server lists all time zones for each schedule that it reads: from the package
            # tzdata that is one file; from the system's directory, thousands, and most of its time.
            "PYTHONTZPATH": "",
            # The page asks port 4200 otherwise.
            "PREFECT_SERVER_UI_API_URL": f"{server}/api",
            "PREFECT_UI_URL": server,
            "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_WORKER_QUERY_SECONDS": "2",
            **self._run_environment,
        }

    def _render(self, template: str) -> str:
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(_HERE / "templates"),
            undefined=jinja2.StrictUndefined,
            keep_trailing_newline=True,
        )
        return environment.get_template(template).render(
            ports=self.ports,
            python=sys.executable,
            queue=self._platform,
            environment_name=_ENVIRONMENT_NAME,
            supervisor_password=secrets.token_urlsafe(18),
        )

    def protect(self, settings_path: Path) -> None:
        """Write into a lifeboat.yaml where Prefect's database is, so that it is backed up."""
        yaml = YAML(typ="rt")
        yaml.width = 1000
        document = yaml.load(settings_path.read_text(encoding="utf-8"))
        document["orchestrator"] = {
            "port": self.ports.database,
            "name": DATABASE,
            "user": "prefect",
            "bin_directory": str(postgres_bin()),
        }
        with settings_path.open("w", encoding="utf-8") as out:
            yaml.dump(document, out)

    def start_database(self) -> None:
        """Start Prefect's PostgreSQL, on an empty cluster if the one that it had is lost."""
        if not (self.directory / "database").exists():
            init_cluster(self.directory / "database", self._database_password, owner="prefect")
        self.stack.up(["database"])
        self._wait_for_database()

    def start_server(self) -> None:
        """Start Prefect's database and server; return once the server answers."""
        self.start_database()
        self._make_database()
        self.stack.start(["server"])
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                answer = httpx.get(f"{self.url}/api/health", timeout=5).status_code
                if answer == 200:
                    return
                said = str(answer)
            except httpx.HTTPError as error:
                said = type(error).__name__
            if time.monotonic() > deadline:
                raise PermanentError(
                    f"Starting Prefect's server: no answer after {START_SECONDS:g} s ({said}). Its "
                    f"log ends: {self.stack.logs('server', 8)}"
                )
            time.sleep(0.2)

    @property
    def _database_password(self) -> str:
        lines = (self.directory / _ENVIRONMENT_NAME).read_text().splitlines()
        return dict(line.split("=", 1) for line in lines)["LIFEBOAT_ORCHESTRATOR_PASSWORD"]

    def _connect(self) -> psycopg.Connection:
        return psycopg.connect(
            host="127.0.0.1",
            port=self.ports.database,
            user="prefect",
            password=self._database_password,
            dbname="template1",
            connect_timeout=3,
            autocommit=True,
        )

    def _make_database(self) -> None:
        with self._connect() as connection:
            known = connection.execute("SELECT datname FROM pg_database").fetchall()
            if (DATABASE,) not in known:
                connection.execute(f"CREATE DATABASE {DATABASE} TEMPLATE template0")

    def _wait_for_database(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self._connect().close()
                return
            except psycopg.OperationalError as error:
                if time.monotonic() > deadline:
                    raise PermanentError(f"Starting Prefect's database: {error}") from error
            time.sleep(0.1)

    def start_workers(self) -> None:
        """Start what runs the flows. Their work pools must be there."""
        self.stack.start([name for name in SERVICES if name.startswith("worker")])

    def stop(self) -> None:
        """Stop all of it; everything stays on disk."""
        if self.exists:
            self.stack.down()

    def destroy(self) -> None:
        """End every process of it, also after a crash, and remove its directory.

        Raises PreconditionError if that is no orchestrator's, and leaves it as it is.
        """
        if not self.directory.exists():
            return
        if not {"run", "logs", "prefect"} <= {path.name for path in self.directory.iterdir()}:
            raise PreconditionError(
                f"Removing the orchestrator in {self.directory}: it holds something else.",
                hint="Nothing was touched. Choose another directory, or move that one away.",
            )
        try:
            self.stop()
        finally:
            processes.kill_all(self.directory)
            processes.free_shared_memory(self.directory / "database")
        shutil.rmtree(self.directory)


def _fernet_key() -> str:
    from cryptography.fernet import Fernet

    return Fernet.generate_key().decode()


def main() -> None:
    """Become Prefect's PostgreSQL: `python -m staging.orchestrator DIRECTORY`."""
    directory = Path(sys.argv[1])
    ports = json.loads((directory / "ports.json").read_text())
    process.replace(
        process.unprivileged(
            [
                postgres_bin() / "postgres",
                *("-D", directory / "database"),
                *("-c", f"port={ports['database']}", "-c", "listen_addresses=127.0.0.1"),
                *("-c", "unix_socket_directories="),
            ]
        )
    )


if __name__ == "__main__":
    main()
