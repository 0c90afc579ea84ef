"""Commands around the staging platform: start it, break it, and the drill."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from lifeboat.cli.common import (
    Exit,
    JsonOption,
    WithoutPrefect,
    WithPrefect,
    app,
    checked,
    choose_orchestrator,
)

stack = typer.Typer(no_args_is_help=True, help="The staging platform on this machine.")
app.add_typer(stack, name="stack")

RootOption = Annotated[
    Path, typer.Option("--root", help="Directory of the staging platform, all of it.")
]
KindOption = Annotated[
    Literal["process", "compose"],
    typer.Option("--stack", help="What it runs as: plain processes, or containers."),
]
_ROOT = Path(".lifeboat/staging")


@app.command()
def drill(
    scenario: Annotated[
        list[str] | None,
        typer.Option("--scenario", help="database, files, models or server; may be repeated."),
    ] = None,
    kind: KindOption = "process",
    root: RootOption = _ROOT,
    reports: Annotated[Path, typer.Option(help="Where the report is left.")] = Path(
        ".lifeboat/drills"
    ),
    scale: Annotated[float, typer.Option(help="Size of the sample data.")] = 1.0,
    writes_per_second: Annotated[float, typer.Option(help="What the load generator does.")] = 10.0,
    server_load_seconds: Annotated[
        float, typer.Option(help="How long users work before the server is lost.")
    ] = 70.0,
    seed: Annotated[int, typer.Option(help="Chooses what is damaged.")] = 0,
    kill: Annotated[
        Literal["nothing", "orchestrator"],
        typer.Option(help="Kill Prefect's server too, in the middle of each recovery."),
    ] = "nothing",
    keep: Annotated[bool, typer.Option("--keep", help="Leave the platform running.")] = False,
    record_in: Annotated[
        Path | None,
        typer.Option(help="lifeboat.yaml of the platform in whose vault the result is recorded."),
    ] = None,
    channel: Annotated[
        list[str] | None,
        typer.Option(help="Apprise address that the drill's messages go to; may be repeated."),
    ] = None,
    as_json: JsonOption = False,
    without_prefect: WithoutPrefect = False,
    with_prefect: WithPrefect = False,
) -> None:
    """Break the staging platform in all four ways, get it back, prove and measure it.

    Exit 0 only when every scenario recovered, verified, and kept the objectives.
    """
    choose_orchestrator(without_prefect=without_prefect, with_prefect=with_prefect)
    from flows.drill import drill as flow
    from lifeboat.core.forms import Drill
    from lifeboat.tools import report

    if kill == "orchestrator" and not scenario:
        scenario = ["database", "files", "models"]
    chosen = {"scenarios": scenario} if scenario else {}
    request = checked(
        Drill,
        stack=kind,
        root=str(root),
        reports=str(reports),
        scale=scale,
        writes_per_second=writes_per_second,
        server_load_seconds=server_load_seconds,
        seed=seed,
        kill=kill,
        keep=keep,
        channels=channel or [],
        record_in=str(record_in.absolute()) if record_in else "",
        **chosen,
    )
    found = flow(request)
    if as_json:
        typer.echo(found.model_dump_json(indent=2))
    else:
        from rich.console import Console

        console = Console()
        console.print(report.result_table(found))
        console.print(report.phase_table(found))
        where = reports / found.id
        console.print(f"{'Passed' if found.passed else 'NOT passed'}: {where}/report.html")
    if not found.passed:
        raise typer.Exit(Exit.NOT_GOOD)


@stack.command()
def up(
    root: RootOption = _ROOT,
    scale: Annotated[float, typer.Option(help="Size of the sample data, when it is made.")] = 1.0,
    kind: KindOption = "process",
) -> None:
    """Make the staging platform where there is none, start it, and say how to reach it."""
    choose_orchestrator(without_prefect=True, with_prefect=False)
    from staging.compose_site import new_site, site_at

    site = site_at(root)
    if not site.exists:
        site = new_site(root, kind=kind)
        site.create(scale=scale)
    site.start()
    site.stack.start(["wal-receiver"])
    typer.echo(f"backend   {site.base_urls.backend}")
    typer.echo(f"ai        {site.base_urls.ai}")
    typer.echo(f"settings  {site.settings_path}")
    typer.echo(f"secrets   {site.secret_path}")
    typer.echo("\nTo use it from this shell:")
    typer.echo(
        f"  set -a; . {site.secret_path}; set +a; export LIFEBOAT_CONFIG={site.settings_path}"
    )


@stack.command()
def down(
    root: RootOption = _ROOT,
    remove: Annotated[bool, typer.Option("--remove", help="Remove it from the disk too.")] = False,
) -> None:
    """Stop the staging platform and its S3 store."""
    from staging.compose_site import site_at

    site = site_at(root)
    if remove:
        site.destroy()
    else:
        site.stop()


@stack.command()
def status(root: RootOption = _ROOT, as_json: JsonOption = False) -> None:
    """Show the services of the staging platform."""
    from staging.compose_site import site_at

    found = site_at(root).status()
    if as_json:
        told = [
            {"name": s.name, "state": s.state, "pid": s.pid, "memory_bytes": s.memory_bytes}
            for s in found
        ]
        typer.echo(json.dumps(told, indent=2))
        return
    for service in found:
        typer.echo(f"{service.name:14} {service.state:9} {service.pid or '':>7}  {service.detail}")


@stack.command("break")
def break_(
    fault: Annotated[str, typer.Argument(help="Name of the fault; `list` shows them.")],
    root: RootOption = _ROOT,
    seed: Annotated[int, typer.Option(help="Chooses what is damaged.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Let a disaster happen to the staging platform."""
    from staging import faults
    from staging.compose_site import site_at

    if fault == "list":
        for name, act in faults.FAULTS.items():
            typer.echo(f"{name.replace('_', '-'):24} {(act.__doc__ or '').splitlines()[0]}")
        return
    done = faults.break_site(site_at(root), fault, seed=seed)
    if as_json:
        damages = [{"name": d.name, "harm": d.harm, "detail": d.detail} for d in done.damages]
        typer.echo(json.dumps({"fault": done.fault, "damages": damages}, indent=2))
        return
    for damage in done.damages:
        typer.echo(f"{damage.harm}: {damage.name} {damage.detail}".rstrip())
