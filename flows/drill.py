from __future__ import annotations

from datetime import datetime, timezone

from flows.backup_config import backup_config
from flows.backup_database import backup_database
from flows.backup_files import backup_files
from flows.backup_models import backup_models
from flows.recover_database import recover_database
from flows.recover_files import recover_files
from flows.recover_models import recover_models
from flows.recover_server import recover_server
from lifeboat.core import forms, requests
from lifeboat.core.drill import DrillReport, ScenarioResult
from lifeboat.core.points import Asset, Facts
from lifeboat.core.timeline import RunRecord
from tasks import drill as drill_steps
from tasks import drill_outage
from tasks.drill import Stage, Trial
from tasks.drill_outage import Outage
from tasks.orchestration import is_alone, procedure
from tasks.record import recorded

_BACKUPS = {
    Asset.CONFIG: backup_config,
    Asset.DATABASE: backup_database,
    Asset.FILES: backup_files,
    Asset.MODELS: backup_models,
}
_ASSETS_OF = {
    "database": (Asset.DATABASE,),
    "files": (Asset.FILES,),
    "models": (Asset.MODELS,),
    "server": tuple(Asset),
}


@procedure("drill")
def drill(request: forms.Drill = forms.Drill()) -> DrillReport:
    """Break the staging platform in every way of the plan, get it back, and measure.

    1. Make the staging platform, start it, back everything up.
    2. For each scenario: let users work, back up, let users work on, break it, prove that the
       verification fails now, recover, verify, and count what was lost by the users' own record.
       With `kill` Prefect's server is killed in the middle of each recovery, which has to go on.
    3. Report, and put the result on record in the vault of the platform that it is held for.

    What it changes: the staging platform, which it makes anew and removes.
    If it fails: a scenario that does not recover is part of the report; the platform is kept.
    Evidence: report.json and report.html; `records/drills/` of the platform's vault.
    """
    began_at = datetime.now(timezone.utc)
    with recorded("drill", platform="staging", directory=None) as run:
        request = drill_steps.with_lasting_places(request)
        register = drill_steps.open_register(request)
        stage = drill_steps.set_stage(request)
        passed = False
        try:
            facts = _back_up(stage, tuple(Asset))
            drill_steps.keep_backups_fresh(stage)
            with drill_outage.orchestrated(stage, request) as outage:
                results = [_try(name, stage, request, facts, outage) for name in request.scenarios]
            settings = stage.settings
            report = DrillReport(
                id=run.id,
                platform=settings.platform,
                stack=settings.stack.kind,
                began_at=began_at,
                ended_at=datetime.now(timezone.utc),
                objective_rto_seconds=settings.objectives.rto_seconds,
                objective_rpo_seconds=settings.objectives.rpo_seconds,
                wal=settings.database.wal,
                orchestrator="none" if is_alone() and not outage else "prefect",
                scenarios=tuple(results),
            )
            drill_steps.write_report(report, request)
            passed = report.passed
            if register:
                drill_steps.enter_result(register, report)
        finally:
            drill_steps.clear_stage(stage, request, passed=passed)
    return report


def _back_up(stage: Stage, assets: tuple[Asset, ...]) -> dict[Asset, Facts]:
    request = requests.Backup(config=str(stage.site.settings_path))
    return {asset: _BACKUPS[asset](request) for asset in assets}


def _try(
    name: forms.Scenario,
    stage: Stage,
    request: forms.Drill,
    facts: dict[Asset, Facts],
    outage: Outage | None,
) -> ScenarioResult:
    trial = Trial(name=name, stage=stage, record=stage.site.outside / f"load-{name}.jsonl")
    recovery, losses = None, None
    with drill_steps.judged(trial):
        with drill_steps.under_load(trial, request):
            drill_steps.let_users_work(trial)
            facts |= _back_up(stage, _ASSETS_OF[name])
            on_seconds = request.server_load_seconds if name == "server" else 4.0
            drill_steps.let_users_work(trial, on_seconds)
            drill_steps.break_platform(trial, request)
            drill_steps.prove_broken(trial, facts)
            drill_steps.open_incident(trial)
            if outage:
                recovery = drill_outage.recover_through_outage(trial, outage)
            else:
                recovery = _recover(name, stage)
            drill_steps.users_work_again(trial)
        losses = drill_steps.count_losses(trial)
    result = drill_steps.result_of(trial, recovery, losses)
    drill_steps.close_incident(trial, result)
    return result


def _recover(name: forms.Scenario, stage: Stage) -> RunRecord:
    known = {"config": str(stage.site.settings_path), "approval": "preapproved"}
    if name == "database":
        return recover_database(forms.RecoverDatabase(**known))
    if name == "files":
        return recover_files(forms.RecoverFiles(**known))
    if name == "models":
        return recover_models(forms.RecoverModels(**known))
    s3 = stage.settings.vault.s3
    return recover_server(
        forms.RecoverServer(
            bucket=s3.bucket,
            endpoint=s3.endpoint or "",
            region=s3.region,
            prefix=s3.prefix,
            into=str(stage.site.server),
            platform=stage.settings.platform,
            approval="preapproved",
        )
    )
