"""All that lifeboat.yaml may say: one model for each section, each key with what it is for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, ConfigDict, Field, PrivateAttr

from lifeboat.core.card import CardSettings
from lifeboat.core.checklist import PLACEHOLDER, Checks
from lifeboat.core.errors import SettingsError
from lifeboat.core.production import Production
from lifeboat.core.protection import LockMode, Protection
from lifeboat.core.provision import ProvisionSettings
from lifeboat.core.secrecy import Secret
from lifeboat.core.suspicion import Policy as Suspicion
from lifeboat.settings.alarms import Alarms
from lifeboat.settings.base import Name, Section, SitePath, resolve_repository
from lifeboat.settings.environment import (
    DEFAULT_NAME,
    SECRETS,
    find_compose,
    find_restic,
    optional_secret_of_environment,
    read_secrets,
    secrets_of_environment,
)
from lifeboat.settings.health import HealthWatch
from lifeboat.settings.orchestrator import OrchestratorSettings
from lifeboat.settings.people import Communication, People
from lifeboat.settings.reviews import FollowUps, Reviews
from lifeboat.settings.stack import ComposeRunner, StackSettings
from lifeboat.settings.status_page import StatusPage


class Objectives(Section):
    """What the plan promises."""

    rto_seconds: float = Field(
        default=14400, gt=0, description="Recovery Time Objective: the longest downtime."
    )
    rpo_seconds: float = Field(
        default=3600, gt=0, description="Recovery Point Objective: the most that may be lost."
    )


class Code(Section):
    """The platform's application code."""

    repository: Annotated[str, AfterValidator(resolve_repository)] = Field(
        min_length=1, description="URL or path of the git repository."
    )
    branch: str = Field(default="production", min_length=1, description="Branch that is deployed.")
    directory: SitePath = Field(description="Where the code is checked out.")


class Database(Section):
    """The platform's PostgreSQL, and the role with REPLICATION that backs it up."""

    service: str = Field(description="Name of the database's service in the stack.")
    host: str = Field(default="127.0.0.1", min_length=1, description="Host of the server.")
    port: int = Field(default=5432, ge=1, le=65535, description="Port of the server.")
    name: str = Field(min_length=1, description="Name of the platform's database.")
    user: str = Field(
        default="lifeboat",
        min_length=1,
        description="Role with LOGIN, REPLICATION and pg_read_all_data; its password is "
        "LIFEBOAT_DATABASE_PASSWORD.",
    )
    data_directory: SitePath = Field(description="The server's data directory on this host.")
    bin_directory: SitePath | None = Field(
        default=None,
        description="Directory of PostgreSQL's programs (pg_basebackup, pg_verifybackup, ...), of "
        "the server's major version; default: those on PATH.",
    )
    programs: Literal["host", "image"] = Field(
        default="host",
        description="host: PostgreSQL's programs are installed on this host. image: they are taken "
        "out of the image of `service` and put where bin_directory says.",
    )
    wal: Literal["synchronous", "asynchronous"] = Field(
        default="asynchronous",
        description="synchronous: a commit waits until the WAL receiver has it too, so that no "
        "acknowledged row is lost, and stops while the receiver is down. asynchronous: it does not "
        "wait, and milliseconds may be lost.",
    )


class Files(Section):
    """The file storage."""

    directories: Mapping[Name, SitePath] = Field(
        min_length=1, description="Protected directories, by a name of your choice."
    )
    services: tuple[str, ...] = Field(
        default=(), description="Services that use the files; stopped while files are repaired."
    )
    manifest_query: str | None = Field(
        default=None,
        description="Query that gives path (below one of the directories), SHA-256 and bytes of "
        "every file that the database refers to. Without it no file can be proven.",
    )


class Models(Section):
    """The AI models."""

    directories: Mapping[Name, SitePath] = Field(
        min_length=1, description="Protected directories, by a name of your choice."
    )
    services: tuple[str, ...] = Field(
        default=(), description="Services that load the models; restarted when models are repaired."
    )
    manifest_query: str | None = Field(
        default=None,
        description="Query that gives path (below one of the directories), SHA-256 and bytes of "
        "every model that the database refers to; the last two may be NULL. With it a set is "
        "checked for rows whose model it lacks.",
    )


