from __future__ import annotations

from functools import partial
from pathlib import Path

from lifeboat.core.points import Asset, RecoveryPoint
from lifeboat.core.requests import RestoreTest
from lifeboat.core.timeline import RunRecord
from lifeboat.settings import Settings, load_settings
from tasks import backup, restore_test, vault
from tasks.orchestration import procedure, side_by_side


@procedure("test-restore")
def test_restore(request: RestoreTest = RestoreTest()) -> RunRecord:
    """Prove recovery points: restore them from S3 into a scratch place, start them, question them.

    1. Stand aside if a recovery is running.
    2. Choose the newest trusted point of each asset in S3 (of the newest set its members, until
       they are verified), or the point or set that is named.
    3. Restore it into a scratch place.
    4. Question it: the database is started and every table, index and reference of it checked;
       files, models and configuration are compared with their facts.
    5. Mark the points verified, with the time that the restore took.

    What it changes: nothing but the marks; the scratch place is removed however it ends.
    If it fails: the point does not count as verified; look at the record, test an older one.
    Evidence: the run's record, and `lifeboat points`.
    """
    settings = load_settings(request.config or None)
    with backup.backup_run(settings, "restore-test", procedure="test-restore") as run:
        run.when_finished(lambda done: vault.publish_record(settings, done))
        points = restore_test.choose_points(settings, request)
        with restore_test.scratch_place(settings) as place:
            side_by_side(
                {point.id: partial(_test, settings, request, point, place) for point in points},
                at_once=1,  # so that the time of each can be trusted
            )
    return run.record


def _test(settings: Settings, request: RestoreTest, point: RecoveryPoint, place: Path) -> None:
    if request.sample_percent < 100 and point.asset in (Asset.FILES, Asset.MODELS):
        restore_test.read_sample(settings, point, request.sample_percent)
        return
    facts = restore_test.restore(settings, point, place)
    restore_test.question(settings, point, facts, place)
    restore_test.mark_verified(settings, point)
