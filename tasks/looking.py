"""Looks that never raise: what can't be seen becomes `Unseen`, with the cause in words."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from lifeboat.core.errors import RecoveryError, VerificationFailed
from lifeboat.core.survey import Cause, Unseen
from lifeboat.tools import restic

T = TypeVar("T")

log = logging.getLogger("lifeboat")

# The first that fits counts.
_CAUSE_OF: tuple[tuple[type[RecoveryError], Cause], ...] = (
    (restic.WrongPassword, Cause.PASSWORD),
    (restic.NoRepository, Cause.MISSING),
    (VerificationFailed, Cause.DAMAGED),
    (RecoveryError, Cause.UNREACHABLE),
)


def seen(act: Callable[[], T]) -> T | Unseen:
    """Do a look and give what it saw, or why it could not.

    A watcher that ends with a traceback watches nothing, so that a defect of ours is a finding too.
    """
    try:
        return act()
    except RecoveryError as error:
        cause = next(cause for kind, cause in _CAUSE_OF if isinstance(error, kind))
        return Unseen(error.message, cause)
    except OSError as error:
        return Unseen(f"{error.filename}: {error.strerror}")
    except Exception as error:
        log.exception("A look failed.")
        return Unseen(f"a defect of Lifeboat: {type(error).__name__}: {error}")
