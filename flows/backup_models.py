from __future__ import annotations

from lifeboat.core.points import Asset, Facts
from lifeboat.core.requests import Backup
from lifeboat.settings import load_settings
from tasks import backup, trees
from tasks.orchestration import procedure


@procedure("backup-models")
def backup_models(request: Backup = Backup()) -> Facts:
    """Back up the AI models, with the digest of every model file in the facts.

    1. Stand aside if a recovery is running, or another backup of models.
    2. Compare what is there with the newest point, by path, mode, size and time.
    3. If it has changed, or the newest point is older than `keep.models_seconds`: digest every
       file, and snapshot all into the local vault and S3 at the same time. If not, and one of the
       two has not got that point: into that one, under the point's name.
    4. Look whether it departs sharply from those before it: a suspicious one is kept and told.

    What it changes: the vault gains one recovery point; nothing is removed. Unchanged, it gains
    none: the facts are those of the point that holds the models already.
    If it fails: run it again; a backup that fails half way leaves no recovery point in that tier.
    Evidence: the run's record, and `lifeboat points`.
    """
    settings = load_settings(request.config or None)
    with backup.backup_run(settings, Asset.MODELS):
        facts = None
        if request.only_if_changed:
            facts = trees.find_unchanged(
                settings, Asset.MODELS, at_most_seconds=settings.keep.models_seconds
            )
        if facts is None:
            facts = trees.gather_facts(settings, Asset.MODELS)
            trees.store_directories(settings, facts)
    return facts
