"""What a machine that was made for a lost server runs, besides the recovery itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lifeboat.cli.common import app, choose_orchestrator


@app.command()
def fetch_secrets(
    source: Annotated[str, typer.Argument(help="ssm:NAME or secretsmanager:NAME.")],
    region: Annotated[str, typer.Option("--region", help="Its AWS region.")],
    to: Annotated[Path, typer.Option("--to", help="The file, which only its owner may read.")],
) -> None:
    """Put the vault's password and the bucket's key out of AWS into a file; show nothing."""
    choose_orchestrator(without_prefect=True, with_prefect=False)
    from tasks import provision

    provision.fetch_secrets(source, region=region, file=to)
    typer.echo(str(to))
