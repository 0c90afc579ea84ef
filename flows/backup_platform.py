from __future__ import annotations

from functools import partial

from lifeboat.core.points import Asset, Facts, Tier
from lifeboat.core.requests import Backup
from lifeboat.core.timeline import RunRecord
from lifeboat.settings import Settings, load_settings
from tasks import backup, database, sets, trees, vault
from tasks.orchestration import procedure, side_by_side


@procedure("backup-platform")
def backup_platform(request: Backup = Backup()) -> RunRecord:
    """Back everything up as one coherent set: database, files, models and configuration.

    1. Stand aside if a recovery is running, or a backup of any asset.
    2. Copy the database, as backup-database does.
    3. Note where its WAL is, and what its rows refer to: the set's moment.
    4. Side by side: verify and store the copy; snapshot files, models and configuration.
    5. Ship the WAL, so that S3 has the moment.
    6. Cross-check: which rows refer to files or models that the set lacks, and which files nothing
       refers to.

    What it changes: the vault gains one recovery point of each asset, all with the set's name.
    If it fails: what was stored counts, but a set that lacks a member is never taken for one. A
    set that lacks what rows refer to is kept and told: look at `cross-check.json`.
    Evidence: the run's record with `cross-check.json`, and `lifeboat points`.
    """
    settings = load_settings(request.config or None)
    with (
        backup.backup_run(settings, "platform", procedure="backup-platform") as run,
        sets.everything_held(settings, run="backup-platform"),
    ):
        run.when_finished(partial(vault.publish_record, settings))
        set_id = sets.new_set_id()
        copy = database.copy_base(settings)
        moment = sets.name_moment(settings, set_id)
        stored = side_by_side(
            {
                Asset.DATABASE: partial(_store_database, settings, copy, set_id),
                Asset.FILES: partial(_store_directories, settings, Asset.FILES, set_id),
                Asset.MODELS: partial(_store_directories, settings, Asset.MODELS, set_id),
                Asset.CONFIG: partial(_store_directories, settings, Asset.CONFIG, set_id),
            }
        )
        wal_problem = sets.ship_up_to(settings, moment)
        checks = sets.check_references(settings, moment, stored)
        sets.require_whole(moment, checks, wal_problem)
    return run.record


def _store_database(settings: Settings, copy: database.BaseCopy, set_id: str) -> Facts:
    facts = database.verify_copy(settings, copy, set_id=set_id)
    hot = database.publish_hot_copy(settings, copy, facts)
    database.store_copy(settings, hot, facts)
    return facts


def _store_directories(
    settings: Settings, asset: Asset, set_id: str
) -> tuple[Facts, dict[Tier, str]]:
    facts = trees.gather_facts(settings, asset).model_copy(update={"set_id": set_id})
    return facts, trees.store_directories(settings, facts)
