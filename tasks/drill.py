"""The drill's steps: a platform under load, broken on purpose, and what was lost counted outside.

What counts as lost is judged by the load generator's own record, which lies outside the platform,
and never by what a recovery says of itself.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from lifeboat.core.checks import Status, Verdict
from lifeboat.core.drill import (
    DrillOnRecord,
    DrillReport,
    Losses,
    ScenarioResult,
    measured_rpo_seconds,
)
from lifeboat.core.errors import PermanentError, PreconditionError, RecoveryError
from lifeboat.core.forms import Drill, Scenario
from lifeboat.core.marks import Kind
from lifeboat.core.points import Asset, Facts
from lifeboat.core.timeline import Phase, RunRecord, StepRecord, outside_steps_seconds
from lifeboat.core.timeline import phase_seconds as phases_of
from lifeboat.settings import (
    Settings,
    forget_secrets,
    give_secrets,
    lasting_directory,
    load_settings,
)
from lifeboat.tools import filesystem, process, s3
from lifeboat.tools import report as report_tool
from staging import faults, load
from staging.compose_site import new_site, site_at
from staging.site import Site
from tasks import locks, marks, places, services, verification
from tasks.orchestration import step
from tasks.people import incident_log
from tasks.record import current_run

log = logging.getLogger("lifeboat")

FAULT_OF: dict[str, str] = {
    "database": "destroy_data_directory",
    "files": "damage_files",
    "models": "corrupt_models",
    "server": "lose_server",
}
_LOAD_SECONDS = 4.0  # before the backup, and again after it
_LOAD_STARTS_SECONDS = 20.0
_WRITES_AGAIN_SECONDS = 3.0


@dataclass(frozen=True)
class Stage:
    """A running staging platform and the settings that protect it."""

    site: Site
    settings: Settings


def with_lasting_places(request: Drill) -> Drill:
    """The same with whole paths, or a platform that is kept would lose its ground with the run."""
    base = lasting_directory()
    places = {"root": str(base / request.root), "reports": str(base / request.reports)}
    return request.model_copy(update=places)


@dataclass(frozen=True)
class Register:
    """Where a platform keeps the results of the drills that were held for its sake."""

    settings: Settings
    bucket: s3.Bucket


@step()
def open_register(request: Drill) -> Register | None:
    """Reach the vault that the result goes to, before anything takes its time.

    Before the stage is set, too: from then on this process has the staging platform's secrets.
    Raises PreconditionError if the bucket does not answer.
    """
    if not request.record_in:
        return None
    settings = load_settings(request.record_in)
    register = Register(settings, places.bucket(settings))
    register.bucket.reachable()
    return register


def report_page(drill_id: str) -> str:
    """Where a platform's vault keeps the report of a drill, in both tiers."""
    return f"records/drill-reports/{drill_id}.html"


@step(retries=2)
def enter_result(register: Register, report: DrillReport) -> None:
    """Put a drill's result on record where `lifeboat watch` looks for it: in both tiers.

    Its report for people lies there too, for a worker's own directory goes with the run. On a
    machine that is not the platform's host there is no local vault to write to.
    """
    result = DrillOnRecord.of(report)
    text = result.model_dump_json(indent=2).encode()
    page = report_page(result.id)
    html = report_tool.render_html(report).encode()
    register.bucket.put(page, html)
    register.bucket.put(marks.key_of(Kind.DRILLS, result.id), text)
    if register.settings.vault.local.is_dir():
        path = marks.path_of(register.settings, Kind.DRILLS, result.id)
        path.parent.mkdir(parents=True, exist_ok=True)
        filesystem.atomic_write(path, text)
        path = register.settings.vault.local / page
        path.parent.mkdir(parents=True, exist_ok=True)
        filesystem.atomic_write(path, html, mode=0o644)
    current_run().fact(report_on_record=page)
    log.info("The drill is on record for %s.", register.settings.platform)


@step()
def set_stage(request: Drill) -> Stage:
    """Make the staging platform anew and start it, with the WAL receiver and an empty vault.

    Raises PreconditionError unless its lifeboat.yaml says `environment: staging`.
    """
    earlier = site_at(Path(request.root))
    if earlier.root.exists() and any(earlier.root.iterdir()):
        # Left by an earlier drill, whatever state that left it in; refuses what is no staging site.
        earlier.destroy()
    site = new_site(Path(request.root), kind=request.stack)
    site.drill_channels = tuple(request.channels)
    site.create(scale=request.scale)
    settings = load_settings(site.settings_path)
    if settings.environment != "staging":
        raise PreconditionError(
            f"Starting a drill on {settings.platform}: it is {settings.environment}.",
            hint="Nothing was touched. A drill breaks only a staging platform.",
        )
    # Of the platform that the drill is held for, which a worker has in its environment.
    forget_secrets()
    give_secrets(site.environment())
    site.start()
    services.stack_of(settings).start(["wal-receiver"])
    return Stage(site=site, settings=settings)


