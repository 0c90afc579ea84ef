"""The disaster recovery plan of this platform: gathered from what is so, and kept in both tiers."""

from __future__ import annotations

import ast
import hashlib
import logging
import re
import shlex
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import lifeboat
from lifeboat.core import disaster_plan, followups
from lifeboat.core.card import SECRETS_FILE
from lifeboat.core.disaster_plan import Block, Chapter, Content, Scheduled
from lifeboat.core.errors import PreconditionError, RecoveryError
from lifeboat.core.objectives import Report
from lifeboat.core.plan import age_in_words
from lifeboat.core.secrecy import secrets_in
from lifeboat.core.survey import Unseen
from lifeboat.settings import SECRETS, Settings
from lifeboat.tools import filesystem, plan_pdf
from tasks import clock, places
from tasks.looking import seen
from tasks.orchestration import step
from tasks.people import contacts
from tasks.people.reviews import PLAN_KEY, last_report
from tasks.prefect_server import deployment
from tasks.survey_vault import Notes

log = logging.getLogger("lifeboat")

_FLOWS = Path(lifeboat.__file__).absolute().parents[1] / "flows"
_PDF_KEY = "records/plan/plan.pdf"
_RENEWED = timedelta(days=1)  # also where only what was measured has changed
_STEP = re.compile(r"^\d+\. ")

COMMANDS: tuple[tuple[str, str], ...] = (
    ("lifeboat diagnose", "what is wrong, and which scenario fits"),
    ("lifeboat verify", "the checklist against the live platform"),
    ("lifeboat watch", "do the promises hold now: what would be lost, how long would it take"),
    ("lifeboat points", "the recovery points: age, size, where, verified when"),
    ("lifeboat backup database", "back up now; also files, models, config, platform"),
    ("lifeboat test-restore", "prove the newest points in S3"),
    ("lifeboat readiness", "the readiness page"),
    ("lifeboat card", "what a blank machine needs, on one page"),
    ("lifeboat followups", "what is to be done after a recovery"),
    ("lifeboat reviews", "the tests and reviews, and when they are due"),
)


def write(settings: Settings) -> tuple[Block, ...]:
    """The plan as a document. Raises PreconditionError if one of our secrets would stand in it."""
    blocks = disaster_plan.document(gather(settings))
    text = disaster_plan.markdown(blocks).encode()
    ours = (secret for secret in settings.known_secrets() if secret.name in SECRETS)
    if shown := secrets_in(text, ours):
        raise PreconditionError(
            f"Writing the plan: it would show {' and '.join(shown)}.",
            hint="Look for it in lifeboat.yaml. Nothing was written.",
        )
    return blocks


def gather(settings: Settings) -> Content:
    """All that the plan says. What is not measured yet is said to be so."""
    now, told, s3 = clock.now(), settings.retention, settings.vault.s3
    report = seen(lambda: last_report(settings))
    actions = followups.opened(settings.platform, now, owners=dict(settings.follow_ups.owners))
    where = "/".join(filter(None, (f"s3://{s3.bucket}", s3.prefix)))
    return Content(
        platform=settings.platform,
        environment=settings.environment,
        written_at=now,
        version=lifeboat.__version__,
        rto=_span(settings.objectives.rto_seconds),
        rpo=_span(settings.objectives.rpo_seconds),
        critical=tuple(settings.stack.critical_services),
        deferred=tuple(settings.stack.deferred_services),
        scheduled=_scheduled(settings),
        retention=f"Kept for {told.local_days:g} days on this host and {told.s3_days:g} days in "
        f"S3, never fewer than {told.minimum} of each asset, never without a verified one.",
        places=(
            ("local vault", str(settings.vault.local)),
            ("vault in S3", f"{where} ({s3.endpoint or 'Amazon S3'}, {s3.region})"),
            ("database", f"{settings.database.name}, service {settings.database.service}"),
            *((f"files: {n}", str(p)) for n, p in settings.files.directories.items()),
            *((f"models: {n}", str(p)) for n, p in settings.models.directories.items()),
        ),
        scenarios=tuple(
            _chapter(settings, flow, report if isinstance(report, Report) else None)
            for flow in disaster_plan.TITLES
        ),
        shell=_shell(settings),
        channels=tuple(channel.name for channel in settings.alarms.channels),
        people=tuple(
            f"{role.replace('_', ' ').capitalize()}: {', '.join(p.name for p in persons)}"
            for role, persons in settings.people.by_role.items()
            if persons
        ),
        external=tuple(_external(settings)),
        actions=tuple(
            one for one in followups.states(actions) if one.name not in settings.follow_ups.without
        ),
        contacts=contacts.contacts_of(settings),
        reviews=settings.reviews.wanted,
        commands=COMMANDS,
        files=tuple(str(path) for path in (settings.file, *settings.config.paths)),
    )


