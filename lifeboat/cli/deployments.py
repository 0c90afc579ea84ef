"""Commands around the Prefect server: what is deployed there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lifeboat.cli.common import ConfigOption, JsonOption, app

if TYPE_CHECKING:
    from staging.orchestrator import Orchestrator
    from staging.site import Site

RootOption = Annotated[
    Path, typer.Option("--root", help="Directory of the staging platform and of Prefect.")
]
_ROOT = Path(".lifeboat/up")


@app.command()
def deploy(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Make the Prefect server have what is declared for this platform, and no more.

    That is prefect.yaml, and deployments/automations.yaml for the channels of lifeboat.yaml.

    Needs PREFECT_API_URL. Checks first, so that a mistake changes nothing; safe to run again.
    """
    from lifeboat.settings import load_settings
    from tasks.prefect_server import deployment

    applied = deployment.apply(load_settings(config))
    if as_json:
        typer.echo(applied.model_dump_json(indent=2))
        return
    for what, names in (
        ("made work pool", applied.pools_made),
        ("deployed", applied.deployed),
        ("removed", applied.removed),
        ("tells of", applied.automations.changed),
        ("does not tell any more of", applied.automations.removed),
    ):
        for name in names:
            typer.echo(f"{what} {name}")
    told = applied.automations
    if not (told.changed or told.unchanged):
        typer.echo(
            "The server tells nobody of a dead worker or a missing backup: alarms.channels in "
            "lifeboat.yaml names no channel."
        )
    if told.forgetful:
        typer.echo(
            "The server will tell nobody what was missed while it was away itself: start it with "
            "PREFECT_SERVER_EVENTS_EXPIRED_BUCKET_BUFFER=P30D."
        )


@app.command()
def reconcile(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """End runs that Prefect takes for running and that are dead; show those that it has not seen.

    Needs PREFECT_API_URL. A worker of this host does it when it starts.
    """
    from tasks import orchestration

    orchestration.run_alone()
    from flows.reconcile_runs import reconcile_runs
    from lifeboat.core.requests import Request

    done = reconcile_runs(Request(config=str(config or "")))
    typer.echo(done.model_dump_json(indent=2) if as_json else done.in_words())


@app.command()
def up(
    root: RootOption = _ROOT,
    scale: Annotated[float, typer.Option(help="Size of the sample data, when it is made.")] = 1.0,
) -> None:
    """Bring the staging platform up with Prefect: server, workers, deployments, UI."""
    from lifeboat.settings import give_secrets, load_settings
    from staging.site import Site

    site = Site(root / "platform")
    if not site.exists:
        site.create(scale=scale)
    site.start()
    site.stack.start(["wal-receiver"])
    orchestrator = _orchestrator(root, site)
    if not orchestrator.exists:
        orchestrator.create()
    orchestrator.protect(site.settings_path)
    orchestrator.start_server()
    give_secrets({**site.environment(), **orchestrator.environment()})
    # Prefect reads its settings when it is imported, so only now.
    from tasks.prefect_server import deployment

    applied = deployment.apply(load_settings(site.settings_path))
    orchestrator.start_workers()
    typer.echo(f"Prefect   {orchestrator.url}   ({len(applied.deployed)} deployments)")
    typer.echo(f"password  {orchestrator.password}")
    typer.echo(f"backend   {site.base_urls.backend}")
    typer.echo(f"settings  {site.settings_path}")
    typer.echo("`make down` ends it.")


@app.command()
def down(
    root: RootOption = _ROOT,
    remove: Annotated[bool, typer.Option("--remove", help="Remove it from the disk too.")] = False,
) -> None:
    """End what `up` started."""
    from staging.site import Site

    site = Site(root / "platform")
    for part in (_orchestrator(root, site), site):
        part.destroy() if remove else part.stop()


def _orchestrator(root: Path, site: Site) -> Orchestrator:
    from lifeboat.settings import CONFIG_VARIABLE
    from staging.orchestrator import Orchestrator

    environment = {**site.environment(), CONFIG_VARIABLE: str(site.settings_path)}
    directory = root / "prefect"
    return Orchestrator(directory, platform=site.platform, environment=environment)
