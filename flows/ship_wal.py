from __future__ import annotations

from lifeboat.core.requests import Backup
from lifeboat.settings import load_settings
from tasks import backup, wal
from tasks.orchestration import procedure


@procedure("ship-wal")
def ship_wal(request: Backup = Backup()) -> wal.Shipment:
    """Put the WAL that the receiver has written, and that S3 lacks, into the bucket.

    1. Stand aside if a recovery is running.
    2. Ship closed segments, sealed, and the newest bytes of the open one.

    What it changes: the bucket gains objects below `database/wal/`; nothing is removed but partial
    segments whose whole ones are there.
    If it fails: run it again; what was shipped is not shipped twice.
    Evidence: the run's record.
    """
    settings = load_settings(request.config or None)
    with backup.backup_run(settings, "wal", procedure="ship-wal"):
        return wal.ship(settings)
