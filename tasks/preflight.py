"""Whether everything that lifeboat.yaml names can be reached and is of the right version."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable

from lifeboat.core.checks import CheckResult, Status, Verdict
from lifeboat.core.errors import PreconditionError, RecoveryError
from lifeboat.core.points import Asset, Tier
from lifeboat.settings import ComposeStackSettings, Settings
from lifeboat.tools import filesystem, git, postgres
from tasks import places, protection, services
from tasks.database import connection
from tasks.orchestration import side_by_side
from tasks.trees import directories_of, refuse_links
from tasks.wal import wal_health

_NEEDED_SECRETS = (
    "LIFEBOAT_VAULT_PASSWORD",
    "LIFEBOAT_DATABASE_PASSWORD",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
)
_RESTIC = (0, 17)


def look(settings: Settings) -> Verdict:
    """Try everything that is configured; nothing is changed but a probe object in the bucket."""
    looks: dict[str, Callable[[Settings], str]] = {
        "secrets": _secrets,
        "services": _services,
        "restic": _restic,
        "postgresql-programs": _postgresql_programs,
        "database-role": _database_role,
        "write-ahead-log": _write_ahead_log,
        "directories": _directories,
        "rename": _rename,
        "bucket": _bucket,
        "bucket-protection": protection.require_protection,
        "vault-password": _vault_password,
        "code": _code,
        "verification": _verification,
    }
    found = side_by_side({name: lambda n=name: _tried(n, looks[n], settings) for name in looks})
    return Verdict.of(found.values(), expected=looks)


def _tried(name: str, act: Callable[[Settings], str], settings: Settings) -> CheckResult:
    began = time.monotonic()
    try:
        status, evidence = Status.PASS, act(settings)
    except protection.NotSeen as error:
        status, evidence = Status.UNKNOWN, str(error)
    except RecoveryError as error:
        status, evidence = Status.FAIL, str(error)
    except OSError as error:
        status, evidence = Status.FAIL, f"{error.filename}: {error.strerror}"
    return CheckResult(
        name=name, status=status, evidence=evidence, seconds=time.monotonic() - began
    )


def _secrets(settings: Settings) -> str:
    missing = [name for name in _NEEDED_SECRETS if settings.optional_secret(name) is None]
    if missing:
        raise PreconditionError(
            f"Looking for the secrets: {', '.join(missing)} not set.",
            hint=f"Set them in the environment or in {settings.secrets_file or 'a secrets_file'}.",
        )
    return f"{len(_NEEDED_SECRETS)} of {len(_NEEDED_SECRETS)} are set"


def _services(settings: Settings) -> str:
    stack = settings.stack
    if isinstance(stack, ComposeStackSettings):
        services.compose_stack_of(settings, stack).require_engine(stack.volumes_directory)
    statuses = services.stack_of(settings).status()
    known = {status.name: status.state for status in statuses}
    missing = [name for name in settings.stack.services if name not in known]
    if missing:
        raise PreconditionError(
            f"Looking for the services: the stack has no {', '.join(missing)}.",
            hint=f"It has {', '.join(known)}.",
        )
    if unlisted := services.unlisted_services(settings, statuses):
        names = [status.name for status in unlisted]
        raise PreconditionError(
            f"Looking for the services: the stack has {', '.join(names)}, which a recovery neither "
            "stops nor starts, for lifeboat.yaml does not list it.",
            hint="Add it to critical_services, deferred_services or backup_services, or excuse it: "
            f"`stack: {{without: {{{names[0]}: why}}}}`.",
        )
    running = sum(state == "running" for state in known.values())
    return f"all {len(settings.stack.services)} are known to the stack, {running} run"


def _restic(settings: Settings) -> str:
    found = places.repository(settings, Asset.FILES, Tier.LOCAL).version()
    numbers = tuple(int(part) for part in str(found).split(".")[:2])
    if numbers < _RESTIC:
        raise PreconditionError(
            f"Looking at restic: {settings.restic_program()} is {found}.",
            hint="0.17 or newer is needed: run `make setup`, or install it from restic.net.",
        )
    return f"restic {found}, {settings.restic_program()}"


def _postgresql_programs(settings: Settings) -> str:
    server = connection(settings)
    postgres.require_same_major(server)
    for program in ("pg_verifybackup", "pg_receivewal", "pg_waldump"):
        postgres.tools_version(server.bin_directory, program)
    return f"programs and server are PostgreSQL {postgres.identify(server).version}"


def _database_role(settings: Settings) -> str:
    server = connection(settings)
    [(replicates, reads)] = postgres.query(
        server,
        "SELECT rolreplication OR rolsuper, pg_has_role(oid, 'pg_read_all_data', 'USAGE') OR"
        " rolsuper FROM pg_roles WHERE rolname = current_user",
    )
    missing = [
        what for has, what in ((replicates, "REPLICATION"), (reads, "pg_read_all_data")) if not has
    ]
    if missing:
        raise PreconditionError(
            f"Looking at the role {server.user}: it lacks {' and '.join(missing)}.",
            hint=f"ALTER ROLE {server.user} REPLICATION; GRANT pg_read_all_data TO {server.user};",
        )
    return f"{server.user} may replicate and read all data"


def _write_ahead_log(settings: Settings) -> str:
    server = connection(settings)
    [(level, checksums)] = postgres.query(
        server, "SELECT current_setting('wal_level'), current_setting('data_checksums')"
    )
    if level == "minimal":
        raise PreconditionError(
            "Looking at the WAL: wal_level is minimal, from which nothing can be replayed.",
            hint="Set wal_level = replica and restart PostgreSQL.",
        )
    health = wal_health.look(settings)
    if health.findings:
        worst = health.findings[0]
        raise PreconditionError(f"Looking at the WAL: {worst.sentence}", hint=worst.hint)
    mode = "synchronous" if health.synchronous else "asynchronous"
    return (
        f"the receiver streams ({mode}, {health.lag_bytes} bytes behind); the slot keeps "
        f"{health.used_percent:.0f} % of {(health.cap_bytes or 0) >> 20} MB; checksums {checksums}"
    )


def _directories(settings: Settings) -> str:
    paths = [
        path
        for asset in (Asset.FILES, Asset.MODELS, Asset.CONFIG)
        for path in directories_of(settings, asset).values()
    ]
    everything = (*paths, settings.database.data_directory)
    missing = [str(path) for path in everything if not path.exists()]
    if missing:
        raise PreconditionError(
            f"Looking for what is protected: {', '.join(missing)} is not there.",
            hint="Correct the path in lifeboat.yaml, or recover what was lost.",
        )
    refuse_links(everything, doing="Looking at what is protected")
    return f"{len(paths)} protected paths and the data directory are there"


def _rename(settings: Settings) -> str:
    """The hot copy is worth its disk only where it can be renamed into place."""
    data, local = settings.database.data_directory, settings.vault.local
    filesystem.refuse_unmovable(data, doing="Looking at the data directory")
    # Tried, because a bind mount of the same file system refuses too.
    if not filesystem.can_rename(filesystem.nearest(local), filesystem.nearest(data.parent)):
        raise PreconditionError(
            f"Renaming from {local} to {data.parent}: they are not on one mount, so that a hot "
            "copy must be copied instead of renamed.",
            hint="Put vault.local on the data directory's file system, below the same mount.",
        )
    return f"same file system, {filesystem.free_bytes(local) / 1e9:.1f} GB free"


def _bucket(settings: Settings) -> str:
    bucket = places.bucket(settings)
    bucket.reachable()
    key, data = f"records/probe-{secrets.token_hex(8)}", secrets.token_bytes(64)
    bucket.put(key, data)
    try:
        if bucket.get(key) != data:
            raise PreconditionError(f"Writing to bucket {bucket.name}: it gave other bytes back.")
    finally:
        bucket.delete([key])
    return f"{bucket.name} can be written, read and deleted from"


def _vault_password(settings: Settings) -> str:
    opened = []
    for tier in (Tier.LOCAL, Tier.S3):
        store = places.repository(settings, Asset.CONFIG, tier)
        if not store.exists():
            raise PreconditionError(
                f"Opening the vault: {store.location} is not there yet.",
                hint="Run `lifeboat prepare`.",
            )
        store.snapshots()
        opened.append(str(tier))
    return f"opens {' and '.join(opened)}"


def _code(settings: Settings) -> str:
    if settings.code is None:
        raise PreconditionError(
            "Looking for the application's code: `code` is not set.",
            hint="Without it a lost server comes back without the application.",
        )
    commit = git.reachable(settings.code.repository, branch=settings.code.branch)
    return f"{settings.code.branch} of {settings.code.repository} is at {commit[:12]}"


def _verification(settings: Settings) -> str:
    """A check that gives no answer makes every recovery look failed, and that at 3 a.m."""
    checks = settings.checks
    missing = [f"{name} (checks.{name.replace('-', '_')})" for name in checks.undeclared]
    if not settings.files.manifest_query:
        missing.append("user-data-intact (files.manifest_query)")
    if missing:
        raise PreconditionError(
            f"Looking at the checks that decide whether a recovery is good: {len(missing)} have no "
            f"answer as lifeboat.yaml is: {', '.join(missing)}. No recovery can pass.",
            hint="Declare them. What this platform has not got is named in `checks.without`, with "
            "the reason; where no table names files, a files.manifest_query without rows will do.",
        )
    without = f", {len(checks.without)} done without" if checks.without else ""
    return f"each check of the platform can be answered{without}"
