"""Rivals for the database: each backs up to this host and to S3, and restores from either.

A restore ends when the server accepts what is written to it, in a place and at a port of its own.
"""

from __future__ import annotations

from typing import Protocol

from bench import shell
from bench.world import World


class Rival(Protocol):
    """One way to protect a database."""

    name: str

    def version(self) -> str | None:
        """What it is called with its version; None if it is not present."""

    def prepare(self, world: World) -> None:
        """Whatever has to be set up once, before anything is timed."""

    def archive(self) -> str:
        """What puts the segment `$1` of WAL into its archives; empty if it keeps none."""

    def begin_round(self, world: World) -> None:
        """What is to be done again after the server was recovered by somebody else."""

    def end(self, world: World) -> None:
        """End what it has left running."""

    def back_up(self, *, first: bool) -> str: ...

    def restore(self, *, from_s3: bool) -> str: ...


class PgBackRest:
    name = "pgBackRest"

    def version(self) -> str | None:
        return shell.version("pgbackrest", "version")

    def prepare(self, world: World) -> None:
        home = world.peers / "pgbackrest"
        for directory in ("repository", "log", "spool", "lock"):
            (home / directory).mkdir(parents=True)
        known = world.secrets()
        (home / "pgbackrest.conf").write_text(
            f"""[global]
repo1-path={home}/repository
repo2-type=s3
repo2-path=/pgbackrest
repo2-s3-bucket=peers
repo2-s3-endpoint=127.0.0.1
repo2-storage-port={world.s3.tls_port}
repo2-storage-verify-tls=n
repo2-s3-uri-style=path
repo2-s3-region=us-east-1
repo2-s3-key={known["AWS_ACCESS_KEY_ID"]}
repo2-s3-key-secret={known["AWS_SECRET_ACCESS_KEY"]}
repo1-retention-full=2
repo2-retention-full=2
repo2-bundle=y
repo1-bundle=y
compress-type=zst
process-max=2
start-fast=y
archive-async=y
spool-path={home}/spool
log-path={home}/log
lock-path={home}/lock
log-level-console=warn
[main]
pg1-path={world.database_directory}
pg1-port={world.ports.postgres}
pg1-socket-path={world.socket_directory}
pg1-user=postgres
"""
        )
        environment = world.environment_of_commands()
        log = world.peers / "pgbackrest.log"
        shell.run(f"{self._command} stanza-create", environment, log=log)

    @property
    def _command(self) -> str:
        return 'pgbackrest --config="$PEERS/pgbackrest/pgbackrest.conf" --stanza=main'

    def archive(self) -> str:
        return f'{self._command} archive-push "$1"'

    def begin_round(self, world: World) -> None:
        """Nothing: a new timeline of the same system goes on in its archive."""

    def end(self, world: World) -> None:
        """Nothing runs."""

    def back_up(self, *, first: bool) -> str:
        kind = "full" if first else "incr"
        return "\n".join(f"{self._command} --type={kind} --repo={n} backup" for n in (1, 2))

    def restore(self, *, from_s3: bool) -> str:
        return (
            f'{self._command} --repo={2 if from_s3 else 1} --pg1-path="$TARGET" restore\n'
            "serve\naccepts"
        )


