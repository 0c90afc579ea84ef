from __future__ import annotations

from lifeboat.core.points import Asset, Facts
from lifeboat.core.requests import Backup
from lifeboat.settings import load_settings
from tasks import backup, trees
from tasks.orchestration import procedure


@procedure("backup-files")
def backup_files(request: Backup = Backup()) -> Facts:
    """Back up the file storage: a deduplicated snapshot of every directory of `files`.

    1. Stand aside if a recovery is running, or another backup of files.
    2. Count what is there.
    3. Snapshot it into the local vault and S3 at the same time.
    4. Look whether it departs sharply from those before it: a suspicious one is kept and told.

    What it changes: the vault gains one recovery point; nothing is removed.
    If it fails: run it again; a backup that fails half way leaves no recovery point in that tier.
    Evidence: the run's record, and `lifeboat points`.
    """
    settings = load_settings(request.config or None)
    with backup.backup_run(settings, Asset.FILES):
        facts = trees.gather_facts(settings, Asset.FILES)
        trees.store_directories(settings, facts)
    return facts
