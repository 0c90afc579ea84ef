"""Commands that recover and verify: the four scenarios of the plan, and its checklist."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lifeboat.cli.common import (
    ApproveOption,
    ConfigOption,
    DryRun,
    Exit,
    JsonOption,
    WithoutPrefect,
    WithPrefect,
    answer_beforehand,
    app,
    checked,
    choose_orchestrator,
    show_result,
)
from lifeboat.core.kinds import Rung

if TYPE_CHECKING:
    from lifeboat.core.checks import Verdict

recover = typer.Typer(no_args_is_help=True, help="Bring the platform back: the plan's scenarios.")
app.add_typer(recover, name="recover")

FromOption = Annotated[
    Literal["cheapest", "local", "s3"],
    typer.Option("--from", help="Which copies: the cheapest that works, this host's, or S3's."),
]
BecauseOption = Annotated[
    str, typer.Option("--because", help="Why, for who approves it and for the record.")
]
DateOption = Annotated[
    str, typer.Option("--date", help="Repair from the newest point of this day (UTC), YYYY-MM-DD.")
]
PointOption = Annotated[
    str, typer.Option("--point", help="Repair from this point; `lifeboat points` lists them.")
]
LatestOption = Annotated[bool, typer.Option("--latest", help="From the newest point: the default.")]


@recover.command()
def database(
    config: ConfigOption = None,
    to_time: Annotated[
        str, typer.Option("--to-time", help="A moment, e.g. 2026-01-31T03:15:00Z; else the newest.")
    ] = "",
    source: FromOption = "cheapest",
    rungs: Annotated[
        list[Rung] | None, typer.Option("--rung", help="Only these cures; may be repeated.")
    ] = None,
    because: BecauseOption = "",
    dry_run: DryRun = False,
    approve: ApproveOption = "",
    as_json: JsonOption = False,
    without_prefect: WithoutPrefect = False,
    with_prefect: WithPrefect = False,
) -> None:
    """Scenario 1: the database server failed, or its data is wrong since a moment."""
    choose_orchestrator(without_prefect=without_prefect, with_prefect=with_prefect)
    from flows.recover_database import recover_database
    from lifeboat.core.forms import RecoverDatabase

    request = checked(
        RecoverDatabase,
        config=str(config or ""),
        to_time=to_time,
        source=source,
        rungs=rungs or list(Rung),
        because=because,
        dry_run=dry_run,
    )
    _answer_beforehand(approve, config)
    show_result(recover_database(request), as_json=as_json)


@recover.command()
def files(
    config: ConfigOption = None,
    date: DateOption = "",
    point: PointOption = "",
    latest: LatestOption = False,
    source: FromOption = "cheapest",
    because: BecauseOption = "",
    dry_run: DryRun = False,
    approve: ApproveOption = "",
    as_json: JsonOption = False,
    without_prefect: WithoutPrefect = False,
    with_prefect: WithPrefect = False,
) -> None:
    """Scenario 3: the file storage is corrupt."""
    choose_orchestrator(without_prefect=without_prefect, with_prefect=with_prefect)
    from flows.recover_files import recover_files
    from lifeboat.core.forms import RecoverFiles

    request = checked(
        RecoverFiles,
        config=str(config or ""),
        date=_date(date, latest),
        point=point,
        source=source,
        because=because,
        dry_run=dry_run,
    )
    _answer_beforehand(approve, config)
    show_result(recover_files(request), as_json=as_json)


@recover.command()
def orchestrator(
    config: ConfigOption = None,
    point: PointOption = "",
    source: FromOption = "cheapest",
    because: BecauseOption = "",
    dry_run: DryRun = False,
    approve: ApproveOption = "",
    as_json: JsonOption = False,
) -> None:
    """Prefect's own database is lost: run history, deployments and automations come back.

    Needs a PostgreSQL that answers, and no Prefect server.
    """
    choose_orchestrator(without_prefect=True, with_prefect=False)
    from flows.recover_orchestrator import recover_orchestrator
    from lifeboat.core.forms import RecoverOrchestrator

    request = checked(
        RecoverOrchestrator,
        config=str(config or ""),
        point=point,
        source=source,
        because=because,
        dry_run=dry_run,
    )
    _answer_beforehand(approve, config)
    show_result(recover_orchestrator(request), as_json=as_json)


@recover.command()
def models(
    config: ConfigOption = None,
    date: DateOption = "",
    point: PointOption = "",
    latest: LatestOption = False,
    source: FromOption = "cheapest",
    because: BecauseOption = "",
    dry_run: DryRun = False,
    approve: ApproveOption = "",
    as_json: JsonOption = False,
    without_prefect: WithoutPrefect = False,
    with_prefect: WithPrefect = False,
) -> None:
    """Scenario 4: AI models are lost."""
    choose_orchestrator(without_prefect=without_prefect, with_prefect=with_prefect)
    from flows.recover_models import recover_models
    from lifeboat.core.forms import RecoverModels

    request = checked(
        RecoverModels,
        config=str(config or ""),
        date=_date(date, latest),
        point=point,
        source=source,
        because=because,
        dry_run=dry_run,
    )
    _answer_beforehand(approve, config)
    show_result(recover_models(request), as_json=as_json)


@recover.command()
def server(
    bucket: Annotated[
        str,
        typer.Option("--bucket", envvar="LIFEBOAT_BUCKET", help="The bucket that holds the vault."),
    ],
    into: Annotated[
        Path | None,
        typer.Option("--into", help="Directory for the platform; empty, or not there yet."),
    ] = None,
    endpoint: Annotated[
        str,
        typer.Option(
            "--endpoint",
            envvar="LIFEBOAT_ENDPOINT",
            help="URL of the S3 service; else Amazon's own.",
        ),
    ] = "",
    region: Annotated[
        str, typer.Option("--region", envvar="LIFEBOAT_REGION", help="The bucket's region.")
    ] = "us-east-1",
    prefix: Annotated[
        str, typer.Option("--prefix", envvar="LIFEBOAT_PREFIX", help="Place inside the bucket.")
    ] = "",
    trust: Annotated[
        list[str] | None,
        typer.Option("--trust", help="A suspicious point that is right; may be repeated."),
    ] = None,
    rehearsal: Annotated[
        bool,
        typer.Option(
            "--rehearsal", help="A drill while the platform goes on: write nothing to the bucket."
        ),
    ] = False,
    report: Annotated[
        str, typer.Option("--report", help="Say in the bucket how far it is, for this incident.")
    ] = "",
    where: Annotated[
        Literal["existing", "ec2"],
        typer.Option("--provision", help="existing: on this machine. ec2: on one that is made."),
    ] = "existing",
    incident: Annotated[
        str, typer.Option("--incident", help="ec2: one machine for each; else by the day.")
    ] = "",
    on_failure: Annotated[
        Literal["keep", "end"],
        typer.Option("--on-failure", help="ec2: what becomes of a machine that did not recover."),
    ] = "keep",
    aws_profile: Annotated[
        str, typer.Option("--aws-profile", help="ec2: whose key; else the environment's.")
    ] = "",
    dry_run: DryRun = False,
    approve: ApproveOption = "",
    as_json: JsonOption = False,
    without_prefect: WithoutPrefect = False,
    with_prefect: WithPrefect = False,
) -> None:
    """Scenario 2: the whole server is lost. Run it on the new machine, or let one be made.

    Needs the bucket and, in the environment, LIFEBOAT_VAULT_PASSWORD and the S3 key; nothing else.
    With `--provision ec2` run it anywhere; it needs a key of EC2 besides.
    """
    from lifeboat.core.forms import ProvisionServer, RecoverServer

    told = {
        "bucket": bucket,
        "endpoint": endpoint,
        "region": region,
        "prefix": prefix,
        "dry_run": dry_run,
        "platform": approve,
    }
    choose_orchestrator(without_prefect=without_prefect, with_prefect=with_prefect)
    if where == "ec2":
        if rehearsal or report or trust:
            raise typer.BadParameter("--provision ec2 takes no --rehearsal, --report or --trust")
        from flows.provision_server import provision_server

        request = checked(
            ProvisionServer,
            into=str(into or ""),
            incident=incident,
            on_failure=on_failure,
            aws_profile=aws_profile,
            **told,
        )
        answer_beforehand(approve, approve)
        show_result(provision_server(request), as_json=as_json)
        return
    if into is None:
        raise typer.BadParameter("--into is needed: the directory for the platform")
    from flows.recover_server import recover_server

    request = checked(
        RecoverServer,
        into=str(into.absolute()),
        trust=trust or [],
        rehearsal=rehearsal,
        report=report,
        **told,
    )
    answer_beforehand(approve, approve)
    show_result(recover_server(request), as_json=as_json)


@recover.command()
def bucket(
    as_of: Annotated[
        str,
        typer.Option("--as-of", help="Last moment before the attack; else what the versions tell."),
    ] = "",
    bucket: Annotated[
        str, typer.Option("--bucket", help="The bucket; else the one of lifeboat.yaml.")
    ] = "",
    endpoint: Annotated[
        str, typer.Option("--endpoint", help="URL of the S3 service; else Amazon's own.")
    ] = "",
    region: Annotated[str, typer.Option("--region", help="The bucket's region.")] = "us-east-1",
    prefix: Annotated[str, typer.Option("--prefix", help="Place inside the bucket.")] = "",
    hide_newer: Annotated[
        bool,
        typer.Option("--hide-newer", help="Hide what came later into restic's repositories."),
    ] = False,
    config: ConfigOption = None,
    dry_run: DryRun = False,
    approve: Annotated[
        str,
        typer.Option(
            "--approve", help="The platform, with --bucket the bucket: approves the plan."
        ),
    ] = "",
    as_json: JsonOption = False,
    without_prefect: WithoutPrefect = False,
    with_prefect: WithPrefect = False,
) -> None:
    """The bucket's objects were deleted or overwritten; their old versions remain.

    With --bucket it needs only the S3 key in the environment. `--dry-run` shows hour by hour what
    was destroyed. No version is removed, and what is whole is not touched.
    """
    choose_orchestrator(without_prefect=without_prefect, with_prefect=with_prefect)
    from flows.recover_bucket import recover_bucket
    from lifeboat.core.forms import RecoverBucket

    request = checked(
        RecoverBucket,
        config=str(config or ""),
        bucket=bucket,
        endpoint=endpoint,
        region=region,
        prefix=prefix,
        as_of=as_of,
        hide_newer=hide_newer,
        dry_run=dry_run,
    )
    if bucket:
        answer_beforehand(approve, bucket)
    else:
        _answer_beforehand(approve, config)
    show_result(recover_bucket(request), as_json=as_json)


@app.command()
def verify(
    config: ConfigOption = None,
    as_json: JsonOption = False,
    without_prefect: WithoutPrefect = False,
    with_prefect: WithPrefect = False,
) -> None:
    """Run the plan's verification checklist against the live platform. Exit 4 unless all pass."""
    choose_orchestrator(without_prefect=without_prefect, with_prefect=with_prefect)
    from flows.verify_recovery import verify_recovery
    from lifeboat.core.forms import Verify

    verdict = verify_recovery(Verify(config=str(config or "")))
    if as_json:
        told = {"passed": verdict.passed, "total": verdict.total, "good": verdict.good}
        checks = [check.model_dump(mode="json") for check in verdict.checks]
        typer.echo(json.dumps({**told, "checks": checks}, indent=2))
    else:
        _print_verdict(verdict)
    if not verdict.good:
        raise typer.Exit(Exit.NOT_GOOD)


