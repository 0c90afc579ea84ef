from __future__ import annotations

import functools

from lifeboat.core.requests import Prune
from lifeboat.settings import load_settings
from tasks import backup, protection, retention
from tasks.orchestration import procedure, side_by_side
from tasks.record import current_run


@procedure("prune-backups")
def prune_backups(request: Prune = Prune()) -> tuple[retention.Pruning, ...]:
    """Remove recovery points that the policy lets go, and the WAL that no kept base needs.

    1. Stand aside if a recovery is running.
    2. Decide, with a reason for each point, and show it.
    3. Remove points, asset by asset, each while no backup of it runs.
    4. Remove WAL from before the oldest kept base, and the records of old backups on this host.
    5. Where the bucket has Object Lock: renew the locks of what stays, before they end, whatever
       became of the steps before.

    What it changes: the vault. Never removed: the newest few points, the newest verified one, and
    those on hold.
    If it fails: run it again; what is half removed is not listed any more. What fails of one asset
    does not hold up the others.
    Evidence: the run's record, with `retention.txt`.
    """
    settings = load_settings(request.config or None)
    with backup.backup_run(settings, "prune", procedure="prune-backups"):
        if request.dry_run:
            current_run().fact(dry_run=True)
            return retention.look(settings)
        # Locks run out whether or not there is anything to remove, or it fails.
        done = side_by_side(
            {
                "prune": functools.partial(retention.prune, settings),
                "renew locks": functools.partial(protection.renew_locks, settings),
            },
            at_once=1,
        )
    return done["prune"]
