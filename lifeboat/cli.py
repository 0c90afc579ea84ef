"""The same procedures from a shell, with a Prefect server or without.

Exit codes: 0 done; 1 a defect of Lifeboat; 2 wrong use; 3 refused, nothing was touched;
4 the work was done and its result is not good; 5 failed; 6 another run holds the lock;
7 not approved; 130 interrupted.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from datetime import datetime, timezone
from enum import IntEnum, StrEnum
from pathlib import Path
from typing import Annotated

import typer

from lifeboat import __version__
from lifeboat.core.errors import (
    LockBusy,
    NotApproved,
    PreconditionError,
    RecoveryError,
    VerificationFailed,
)
from lifeboat.core.plan import age_in_words
from lifeboat.core.points import RecoveryPoint


class Exit(IntEnum):
    """What the exit code of every command means."""

    DONE = 0
    DEFECT = 1
    USAGE = 2
    REFUSED = 3
    NOT_GOOD = 4
    FAILED = 5
    BUSY = 6
    NOT_APPROVED = 7
    INTERRUPTED = 130


# The first that fits counts, so the narrower stand before the wider.
_EXIT_OF: tuple[tuple[type[BaseException], Exit], ...] = (
    (LockBusy, Exit.BUSY),
    (NotApproved, Exit.NOT_APPROVED),
    (PreconditionError, Exit.REFUSED),
    (VerificationFailed, Exit.NOT_GOOD),
    (RecoveryError, Exit.FAILED),
    (KeyboardInterrupt, Exit.INTERRUPTED),
)

app = typer.Typer(
    name="lifeboat",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Disaster recovery for platforms that run on Docker Compose.",
)

ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="lifeboat.yaml; else LIFEBOAT_CONFIG, else here.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for another program.")]
WithoutPrefect = Annotated[
    bool, typer.Option("--without-prefect", help="Do not import Prefect; same procedure.")
]


class BackedUp(StrEnum):
    """What `lifeboat backup` can be asked for today."""

    FILES = "files"
    MODELS = "models"
    CONFIG = "config"


@app.callback()
def _common(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show each command.")] = False,
) -> None:
    logging.basicConfig(
        stream=sys.stderr,
        format="%(asctime)s %(levelname)-7s %(message)s",
        datefmt="%H:%M:%S",
        level=logging.WARNING,
    )
    logging.getLogger("lifeboat").setLevel(logging.DEBUG if verbose else logging.INFO)


@app.command()
def version() -> None:
    """Print Lifeboat's version."""
    typer.echo(__version__)


@app.command()
def prepare(config: ConfigOption = None) -> None:
    """Make the vault's directories, repositories and WAL key where they are missing."""
    from lifeboat.settings import load_settings
    from tasks import orchestration

    orchestration.run_alone()
    from tasks import vault

    vault.prepare_vault(load_settings(config))


@app.command()
def backup(
    asset: Annotated[BackedUp, typer.Argument(help="What to back up.")],
    config: ConfigOption = None,
    without_prefect: WithoutPrefect = False,
) -> None:
    """Back one asset up into the local vault and S3."""
    from tasks import orchestration

    if without_prefect:
        orchestration.run_alone()
    from lifeboat.core.requests import Backup

    request = Backup(config=str(config or ""))
    facts = _backup_flow(asset)(request)
    typer.echo(facts.point)


def _backup_flow(asset: BackedUp) -> Callable:
    # Imported one at a time: each import of a flow costs start-up time.
    if asset is BackedUp.FILES:
        from flows.backup_files import backup_files as flow
    elif asset is BackedUp.MODELS:
        from flows.backup_models import backup_models as flow
    else:
        from flows.backup_config import backup_config as flow
    return flow


@app.command()
def points(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List the recovery points of every asset, newest first."""
    from lifeboat.settings import load_settings
    from tasks import orchestration

    orchestration.run_alone()
    from tasks import vault

    found = vault.list_points(load_settings(config))
    if as_json:
        typer.echo(json.dumps([_point_as_json(point) for point in found], indent=2))
    else:
        _print_points(found)


def _point_as_json(point: RecoveryPoint) -> dict[str, object]:
    return {
        "asset": point.asset,
        "id": point.id,
        "taken_at": point.taken_at.isoformat(),
        "tiers": list(point.tiers),
        "bytes": point.bytes,
        "verified_at": point.verified_at.isoformat() if point.verified_at else None,
    }


def _print_points(found: tuple[RecoveryPoint, ...]) -> None:
    from rich.console import Console
    from rich.table import Table

    now = datetime.now(timezone.utc)
    table = Table("asset", "point", "age", "MB", "tiers", "verified")
    for point in found:
        verified = age_in_words(now - point.verified_at) + " ago" if point.verified_at else "never"
        table.add_row(
            str(point.asset),
            point.id,
            age_in_words(now - point.taken_at),
            f"{point.bytes / 1e6:.1f}",
            " ".join(point.tiers),
            verified,
        )
    Console().print(table if found else "There is no recovery point yet: `lifeboat backup files`.")


def exit_code_of(error: BaseException) -> Exit:
    """Given what ended a command, give its exit code."""
    return next((code for kind, code in _EXIT_OF if isinstance(error, kind)), Exit.DEFECT)


def main() -> None:
    """Run the command line; every error that Lifeboat knows ends in a sentence, not a traceback."""
    try:
        app(standalone_mode=True)
    except (RecoveryError, KeyboardInterrupt) as error:
        typer.echo(f"lifeboat: {error or 'interrupted'}", err=True)
        sys.exit(exit_code_of(error))
