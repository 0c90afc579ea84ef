"""The platform that the benchmark breaks: with a PostgreSQL that the peers know, and an S3 by TLS.

pgBackRest of Debian 12 knows PostgreSQL up to 15 and speaks to S3 by TLS only, so that all have
Debian's PostgreSQL 15, and the one store answers on two ports.
"""

from __future__ import annotations

import dataclasses
import random
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import psycopg

from lifeboat.core.errors import PreconditionError
from lifeboat.settings import find_restic
from staging.making import write, write_certificate
from staging.platform.cad_platform.models import SUFFIX, load_model, make_model
from staging.platform.cad_platform.storage import Store
from staging.ports import choose_free
from staging.s3 import S3Server
from staging.seed import KNOWN_QUERY, Seeded
from staging.site import BUCKET, Site

ROOT = Path(__file__).parents[1]
PROGRAMS = Path("/usr/lib/postgresql/15/bin")
PEERS_BUCKET = "peers"
_ROWS_PER_MB = 4096  # of a model
_WAL_ROWS = 535  # of one statement, 1 MB of WAL


@dataclass(frozen=True)
class Scale:
    """How much there is of everything."""

    database_mb: int
    wal_mb: int
    files: int
    models_mb: int
    file_bytes: int = 100_000  # of one drawing, on average

    def in_words(self) -> str:
        return (
            f"database {self.database_mb} MB, WAL {self.wal_mb} MB, {self.files} files of "
            f"{self.file_bytes / 1000:g} kB on average, models {self.models_mb} MB"
        )


class TlsS3Server(S3Server):
    """The staging platform's object store, which answers by TLS too."""

    def __init__(self, *words: object, tls_port: int, certificates: Path) -> None:
        super().__init__(*words)  # type: ignore[arg-type]
        self.tls_port = tls_port
        self._certificates = certificates

    def _more_options(self) -> dict[str, object]:
        return {
            # A volume that is full holds up for seconds whoever writes next, a lock or a backup.
            "master.volumeSizeLimitMB": 2000,
            "s3.port.https": self.tls_port,
            "s3.cert.file": self._certificates / "cad.pem",
            "s3.key.file": self._certificates / "cad.key",
        }