def _shell(settings: Settings) -> tuple[str, ...]:
    return (
        f"cd {shlex.quote(str(settings.file.parent))}",
        f". {shlex.quote(str(Path(sys.prefix) / 'bin' / 'activate'))}",
        f"set -a; . {SECRETS_FILE}; set +a    # or wherever the secrets are",
    )


def _external(settings: Settings) -> Iterator[str]:
    page = settings.status_page
    if page.enabled:
        yield f"Status page: {page.url or 'in the bucket, below ' + page.prefix}"
    for name, channels in settings.communication.external.by_name.items():
        if channels:
            told = ", ".join(channel.name for channel in channels)
            yield f"{name.replace('_', ' ').capitalize()}: {told}"


def _span(seconds: float) -> str:
    return age_in_words(timedelta(seconds=seconds))


def _scheduled(settings: Settings) -> tuple[Scheduled, ...]:
    often, looks = settings.keep, settings.follow_ups.look_seconds
    keeper = {
        "ship-wal": often.wal_seconds,
        "backup-database": often.database_seconds,
        "backup-files": often.files_seconds,
        "backup-models": often.on_change_seconds,
        "backup-config": often.on_change_seconds,
        "backup-platform": often.platform_seconds,
        "prune-backups": often.prune_seconds,
        "test-restore": often.restore_test_seconds,
        "watch-objectives": often.watch_seconds,
        "watch-stability": looks,
        "remind-people": 3600.0,
        "show-readiness": 3600.0,
    }
    found = []
    for declared in deployment.read_declaration(settings).deployments:
        if declared.schedules:
            flow = declared.flow.replace("_", "-")
            about = declared.description.replace("**", "").partition(". ")[0].rstrip(".")
            when = "; ".join(f"{s.cron} {s.timezone}" for s in declared.schedules if s.active)
            every = f"every {_span(keeper[flow])}" if flow in keeper else ""
            found.append(
                Scheduled(name=declared.name, about=about, schedule=when or "paused", keeper=every)
            )
    return tuple(found)


def _chapter(settings: Settings, flow: str, report: Report | None) -> Chapter:
    steps, fails = _of_docstring(_FLOWS / f"{flow.replace('-', '_')}.py")
    return Chapter(
        title=disaster_plan.TITLES[flow],
        symptoms=disaster_plan.SYMPTOMS[flow],
        commands=_commands(settings)[flow],
        # Where Prefect is lost, nobody can run anything in its UI.
        flow="" if flow == "recover-orchestrator" else f"{settings.platform}.{flow}",
        steps=steps,
        if_it_fails=fails,
        takes=_takes(settings, flow, report),
    )


def _commands(settings: Settings) -> dict[str, tuple[str, ...]]:
    s3 = settings.vault.s3
    where = f"--bucket {s3.bucket} --region {s3.region}"
    where += f" --endpoint {s3.endpoint}" if s3.endpoint else ""
    where += f" --prefix {s3.prefix}" if s3.prefix else ""
    return {
        "recover-database": (
            "lifeboat recover database",
            "lifeboat recover database --to-time 2026-01-31T03:14:00Z   # before the mistake",
        ),
        "recover-server": (f"lifeboat recover server {where} --into {settings.directory}",),
        "provision-server": (f"lifeboat recover server {where} --provision ec2",),
        "recover-files": (
            "lifeboat recover files",
            "lifeboat recover files --date 2026-01-31   # as they were on that day",
        ),
        "recover-models": ("lifeboat recover models",),
        "recover-bucket": (
            "lifeboat recover bucket --dry-run   # shows when it happened",
            "lifeboat recover bucket",
        ),
        "recover-orchestrator": ("lifeboat recover orchestrator",),
    }


