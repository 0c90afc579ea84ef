"""The same procedures from a shell, with a Prefect server or without.

Exit codes: 0 done; 1 a defect of Lifeboat; 2 wrong use; 3 refused, nothing was touched;
4 the work was done and its result is not good; 5 failed; 6 another run holds the lock;
7 not approved; 130 interrupted.
"""

from __future__ import annotations

import sys

import typer

from lifeboat.cli.common import Exit, app, exit_code_of
from lifeboat.core.errors import RecoveryError

# Each import adds its commands to the app.
from lifeboat.cli import backups, points, watch, alarms, diagnosis  # noqa: F401, I001 isort: skip
from lifeboat.cli import recoveries, card, deployments, drills  # noqa: F401, I001 isort: skip
from lifeboat.cli import followups, plan, readiness, reviews  # noqa: F401, I001 isort: skip
from lifeboat.cli import provision, services, incidents, pages, health  # noqa: F401, I001 isort: skip

__all__ = ["Exit", "app", "exit_code_of", "main"]


def main() -> None:
    """Run the command line; every error that Lifeboat knows ends in a sentence, not a traceback."""
    try:
        app(standalone_mode=True)
    except (RecoveryError, KeyboardInterrupt) as error:
        typer.echo(f"lifeboat: {error or 'interrupted'}", err=True)
        sys.exit(exit_code_of(error))
