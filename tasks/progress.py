"""How far a long step is, told every few seconds: at 3 a.m. silence looks like a hang."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from lifeboat.tools import restic
from lifeboat.tools.report import seconds_in_words
from tasks import artifacts

log = logging.getLogger("lifeboat")

T = TypeVar("T")

EVERY_SECONDS = 5.0


def of_restic(what: str) -> Callable[[restic.Progress], None]:
    """Tell of a backup or restore; in the log short ones are not worth a word."""

    def tell(now: restic.Progress) -> None:
        left = f", about {seconds_in_words(now.seconds_left)} left" if now.seconds_left else ""
        done, total = now.bytes_done / 1e6, now.bytes_total / 1e6
        log.info("%s: %.0f %% (%.0f of %.0f MB%s)", what, now.percent, done, total, left)

    seldom = _seldom(tell)

    def told(now: restic.Progress) -> None:
        artifacts.show_progress(what, now)
        seldom(now)

    return told


def of_lines(what: str) -> Callable[[str], None]:
    """Tell of a program that says by itself how far it is."""
    return _seldom(lambda line: log.info("%s: %s", what, " ".join(line.split())))


def of_count(what: str, total: int | None = None) -> Callable[[int], None]:
    """Tell how many are done, of how many if that is known."""

    def tell(done: int) -> None:
        if total:
            log.info("%s: %.0f %% (%d of %d)", what, 100 * done / total, done, total)
        else:
            log.info("%s: %d", what, done)

    return _seldom(tell)


def _seldom(tell: Callable[[T], None]) -> Callable[[T], None]:
    last = time.monotonic()

    def told(value: T) -> None:
        nonlocal last
        if time.monotonic() - last >= EVERY_SECONDS:
            last = time.monotonic()
            tell(value)

    return told
