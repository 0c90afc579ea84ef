"""How much would be lost with the server, at every second of a load? As the bucket alone shows it.

    python -m bench.exposure_under_load --seconds 600

Makes a staging platform, lets pgbench write to its database while the keeper ships with its default
settings, and asks the bucket once a second until when it holds everything that was written.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import psycopg
from rich.console import Console
from rich.table import Table

from lifeboat.core.marks import Kind, Sighting
from lifeboat.core.points import Tier
from lifeboat.core.requests import Backup
from lifeboat.core.wal import PARTIAL, Position
from lifeboat.settings import Settings, give_secrets, load_settings
from lifeboat.tools import process
from staging import processes
from staging.site import Site, postgres_bin
from tasks import clock, marks, orchestration, places
from tasks.wal import wal_continuity, wal_witness

PROMISED_SECONDS = 90.0
# Every twentieth transaction writes some 100 kB, so that segments fill.
_BULK = "INSERT INTO bulk SELECT md5(random()::text) FROM generate_series(1, 1000);"
_LOOK_SECONDS = 30.0  # between looks at whether the bucket bears the sighting out


@dataclass
class Seen:
    """What was seen from outside, once a second."""

    exposures: list[float] = field(default_factory=list)
    uploads: dict[tuple[str, float], int] = field(default_factory=dict)  # (key, when): bytes
    borne_out: list[bool] = field(default_factory=list)


def measure(root: Path, arguments: argparse.Namespace) -> tuple[Seen, dict[str, float]]:
    """Give what was seen, and figures of load and keeper."""
    site = Site(root / "site")
    site.create(scale=0.1)
    try:
        text = site.settings_path.read_text()
        text = text.replace("keep: {wal_seconds: 10, files_seconds: 30}\n", "")
        text = text.replace("  wal: synchronous", f"  wal: {arguments.wal}")
        site.settings_path.write_text(text)
        give_secrets(site.environment())
        settings = load_settings(site.settings_path)
        assert settings.keep.wal_seconds == type(settings.keep)().wal_seconds
        site.start()
        _back_everything_up(site)
        _pgbench(
            site, root, "--initialize", "--quiet", "--scale", str(arguments.scale)
        ).child.wait()
        site.stack.start(["keeper"])
        return _watch(site, settings, root, arguments)
    finally:
        site.destroy()


def _back_everything_up(site: Site) -> None:
    from flows.backup_config import backup_config
    from flows.backup_database import backup_database
    from flows.backup_files import backup_files
    from flows.backup_models import backup_models

    site.stack.start(["wal-receiver"])
    for backup in (backup_config, backup_files, backup_models, backup_database):
        backup(Backup(config=str(site.settings_path)))


def _pgbench(site: Site, root: Path, *words: str) -> process.Daemon:
    return process.start(
        [
            *(postgres_bin() / "pgbench", "--host", "127.0.0.1", "--username", "cad"),
            *("--port", str(site.ports.postgres), *words, "cad"),
        ],
        doing="Writing to the database",
        env={"PGPASSWORD": site.secrets()["POSTGRES_PASSWORD"]},
        log_path=root / "pgbench.log",
    )


def _watch(
    site: Site, settings: Settings, root: Path, arguments: argparse.Namespace
) -> tuple[Seen, dict[str, float]]:
    with psycopg.connect(site.dsn("cad")) as connection:
        connection.execute("CREATE TABLE bulk (filler text)")
    script = root / "bulk.sql"
    script.write_text(_BULK)
    words = (
        *("--client", "4", "--time", str(arguments.seconds), "--rate", str(arguments.rate)),
        *("--builtin", "tpcb-like@19", "--file", f"{script}@1"),
    )
    with _pgbench(site, root, "--no-vacuum", *words):
        seen, first, began = Seen(), _position(site), time.monotonic()
        keeper = _keeper(site)
        cpu = _cpu_seconds(keeper)
        looked = began
        while time.monotonic() - began < arguments.seconds:
            _sample(settings, seen)
            if time.monotonic() - looked > _LOOK_SECONDS:
                looked = time.monotonic()
                seen.borne_out.append(_is_borne_out(settings))
            time.sleep(1)
        seconds = time.monotonic() - began
        figures = {
            "WAL MB/s": (_position(site) - first) / seconds / 1e6,
            "uploaded MB/s": sum(seen.uploads.values()) / seconds / 1e6,
            "of it partial MB/s": sum(
                size for (key, _), size in seen.uploads.items() if PARTIAL in key
            )
            / seconds
            / 1e6,
            "CPU of the keeper %": 100 * (_cpu_seconds(keeper) - cpu) / seconds,
        }
    return seen, figures


def _sample(settings: Settings, seen: Seen) -> None:
    seen.exposures.append((clock.now() - _sighting(settings).as_of).total_seconds())
    for item in places.bucket(settings).list(places.WAL_PREFIX):
        seen.uploads.setdefault((item.key, item.modified_at.timestamp()), item.bytes)


def _sighting(settings: Settings) -> Sighting:
    found = marks.read(settings, Kind.SIGHTINGS, wal_witness.SUBJECT, from_bucket=True)
    assert isinstance(found, Sighting)
    return found


def _is_borne_out(settings: Settings) -> bool:
    """Whether a recovery from the bucket alone would get as far as the sighting says."""
    at = Position.parse(_sighting(settings).holds)
    found = wal_continuity.look(settings, Tier.S3)
    return found.holds(system_identifier=at.system_identifier, timeline=at.timeline, lsn=at.lsn)


def _position(site: Site) -> int:
    with psycopg.connect(site.dsn("postgres")) as connection:
        row = connection.execute("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn").fetchone()
    assert row
    return int(row[0])


def _keeper(site: Site) -> psutil.Process:
    return next(p for p in processes.processes_of(site.server) if "keep" in p.cmdline())


def _cpu_seconds(keeper: psutil.Process) -> float:
    """Its own, without the programs that back the other assets up."""
    told = keeper.cpu_times()
    return told.user + told.system


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.exposure_under_load", description=__doc__
    )
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--rate", type=int, default=300, help="transactions a second")
    parser.add_argument("--scale", type=int, default=10, help="of pgbench's tables")
    parser.add_argument("--wal", choices=("synchronous", "asynchronous"), default="synchronous")
    arguments = parser.parse_args()
    orchestration.run_alone()
    with tempfile.TemporaryDirectory(prefix="lifeboat-bench-", dir=".lifeboat") as directory:
        seen, figures = measure(Path(directory), arguments)
        told = (Path(directory) / "pgbench.log").read_text().splitlines()
    percentiles = statistics.quantiles(seen.exposures, n=100, method="inclusive")
    console = Console()
    table = Table("exposure s", "p50", "p90", "p99", "max", "samples", title=f"WAL {arguments.wal}")
    chosen = (percentiles[49], percentiles[89], percentiles[98], max(seen.exposures))
    table.add_row("server loss", *(f"{value:.1f}" for value in chosen), str(len(seen.exposures)))
    console.print(table)
    for name, value in figures.items():
        console.print(f"{name}: {value:.2f}")
    console.print(f"borne out by the bucket: {sum(seen.borne_out)} of {len(seen.borne_out)} looks")
    console.print("\n".join(line for line in told if "tps" in line or "processed" in line))
    if percentiles[98] > PROMISED_SECONDS or not all(seen.borne_out):
        sys.exit(f"Promised: p99 of at most {PROMISED_SECONDS:g} s, borne out by the bucket.")


if __name__ == "__main__":
    main()