class PublicConfig(Section):
    """The part of the configuration that holds no secret, and the git repository that keeps it."""

    repository: Annotated[str, AfterValidator(resolve_repository)] = Field(
        min_length=1, description="URL or path of the git repository; a path is made if missing."
    )
    branch: str = Field(default="main", min_length=1, description="Branch that is committed to.")
    paths: tuple[SitePath, ...] = Field(
        min_length=1,
        description="Files and directories below config.paths that may be read by who reads the "
        "repository. A file that holds one of the secrets is refused.",
    )
    not_secret: tuple[str, ...] = Field(
        default=(),
        description="Names in `secrets_file` whose values may be read by anyone, e.g. a directory "
        "or a port, so that files which hold them are not refused.",
    )


class Config(Section):
    """The configuration: all that a blank machine needs besides code and data."""

    paths: tuple[SitePath, ...] = Field(
        min_length=1,
        description="Files and directories: lifeboat.yaml, environment files, certificates, "
        "compose, nginx, monitoring. Links in a directory stay links: name also what they lead to, "
        "as /etc/letsencrypt does, with live/ and archive/.",
    )
    public: PublicConfig | None = Field(
        default=None, description="What of it is also committed to a git repository."
    )


class S3(Section):
    """The copy off this host."""

    endpoint: str | None = Field(
        default=None,
        pattern=r"^https?://[^\s/]+[^\s]*$",
        description="URL of the S3 service; left out: Amazon's own.",
    )
    bucket: str = Field(
        pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", description="Name of the bucket."
    )
    region: str = Field(default="us-east-1", min_length=1, description="Region of the bucket.")
    prefix: str = Field(
        default="",
        pattern=r"^[A-Za-z0-9._/-]*$",
        description="The vault's place inside the bucket; empty: all of it.",
    )
    undo_days: int = Field(
        default=30,
        ge=1,
        description="Days for which what was deleted or overwritten in the bucket can be brought "
        "back: so long an attack may go unnoticed.",
    )
    lock_days: int = Field(
        default=30, ge=1, description="Days for which Object Lock keeps versions from deletion."
    )
    lock_mode: LockMode = Field(
        default="governance",
        description="governance: whoever has s3:BypassGovernanceRetention may delete all the same. "
        "compliance: nobody may, not even the owner of the account, and all of it is paid for.",
    )
    without: Mapping[Protection, Annotated[str, Field(min_length=1)]] = Field(
        default={},
        description="Protections that are done without, each with the reason: "
        '`{object-lock: "the provider has none"}`.',
    )


class Vault(Section):
    """Where backups are kept: on this host and in S3."""

    local: SitePath = Field(
        description="Directory of the local vault (/backups in production). On the data "
        "directory's file system, so that a base copy can be renamed into place."
    )
    s3: S3 = Field(description="The bucket.")
    restic_program: SitePath | None = Field(
        default=None,
        description="restic; default: the one of `make setup`, or else the one on PATH.",
    )
    host_keys: bool = Field(
        default=True,
        description="Give this host a key of its own to each repository, which opens it half a "
        "second sooner than the vault's password (docs/vault.md).",
    )


class Keep(Section):
    """How often the keeper works, on a host without a Prefect server."""

    wal_seconds: float = Field(default=60, gt=0, description="Between shipments of WAL to S3.")
    files_seconds: float = Field(
        default=1800, gt=0, description="Between backups of the files; at most the RPO."
    )
    database_seconds: float = Field(
        default=21600, gt=0, description="Between base copies of the database."
    )
    models_seconds: float = Field(
        default=86400, gt=0, description="Between backups of the models, if nothing changed before."
    )
    on_change_seconds: float = Field(
        default=300,
        gt=0,
        description="Between looks at models and configuration, which are backed up at once when "
        "they have changed.",
    )
    platform_seconds: float = Field(
        default=86400, gt=0, description="Between sets, in which all assets are of one moment."
    )
    restore_test_seconds: float = Field(
        default=86400, gt=0, description="Between restore tests of the newest points in S3."
    )
    read_all_days: float = Field(
        default=30,
        gt=0,
        description="Within so many days the restore tests read all that both vaults hold, each "
        "time a share of it, so that what has rotted is found before it is needed.",
    )
    prune_seconds: float = Field(default=86400, gt=0, description="Between prunes of the vault.")
    watch_seconds: float = Field(default=300, gt=0, description="Between looks at the objectives.")


