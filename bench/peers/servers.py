"""Rivals for a whole lost server: what an operator backs up, and then types, one after another.

`back_up` puts everything into S3; `restore` brings code, configuration and data back below
`$SERVER`. Starting the services and the 18 checks come after it and are the same for all.
"""

from __future__ import annotations

from typing import Protocol

from bench import shell
from bench.peers.databases import Barman, PgBackRest
from bench.peers.files import ResticByHand, Tar
from bench.world import World

_CLONE = 'git clone -q --branch production "$ORIGIN" "$SERVER/app"\n'
_PLACES = 'mkdir -p "$SERVER"/{run,logs,config,backups} "$SERVER"/data/{redis,files,models}\n'
_CONFIGURATION = "lifeboat.yaml .env.production config"
# S3 keeps no modes, and Lifeboat's checks read no secrets that everybody can read.
_PRIVATE = 'chmod 600 "$SERVER/.env.production"\n'
# With nobody who receives WAL no commit would ever end.
_WITHOUT_RECEIVER = (
    'echo "synchronous_standby_names = \'\'" >>"$SERVER/data/postgres/postgresql.auto.conf"\n'
)


class ServerRival(Protocol):
    """One sequence of commands against the loss of the server."""

    name: str
    note: str

    def version(self) -> str | None: ...

    def prepare(self, world: World) -> None: ...

    def archive(self) -> str:
        """What puts the segment `$1` of WAL into its archive; empty if it keeps none."""

    def back_up(self, *, first: bool) -> str: ...

    def restore(self) -> str: ...


class ThePlan:
    """The commands of the disaster recovery plan, with rclone for `aws s3`."""

    name = "the plan's own commands"
    note = "what was written since the last dump is lost."

    def version(self) -> str | None:
        return Tar("", "gzip").version()

    def prepare(self, world: World) -> None:
        (world.peers / "plan").mkdir()

    def archive(self) -> str:
        return ""

    def back_up(self, *, first: bool) -> str:
        return (
            'mkdir -p "$PEERS/plan/configs"\ncd "$SERVER"\n'
            f'cp -a {_CONFIGURATION} data/postgres/*.conf "$PEERS/plan/configs/"\n'
            '{ pg_dumpall --globals-only; } >"$PEERS/plan/configs/globals.sql"\n'
            'pg_dump cad | gzip >"$PEERS/plan/cad.sql.gz"\n'
            'tar -C data -czf "$PEERS/plan/files.tar.gz" files\n'
            'rclone sync "$PEERS/plan" "peers:$BUCKET/plan"\n'
            'rclone sync --checksum data/models "peers:$BUCKET/plan-models"'
        )

    def restore(self) -> str:
        return (
            f"{_PLACES}{_CLONE}"
            'rclone copy "peers:$BUCKET/plan/configs" "$SERVER/config/saved"\n'
            f'cd "$SERVER/config/saved"\ncp -a {_CONFIGURATION} "$SERVER/"\n{_PRIVATE}'
            'export TARGET="$SERVER/data/postgres"\ninitialise\n'
            'cp -f *.conf "$TARGET/"\n: >"$TARGET/postgresql.auto.conf"\n'
            '"$PYTHON" -m bench.start_services postgres\n'
            'rclone copyto "peers:$BUCKET/plan/cad.sql.gz" "$SERVER/backups/cad.sql.gz"\n'
            "psql -q -d postgres -f globals.sql >/dev/null 2>&1 || true\n"
            "createdb --owner cad cad\n"
            'gunzip -c "$SERVER/backups/cad.sql.gz" | '
            "psql -q -v ON_ERROR_STOP=1 -d cad >/dev/null\n"
            'rclone copy "peers:$BUCKET/plan/files.tar.gz" "$SERVER/backups"\n'
            'tar -xzf "$SERVER/backups/files.tar.gz" -C "$SERVER/data"\n'
            'rclone copy "peers:$BUCKET/plan-models" "$SERVER/data/models"'
        )


class _WithRestic:
    """Files, models and configuration by restic, into one repository in S3."""

    _repository = '-r "s3:$S3/$BUCKET/server-$WHO"'

    def _back_up_files(self, *, first: bool) -> str:
        init = f'"$RESTIC" {self._repository} init -q\n' if first else ""
        places = "lifeboat.yaml .env.production config data/files data/models"
        return (
            f'export WHO={self.name.split()[0]}\n{init}cd "$SERVER"\n'
            f'"$RESTIC" {self._repository} backup -q {places}'
        )

    def _restore_files(self) -> str:
        return (
            f"export WHO={self.name.split()[0]}\n"
            f'"$RESTIC" {self._repository} restore -q latest --target "$SERVER" --overwrite always'
        )

    name: str


