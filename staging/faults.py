"""The disasters of a drill: each one really breaks something and says exactly what it broke.

FAULTS holds them by the name that `lifeboat stack break NAME` takes. What is chosen depends on
the seed alone, so that a drill can be repeated.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import psycopg
from psycopg import sql

from lifeboat.core.errors import PreconditionError
from staging.platform.cad_platform.models import SUFFIX
from staging.site import Site

PAGE_BYTES = 8192


class Harm(StrEnum):
    DELETED = "deleted"
    TRUNCATED = "truncated"
    FLIPPED = "bit flipped"
    OVERWRITTEN = "overwritten"
    KILLED = "killed"
    DROPPED = "dropped"


@dataclass(frozen=True)
class Damage:
    """One thing that was harmed, named as its owner knows it."""

    name: str
    """A path relative to its asset, a table, or a process."""
    harm: Harm
    detail: str = ""


@dataclass(frozen=True)
class Broken:
    """What a fault did."""

    fault: str
    scenario: str
    """The plan's scenario that it belongs to: database, server, files or models."""
    damages: tuple[Damage, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(damage.name for damage in self.damages)


def kill_database(site: Site, *, seed: int = 0) -> Broken:
    """SIGKILL PostgreSQL, all of it. Its data are whole; a restart is enough."""
    return Broken("kill_database", "database", _kill_postgres(site))


def destroy_data_directory(site: Site, *, seed: int = 0) -> Broken:
    """SIGKILL PostgreSQL and remove its data directory."""
    killed = _kill_postgres(site)
    shutil.rmtree(site.database_directory)
    gone = Damage(site.database_directory.name, Harm.DELETED)
    return Broken("destroy_data_directory", "database", (*killed, gone))


def overwrite_pages(
    site: Site, *, seed: int = 0, table: str = "drawings", share: float = 0.2
) -> Broken:
    """Write garbage into pages of a table's file under the running server, then SIGKILL it.

    It starts again as if nothing were wrong, and fails where the table is read.
    """
    with psycopg.connect(site.dsn("cad"), autocommit=True) as connection:
        (relative,) = connection.execute("SELECT pg_relation_filepath(%s)", [table]).fetchone()
    with psycopg.connect(site.dsn("postgres"), autocommit=True) as connection:
        # Else the garbage is overwritten by what the server still holds in memory, and replay
        # brings every page back from its full image.
        connection.execute("CHECKPOINT")
    path = site.database_directory / relative
    rng = random.Random(seed)
    pages = choose_pages(path.stat().st_size // PAGE_BYTES, share=share, rng=rng)
    with path.open("r+b") as file:
        for page in pages:
            file.seek(page * PAGE_BYTES)
            file.write(rng.randbytes(PAGE_BYTES))
        file.flush()
        os.fsync(file.fileno())
    listed = ", ".join(map(str, pages[:20])) + (" ..." if len(pages) > 20 else "")
    damage = Damage(table, Harm.OVERWRITTEN, f"{len(pages)} pages of {relative}: {listed}")
    return Broken("overwrite_pages", "database", (damage, *_kill_postgres(site)))


def drop_table(site: Site, *, seed: int = 0, table: str = "drawing_index") -> Broken:
    """Drop a table, as a wrong migration does."""
    with psycopg.connect(site.dsn("cad"), autocommit=True) as connection:
        connection.execute(sql.SQL("DROP TABLE {} CASCADE").format(_identifier(table)))
    return Broken("drop_table", "database", (Damage(table, Harm.DROPPED),))


def damage_files(site: Site, *, seed: int = 0, share: float = 0.03) -> Broken:
    """Delete, truncate and flip bits in a share of the stored drawings, a third each."""
    there = sorted(path for path in site.files.rglob("*") if path.is_file())
    if not there:
        raise PreconditionError(f"Damaging files: there are none in {site.files}.")
    rng = random.Random(seed)
    names = [str(path.relative_to(site.files)) for path in there]
    damages = choose_damage(names, share=share, rng=rng)
    for damage in damages:
        harm(site.files / damage.name, damage.harm, rng=rng)
    return Broken("damage_files", "files", damages)


def delete_models(site: Site, *, seed: int = 0) -> Broken:
    """Delete every model."""
    models = _models(site)
    for path in models:
        path.unlink()
    return Broken("delete_models", "models", tuple(Damage(m.name, Harm.DELETED) for m in models))


def corrupt_models(site: Site, *, seed: int = 0) -> Broken:
    """Flip a bit in every other model and cut the others short; none keeps its content."""
    rng = random.Random(seed)
    damages = []
    for number, path in enumerate(_models(site)):
        damages.append(Damage(path.name, (Harm.FLIPPED, Harm.TRUNCATED)[number % 2]))
        harm(path, damages[-1].harm, rng=rng)
    return Broken("corrupt_models", "models", tuple(damages))


def lose_server(site: Site, *, seed: int = 0) -> Broken:
    """SIGKILL everything that runs on the server and remove its directory, backups included.

    What is left: S3, the git host, and the operator's one secret.
    """
    if not site.server.exists():
        raise PreconditionError(f"Losing the server: {site.server} is not there.")
    killed = site.lose_server()
    gone = Damage("server", Harm.DELETED, "every directory, /backups included")
    return Broken("lose_server", "server", (*(Damage(k, Harm.KILLED) for k in killed), gone))


FAULTS: dict[str, Callable[..., Broken]] = {
    fault.__name__: fault
    for fault in (
        kill_database,
        destroy_data_directory,
        overwrite_pages,
        drop_table,
        damage_files,
        delete_models,
        corrupt_models,
        lose_server,
    )
}


def break_site(site: Site, name: str, *, seed: int = 0, **options) -> Broken:
    """Let the fault of that name happen; dashes are as good as underscores."""
    fault = FAULTS.get(name.replace("-", "_"))
    if fault is None:
        raise PreconditionError(
            f"There is no fault {name!r}.", hint=f"There are: {', '.join(FAULTS)}."
        )
    return fault(site, seed=seed, **options)


def choose_damage(names: Sequence[str], *, share: float, rng: random.Random) -> tuple[Damage, ...]:
    """Choose a share of the names, at least one of each harm while there are names for it."""
    if not 0 < share <= 1:
        raise ValueError(f"share must be above 0 and at most 1, not {share}")
    harms = (Harm.DELETED, Harm.TRUNCATED, Harm.FLIPPED)
    count = min(len(names), max(len(harms), round(len(names) * share)))
    chosen = rng.sample(sorted(names), count)
    return tuple(Damage(name, harms[i % len(harms)]) for i, name in enumerate(chosen))


def choose_pages(count: int, *, share: float, rng: random.Random) -> tuple[int, ...]:
    """Choose a share of the pages, the first one always: a small table may have no other."""
    if count < 1:
        raise PreconditionError("Overwriting pages: the table is empty.")
    others = rng.sample(range(1, count), min(count - 1, round(count * share)))
    return tuple(sorted({0, *others}))


def harm(path: Path, how: Harm, *, rng: random.Random) -> None:
    """Harm one file, and keep its times: corruption does not announce itself.

    A truncated file loses at least a byte, and a flipped bit is always another value.
    """
    if how is Harm.DELETED:
        path.unlink()
        return
    seen = path.stat()
    with path.open("r+b") as file:
        if how is Harm.TRUNCATED:
            file.truncate(rng.randrange(seen.st_size))
        elif how is Harm.FLIPPED:
            place = rng.randrange(seen.st_size)
            file.seek(place)
            (byte,) = file.read(1)
            file.seek(place)
            file.write(bytes([byte ^ (1 << rng.randrange(8))]))
        else:
            raise ValueError(f"a file cannot be {how}")
        file.flush()
        os.fsync(file.fileno())
    os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))


def _kill_postgres(site: Site) -> tuple[Damage, ...]:
    """SIGKILL the server and all its processes, and wait until none is left."""
    killed = site.kill_database()
    if not killed:
        raise PreconditionError(f"Killing the database: none runs on {site.database_directory}.")
    return tuple(Damage(name, Harm.KILLED) for name in killed)


def _models(site: Site) -> list[Path]:
    found = sorted(site.models.glob(f"*{SUFFIX}"))
    if not found:
        raise PreconditionError(f"Breaking models: there are none in {site.models}.")
    return found


def _identifier(name: str) -> sql.Identifier:
    return sql.Identifier(name)
