from __future__ import annotations

from lifeboat.core.points import Asset, Facts
from lifeboat.core.requests import Backup
from lifeboat.settings import load_settings
from tasks import backup, database
from tasks.orchestration import procedure
from tasks.wal import wal_shipping


@procedure("backup-database")
def backup_database(request: Backup = Backup()) -> Facts:
    """Take a base copy of the database that can be renamed into place, and put it into both vaults.

    1. Stand aside if a recovery is running, or another backup of the database.
    2. Ask the server who it is and what it holds.
    3. Copy it with PostgreSQL's own pg_basebackup and verify every file of the copy.
    4. Publish the copy as the hot copy, and only then remove the one before it: from now on it
       counts, whatever becomes of the rest. While it is suspicious the last trusted one stays too.
    5. Snapshot the copy into the local vault and S3 at the same time.
    6. Look whether it has shrunk against those before it: a suspicious one is kept and told.
    7. Ship the WAL that was received meanwhile.

    What it changes: the vault gains one recovery point.
    If it fails: run it again; an unfinished copy ends in `.partial`, is never chosen, and is
    removed by the next backup. Without S3 the hot copy and the local vault have the new point all
    the same, and the run fails for what S3 lacks. If a recovery takes the hot copy while it is
    being stored, the recovery wins.
    Evidence: the run's record, and `lifeboat points`.
    """
    settings = load_settings(request.config or None)
    with backup.backup_run(settings, Asset.DATABASE):
        copy = database.copy_base(settings)
        facts = database.verify_copy(settings, copy)
        hot = database.publish_hot_copy(settings, copy, facts)
        database.store_copy(settings, hot, facts)
        wal_shipping.ship(settings)
    return facts