@app.command()
def check(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Say whether everything in lifeboat.yaml can be reached and is of the right version."""
    choose_orchestrator(without_prefect=True, with_prefect=False)
    from lifeboat.settings import load_settings
    from tasks import preflight

    verdict = preflight.look(load_settings(config))
    if as_json:
        checks = [check.model_dump(mode="json") for check in verdict.checks]
        typer.echo(json.dumps({"good": verdict.good, "checks": checks}, indent=2))
    else:
        _print_checks([("Configured", [c.name for c in verdict.checks])], verdict)
    if not verdict.good:
        raise typer.Exit(Exit.REFUSED)


def _print_verdict(verdict: Verdict) -> None:
    from lifeboat.core.checks import CHECKLIST

    _print_checks(CHECKLIST.items(), verdict)


def _print_checks(sections, verdict: Verdict) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from lifeboat.core.checks import NOT_PASSED, Status

    colours = {
        Status.PASS: "green",
        Status.FAIL: "red",
        Status.UNKNOWN: "yellow",
        Status.NONE: "dim",
    }
    by_name = {check.name: check for check in verdict.checks}
    table = Table("check", "status", "evidence", "s")
    for section, names in sections:
        table.add_section()
        table.add_row(f"[bold]{section}[/]")
        for name in names:
            found = by_name[name]
            status = f"[{colours[found.status]}]{found.status}[/]"
            table.add_row(name, status, escape(found.evidence), f"{found.seconds:.1f}")
    console = Console()
    console.print(table)
    console.print(f"{verdict.passed} of {verdict.total} passed")
    # Once more and last, where eyes are, and whole: a narrow table cuts its words.
    for check in verdict.checks:
        if check.status in NOT_PASSED:
            typer.echo(f"{check.name}: {check.status}: {check.evidence}")


def _answer_beforehand(approve: str, config: Path | None) -> None:
    from lifeboat.settings import load_settings

    if approve:
        answer_beforehand(approve, load_settings(config).platform)


def _date(date: str, latest: bool) -> str:
    if date and latest:
        raise typer.BadParameter("--date and --latest exclude each other")
    return date