class PgBackRestAndRestic(_WithRestic, PgBackRest):
    name = "pgBackRest + restic by hand"
    note = ""

    def version(self) -> str | None:
        database, files = PgBackRest().version(), ResticByHand().version()
        return f"{database}, {files}" if database and files else None

    def back_up(self, *, first: bool) -> str:
        kind = "full" if first else "incr"
        return f"{self._command} --type={kind} --repo=2 backup\n" + self._back_up_files(first=first)

    def restore(self, *, from_s3: bool = True) -> str:
        return (
            f'{_PLACES}{_CLONE}mkdir -m 700 "$SERVER/data/postgres"\n'
            f"{self._command} --repo=2 restore\n{_WITHOUT_RECEIVER}{self._restore_files()}"
        )


class BarmanCloudAndRestic(_WithRestic, Barman):
    name = "barman-cloud + restic by hand"
    note = ""

    def version(self) -> str | None:
        database, files = Barman().version(), ResticByHand().version()
        return f"{database}, {files}" if database and files else None

    def prepare(self, world: World) -> None:
        # The server that replays is not the operator's shell, so what it runs knows the keys.
        known = world.environment_of_commands()
        exports = "".join(
            f"export {name}={shell.quoted(known[name])}\n"
            for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "S3", "BUCKET")
        )
        script = world.peers / "barman-wal.sh"
        script.write_text(
            f"#!/bin/bash\n{exports}exec barman-cloud-wal-restore {self._cloud} "
            's3://$BUCKET/barman main "$1" "$2"\n'
        )
        script.chmod(0o700)

    def back_up(self, *, first: bool) -> str:
        return (
            f"barman-cloud-backup {self._cloud} --immediate-checkpoint -d postgres "
            '"s3://$BUCKET/barman" main\n' + self._back_up_files(first=first)
        )

    def restore(self, *, from_s3: bool = True) -> str:
        return (
            f'{_PLACES}{_CLONE}mkdir -m 700 "$SERVER/data/postgres"\n'
            + self._fetch_base("$SERVER/data/postgres")
            + "echo \"restore_command = '$PEERS/barman-wal.sh %f %p'\" "
            '>>"$SERVER/data/postgres/postgresql.auto.conf"\n'
            'touch "$SERVER/data/postgres/recovery.signal"\n'
            f"{_WITHOUT_RECEIVER}{self._restore_files()}"
        )


class Floor:
    """Nothing but the bytes: neither compressed, nor encrypted, nor verified, all side by side."""

    name = "floor: plain S3 download"
    note = (
        "the same bytes as plain objects, fetched side by side and put where they belong; "
        "PostgreSQL replays the WAL as for everybody else."
    )

    def version(self) -> str | None:
        return shell.version("rclone", "version")

    def prepare(self, world: World) -> None:
        (world.peers / "floor").mkdir()

    def archive(self) -> str:
        return 'rclone copyto "$1" "peers:$BUCKET/floor-wal/$(basename "$1")"'

    def back_up(self, *, first: bool) -> str:
        syncs = "\n".join(
            f'rclone sync --checksum --transfers 8 "{here}" "peers:$BUCKET/{there}"'
            for here, there in (
                ("$SERVER/config", "floor/config"),
                ("$SERVER/data/files", "floor/data/files"),
                ("$SERVER/data/models", "floor/data/models"),
            )
        )
        return (
            'rm -rf "$PEERS/floor/base"\nrclone purge "peers:$BUCKET/floor-wal" || true\n'
            '"$PG/pg_basebackup" -D "$PEERS/floor/base" -Ft -X none -c fast --no-manifest\n'
            'rclone copy "$PEERS/floor/base" "peers:$BUCKET/floor-base"\n'
            'rm -rf "$PEERS/floor/base"\ncd "$SERVER"\n'
            'rclone copy . --include "/lifeboat.yaml" --include "/.env.production" '
            f'"peers:$BUCKET/floor"\n{syncs}'
        )

    def restore(self) -> str:
        return (
            f"{_PLACES}{_CLONE}"
            'data="$SERVER/data/postgres"\nmkdir -m 700 "$data"\n'
            'rclone copy --transfers 8 "peers:$BUCKET/floor" "$SERVER" & files=$!\n'
            'rclone copy --transfers 4 "peers:$BUCKET/floor-wal" "$SERVER/run/wal" & wal=$!\n'
            'rclone cat "peers:$BUCKET/floor-base/base.tar" | '
            'tar --no-same-owner -C "$data" -xf -\n'
            'wait "$wal"\nmv "$SERVER"/run/wal/* "$data/pg_wal/"\n'
            'touch "$data/recovery.signal"\n'
            'echo "restore_command = \'false\'" >>"$data/postgresql.auto.conf"\n'
            f'{_WITHOUT_RECEIVER}wait "$files"\n{_PRIVATE}'
        )


def server_rivals() -> tuple[ServerRival, ...]:
    return (PgBackRestAndRestic(), BarmanCloudAndRestic(), ThePlan(), Floor())
