from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from lifeboat.core.points import Asset, Tier
from lifeboat.core.requests import RestoreTest
from lifeboat.core.sets import BackupSet
from lifeboat.core.timeline import RunRecord
from lifeboat.settings import Settings, load_settings
from tasks import backup, repository_health, restore_test, vault
from tasks.orchestration import procedure, side_by_side
from tasks.prefect_server import orchestrator


@procedure("test-restore")
def test_restore(request: RestoreTest = RestoreTest()) -> RunRecord:
    """Prove recovery points: restore them from S3 into a scratch place, start them, question them.

    1. Stand aside if a recovery is running.
    2. Of each asset choose the newest trusted point in S3 (of the newest set its members, until
       they are verified), or take the point or set that is named.
    3. Restore it into a scratch place.
    4. Question it: the database is started and every table, index and reference of it checked;
       files, models and configuration are compared with their facts; Prefect's own database, where
       there is one, row count by row count.
    5. Mark the point verified, with the time that the restore took.
    6. Check the asset's two repositories, and read a share of all that they hold: everything within
       `keep.read_all_days`.

    With `sample_percent` files and models are not restored: their repository in S3 is checked and
    so much of it read. That marks no point verified.

    What it changes: nothing but the marks; the scratch place is removed however it ends.
    If it fails: all the rest is tested all the same, and everything that is wrong is told. A point
    that is not good counts as verified no longer; look at the record, test an older one.
    Evidence: the run's record, `lifeboat points`, and the marks `verified` and `tests` in the
    bucket.
    """
    settings = load_settings(request.config or None)
    with backup.backup_run(settings, "restore-test", procedure="test-restore") as run:
        run.when_finished(lambda done: vault.publish_record(settings, done))
        assets = restore_test.assets_of(request)
        to_prove = restore_test.find_set_to_prove(settings) if not request.point else None
        with restore_test.scratch_place(settings) as place:
            side_by_side(
                {
                    str(asset): partial(_test, settings, request, asset, place, to_prove)
                    for asset in assets
                }
                | _of_orchestrator(settings, request, place),
                at_once=1,  # so that the time of each can be trusted
            )
    return run.record


def _of_orchestrator(
    settings: Settings, request: RestoreTest, place: Path
) -> dict[str, Callable[[], object]]:
    """Prefect's own database goes with the whole, and is nothing to choose by itself."""
    if settings.orchestrator is None or request.point or set(request.assets) != set(Asset):
        return {}
    return {orchestrator.ASSET: partial(orchestrator.prove, settings, place)}


def _test(
    settings: Settings,
    request: RestoreTest,
    asset: Asset,
    place: Path,
    to_prove: BackupSet | None,
) -> None:
    """Everything about one asset; what is wrong is told together."""
    sampled = request.sample_percent < 100 and asset in (Asset.FILES, Asset.MODELS)
    cache = restore_test.cache_directory(place)
    check = partial(repository_health.check_repository, settings, asset, cache=cache)
    with restore_test.result_remembered(settings, asset, sampled=sampled) as tested:

        def prove() -> None:
            tested.append(restore_test.choose(settings, request, asset, to_prove))
            if not sampled:
                restore_test.prove(settings, tested[0], place)

        side_by_side(
            {
                "point": prove,
                "s3": partial(
                    check, Tier.S3, sample_percent=request.sample_percent if sampled else None
                ),
                "local": partial(check, Tier.LOCAL),
            },
            at_once=1,
        )
