"""The command that writes the disaster recovery plan of this platform."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from lifeboat.cli.common import ConfigOption, app, choose_orchestrator


@app.command()
def plan(
    pdf: Annotated[
        Path | None, typer.Option("--pdf", help="Write it as PDF to this file, for the safe.")
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option("--markdown", help="Write it as Markdown to this file.")
    ] = None,
    paper: Annotated[Literal["a4", "letter"], typer.Option(help="Size of the PDF's pages.")] = "a4",
    config: ConfigOption = None,
) -> None:
    """Write the disaster recovery plan of this platform: real names, schedules, measured times.

    Without an option it is printed as Markdown. Both vaults hold the newest one too.
    """
    choose_orchestrator(without_prefect=True, with_prefect=False)
    from lifeboat.core import disaster_plan
    from lifeboat.settings import load_settings
    from tasks.people.disaster_plan import write

    blocks = write(load_settings(config))
    text = disaster_plan.markdown(blocks)
    if pdf:
        from lifeboat.tools import plan_pdf

        pdf.write_bytes(plan_pdf.render(blocks, title=blocks[0].text, paper=paper))
        typer.echo(str(pdf))
    if markdown:
        markdown.write_text(text, encoding="utf-8")
        typer.echo(str(markdown))
    if not pdf and not markdown:
        typer.echo(text, nl=False)
