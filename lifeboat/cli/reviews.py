"""Commands for the tests and reviews that are held again and again, and for reminding people."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from lifeboat.cli.common import (
    ConfigOption,
    Exit,
    JsonOption,
    WithoutPrefect,
    WithPrefect,
    app,
    checked,
    choose_orchestrator,
)
from lifeboat.core.kinds import ReviewKind

review = typer.Typer(no_args_is_help=True, help="Hold one of the plan's tests and reviews.")
app.add_typer(review, name="review")

KindArgument = Annotated[ReviewKind, typer.Argument(help="Which; `lifeboat reviews` lists them.")]
_STYLES = {"fresh": "green", "due": "yellow", "overdue": "red", "failed": "red"}
_COLOURS = {"PASS": "green", "FAIL": "red"}


@app.command()
def reviews(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List the tests and reviews: when each was held, by whom, when it is due. Exit 4 if one is
    overdue or failed.
    """
    choose_orchestrator(without_prefect=True, with_prefect=False)
    from lifeboat.settings import load_settings
    from tasks.people.reviews import standings

    found = standings(load_settings(config))
    if as_json:
        typer.echo(json.dumps([one.model_dump(mode="json") for one in found], indent=2))
    else:
        _print(found)
    if any(one.status in ("overdue", "failed") for one in found):
        raise typer.Exit(Exit.NOT_GOOD)


def _print(found) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("review", "what", "status", "last", "due", "owner")
    for one in found:
        last = "never"
        if one.last:
            last = f"{one.last.at:%Y-%m-%d} {one.last.decision}, {one.last.by}"
        table.add_row(
            str(one.wanted.kind),
            one.title,
            f"[{_STYLES[one.status]}]{one.status}[/]",
            last,
            f"{one.due_at:%Y-%m-%d}",
            one.wanted.owner,
        )
    console = Console()
    Console(width=None if console.is_terminal else 130, highlight=False).print(table)


@review.command()
def show(kind: KindArgument, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show what a review is about, and what the machine knows of it already."""
    choose_orchestrator(without_prefect=True, with_prefect=False)
    from lifeboat.core.review_kinds import ABOUT
    from lifeboat.settings import load_settings
    from tasks.people.reviews import gather_evidence

    found = gather_evidence(load_settings(config), kind)
    if as_json:
        typer.echo(json.dumps([one.model_dump(mode="json") for one in found], indent=2))
        return
    about = ABOUT[kind]
    typer.echo(f"{about.title} ({about.how_often})\n{about.how}\n")
    _print_evidence(found)
    typer.echo(f"Sign it off: lifeboat review sign-off {kind} --by NAME --decision passed")


def _print_evidence(found) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    if not found:
        typer.echo("The machine knows nothing of it: a person does.")
        return
    table = Table("what", "status", "found")
    for one in found:
        colour = _COLOURS.get(one.status, "yellow")
        table.add_row(escape(one.what), f"[{colour}]{one.status}[/]", escape(one.found))
    console = Console()
    Console(width=None if console.is_terminal else 110, highlight=False).print(table)


@review.command("sign-off")
def sign_off(
    kind: KindArgument,
    by: Annotated[str, typer.Option("--by", help="Who signs off, as it goes on record.")],
    decision: Annotated[
        str, typer.Option("--decision", help="passed, failed, or 'passed with findings'.")
    ] = "passed",
    finding: Annotated[
        list[str] | None,
        typer.Option("--finding", help="What is to be changed; may be repeated."),
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    without_prefect: WithoutPrefect = False,
    with_prefect: WithPrefect = False,
) -> None:
    """Sign a test or review off: it goes on record, and each finding becomes a follow-up.

    What the machine saw fail can't be signed off as passed.
    """
    choose_orchestrator(without_prefect=without_prefect, with_prefect=with_prefect)
    from flows.review import review as flow
    from lifeboat.core.forms import Review

    request = checked(
        Review,
        config=str(config or ""),
        kind=kind,
        by=by,
        decision=decision,
        findings=finding or [],
    )
    signed = flow(request)
    if as_json:
        typer.echo(signed.model_dump_json(indent=2))
        return
    typer.echo(f"{signed.id}: {signed.decision}, signed off by {signed.by}")
    for told in signed.findings:
        typer.echo(f"  follow-up: {told}")


@app.command()
def remind(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Tell people what is due, and close what the records show to be done; the keeper does it."""
    choose_orchestrator(without_prefect=True, with_prefect=False)
    from flows.remind_people import remind_people
    from lifeboat.core.requests import Request

    found = remind_people(Request(config=str(config or "")))
    if as_json:
        typer.echo(json.dumps([one.model_dump(mode="json") for one in found], indent=2))
        return
    todo = [one for one in found if not one.is_done]
    typer.echo(f"{len(todo)} follow-ups are open, {len(found) - len(todo)} are done.")


@app.command()
def stability(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Look once whether the platform behaves as before; after a recovery exit 4 if it does not."""
    choose_orchestrator(without_prefect=True, with_prefect=False)
    from flows.watch_stability import watch_stability
    from lifeboat.core.requests import Request

    look = watch_stability(Request(config=str(config or "")))
    if look is None:
        typer.echo("A recovery is at work.")
        return
    if as_json:
        typer.echo(look.model_dump_json(indent=2))
    else:
        after = f" after {look.source}" if look.source else ", in everyday life"
        typer.echo(f"{len(look.sample.services)} services{after}: {look.in_words()}")
        for anomaly in look.anomalies:
            typer.echo(f"  log of {anomaly.service}: {anomaly.told}")
    if not look.good:
        raise typer.Exit(Exit.NOT_GOOD)
