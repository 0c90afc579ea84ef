"""The bootstrap card: printed while all is well, used when nothing is left."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from lifeboat.cli.common import ConfigOption, Exit, JsonOption, app, choose_orchestrator


@app.command()
def card(
    pdf: Annotated[
        Path | None, typer.Option("--pdf", help="Write it as one page of PDF to this file.")
    ] = None,
    paper: Annotated[Literal["a4", "letter"], typer.Option(help="Size of that page.")] = "a4",
    check_secret: Annotated[
        str,
        typer.Option(
            "--check-secret",
            help="A card's fingerprint: say whether LIFEBOAT_VAULT_PASSWORD is that secret.",
        ),
    ] = "",
    platform: Annotated[
        str, typer.Option("--platform", help="The card's platform, where there are no settings.")
    ] = "",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print what a blank machine needs to bring the platform back. It never shows a secret."""
    choose_orchestrator(without_prefect=True, with_prefect=False)
    from lifeboat.settings import load_settings

    if check_secret:
        _check(check_secret, platform or load_settings(config).platform)
        return
    from tasks.card import make_card

    made = make_card(load_settings(config))
    for gap in made.gaps:
        typer.echo(f"lifeboat: {gap}", err=True)
    if pdf:
        from lifeboat.tools import card_pdf

        pdf.write_bytes(card_pdf.render(made, paper=paper))
        typer.echo(str(pdf))
    elif as_json:
        typer.echo(made.model_dump_json(indent=2))
    else:
        typer.echo(made.text(), nl=False)


def _check(expected: str, platform: str) -> None:
    """Compare with the secret of the environment, or with what is typed where it is not set."""
    from lifeboat.core.secrecy import fingerprint
    from lifeboat.settings import optional_secret_of_environment

    name = "LIFEBOAT_VAULT_PASSWORD"
    secret = optional_secret_of_environment(name) or typer.prompt(name, hide_input=True)
    if fingerprint(secret, platform=platform) == expected.strip().lower():
        typer.echo(f"Right: this is the secret of the card of {platform}.")
        return
    typer.echo(
        f"WRONG: this is not the secret of the card of {platform}. Is it typed as it stands on the "
        "paper, without blanks at its ends? Is it the newest card, and this platform's?",
        err=True,
    )
    raise typer.Exit(Exit.NOT_GOOD)
