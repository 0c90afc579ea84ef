"""Production is never touched without a person's word, whatever a lifeboat.yaml says of itself.

Known as production is what `known_production` of lifeboat.yaml names, and what the vault remembers:
each base backup of a platform with `environment: production` leaves a mark there.
"""

from __future__ import annotations

import logging
import socket

from lifeboat.core.errors import PreconditionError, RecoveryError
from lifeboat.core.marks import Kind
from lifeboat.core.points import Facts
from lifeboat.core.production import Production, Target, in_common
from lifeboat.settings import Settings
from lifeboat.tools import postgres
from tasks import marks, places

log = logging.getLogger("lifeboat")

_NOTHING_TOUCHED = "Nothing was touched. Ask a person: start it with approval `ask`, or with "


def remember(settings: Settings, facts: Facts) -> None:
    """Leave word in the vault that this database is production's, if it is. Never raises."""
    if settings.environment != "production" or facts.database is None:
        return
    mark = Production(
        platform=settings.platform,
        host=facts.host,
        system_identifier=facts.database.system_identifier,
    )
    try:
        marks.put(settings, Kind.PRODUCTION, settings.platform, mark)
    except (RecoveryError, OSError) as error:
        log.warning("That this is production could not be noted in the vault: %s", error)


def refuse(settings: Settings | None, *, doing: str, platform: str) -> None:
    """Raise PreconditionError unless a platform may be touched without a person's approval.

    It may if it says that it is staging, and shares neither name nor host nor database with what
    is known as production. What is not known counts as production.
    """
    hint = f"{_NOTHING_TOUCHED}--approve {platform}."
    if settings is None:
        raise PreconditionError(
            f"{doing}: without lifeboat.yaml nobody knows whether this is production, so it is not "
            "approved beforehand.",
            hint=hint,
        )
    if settings.environment != "staging":
        raise PreconditionError(
            f"{doing}: {platform} is {settings.environment}, and only staging is approved "
            "beforehand.",
            hint=hint,
        )
    try:
        remembered = marks.read_all(settings, Kind.PRODUCTION).values()
    except RecoveryError as error:
        raise PreconditionError(
            f"{doing}: whether the vault knows this as production can't be read ({error}).",
            hint=hint,
        ) from error
    known = [
        *settings.known_production,
        *(mark for mark in remembered if isinstance(mark, Production)),
    ]
    if shared := in_common(_target(settings), known):
        raise PreconditionError(
            f"{doing}: {platform} says that it is staging, and has {' and '.join(shared)} in "
            "common with production.",
            hint=hint,
        )


def _target(settings: Settings) -> Target:
    running = postgres.system_identifier_of(settings.database.data_directory)
    # Also where the data directory is lost: the log that was received from it.
    wal = places.wal_directory(settings)
    received = {path.name for path in wal.iterdir() if path.is_dir()} if wal.is_dir() else set()
    return Target(
        platform=settings.platform,
        hosts=frozenset({socket.gethostname(), settings.database.host}),
        system_identifiers=frozenset(received | ({running} if running else set())),
    )