class World(Site):
    """A staging platform of any size, with room for its rivals' backups beside it."""

    locale_options: tuple[str, ...] = ()

    def __init__(self, root: Path, scale: Scale) -> None:
        super().__init__(root / "site")
        if not (PROGRAMS / "initdb").exists():
            raise PreconditionError(
                f"Making the benchmark's platform: there is no {PROGRAMS}.",
                hint="apt-get install postgresql-15",
            )
        self.scale = scale
        self.peers = root.absolute() / "peers"
        self._tls_port, self.scratch_port = choose_free(2)

    @property
    def postgres_programs(self) -> Path:
        return PROGRAMS

    @property
    def s3(self) -> TlsS3Server:
        secret = self.secrets()
        key, hidden = secret["AWS_ACCESS_KEY_ID"], secret["AWS_SECRET_ACCESS_KEY"]
        return TlsS3Server(
            *(self.root / "s3", self.ports, key, hidden),
            tls_port=self._tls_port,
            certificates=self.peers,
        )

    @property
    def socket_directory(self) -> Path:
        """Where pgBackRest finds the server: it knows no other way on one machine."""
        return self.peers / "socket"

    @property
    def archive_script(self) -> Path:
        # pgBackRest wants to see its own name in archive_command.
        return self.peers / "pgbackrest-and-others.sh"

    def make(self) -> None:
        """Make the platform and start it, with everything in it that the scale asks for."""
        self.peers.mkdir(parents=True)
        self.socket_directory.mkdir()
        write_certificate(self.peers)
        write(self.archive_script, "#!/bin/sh\nexit 0\n")
        self.archive_script.chmod(0o755)
        self.create(scale=0.1, database_bytes=self.scale.database_mb << 20)
        self.s3.create_bucket(PEERS_BUCKET)
        self._open_to_peers()
        self.start()
        self.stack.start(["wal-receiver"])

    def _environment(self) -> dict[str, object]:
        return super()._environment() | {"POSTGRES_PROGRAMS": str(PROGRAMS)}

    def _open_to_peers(self) -> None:
        """Let pgBackRest and barman in, and let nothing but the size decide when a checkpoint is.

        A checkpoint between base copy and disaster would shorten the replay of some and not of
        others.
        """
        with (self.database_directory / "postgresql.conf").open("a") as file:
            file.write(
                f"\nunix_socket_directories = '{self.socket_directory}'\n"
                "archive_mode = on\n"
                f"archive_command = '{self.archive_script} %p'\n"
                "shared_buffers = 256MB\n"
                "max_wal_size = 8GB\n"
                "checkpoint_timeout = 1h\n"
                "max_slot_wal_keep_size = 16GB\n"
            )
        with (self.database_directory / "pg_hba.conf").open("a") as file:
            file.write(
                "local all postgres trust\nhost replication postgres 127.0.0.1/32 scram-sha-256\n"
            )

    def _seed(self, store: Store, scale: float, database_bytes: int | None) -> Seeded:
        seeded = super()._seed(store, scale, database_bytes)
        add_files(self.files / "more", self.scale.files, self.scale.file_bytes)
        answers: dict[str, str] = {}
        for path in sorted(self.models.glob(f"*{SUFFIX}")):
            labels = load_model(path).labels
            rows = self.scale.models_mb * _ROWS_PER_MB // len(seeded.models)
            path.write_bytes(make_model(path.stem, tuple(labels), seed=len(answers), rows=rows))
            answers[path.stem] = load_model(path).answer(KNOWN_QUERY).label
        return dataclasses.replace(seeded, known_answers=answers)

    def write_wal(self, megabytes: int) -> None:
        """Let the database write so much WAL, in rows that no compression makes smaller.

        In the place of those of the last time, so that the database is as large in every round.
        """
        with psycopg.connect(self.dsn(), autocommit=True) as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS load (number bigint, content bytea)")
            connection.execute("ALTER TABLE load ALTER content SET STORAGE EXTERNAL")
            connection.execute("TRUNCATE load")
            chance = random.Random()
            for _ in range(megabytes):
                rows = [(number, chance.randbytes(1900)) for number in range(_WAL_ROWS)]
                with connection.cursor() as cursor, connection.transaction():
                    copy_text = "COPY load (number, content) FROM STDIN (FORMAT binary)"
                    with cursor.copy(copy_text) as copy:
                        copy.set_types(["int8", "bytea"])
                        for row in rows:
                            copy.write_row(row)

    @cached_property
    def _known(self) -> Mapping[str, str]:
        """The secrets as they were at first: an operator still has them when the server is lost."""
        return self.secrets()

    def environment_of_commands(self) -> Mapping[str, str]:
        """What an operator has in the shell: the secrets, and where everything is."""
        known = self._known
        return {
            **self.environment(),
            "LIFEBOAT_CONFIG": str(self.settings_path),
            "PGPASSWORD": known["POSTGRES_ADMIN_PASSWORD"],
            "PGHOST": "127.0.0.1",
            "PGPORT": str(self.ports.postgres),
            "PGUSER": "postgres",
            "PG": str(PROGRAMS),
            "S3": self.s3.endpoint,
            "BUCKET": PEERS_BUCKET,
            "LIFEBOAT_BUCKET": BUCKET,
            "LIFEBOAT_ENDPOINT": self.s3.endpoint,
            "RESTIC": find_restic(),
            "RESTIC_PASSWORD": "bench",
            "RESTIC_CACHE_DIR": str(self.peers / "cache" / "restic"),
            "BORG_PASSPHRASE": "bench",
            "BORG_BASE_DIR": str(self.peers / "borg-home"),
            "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
            "SERVER": str(self.server),
            "ORIGIN": str(self.origin),
            "PYTHON": sys.executable,
            "PYTHONPATH": str(ROOT),
            "PEERS": str(self.peers),
            "SCRATCH_PORT": str(self.scratch_port),
            "AWS_DEFAULT_REGION": "us-east-1",
            "RCLONE_CONFIG_PEERS_TYPE": "s3",
            "RCLONE_CONFIG_PEERS_PROVIDER": "Other",
            "RCLONE_CONFIG_PEERS_ENDPOINT": self.s3.endpoint,
            "RCLONE_CONFIG_PEERS_ACCESS_KEY_ID": known["AWS_ACCESS_KEY_ID"],
            "RCLONE_CONFIG_PEERS_SECRET_ACCESS_KEY": known["AWS_SECRET_ACCESS_KEY"],
        }


def add_files(directory: Path, count: int, mean_bytes: int) -> None:
    """Drawings of all sizes in directories of a hundred, always the same for the same count."""
    chance = random.Random(count)
    for number in range(count):
        path = directory / f"{number // 100:05}" / f"{number:07}.step"
        if number % 100 == 0:
            path.parent.mkdir(parents=True, exist_ok=True)
        # Half of a drawing is text that compresses, as of those that people make.
        size = int(chance.expovariate(1 / mean_bytes))
        head = b"#%d=CARTESIAN_POINT('',(0.,0.,0.));\n" % number
        path.write_bytes(head * (size // 2 // len(head) + 1) + chance.randbytes(size // 2))
