"""Commands about recovery points: list, hold, accept, prove and prune them."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Annotated

import typer

from lifeboat.cli.common import (
    ConfigOption,
    DryRun,
    JsonOption,
    WithoutPrefect,
    WithPrefect,
    app,
    checked,
    choose_orchestrator,
    show_result,
)
from lifeboat.core.kinds import Asset

if TYPE_CHECKING:
    from lifeboat.core.points import RecoveryPoint


@app.command()
def points(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List the recovery points of every asset, newest first."""
    choose_orchestrator(without_prefect=True, with_prefect=False)
    from lifeboat.settings import load_settings
    from tasks import catalogue

    found = catalogue.list_points(load_settings(config))
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
        "suspicion": point.suspicion,
        "set": point.set_id,
    }


def _print_points(found: tuple[RecoveryPoint, ...]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from lifeboat.core.plan import age_in_words

    now = datetime.now(timezone.utc)
    table = Table("point", "age", "MB", "tiers", "state", "set")
    for point in found:
        state = f"verified {age_in_words(now - point.verified_at)} ago" if point.verified_at else ""
        state += " (here, not in s3)" if point.verified_here_only else ""
        table.add_row(
            point.id,
            age_in_words(now - point.taken_at),
            f"{point.bytes / 1e6:.1f}",
            " ".join(point.tiers),
            "[red]suspicious[/]" if point.suspicion else state or "never verified",
            point.set_id,
        )
    console = Console()
    console.print(table if found else "There is no recovery point yet: `lifeboat backup database`.")
    for point in found:
        if point.suspicion:
            console.print(f"{point.id} is not restored from: {escape(point.suspicion)}.")


@app.command()
def prune(
    config: ConfigOption = None,
    dry_run: DryRun = False,
    without_prefect: WithoutPrefect = False,
    with_prefect: WithPrefect = False,
) -> None:
    """Remove the recovery points that the policy lets go; says of each one why."""
    choose_orchestrator(without_prefect=without_prefect, with_prefect=with_prefect)
    from flows.prune_backups import prune_backups
    from lifeboat.core.requests import Prune

    for pruning in prune_backups(Prune(config=str(config or ""), dry_run=dry_run)):
        typer.echo(pruning.in_words())


@app.command("test-restore")
def test_restore(
    asset: Annotated[
        list[Asset] | None, typer.Option("--asset", help="Only this asset; may be repeated.")
    ] = None,
    point: Annotated[
        str,
        typer.Option(
            "--point", help="This recovery point, or set; default: the newest of each asset."
        ),
    ] = "",
    sample: Annotated[
        float,
        typer.Option(
            "--sample",
            help="Read only so many percent of files and models, restore none, mark none verified.",
        ),
    ] = 100,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    without_prefect: WithoutPrefect = False,
    with_prefect: WithPrefect = False,
) -> None:
    """Prove recovery points: restore them from S3 on the side, start and question them."""
    choose_orchestrator(without_prefect=without_prefect, with_prefect=with_prefect)
    from flows.test_restore import test_restore
    from lifeboat.core.requests import RestoreTest

    request = checked(
        RestoreTest,
        config=str(config or ""),
        assets=asset or list(Asset),
        point=point,
        sample_percent=sample,
    )
    show_result(test_restore(request), as_json=as_json)


@app.command()
def hold(
    point: Annotated[str, typer.Argument(help="Name of a recovery point, from `lifeboat points`.")],
    why: Annotated[str, typer.Option("--why", help="For whoever finds it years later.")],
    config: ConfigOption = None,
) -> None:
    """Keep a recovery point, whatever its age, until it is released."""
    choose_orchestrator(without_prefect=True, with_prefect=False)
    from lifeboat.settings import load_settings
    from tasks import retention

    retention.hold(load_settings(config), point, why=why)


@app.command()
def release(
    point: Annotated[str, typer.Argument(help="Name of a recovery point that is on hold.")],
    config: ConfigOption = None,
) -> None:
    """Let retention decide on a held recovery point again."""
    choose_orchestrator(without_prefect=True, with_prefect=False)
    from lifeboat.settings import load_settings
    from tasks import retention

    retention.release(load_settings(config), point)


@app.command()
def accept(
    point: Annotated[str, typer.Argument(help="Name of a recovery point that is suspicious.")],
    why: Annotated[str, typer.Option("--why", help="For whoever asks why it was trusted.")],
    config: ConfigOption = None,
) -> None:
    """Trust a suspicious recovery point: the store has really changed that much.

    It may be restored from again, and what comes after is compared with it.
    """
    choose_orchestrator(without_prefect=True, with_prefect=False)
    from lifeboat.settings import load_settings
    from tasks import suspicion

    for left in suspicion.accept(load_settings(config), point, why=why):
        typer.echo(f"{left.id} is newer and still suspicious: {left.suspicion}.")
