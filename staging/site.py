"""One staging platform below one directory: made, started, looked at, destroyed.

<root>/server/    the protected host; losing the server removes it, backups included
<root>/origin/    the git host with the application's code
<root>/s3/        the object store
<root>/outside/   what remains with the operator: the vault's password, the ports, the facts
"""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import signal
import time
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import httpx
import jinja2
import psutil
import psycopg

from lifeboat.core.errors import PermanentError, PreconditionError
from lifeboat.tools import process
from lifeboat.tools.stacks import ProcessStack, ServiceStatus, Stack
from staging import processes
from staging.making import (
    create_roles,
    init_cluster,
    let_lifeboat_in,
    postgres_bin,
    write,
    write_certificate,
)
from staging.platform.cad_platform.storage import Store
from staging.ports import Ports, choose_ports
from staging.s3 import S3Server
from staging.seed import KNOWN_QUERY, SEARCH_WORD, Seeded, seed_site

DEFAULT_ROOT = Path(".lifeboat/staging")
PLATFORM = "cad-ai-staging"
BUCKET = "lifeboat-vault"
ADMIN = "admin@cad.example.test"
ENGINEER = "engineer@cad.example.test"
CRITICAL = ("postgres", "redis", "backend", "ai-service", "celery-worker")
DEFERRED = ("metrics",)
HEALTH_SECONDS = 60.0

_HERE = Path(__file__).parent
_CODE = _HERE / "platform"


@dataclass(frozen=True)
class Urls:
    """Where the platform is reached; `ai`, `metrics` and `s3` are those of a process of its own."""

    backend: str
    ai: str
    metrics: str
    s3: str

    @property
    def ai_health(self) -> str:
        return f"{self.ai}/health"

    @property
    def ai_inference(self) -> str:
        return f"{self.ai}/ai/inference"

    @property
    def ai_models(self) -> str:
        return f"{self.ai}/models"


@dataclass(frozen=True)
class Facts:
    """What was put in at creation, kept outside the server."""

    users: int
    projects: int
    drawings: int
    known_query: str
    known_answers: Mapping[str, str]
    """Model to its answer to the known query."""
    search_word: str
    admin: str
    engineer: str
    seconds: float