@step()
def keep_backups_fresh(stage: Stage) -> None:
    """Start the keeper, which ships WAL and backs up files by itself."""
    services.stack_of(stage.settings).start(["keeper"])


@step()
def clear_stage(stage: Stage, request: Drill, *, passed: bool) -> None:
    """Stop the platform; remove it if nothing on it needs a look."""
    if request.keep:
        log.info("The staging platform runs on, in %s.", stage.site.root)
        return
    stage.site.stop()
    if passed:
        stage.site.destroy()
    else:
        log.warning("The staging platform is kept as it is, in %s.", stage.site.root)


@dataclass
class Trial:
    """One scenario on its way: what was done when, in seconds since the epoch."""

    name: Scenario
    stage: Stage
    record: Path
    broken: str = ""
    broken_at: float = 0.0
    detection: StepRecord | None = None
    while_broken: Verdict | None = None
    error: str = ""


@contextmanager
def under_load(trial: Trial, request: Drill) -> Iterator[None]:
    """Let the load generator write, in a process of its own, until the block ends.

    It goes on while the platform is broken and recovered, as users do.
    """
    words = [
        *(sys.executable, "-m", "staging.load", "--site", trial.stage.site.root),
        *("--record", trial.record, "--rate", str(request.writes_per_second)),
    ]
    with process.start(
        words,
        doing="Starting the load generator",
        log_path=trial.record.with_suffix(".log"),
        cwd=Path(__file__).parents[1],
    ) as generator:
        _wait(
            lambda: generator.alive and trial.record.exists() and load.read_record(trial.record),
            _LOAD_STARTS_SECONDS,
            f"the load generator writes nothing; see {trial.record.with_suffix('.log')}",
        )
        yield


