"""Whose turn it is on a busy processor: what can wait lets the others go first."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Iterator

log = logging.getLogger("lifeboat.priority")


@contextlib.contextmanager
def yielding(*, niceness: int) -> Iterator[None]:
    """The calling thread, and all that it starts meanwhile, stand back for others.

    `niceness` as in nice(1), up to 19; one that is higher already stays. Linux keeps it per thread,
    and an idle processor is used as before. Where it can't be set nothing changes; where it can't
    be taken back afterwards, as without root, the thread goes on standing back.

    Source: sched(7), "The nice value"; setpriority(2), "C library/kernel differences".
    """
    thread = threading.get_native_id()
    try:
        before = os.getpriority(os.PRIO_PROCESS, thread)
        os.setpriority(os.PRIO_PROCESS, thread, max(before, niceness))
    except OSError as error:
        log.debug("The niceness of thread %d can't be set: %s", thread, error)
        yield
        return
    try:
        yield
    finally:
        with contextlib.suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, thread, before)