class Retention(Section):
    """How long recovery points are kept; never fewer than `minimum`, nor without a verified one."""

    local_days: float = Field(default=30, gt=0, description="Days in the local vault.")
    s3_days: float = Field(default=90, gt=0, description="Days in S3.")
    minimum: int = Field(
        default=3, ge=1, description="How many of the newest points of each asset always stay."
    )


class Watch(Section):
    """What watch-objectives takes for an alarm, besides RTO and RPO."""

    late_factor: float = Field(
        default=1.5,
        ge=1,
        description="A backup is late when it is older than its interval by this.",
    )
    verified_days: float = Field(
        default=2, gt=0, description="Oldest that the last passed restore test may be."
    )
    drill_days: float = Field(
        default=45, ge=0, description="Oldest that the last passed drill may be; 0: none is asked."
    )
    certificate_days: float = Field(
        default=21, ge=0, description="How long before its end a certificate is an alarm."
    )
    free_space_days: float = Field(
        default=7, ge=0, description="How long before a disk is full that is an alarm."
    )
    slot_percent: float = Field(
        default=50,
        gt=0,
        le=100,
        description="Share of max_slot_wal_keep_size at which the receiver's lag is an alarm.",
    )
    excused: Mapping[str, str] = Field(
        default={},
        description="Directories or volumes that need no backup, certificates that may end, and "
        "what is known of the WAL (a missing segment, the number of a foreign cluster), each with "
        "the reason: "
        '`{data/redis: "a cache, filled again by use"}`.',
    )
    metrics_file: SitePath | None = Field(
        default=None, description="File that is written for Prometheus' textfile collector."
    )


class Recovery(Section):
    """The time box of each rung of the database's ladder; then the next one is tried."""

    restart_seconds: float = Field(
        default=120, gt=0, description="Restart the service and wait until it answers."
    )
    hot_seconds: float = Field(
        default=900, gt=0, description="Rename the hot copy into place and replay the WAL."
    )
    local_seconds: float = Field(
        default=3600, gt=0, description="Restore from the local vault and replay the WAL."
    )
    s3_seconds: float = Field(default=7200, gt=0, description="Restore from S3 and replay the WAL.")


class KnownProduction(Production):
    """A platform that a staging one must not be taken for."""

    model_config = ConfigDict(extra="forbid")


