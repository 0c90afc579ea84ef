"""The commands of incidents: open, acknowledge, update, close, look, and preview the messages."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from lifeboat.cli.common import ConfigOption, Exit, JsonOption, app, checked, choose_orchestrator

incident = typer.Typer(no_args_is_help=True, help="What happened, and who was told.")
app.add_typer(incident, name="incident")

IdArgument = Annotated[
    str, typer.Argument(help="Its id; without one, the newest that is not closed.")
]
ByOption = Annotated[str, typer.Option("--by", help="Your name, for the record.")]


def _alone(config):
    choose_orchestrator(without_prefect=True, with_prefect=False)
    from lifeboat.settings import load_settings

    return load_settings(config)


def _show(found, *, as_json: bool) -> None:
    if as_json:
        typer.echo(found.model_dump_json(indent=2))
        return
    typer.echo(found.in_words())
    for event in found.events:
        by = f"  [{event.by}]" if event.by else ""
        typer.echo(f"  {event.at:%Y-%m-%d %H:%M:%S}  {event.kind:12} {event.text}{by}")
    for message in found.not_reached:
        why = "; ".join(f"{c}: {e}" for c, e in message.not_taken.items()) or "no channel"
        typer.echo(f"  NOT REACHED: {message.to} ({message.moment}): {why}")


@incident.command("open")
def open_(
    title: Annotated[str, typer.Argument(help="What is wrong, in one sentence.")],
    scenario: Annotated[
        str, typer.Option(help="database, server, files, models; else unknown.")
    ] = "unknown",
    severity: Annotated[str, typer.Option(help="critical, major or minor.")] = "major",
    commander: Annotated[str, typer.Option(help="Who leads.")] = "",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Open an incident and tell people. A recovery opens one by itself."""
    settings = _alone(config)
    from flows.open_incident import open_incident
    from lifeboat.core.forms import OpenIncident

    request = checked(
        OpenIncident,
        title=title,
        scenario=scenario,
        severity=severity,
        commander=commander,
        config=str(settings.file),
    )
    _show(open_incident(request), as_json=as_json)


@incident.command()
def acknowledge(
    id: IdArgument = "", by: ByOption = "", config: ConfigOption = None, as_json: JsonOption = False
) -> None:
    """Say that you are on it, so that nobody else is woken."""
    _update(config, as_json, incident=id, by=by, acknowledge=True)


@incident.command()
def update(
    text: Annotated[str, typer.Argument(help="What to tell; empty tells nobody.")] = "",
    id: Annotated[str, typer.Option("--incident", help="Its id; else the newest open one.")] = "",
    by: ByOption = "",
    severity: Annotated[str, typer.Option(help="critical, major or minor.")] = "unchanged",
    commander: Annotated[str, typer.Option(help="Who leads from now on.")] = "",
    customers_too: Annotated[
        bool, typer.Option("--customers-too", help="Tell the same to customers.")
    ] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell people how it stands; change the severity or the commander."""
    _update(
        config,
        as_json,
        incident=id,
        by=by,
        text=text,
        severity=severity,
        commander=commander,
        customers_too=customers_too,
    )


def _update(config, as_json: bool, **values) -> None:
    settings = _alone(config)
    from flows.update_incident import update_incident
    from lifeboat.core.forms import UpdateIncident

    request = checked(UpdateIncident, config=str(settings.file), **values)
    _show(update_incident(request), as_json=as_json)


@incident.command()
def close(
    text: Annotated[str, typer.Argument(help="How it ended.")],
    id: Annotated[str, typer.Option("--incident", help="Its id; else the newest open one.")] = "",
    by: ByOption = "",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """It is over: close the incident and tell people."""
    settings = _alone(config)
    from flows.close_incident import close_incident
    from lifeboat.core.forms import CloseIncident

    request = checked(CloseIncident, config=str(settings.file), incident=id, by=by, text=text)
    _show(close_incident(request), as_json=as_json)


@incident.command("list")
def list_(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List the incidents of this host and of the bucket, the newest first."""
    settings = _alone(config)
    from tasks.people import incidents

    found = incidents.list_incidents(settings, in_bucket=True)
    if as_json:
        typer.echo(json.dumps([json.loads(i.model_dump_json(exclude={"events"})) for i in found]))
        return
    for one in found:
        typer.echo(one.in_words())


@incident.command()
def show(id: IdArgument = "", config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show an incident with its timeline, and who was not reached."""
    settings = _alone(config)
    from tasks.people import incidents

    _show(incidents.find(settings, id), as_json=as_json)


@incident.command()
def preview(
    severity: Annotated[str, typer.Option(help="critical, major or minor.")] = "critical",
    drill: Annotated[bool, typer.Option("--drill", help="As a drill tells it.")] = False,
    config: ConfigOption = None,
) -> None:
    """Show every message that an incident would send, and to whom; send nothing."""
    settings = _alone(config)
    from lifeboat.core.incident import Incident
    from tasks import clock
    from tasks.people import previews

    example = checked(
        Incident,
        id="preview",
        platform=settings.platform,
        title=f"{settings.platform}: (what is wrong)",
        severity=severity,
        drill=drill,
        commander=next((p.name for p in settings.people.incident_commander), ""),
        opened_at=clock.now(),
    )
    found = previews.preview(settings, example)
    for message in found:
        typer.echo(previews.in_words(message) + "\n")
    if not found:
        typer.echo("Nobody would be told: lifeboat.yaml names nobody; see docs/incidents.md.")


@incident.command()
def test(
    customers_too: Annotated[
        bool, typer.Option("--customers-too", help="By the ways to customers and the public too.")
    ] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send a message, marked as a test, by every channel of every person. Exit 4 unless all took.

    Taken is not read: each says with `lifeboat incident received NAME` that it came.
    """
    _communication_test(config, as_json, customers_too=customers_too)


@incident.command()
def received(
    name: Annotated[str, typer.Argument(help="Your name, as lifeboat.yaml has it.")],
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say that the newest test message has reached you."""
    _communication_test(config, as_json, received=name)


def _communication_test(config, as_json: bool, **values) -> None:
    settings = _alone(config)
    from flows.test_communication import test_communication
    from lifeboat.core.forms import CommunicationTest

    found = test_communication(checked(CommunicationTest, config=str(settings.file), **values))
    if as_json:
        typer.echo(found.model_dump_json(indent=2))
    else:
        for way, result in found.channels.items():
            typer.echo(f"{way}: {result}")
        typer.echo(f"It reached: {', '.join(found.acknowledged) or 'nobody has said so yet'}")
        typer.echo(f"Not answered: {', '.join(found.silent) or 'nobody is missing'}")
    if "received" not in values and any(told != "taken" for told in found.channels.values()):
        raise typer.Exit(Exit.NOT_GOOD)


@incident.command()
def escalate(config: ConfigOption = None) -> None:
    """Send what was held back and is due; tell the next people of what nobody has acknowledged."""
    settings = _alone(config)
    from tasks.people import communication

    for message in communication.send_held_back(settings):
        typer.echo(f"sent now, {message.moment} to {message.to}: {message.text.title}")
    for one in communication.escalate(settings):
        typer.echo(f"escalated {one.in_words()}")
