from __future__ import annotations

import functools

from lifeboat.core.forms import RecoverModels
from lifeboat.core.plan import RecoveryPlan
from lifeboat.core.points import Asset
from lifeboat.core.timeline import RunRecord
from lifeboat.settings import load_settings
from tasks import agreement, integrity, recovery, repair, services
from tasks.orchestration import procedure, side_by_side


@procedure("recover-models")
def recover_models(request: RecoverModels = RecoverModels()) -> RunRecord | RecoveryPlan:
    """Scenario 4 of the plan: AI models are lost.

    1. List the models and find what is missing or damaged, by content.
    2. Show the plan and wait for approval.
    3. Restore the models, from this host or from S3: only what differs.
    4. Compare every model with the digest in the recovery point.
    5. Restart the AI services.
    6. Verify the platform, a model inference with a known answer among the checks; start what a
       recovery of the database, whose checks had not passed, left stopped.

    What it changes: only model files that differ from the recovery point.
    If it fails: run it again, or with `--from s3`; the damaged originals lie beside the directory.
    Evidence: `damage.json` in the record names every model file and its damage.
    """
    settings = load_settings(request.config or None)
    with recovery.recovery(settings, "recover-models") as run:
        source = repair.choose_source(
            settings,
            Asset.MODELS,
            only_from=request.only_from,
            not_after=request.not_after,
            named=request.point,
        )
        look = functools.partial(repair.look_at_models, settings, source)
        found = look()
        if request.dry_run:
            return recovery.end_dry_run(run, found.plan, settings)
        found = agreement.agree(found, request, settings, again=look)

        repair.keep_damaged(found.damages)
        repair.rewrite_damaged(settings, source, found.damages)
        integrity.compare_digests(settings, source)
        told = side_by_side(
            {
                "start": lambda: services.restart_services(settings, settings.models.services),
                "expected": lambda: recovery.expectations(settings, source.facts),
            }
        )
        recovery.prove_recovered(settings, told["expected"])
        recovery.start_what_was_left_stopped(settings)
    return run.record