def _wait(condition: Callable[[], object], seconds: float, why: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise PermanentError(f"Running the drill: {why} ({seconds:g} s).")
        time.sleep(0.1)


@step()
def let_users_work(trial: Trial, seconds: float = _LOAD_SECONDS) -> None:
    time.sleep(seconds)


@step()
def users_work_again(trial: Trial) -> None:
    """Wait until the platform acknowledges writes again: recovered means that users can work."""
    recovered_at = time.time()
    _wait(
        lambda: load.read_record(trial.record)[-1].acknowledged_at > recovered_at,
        _LOAD_STARTS_SECONDS,
        "the platform acknowledges no write although its checks passed",
    )


@step()
def break_platform(trial: Trial, request: Drill) -> None:
    """Let the disaster happen. Raises PermanentError if it did nothing."""
    fault = FAULT_OF[trial.name]
    trial.broken_at = time.time()
    done = faults.break_site(trial.stage.site, fault, seed=request.seed)
    trial.broken = f"{fault}: {_in_words(done)}"
    log.info("Broken: %s", trial.broken)
    if not done.damages:
        raise PermanentError(f"Breaking the platform: {fault} damaged nothing.")


def _in_words(done: faults.Broken) -> str:
    counts: dict[str, int] = {}
    for damage in done.damages:
        counts[damage.harm] = counts.get(damage.harm, 0) + 1
    shown = [damage for damage in done.damages if damage.harm != faults.Harm.KILLED]
    names = ", ".join(f"{damage.name} {damage.detail}".strip() for damage in shown[:3])
    more = f" and {len(shown) - 3} more" if len(shown) > 3 else ""
    return ", ".join(f"{count} {harm}" for harm, count in counts.items()) + f" ({names}{more})"


@step(Phase.DETECT)
def prove_broken(trial: Trial, expected: dict[Asset, Facts]) -> None:
    """Verify the broken platform: a verification that passes now is worth nothing."""
    began = time.time()
    settings = trial.stage.settings
    with locks.no_backups(settings, run="drill") if trial.name != "server" else nullcontext():
        trial.while_broken = verification.verify_platform(
            settings, services.stack_of(settings), expected
        )
    log.info(
        "While broken: %d of %d checks pass; not: %s",
        trial.while_broken.passed,
        trial.while_broken.total,
        ", ".join(check.name for check in trial.while_broken.not_passed),
    )
    trial.detection = StepRecord(
        name="prove-broken",
        phase=Phase.DETECT,
        began_at=began,
        ended_at=time.time(),
        outcome="done",
    )


def open_incident(trial: Trial) -> None:
    """Open the drill's incident as monitoring would: since when, and which checks fail."""
    failed = [c.name for c in trial.while_broken.not_passed] if trial.while_broken else []
    incident_log.open_drill(
        trial.stage.settings,
        trial.name,
        began_at=datetime.fromtimestamp(trial.broken_at, timezone.utc),
        text=f"{len(failed)} checks do not pass: {', '.join(failed)}",
        detected_by=failed,
    )


def close_incident(trial: Trial, result: ScenarioResult) -> None:
    """Close it with what was measured from outside, so that both tell the same."""
    if not result.recovered:
        return  # it stays open: somebody has to look
    incident_log.close_drill(
        trial.stage.settings,
        trial.name,
        text=f"The drill of {trial.name} is over.",
        rto_seconds=result.rto_seconds,
        rpo_seconds=result.rpo_seconds,
        rows_lost=result.rows_lost,
        files_lost=result.files_lost,
        checks_passed=result.checks_passed,
        checks_total=result.checks_total,
        phases={str(phase): seconds for phase, seconds in result.phases.items()},
    )


@contextmanager
def judged(trial: Trial) -> Iterator[None]:
    """A scenario that fails is a result of the drill, not the end of it."""
    try:
        yield
    except RecoveryError as error:
        trial.error = str(error)
        log.error("The scenario %s failed: %s", trial.name, error)


@step()
def count_losses(trial: Trial) -> Losses:
    """Compare the load generator's record with the platform, from the database and every byte."""
    site = trial.stage.site
    found = load.compare(trial.record, dsn=site.dsn(), files=site.files)
    return Losses(
        acknowledged_rows=found.acknowledged_rows,
        acknowledged_files=found.acknowledged_files,
        rows_lost=found.rows_lost,
        files_lost=found.files_lost,
        lost=found.names[:100],
        oldest_lost_at=found.oldest_lost_at,
    )


def result_of(trial: Trial, recovery: RunRecord | None, losses: Losses | None) -> ScenarioResult:
    """Put together what was measured. What could not be measured does not look good."""
    verdict = recovery.verdict if recovery else None
    verified_at = _verified_at(recovery)
    detected = tuple(
        check.name
        for check in (trial.while_broken.checks if trial.while_broken else ())
        if check.status is Status.FAIL
    )
    detection = (trial.detection,) if trial.detection else ()
    steps = (*detection, *(recovery.steps if recovery else ()))
    counted = losses or Losses(acknowledged_rows=0, acknowledged_files=0, rows_lost=0, files_lost=0)
    began = trial.detection.began_at if trial.detection else trial.broken_at
    recovered = bool(verdict and verdict.good and losses and not trial.error)
    return ScenarioResult(
        name=trial.name,
        broken=trial.broken,
        detected=bool(detected),
        detected_by=detected,
        recovered=recovered,
        rto_seconds=(verified_at or time.time()) - trial.broken_at,
        rpo_seconds=measured_rpo_seconds(broken_at=trial.broken_at, losses=counted),
        rows_lost=counted.rows_lost,
        files_lost=counted.files_lost,
        acknowledged_rows=counted.acknowledged_rows,
        acknowledged_files=counted.acknowledged_files,
        lost=counted.lost,
        checks_passed=verdict.passed if verdict else 0,
        checks_total=verdict.total if verdict else len(verification.CHECK_NAMES),
        checks=verdict.checks if verdict else (),
        phases=phases_of(s for s in steps if verified_at is None or s.ended_at <= verified_at),
        outside_steps_seconds=outside_steps_seconds(began, verified_at, steps)
        if verified_at
        else 0.0,
        rungs=recovery.rungs if recovery else (),
        record=recovery.id if recovery else "",
        facts=recovery.facts if recovery else {},
        error=trial.error,
    )


def _verified_at(recovery: RunRecord | None) -> float | None:
    """When the last check of the recovery had its result."""
    ends = [s.ended_at for s in recovery.steps if s.name == "verify"] if recovery else []
    return max(ends, default=None)


@step()
def write_report(found: DrillReport, request: Drill) -> Path:
    """Leave report.json and report.html; give their directory."""
    directory = Path(request.reports).absolute() / found.id
    directory.mkdir(parents=True, exist_ok=True)
    filesystem.atomic_write(
        directory / "report.json", found.model_dump_json(indent=2).encode(), mode=0o644
    )
    filesystem.atomic_write(
        directory / "report.html", report_tool.render_html(found).encode(), mode=0o644
    )
    for trial_record in Path(request.root).absolute().glob("outside/load-*.jsonl"):
        with contextlib.suppress(OSError):
            filesystem.copy_file(trial_record, directory / trial_record.name)
    current_run().fact(report=str(directory))
    return directory
