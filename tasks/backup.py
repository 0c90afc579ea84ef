"""What every backup has around it: a lock at the data, a journal, a vault that may be written."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from lifeboat.core.errors import PermanentError, PreconditionError
from lifeboat.core.orchestrator import ASSET as ORCHESTRATOR
from lifeboat.core.points import Asset
from lifeboat.settings import Settings
from tasks import alarms, events, host_keys, leftovers, locks, places, vault
from tasks.record import Run, recorded

UNPROVEN_NAME = "recovered-but-not-verified"
RECOVERING_NAME = ".lifeboat-recovering"  # where a server's recovery has begun
REHEARSED_NAME = "rehearsal-only"


@contextmanager
def backup_run(
    settings: Settings, asset: Asset | str, *, procedure: str | None = None
) -> Iterator[Run]:
    """Hold one asset for a backup (or another procedure on the vault) and record it.

    What dead runs have left is cleaned up first, and told. If it fails, the channels of `alarms`
    hear of it; if it ends well, Prefect's automations do.

    Raises LockBusy if it is being backed up or the platform is being recovered, and
    PreconditionError on a host whose recovery was never verified: its database may be empty, and
    an empty one must not become the latest.
    """
    procedure = procedure or f"backup-{asset}"
    with locks.backup_lock(settings, asset, run=procedure):
        refuse_unproven(settings, doing=f"Starting {procedure}")
        with ExitStack() as held:
            try:
                run = held.enter_context(
                    recorded(
                        procedure,
                        platform=settings.platform,
                        directory=places.runs_directory(settings),
                    )
                )
            except PermanentError as error:
                # There is no run that could tell it, and with a full disk nothing else does.
                alarms.tell_of_failure(settings, procedure, evidence=str(error))
                raise
            run.when_finished(functools.partial(alarms.tell_of_run, settings))
            vault.ensure_prepared(settings)
            host_keys.make_missing(settings, _opened_by(asset))
            if isinstance(asset, Asset):
                leftovers.tidy_before(settings, asset)
            yield run
        events.tell_finished(settings.platform, procedure, run.id)


def _opened_by(asset: Asset | str) -> tuple[Asset | str, ...]:
    """The assets whose repositories a run opens. The WAL, which can't wait, has none."""
    if isinstance(asset, Asset) or asset == ORCHESTRATOR:
        return (asset,)
    return () if asset == "wal" else tuple(Asset)


def is_unproven(settings: Settings) -> bool:
    """Whether this host was recovered, and its checks have not passed since."""
    return (settings.vault.local / UNPROVEN_NAME).exists()


def refuse_unproven(settings: Settings, *, doing: str) -> None:
    """Raise PreconditionError on a host that was recovered and whose checks have not passed.

    And on one that has only rehearsed: the platform is another host, and so is what may back it up.
    """
    rehearsed = settings.vault.local / REHEARSED_NAME
    if has_only_rehearsed(settings):
        raise PreconditionError(
            f"{doing}: this host only rehearsed a recovery ({rehearsed.read_text().strip()}).",
            hint="The platform is backed up where it runs. If this host is to be the platform now: "
            f"end the other one, remove {rehearsed}, and run `lifeboat verify`.",
        )
    if is_unproven(settings):
        unproven = settings.vault.local / UNPROVEN_NAME
        raise PreconditionError(
            f"{doing}: this host was recovered ({unproven.read_text().strip()}) and its "
            "verification has not passed.",
            hint="Run `lifeboat verify`; when all checks pass, backups go on.",
        )


def has_only_rehearsed(settings: Settings) -> bool:
    """Whether a recovery was rehearsed on this host: the platform is another one."""
    return (settings.vault.local / REHEARSED_NAME).exists()


def allow_backups(settings: Settings) -> None:
    """All checks have passed: this host is the platform, and may write to the vault."""
    (settings.vault.local / UNPROVEN_NAME).unlink(missing_ok=True)
    if not has_only_rehearsed(settings):
        # From now on nobody may recover another server over this one as if it were half done.
        (settings.directory / RECOVERING_NAME).unlink(missing_ok=True)