class Barman:
    """Streaming, by pg_basebackup and pg_receivewal; barman-cloud where it is about S3."""

    name = "barman"

    def version(self) -> str | None:
        return shell.version("barman-cloud-backup", "--version") and shell.version(
            "barman", "--version"
        )

    def prepare(self, world: World) -> None:
        home = world.peers / "barman"
        home.mkdir()
        connection = (
            f"host=127.0.0.1 port={world.ports.postgres} user=postgres dbname=postgres "
            f"password={world.secrets()['POSTGRES_ADMIN_PASSWORD']}"
        )
        (home / "barman.conf").write_text(
            f"""[barman]
barman_user = root
barman_home = {home}
barman_lock_directory = {home}
log_file = {home}/barman.log
[main]
description = the platform's database
conninfo = {connection}
streaming_conninfo = {connection}
backup_method = postgres
streaming_archiver = on
slot_name = barman
create_slot = auto
path_prefix = {world.postgres_programs}
immediate_checkpoint = true
"""
        )
        self.begin_round(world)

    _command = 'barman --config "$PEERS/barman/barman.conf"'
    _cloud = '--cloud-provider aws-s3 --endpoint-url "$S3"'

    def archive(self) -> str:
        return f'barman-cloud-wal-archive {self._cloud} "s3://$BUCKET/barman" main "$1"'

    def begin_round(self, world: World) -> None:
        """A recovered server has no slot, and may be on a timeline that barman does not expect."""
        script = (
            f"{self._command} receive-wal --stop main || true\n"
            f"{self._command} receive-wal --create-slot main || true\n"
            f"{self._command} receive-wal --reset main || true\n"
            f"nohup {self._command} receive-wal main >>$PEERS/barman/receive.log 2>&1 &\n"
            'until psql -d postgres -Atc "SELECT application_name FROM pg_stat_replication" '
            "| grep -q barman; do sleep 0.1; done\n"
            f"{self._command} switch-wal --force --archive --archive-timeout 60 main\n"
        )
        log = world.peers / "barman.log"
        shell.run(script, world.environment_of_commands(), log=log)

    def end(self, world: World) -> None:
        script = f"{self._command} receive-wal --stop main || true"
        shell.run(script, world.environment_of_commands(), log=world.peers / "barman.log")

    def back_up(self, *, first: bool) -> str:
        return (
            f"{self._command} backup main\n"
            f"{self._command} archive-wal main\n"
            f"barman-cloud-backup {self._cloud} --immediate-checkpoint -d postgres "
            '"s3://$BUCKET/barman" main'
        )

    def _fetch_base(self, target: str) -> str:
        return (
            f"backup=$(barman-cloud-backup-list --format json {self._cloud} "
            '"s3://$BUCKET/barman" main | python3 -c \'import json,sys; print(max('
            'b["backup_id"] for b in json.load(sys.stdin)["backups_list"]))\')\n'
            f'barman-cloud-restore {self._cloud} "s3://$BUCKET/barman" main "$backup" "{target}"\n'
        )

    def restore(self, *, from_s3: bool) -> str:
        if not from_s3:
            return (
                f"{self._command} archive-wal main\n"
                f'{self._command} recover main latest "$TARGET"\nserve\naccepts'
            )
        return self._fetch_base("$TARGET") + (
            'cat >>"$TARGET/postgresql.auto.conf" <<END\n'
            f"restore_command = 'barman-cloud-wal-restore {self._cloud} s3://$BUCKET/barman "
            "main %f %p'\nEND\n"
            'touch "$TARGET/recovery.signal"\nserve\naccepts'
        )


class Dump:
    """A logical dump, compressed, and a copy of it in S3: what the plan does, or better."""

    def __init__(self, name: str, *, dump: str, load: str, suffix: str) -> None:
        self.name = name
        self._dump, self._load, self._suffix = dump, load, suffix

    def version(self) -> str | None:
        return shell.version("rclone", "version") and shell.version("pg_dump", "--version")

    def prepare(self, world: World) -> None:
        (world.peers / "dumps").mkdir(exist_ok=True)

    def archive(self) -> str:
        return ""

    def begin_round(self, world: World) -> None:
        """Nothing: it knows no WAL."""

    def end(self, world: World) -> None:
        """Nothing runs."""

    @property
    def _file(self) -> str:
        return f"$PEERS/dumps/cad.{self._suffix}"

    def back_up(self, *, first: bool) -> str:
        return (
            f'{self._dump} >"{self._file}"\n'
            f'rclone copyto "{self._file}" "peers:$BUCKET/dumps/cad.{self._suffix}"'
        )

    def restore(self, *, from_s3: bool) -> str:
        fetch = f'rclone copyto "peers:$BUCKET/dumps/cad.{self._suffix}" "$TARGET.dump"\n'
        source = "$TARGET.dump" if from_s3 else self._file
        return (
            (fetch if from_s3 else "")
            + "initialise\nserve\naccepts\n"
            + 'export PGPORT="$SCRATCH_PORT"\n'
            + "psql -q -d postgres -c 'CREATE ROLE cad LOGIN' -c 'CREATE ROLE lifeboat LOGIN'\n"
            + "createdb --owner cad cad\n"
            + self._load.format(source=source)
        )


def rivals() -> tuple[Rival, ...]:
    return (
        PgBackRest(),
        Barman(),
        Dump(
            "pg_dump custom + zstd",
            dump="pg_dump -Fc -Z0 cad | zstd -q -T2",
            load='zstd -dqf -o "$TARGET.custom" "{source}"\npg_restore -j2 -d cad "$TARGET.custom"',
            suffix="zst",
        ),
        Dump(
            "pg_dump + gzip (the plan)",
            dump="pg_dump cad | gzip",
            load='gunzip -c "{source}" | psql -q -v ON_ERROR_STOP=1 -d cad >/dev/null',
            suffix="sql.gz",
        ),
    )
