from __future__ import annotations

from lifeboat.core.requests import Backup
from lifeboat.settings import load_settings
from tasks import backup
from tasks.orchestration import procedure
from tasks.wal import wal_hurry, wal_shipping


@procedure("ship-wal")
def ship_wal(request: Backup = Backup()) -> wal_shipping.Shipment:
    """Put the WAL that the receiver has written, and that S3 lacks, into the bucket.

    1. Stand aside if a recovery is running.
    2. Ask the database how far its log goes, and wait a moment until the receiver has that much.
    3. Ship closed segments, sealed, the oldest first, and the newest bytes of the open one; make
       sure that they are there.
    4. Leave word in the bucket until when it holds everything.
    5. Look for gaps. Behind one that follows the newest base copy nothing could be recovered: a
       run of `backup-database` is started at once.

    What it changes: the bucket gains objects below `database/wal/`; nothing is removed but partial
    segments whose whole ones are there.
    If it fails: run it again; what was shipped is not shipped twice. A dead database or receiver
    is no failure, but what the bucket is said to hold stays as old as it is.
    Evidence: the run's record, `records/sightings/wal.json`, and `records/gaps/`.
    """
    settings = load_settings(request.config or None)
    with backup.backup_run(settings, "wal", procedure="ship-wal"):
        shipment = wal_shipping.ship(settings)
        wal_hurry.hurry_base_copy(settings)
    return shipment