class Settings(Section):
    """All of lifeboat.yaml. Made by `load_settings`."""

    platform: str = Field(
        pattern=r"^[a-z0-9][a-z0-9-]*$",
        max_length=63,
        description="Name of the platform; an operator types it to approve a recovery.",
    )
    environment: Literal["staging", "production"] = Field(
        description="Drills break staging; they refuse to break production."
    )
    known_production: tuple[KnownProduction, ...] = Field(
        default=(),
        description="In staging: what has a name, host or database in common with one of these is "
        "never recovered without a person's approval.",
    )
    secrets_file: SitePath | None = Field(
        default=None,
        description="File of KEY=VALUE lines with the secrets, mode 0600. The process environment "
        "wins over it.",
    )
    objectives: Objectives = Field(default=Objectives(), description="What the plan promises.")
    stack: StackSettings = Field(description="What runs the services, and which there are.")
    code: Code | None = Field(
        default=None, description="The application's code; without it a lost server stays without."
    )
    database: Database = Field(description="The platform's PostgreSQL.")
    files: Files = Field(description="The file storage.")
    models: Models = Field(description="The AI models.")
    config: Config = Field(description="The configuration.")
    vault: Vault = Field(description="Where backups are kept.")
    keep: Keep = Field(default=Keep(), description="How often the keeper works.")
    retention: Retention = Field(default=Retention(), description="How long backups are kept.")
    suspicion: Suspicion = Field(
        default=Suspicion(), description="Which points are not trusted until accepted."
    )
    watch: Watch = Field(default=Watch(), description="What is an alarm.")
    alarms: Alarms = Field(default=Alarms(), description="Whom to tell of an alarm.")
    follow_ups: FollowUps = Field(
        default=FollowUps(), description="What is done after a recovery, and by whom."
    )
    reviews: Reviews = Field(
        default=Reviews(), description="Which tests and reviews are held, and how often."
    )
    people: People = Field(default=People(), description="Who is told of an incident.")
    communication: Communication = Field(
        default=Communication(), description="How people are told of an incident."
    )
    health: HealthWatch = Field(
        default=HealthWatch(), description="When people are asked to approve a recovery."
    )
    status_page: StatusPage = Field(default=StatusPage(), description="What the public sees.")
    recovery: Recovery = Field(default=Recovery(), description="Time boxes of a recovery.")
    card: CardSettings = Field(
        default=CardSettings(), description="What the bootstrap card says besides."
    )
    provision: ProvisionSettings = Field(
        default=ProvisionSettings(), description="A new machine for a lost server."
    )
    checks: Checks = Field(default=Checks(), description="The eighteen checks of verify-recovery.")
    orchestrator: OrchestratorSettings | None = Field(
        default=None,
        description="Prefect's own database, backed up like any asset; left out: it is not.",
    )

    _file: Path = PrivateAttr(default=Path(DEFAULT_NAME))

    @property
    def file(self) -> Path:
        """The lifeboat.yaml that this was read from."""
        return self._file

    @property
    def directory(self) -> Path:
        """The directory of lifeboat.yaml, below which relative paths are."""
        return self._file.parent

    def secret(self, name: str) -> str:
        """Give a secret: from the process environment, or else from `secrets_file`.

        Raises SettingsError, saying where to set it, if it is in neither.
        """
        value = self.optional_secret(name)
        if value is not None:
            return value
        where = "in the environment"
        if self.secrets_file:
            there = "" if self.secrets_file.exists() else " (which does not exist)"
            where += f" or in {self.secrets_file}{there}"
        what = f" ({SECRETS[name]})" if name in SECRETS else ""
        raise SettingsError(
            f"Reading the secret {name}{what}: it is not set.", hint=f"Set {name} {where}."
        )

    def optional_secret(self, name: str) -> str | None:
        """Like `secret`, and None if it is not set. An empty value counts as not set."""
        return (
            optional_secret_of_environment(name)
            or read_secrets(self.secrets_file).get(name)
            or None
        )

    def known_secrets(self) -> tuple[Secret, ...]:
        """All that is known here and must not be shown: to look for it, never to pass it on.

        Every value of `secrets_file`, except those that `config.public.not_secret` names, our own
        of the environment, and what stands in the address of a git repository.
        """
        public = self.config.public
        harmless = public.not_secret if public else ()
        found = [
            Secret(name, value)
            for name, value in read_secrets(self.secrets_file).items()
            if name not in harmless
        ]
        for key, repository in (
            ("code.repository", self.code.repository if self.code else ""),
            ("config.public.repository", public.repository if public else ""),
        ):
            if "://" in repository:
                parts = urlsplit(repository)
                # A token may stand in either place.
                found += [Secret(key, part) for part in (parts.password or parts.username,) if part]
        return (*found, *secrets_of_environment())

    def fill(self, text: str) -> str:
        """Replace each `${NAME}` by the secret of that name. Raises SettingsError as `secret`."""
        return PLACEHOLDER.sub(lambda match: self.secret(match[1]), text)

    def compose_program(self, runner: ComposeRunner) -> Path | None:
        """Give Compose as configured, or the one in the tool folder; None: what is installed."""
        return runner.compose_program or find_compose(self.directory)

    def restic_program(self) -> Path:
        """Give restic as configured, or the one of `make setup`, or else the one on PATH.

        Raises SettingsError if it is nowhere.
        """
        if self.vault.restic_program and self.vault.restic_program.exists():
            return self.vault.restic_program
        return find_restic(self.directory)
