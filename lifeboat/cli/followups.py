"""Commands for what is done after a recovery: list it, do it, put it off, give it away, add."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from lifeboat.cli.common import ConfigOption, JsonOption, app, checked, choose_orchestrator

followups = typer.Typer(
    invoke_without_command=True, help="What is to be done after a recovery, until it is done."
)
app.add_typer(followups, name="followups")

ByOption = Annotated[str, typer.Option("--by", help="Your name, as it goes on record.")]
NoteOption = Annotated[str, typer.Option("--note", help="What was done or found.")]
IdArgument = Annotated[str, typer.Argument(help="Its name, or how that begins.")]
_STYLES = {"overdue": "red", "due": "yellow", "open": "default", "done": "green"}


@followups.callback()
def list_followups(
    context: typer.Context,
    everything: Annotated[bool, typer.Option("--all", help="Also what is done.")] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """List what is to be done after a recovery, the most urgent first."""
    if context.invoked_subcommand:
        return
    choose_orchestrator(without_prefect=True, with_prefect=False)
    from lifeboat.core.followups import by_urgency
    from lifeboat.settings import load_settings
    from tasks import clock
    from tasks.people.followups import read_all

    now = clock.now()
    found = by_urgency(read_all(load_settings(config)), now)
    shown = [one for one in found if everything or not one.is_done]
    if as_json:
        told = [{**one.model_dump(mode="json"), "status": one.status(now)} for one in shown]
        typer.echo(json.dumps(told, indent=2))
        return
    if not shown:
        typer.echo("Nothing is to be done." + (f" {len(found)} are done: --all." if found else ""))
        return
    _print(shown, now)


def _print(shown, now) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("follow-up", "status", "until (UTC)", "what, and how", "owner")
    for one in shown:
        status = one.status(now)
        told = escape(one.title) + (" [dim](rehearsal)[/]" if one.rehearsal else "")
        told += "".join(f"\n[dim]{escape(note)}[/]" for note in one.notes[-2:])
        if not one.is_done and one.how:
            told += f"\n[dim]-> {escape(one.how)}[/]"
        until = f"{one.done_at or one.wanted_at:%Y-%m-%d %H:%M}"
        by = one.done_by if one.is_done else one.owner
        table.add_row(one.id, f"[{_STYLES[status]}]{status}[/]", until, told, escape(by))
    console = Console()
    console = Console(width=None if console.is_terminal else 120, highlight=False)
    console.print(table)


def _act(config, as_json: bool, **told) -> None:
    choose_orchestrator(without_prefect=True, with_prefect=False)
    from flows.follow_up import follow_up
    from lifeboat.core.forms import FollowUpDeed

    done = follow_up(checked(FollowUpDeed, config=str(config or ""), **told))
    if as_json:
        typer.echo(done.model_dump_json(indent=2))
    elif done.is_done:
        typer.echo(f"{done.id}: done by {done.done_by}")
    else:
        typer.echo(f"{done.id}: {done.owner}, until {done.wanted_at:%Y-%m-%d %H:%M} UTC")


@followups.command()
def done(
    follow_up: IdArgument,
    by: ByOption,
    note: NoteOption = "",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say that it was done."""
    _act(config, as_json, deed="done", follow_up=follow_up, by=by, note=note)


@followups.command()
def reopen(
    follow_up: IdArgument,
    by: ByOption,
    note: NoteOption = "",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say that it was not done after all."""
    _act(config, as_json, deed="reopen", follow_up=follow_up, by=by, note=note)


@followups.command()
def note(
    follow_up: IdArgument,
    text: Annotated[str, typer.Argument(help="How far it is.")],
    by: ByOption,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write down how far it is."""
    _act(config, as_json, deed="note", follow_up=follow_up, by=by, note=text)


@followups.command()
def snooze(
    follow_up: IdArgument,
    by: ByOption,
    days: Annotated[float, typer.Option("--days", help="Remind again in so many days.")] = 7,
    note: NoteOption = "",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put it off: until then nobody is reminded."""
    _act(config, as_json, deed="put off", follow_up=follow_up, by=by, note=note, days=days)


@followups.command()
def assign(
    follow_up: IdArgument,
    owner: Annotated[str, typer.Argument(help="Who is to do it: a person or a role.")],
    by: ByOption,
    note: NoteOption = "",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give it to somebody."""
    _act(config, as_json, deed="assign", follow_up=follow_up, by=by, note=note, owner=owner)


@followups.command()
def add(
    title: Annotated[str, typer.Argument(help="What is to be done, in one line.")],
    by: ByOption,
    owner: Annotated[str, typer.Option("--owner", help="Who is to do it.")] = "",
    days: Annotated[float, typer.Option("--days", help="In how many days.")] = 7,
    note: Annotated[str, typer.Option("--note", help="How it is to be done.")] = "",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add one, e.g. what a post-incident review decided."""
    _act(config, as_json, deed="add", title=title, by=by, owner=owner, days=days, note=note)