def _of_docstring(file: Path) -> tuple[tuple[str, ...], str]:
    """The numbered steps of a flow, and what it says of failing."""
    module = ast.parse(file.read_text(encoding="utf-8"))
    flow = next(
        node for node in module.body if isinstance(node, ast.FunctionDef) and node.name == file.stem
    )
    steps: list[str] = []
    fails: list[str] = []
    into: list[str] | None = None
    for line in (ast.get_docstring(flow) or "").splitlines():
        if _STEP.match(line):
            steps.append(line)
            into = steps
        elif line.startswith("If it fails: "):
            fails.append(line.removeprefix("If it fails: "))
            into = fails
        elif line.startswith(" ") or (into is fails and line and not line.startswith("Evidence")):
            if into:
                into[-1] += f" {line.strip()}"
        else:
            into = None
    return tuple(steps), " ".join(fails)


def _takes(settings: Settings, flow: str, report: Report | None) -> tuple[str, ...]:
    """What restore tests and drills measured, with the basis; never a guess."""
    scenario = flow.removeprefix("recover-")
    told = []
    for estimate in report.estimates if report else ():
        if estimate.scenario == scenario:
            basis = "; ".join((*estimate.unmeasured, *estimate.basis))
            known = "not known" if estimate.unmeasured else f"about {estimate.seconds:.0f} s"
            told.append(f"Now: {known} ({basis})")
    drills = seen(Notes(settings, in_bucket=True).drills)
    if isinstance(drills, Unseen):
        drills = Notes(settings, in_bucket=False).drills()
    for drill in sorted(drills, key=lambda drill: drill.ended_at, reverse=True):
        for drilled in drill.scenarios:
            if drilled.name == scenario and drilled.passed:
                told.append(
                    f"Drill of {drill.ended_at:%Y-%m-%d}: {drilled.rto_seconds:.0f} s from the "
                    f"fault to the last check, on {drill.drilled} ({drill.id})"
                )
                return tuple(told)
    return (*told, "No drill of it has passed yet.")


# --- kept where it survives -----------------------------------------------------------------


@step()
def publish(settings: Settings) -> None:
    """Keep the plan in both tiers: when what it rests on has changed, and once a day.

    Never raises: no backup fails for it.
    """
    try:
        _publish(settings)
    except (RecoveryError, OSError) as error:
        log.warning("The plan in the vault is not renewed: %s", error)


def _publish(settings: Settings) -> None:
    directory = places.records_directory(settings) / "plan"
    basis = directory / "basis.txt"
    digest = hashlib.sha256(settings.model_dump_json().encode())
    digest.update(deployment.DECLARATION.read_bytes() + lifeboat.__version__.encode())
    if basis.exists() and basis.read_text() == digest.hexdigest():
        age = clock.now().timestamp() - basis.stat().st_mtime
        if 0 <= age < _RENEWED.total_seconds():
            return
    blocks = write(settings)
    title = blocks[0].text
    files = (
        (PLAN_KEY, disaster_plan.markdown(blocks).encode(), "text/markdown; charset=utf-8"),
        (_PDF_KEY, plan_pdf.render(blocks, title=title), "application/pdf"),
    )
    directory.mkdir(parents=True, exist_ok=True)
    for key, data, _ in files:
        filesystem.atomic_write(directory / Path(key).name, data)
    for key, data, kind in files:
        places.bucket(settings).put(key, data, content_type=kind)
    # Last, so that a bucket that was away is tried again.
    filesystem.atomic_write(basis, digest.hexdigest().encode())
    log.info("The disaster recovery plan in the vault is renewed.")
