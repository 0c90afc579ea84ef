"""What all commands share: options, exit codes, and whether they run under Prefect."""

from __future__ import annotations

import logging
import signal
import sys
import urllib.error
import urllib.request
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lifeboat.core.errors import (
    LockBusy,
    NotApproved,
    PreconditionError,
    RecoveryError,
    VerificationFailed,
)

if TYPE_CHECKING:
    from lifeboat.core.plan import RecoveryPlan
    from lifeboat.core.timeline import RunRecord

log = logging.getLogger("lifeboat")


class Exit(IntEnum):
    """What the exit code of every command means."""

    DONE = 0
    DEFECT = 1
    USAGE = 2
    REFUSED = 3
    NOT_GOOD = 4
    FAILED = 5
    BUSY = 6
    NOT_APPROVED = 7
    INTERRUPTED = 130


# The first that fits counts, so the narrower stand before the wider.
_EXIT_OF: tuple[tuple[type[BaseException], Exit], ...] = (
    (LockBusy, Exit.BUSY),
    (NotApproved, Exit.NOT_APPROVED),
    (PreconditionError, Exit.REFUSED),
    (VerificationFailed, Exit.NOT_GOOD),
    (RecoveryError, Exit.FAILED),
    (KeyboardInterrupt, Exit.INTERRUPTED),
)

app = typer.Typer(
    name="lifeboat",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Disaster recovery for platforms that run on Docker Compose.",
)

ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="lifeboat.yaml; else LIFEBOAT_CONFIG, else here.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for another program.")]
WithoutPrefect = Annotated[
    bool, typer.Option("--without-prefect", help="Do not import Prefect; same procedure.")
]
WithPrefect = Annotated[
    bool,
    typer.Option("--with-prefect", help="Run under Prefect, with a server of its own if none is."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the plan and touch nothing.")]
ApproveOption = Annotated[
    str, typer.Option("--approve", help="Name of the platform: approves the plan beforehand.")
]


@app.callback()
def _common(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show each command.")] = False,
) -> None:
    logging.basicConfig(
        stream=sys.stderr,
        format="%(asctime)s %(levelname)-7s %(message)s",
        datefmt="%H:%M:%S",
        level=logging.WARNING,
    )
    logging.getLogger("lifeboat").setLevel(logging.DEBUG if verbose else logging.INFO)
    # Like Ctrl-C: what runs is ended, what was begun is recorded.
    signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def choose_orchestrator(*, without_prefect: bool, with_prefect: bool) -> None:
    """Decide, before any flow is imported, whether this process runs under Prefect.

    Under Prefect when it is asked for, or when PREFECT_API_URL names a server that answers; alone
    otherwise. A server that is configured and dead must not stop a recovery.
    """
    from lifeboat.settings import prefect_api_url, prepare_ephemeral_prefect
    from tasks import orchestration

    if with_prefect and without_prefect:
        raise typer.BadParameter("--with-prefect and --without-prefect exclude each other")
    if with_prefect:
        prepare_ephemeral_prefect()
        return
    url = prefect_api_url()
    if not without_prefect and url and _prefect_answers(url):
        return
    if not without_prefect and url:
        log.warning("Prefect at %s does not answer: going on without it.", url)
    orchestration.run_alone()


def _prefect_answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/health", timeout=1) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError, ValueError):
        return False


def checked(model, **values):
    """Make a request of what was typed; what does not fit is wrong use, said in one line."""
    from pydantic import ValidationError

    try:
        return model(**values)
    except ValidationError as error:
        told = "; ".join(
            f"--{'-'.join(map(str, e['loc'])).replace('_', '-')}: {e['msg']}"
            for e in error.errors(include_url=False)
        )
        raise typer.BadParameter(told) from error


def answer_beforehand(approve: str, platform: str) -> None:
    """Let `--approve NAME` answer when the plan is shown; empty: it will be asked for.

    Raises NotApproved for another platform's name, before anything else is looked at.
    """
    from tasks import approval

    if approve and approve != platform:
        raise NotApproved(
            f"--approve names {approve!r}, but this platform is {platform!r}.",
            hint="Nothing was touched. Look at --config.",
        )
    approval.typed_beforehand(approve)


def show_result(result: RunRecord | RecoveryPlan, *, as_json: bool) -> None:
    """Print what a recovery did, or would do."""
    from lifeboat.core.plan import RecoveryPlan

    if as_json:
        typer.echo(result.model_dump_json(indent=2))
    elif isinstance(result, RecoveryPlan):
        typer.echo(result.in_words())
    else:
        _show_record(result)


def _show_record(record: RunRecord) -> None:
    from lifeboat.core.timeline import phase_seconds

    phases = ", ".join(f"{p} {s:.1f} s" for p, s in phase_seconds(record.steps).items() if s)
    done = "recovered" if record.procedure.startswith("recover") else "done"
    told = f" ({phases})" if phases else ""
    typer.echo(f"{record.procedure}: {done} in {record.seconds:.1f} s{told}")
    for rung in record.rungs:
        typer.echo(f"  rung {rung.rung}: {rung.outcome} - {rung.reason}")
    for moved in record.moved_aside:
        typer.echo(f"  moved aside: {moved.what}, now {moved.where}")
    for name, value in record.facts.items():
        typer.echo(f"  {name.replace('_', ' ')}: {value}")
    if record.verdict:
        typer.echo(f"  checks: {record.verdict.passed} of {record.verdict.total} passed")
    typer.echo(f"  record: {record.id}")


def exit_code_of(error: BaseException) -> Exit:
    """Given what ended a command, give its exit code."""
    return next((code for kind, code in _EXIT_OF if isinstance(error, kind)), Exit.DEFECT)