class Site:
    """The staging platform below `root`, as plain processes. Making this object touches nothing."""

    kind = "process"
    settings_kind = "process"  # which template of the stack's settings
    drill_channels: tuple[str, ...] = ()  # Apprise's addresses for what a drill tells
    critical: tuple[str, ...] = CRITICAL
    deferred: tuple[str, ...] = DEFERRED
    locale_options: tuple[str, ...] = (
        *("--locale-provider", "builtin", "--builtin-locale", "C.UTF-8"),
    )
    directories: tuple[str, ...] = (
        *("config/certs", "data/redis", "data/files", "run", "logs", "backups"),
    )
    templates: Mapping[str, str] = {
        "supervisord.conf.j2": "config/supervisord.conf",
        "redis.conf.j2": "config/redis.conf",
        "nginx.prod.conf.j2": "config/nginx/nginx.prod.conf",
        "prometheus.yml.j2": "config/monitoring/prometheus.yml",
    }

    def __init__(self, root: Path = DEFAULT_ROOT) -> None:
        self.root = Path(root).absolute()
        self.server = self.root / "server"
        self.outside = self.root / "outside"
        self.origin = self.root / "origin" / "cad-ai-platform.git"
        self.settings_path = self.server / "lifeboat.yaml"
        self.supervisor_config = self.server / "config" / "supervisord.conf"
        self.secret_path = self.outside / "secret.env"

    # -- what it is

    @property
    def database_directory(self) -> Path:
        return self.server / "data" / "postgres"

    @property
    def files(self) -> Path:
        return self.server / "data" / "files"

    @property
    def models(self) -> Path:
        return self.server / "data" / "models"

    @property
    def postgres_programs(self) -> Path:
        """The directory of PostgreSQL's programs."""
        return postgres_bin()

    @property
    def exists(self) -> bool:
        """Whether it was made to the end; its server may be lost since."""
        return (self.outside / "facts.json").exists()

    @cached_property
    def ports(self) -> Ports:
        return Ports(**self._remembered("ports.json"))

    @property
    def platform(self) -> str:
        """Its name, which an operator types to approve a recovery."""
        return PLATFORM

    @property
    def facts(self) -> Facts:
        return Facts(**self._remembered("facts.json"))

    @property
    def base_urls(self) -> Urls:
        ports = (self.ports.backend, self.ports.ai, self.ports.metrics, self.ports.s3)
        return Urls(*(f"http://127.0.0.1:{port}" for port in ports))

    @property
    def stack(self) -> Stack:
        return ProcessStack(self.supervisor_config)

    @property
    def s3(self) -> S3Server:
        secret = self.secrets()
        key, hidden = secret["AWS_ACCESS_KEY_ID"], secret["AWS_SECRET_ACCESS_KEY"]
        return S3Server(self.root / "s3", self.ports, key, hidden)

    def secrets(self) -> dict[str, str]:
        """The operator's secrets, and those of the server while it is there."""
        return _read_env(self.secret_path) | _read_env(self.server / ".env.production")

    def environment(self) -> dict[str, str]:
        """What Lifeboat needs in its environment: the vault's password and the S3 key."""
        return _read_env(self.secret_path)

    def dsn(self, user: str = "cad") -> str:
        """A connection string with password, for `cad` (owner), `lifeboat` or `postgres`."""
        key = {
            "cad": "POSTGRES_PASSWORD",
            "lifeboat": "LIFEBOAT_DATABASE_PASSWORD",
            "postgres": "POSTGRES_ADMIN_PASSWORD",
        }[user]
        return psycopg.conninfo.make_conninfo(
            host="127.0.0.1",
            port=self.ports.postgres,
            dbname="cad",
            user=user,
            password=self.secrets()[key],
            connect_timeout=3,
            application_name="staging",
        )

    # -- what can be done with it

    def create(self, *, scale: float = 1.0, database_bytes: int | None = None) -> Facts:
        """Make the platform and leave it stopped; S3 is left running.

        Raises PreconditionError if there is one already. What fails half way is removed.
        """
        if self.root.exists() and any(self.root.iterdir()):
            raise PreconditionError(
                f"Making the staging platform: {self.root} is not empty.",
                hint="`make clean` removes an earlier one.",
            )
        began = time.monotonic()
        try:
            self._lay_out()
            self._make_origin()
            self._write_config()
            self.s3.start()
            self.s3.create_bucket(BUCKET)
            self.s3.keep_versions(BUCKET)
            seeded = self._make_database(scale, database_bytes)
            # What the models answer is known only now, and the checks ask for it.
            settings = self._render("lifeboat.yaml.j2", known_answers=seeded.known_answers)
            write(self.settings_path, settings)
        except BaseException:
            self.destroy()
            raise
        facts = Facts(
            users=seeded.users,
            projects=seeded.projects,
            drawings=seeded.drawings,
            known_query=KNOWN_QUERY,
            known_answers=seeded.known_answers,
            search_word=SEARCH_WORD,
            admin=ADMIN,
            engineer=ENGINEER,
            seconds=round(time.monotonic() - began, 3),
        )
        # Last: it says that all the rest is there.
        write(self.outside / "facts.json", json.dumps(asdict(facts), indent=2))
        return facts

    def start(self, services: Collection[str] | None = None) -> None:
        """Start S3 and the services, and return once every one of them answers as healthy."""
        services = (*self.critical, *self.deferred) if services is None else services
        self.s3.start()
        self.stack.up(services)
        self.wait_until_healthy(services)

    def wait_until_healthy(
        self, services: Collection[str] | None = None, *, seconds: float = HEALTH_SECONDS
    ) -> None:
        services = self.critical if services is None else services
        waiting = {name: url for name, url in self._endpoints().items() if name in services}
        deadline = time.monotonic() + seconds
        said: dict[str, str] = {}
        while waiting:
            for name, url in list(waiting.items()):
                said[name] = _ask(url)
                if said[name] == "200":
                    del waiting[name]
            if waiting and time.monotonic() > deadline:
                answers = ", ".join(f"{name}: {said[name]}" for name in waiting)
                raise PermanentError(
                    f"Starting the staging platform: not healthy after {seconds:g} s ({answers}).",
                    hint=f"The logs are in {self.server / 'logs'}.",
                )
            time.sleep(0.1 if waiting else 0)

    def _endpoints(self) -> dict[str, str]:
        """Where each service says whether it is healthy."""
        urls = self.base_urls
        return {
            "backend": f"{urls.backend}/health",
            "ai-service": urls.ai_health,
            "metrics": f"{urls.metrics}/health",
        }

    def stop(self) -> None:
        """Stop the services and S3; everything stays on disk."""
        if self.supervisor_config.exists():
            self.stack.down()
        if self.exists or (self.outside / "ports.json").exists():
            self.s3.stop()

    def status(self) -> tuple[ServiceStatus, ...]:
        return self.stack.status()

    def destroy(self) -> None:
        """End every process of the platform, also after a crash, and remove its directory."""
        if not self.root.exists():
            return
        if any(self.root.iterdir()) and not (self.outside / "ports.json").exists():
            raise PreconditionError(
                f"Removing the staging platform: {self.root} does not look like one.",
                hint="Remove it yourself if it is not needed.",
            )
        try:
            self.stop()
        finally:
            # Whatever the orderly way left, and whatever it stumbled over.
            self.kill_everything()
        shutil.rmtree(self.root)

    # -- what a disaster needs to know

    def kill_database(self) -> tuple[str, ...]:
        """SIGKILL the server and all its processes; name what was killed, once none is left."""
        processes.free_shared_memory(self.database_directory)
        found: dict[int, psutil.Process] = {}
        for candidate in processes.processes_of(self.database_directory):
            # A backend may end while we look; and the receiver of the WAL, which may have a path
            # in it too, is not the database.
            with contextlib.suppress(psutil.NoSuchProcess):
                if candidate.name() == "postgres":
                    members = [candidate, *candidate.children(recursive=True)]
                    found |= {member.pid: member for member in members}
        processes.kill(found.values())
        return tuple(f"process {pid}" for pid in sorted(found))

    def kill_everything(self) -> tuple[str, ...]:
        """SIGKILL every process of the platform, and name them."""
        processes.free_shared_memory(self.database_directory)
        return tuple(f"process {pid}" for pid in processes.kill_all(self.root))

    def lose_server(self) -> tuple[str, ...]:
        """SIGKILL what runs on the server and remove all that lay on it; S3 and git host stay."""
        processes.free_shared_memory(self.database_directory)
        killed = tuple(f"process {pid}" for pid in processes.kill_all(self.server))
        shutil.rmtree(self.server)
        return killed

    # -- how it is made

    def _lay_out(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        for name in ("outside", "origin", "s3"):
            (self.root / name).mkdir()
        write(self.outside / "kind", self.kind)
        for name in self.directories:
            (self.server / name).mkdir(parents=True)
        write(self.outside / "ports.json", json.dumps(asdict(choose_ports()), indent=2))
        write(
            self.secret_path,
            _env(
                LIFEBOAT_VAULT_PASSWORD=secrets.token_urlsafe(24),
                AWS_ACCESS_KEY_ID="staging" + secrets.token_hex(6),
                AWS_SECRET_ACCESS_KEY=secrets.token_urlsafe(30),
            ),
        )

    def _make_origin(self) -> None:
        """Put the application's code onto the git host and check it out on the server."""
        work = self.root / "origin" / "work"
        shutil.copytree(_CODE, work, ignore=shutil.ignore_patterns("__pycache__"))
        self._add_to_code(work)
        who = ["-c", "user.name=staging", "-c", "user.email=staging@cad.example.test"]
        git = ["git", "-c", "init.defaultBranch=production", "-c", "core.hooksPath=/dev/null"]
        for words in (
            ["-C", work, "init", "--quiet"],
            ["-C", work, "add", "--all"],
            ["-C", work, *who, "commit", "--quiet", "--message", "The platform as released"],
            ["clone", "--quiet", "--bare", work, self.origin],
            ["clone", "--quiet", "--branch", "production", self.origin, self.server / "app"],
        ):
            process.run([*git, *words], doing="Putting the platform's code onto its git host")
        shutil.rmtree(work)

    def _add_to_code(self, work: Path) -> None:
        """Put what else belongs into the repository."""

    def _environment(self) -> dict[str, object]:
        """What the services of this kind of site need to know besides passwords."""
        ports = self.ports
        return {
            "POSTGRES_PORT": ports.postgres,
            "REDIS_PORT": ports.redis,
            "BACKEND_PORT": ports.backend,
            "AI_PORT": ports.ai,
            "METRICS_PORT": ports.metrics,
            "POSTGRES_DIRECTORY": "data/postgres",
            "REDIS_DIRECTORY": "data/redis",
            "FILES_DIRECTORY": "data/files",
            "MODELS_DIRECTORY": "data/models",
            "INCOMING_DIRECTORY": "run/incoming",
            "POSTGRES_PROGRAMS": "",  # empty: those of the wheel
        }

    def _write_config(self) -> None:
        write(
            self.server / ".env.production",
            _env(
                **self._environment(),
                REQUIRED_MODELS="default,tolerances",
                POSTGRES_PASSWORD=secrets.token_urlsafe(18),
                POSTGRES_ADMIN_PASSWORD=secrets.token_urlsafe(18),
                LIFEBOAT_DATABASE_PASSWORD=secrets.token_urlsafe(18),
                REDIS_PASSWORD=secrets.token_urlsafe(18),
                ADMIN_EMAIL=ADMIN,
                ADMIN_PASSWORD=secrets.token_urlsafe(12),
                ENGINEER_EMAIL=ENGINEER,
                ENGINEER_PASSWORD=secrets.token_urlsafe(12),
            ),
        )
        for template, target in self.templates.items():
            path = self.server / target
            path.parent.mkdir(parents=True, exist_ok=True)
            write(path, self._render(template))
        write_certificate(self.server / "config" / "certs")

    def _render(self, template: str, **more: object) -> str:
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(_HERE / "templates"),
            undefined=jinja2.StrictUndefined,
            keep_trailing_newline=True,
        )
        return environment.get_template(template).render(
            kind=self.settings_kind,
            ports=self.ports,
            urls=self.base_urls,
            origin=str(self.origin),
            **self._names(),
            platform=PLATFORM,
            bucket=BUCKET,
            drill_channels=[
                {"name": f"drill-{number}", "url": url}
                for number, url in enumerate(self.drill_channels, start=1)
            ],
            known_query=KNOWN_QUERY,
            search_word=SEARCH_WORD,
            supervisor_password=secrets.token_urlsafe(18),
            redis_password=self.secrets()["REDIS_PASSWORD"],
            # supervisor expands % itself, and reads the command as a shell does
            secret_path='"' + str(self.secret_path).replace("%", "%%") + '"',
            **more,
        )

    def _names(self) -> dict[str, object]:
        """What the templates of this kind of site need besides."""
        return {"postgres_bin": str(self.postgres_programs)}

    def _make_database(self, scale: float, database_bytes: int | None) -> Seeded:
        directory, known = self.database_directory, self.secrets()
        init_cluster(
            directory,
            known["POSTGRES_ADMIN_PASSWORD"],
            owner="postgres",
            options=("--data-checksums", *self.locale_options),
            programs=self.postgres_programs,
        )
        with (directory / "postgresql.conf").open("a", encoding="utf-8") as file:
            file.write("\n" + self._render("postgresql.conf.j2"))
        write(directory / "pg_hba.conf", self._render("pg_hba.conf.j2"))
        # While nothing is in it that could be lost, and only then, it need not be durable.
        hasty = {"fsync": "off", "wal_level": "minimal", "max_wal_senders": "0"}
        words = [word for name, value in hasty.items() for word in ("-c", f"{name}={value}")]
        daemon = process.start(
            process.unprivileged([self.postgres_programs / "postgres", "-D", directory, *words]),
            doing="Starting PostgreSQL to fill it",
            log_path=self.server / "logs" / "seed.log",
            cwd=self.server,
        )
        try:
            create_roles(self._admin_connection("postgres"), known)
            with self._admin_connection("cad") as connection:
                let_lifeboat_in(connection)
            return self._seed(
                Store(self.files, self.server / "run/incoming"), scale, database_bytes
            )
        finally:
            daemon.stop(grace_seconds=120, sig=signal.SIGINT)

    def _seed(self, store: Store, scale: float, database_bytes: int | None) -> Seeded:
        known = self.secrets()
        with psycopg.connect(self.dsn("cad"), autocommit=True) as connection:
            connection.execute((_CODE / "cad_platform" / "schema.sql").read_text())
            return seed_site(
                connection,
                store,
                self.models,
                people={ADMIN: known["ADMIN_PASSWORD"], ENGINEER: known["ENGINEER_PASSWORD"]},
                admin=ADMIN,
                scale=scale,
                database_bytes=database_bytes,
            )

    def _admin_connection(self, database: str) -> psycopg.Connection:
        deadline = time.monotonic() + 30
        while True:
            try:
                return psycopg.connect(self.dsn("postgres"), dbname=database, autocommit=True)
            except psycopg.OperationalError as error:
                if time.monotonic() > deadline:
                    log = (self.server / "logs" / "seed.log").read_text(errors="replace")
                    raise PermanentError(
                        f"Starting PostgreSQL to fill it: it does not answer. It said: {log[-600:]}"
                    ) from error
                time.sleep(0.05)

    def _remembered(self, name: str) -> dict:
        try:
            return json.loads((self.outside / name).read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise PreconditionError(
                f"There is no staging platform in {self.root}.",
                hint="`lifeboat stack up` makes it.",
            ) from error


def _ask(url: str) -> str:
    try:
        return str(httpx.get(url, timeout=5).status_code)
    except httpx.HTTPError as error:
        return type(error).__name__


def _env(**values: object) -> str:
    return "".join(f"{key}={value}\n" for key, value in values.items())


def _read_env(path: Path) -> dict[str, str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    return dict(line.split("=", 1) for line in lines if "=" in line)
